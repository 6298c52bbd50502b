package sim

import (
	"context"
	"encoding/binary"
	"hash/crc32"
	"os"
	"path"
	"slices"
	"strings"
	"testing"

	"github.com/hashicorp/raft"

	"github.com/flotilla-log/flotilla/internal/vfs"
	"github.com/flotilla-log/flotilla/log/batch"
	"github.com/flotilla-log/flotilla/replication/transport"
)

// eager is a transport that acknowledges its leader's entries for the followers,
// which never see them: what the leader commits is on its own disk alone.
type eager struct{ transport.Transport }

// AppendEntries implements raft.Transport.
func (e eager) AppendEntries(id raft.ServerID, addr raft.ServerAddress, req *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) error {
	if len(req.Entries) == 0 {
		return e.Transport.AppendEntries(id, addr, req, resp)
	}
	*resp = raft.AppendEntriesResponse{Term: req.Term, Success: true}
	return nil
}

// AppendEntriesPipeline implements raft.Transport.
func (eager) AppendEntriesPipeline(raft.ServerID, raft.ServerAddress) (raft.AppendPipeline, error) {
	return nil, raft.ErrPipelineReplicationNotSupported
}

// credulous is a transport whose probes always find the own term.
type credulous struct {
	transport.Transport
	own func() uint64
}

// Handle implements transport.Transport.
func (c *credulous) Handle(h transport.Handler) {
	c.own = h.Probed
	c.Transport.Handle(h)
}

// Probe implements transport.Transport.
func (c *credulous) Probe(context.Context, transport.ReplicaID) (uint64, error) { return c.own(), nil }

// rewriting is a transport that changes what a leader sends to its followers.
type rewriting struct {
	transport.Transport
	change func(req *raft.AppendEntriesRequest) // a copy of the request, with entries of its own
}

// AppendEntries implements raft.Transport.
func (r rewriting) AppendEntries(id raft.ServerID, addr raft.ServerAddress, req *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) error {
	other := *req
	other.Entries = make([]*raft.Log, len(req.Entries))
	for i, e := range req.Entries {
		entry := *e
		other.Entries[i] = &entry
	}
	r.change(&other)
	return r.Transport.AppendEntries(id, addr, &other, resp)
}

// AppendEntriesPipeline implements raft.Transport.
func (rewriting) AppendEntriesPipeline(raft.ServerID, raft.ServerAddress) (raft.AppendPipeline, error) {
	return nil, raft.ErrPipelineReplicationNotSupported
}

// nameless takes the producers' ids from the batches that followers are sent: who
// becomes a leader does not know a batch that is sent again.
func nameless(req *raft.AppendEntriesRequest) {
	const crcAt, bodyAt, producerAt, producerEnd = 17, 21, 43, 57
	for _, e := range req.Entries {
		e.Data = slices.Clone(e.Data)
		for at := 0; at+batch.HeaderBytes <= len(e.Data); at++ {
			h, err := batch.ParseHeader(e.Data[at:])
			if err != nil || h.Size() > len(e.Data)-at || batch.CheckCRC(e.Data[at:at+h.Size()]) != nil {
				continue // no batch begins here
			}
			b := e.Data[at : at+h.Size()]
			for i := producerAt; i < producerEnd; i++ {
				b[i] = 0xff
			}
			binary.BigEndian.PutUint32(b[crcAt:], crc32.Checksum(b[bodyAt:], crc32.MakeTable(crc32.Castagnoli)))
			at += len(b) - 1
		}
	}
}

// rewritten has all replicas send what change makes of it.
func rewritten(change func(*raft.AppendEntriesRequest)) func(fl *fleet) {
	return func(fl *fleet) {
		fl.lie = func(_ transport.ShardID, _ transport.ReplicaID, tr transport.Transport) transport.Transport {
			return rewriting{tr, change}
		}
	}
}

// seededBugs are what histories have to find, each by itself.
var seededBugs = []struct {
	name    string
	bug     func(fl *fleet)
	history func(fl *fleet) // nil: a storm
}{
	{"acknowledged before a majority has it", func(fl *fleet) {
		fl.lie = func(_ transport.ShardID, _ transport.ReplicaID, tr transport.Transport) transport.Transport {
			return eager{tr}
		}
	}, nil},
	{"votes are forgotten", func(fl *fleet) {
		for _, m := range fl.members {
			forget := func(name string) bool { return strings.HasPrefix(name, path.Join(dataDir, "votes")) }
			m.wrap = func(fs vfs.FS) vfs.FS { return &forgetful{FS: fs, files: forget, dirs: forget} }
		}
	}, nil},
	// In a storm it may as well come to a leader that sends what it takes for sent, to
	// a node that has forgotten it, in no time and for ever.
	{"a wiped node votes under its old identity", func(fl *fleet) { fl.reborn = true }, wipedHistory},
	{"a deposed leader is read from", func(fl *fleet) {
		fl.lie = func(_ transport.ShardID, _ transport.ReplicaID, tr transport.Transport) transport.Transport {
			return &credulous{Transport: tr}
		}
	}, nil},
	{"nobody deduplicates after a failover", rewritten(nameless), nil},
	// The disk has lost the end of a journal that was acknowledged: who starts without
	// noticing gives its offsets to other records. It is found by the start that refuses,
	// mostly.
	{"an offset is used again after a truncation", func(fl *fleet) {
		for _, m := range fl.members {
			tail := func(name string) bool { return strings.HasSuffix(name, ".journal") }
			m.wrap = func(fs vfs.FS) vfs.FS {
				return &forgetful{FS: fs, files: tail, dirs: func(string) bool { return false }}
			}
		}
	}, nil},
}

const (
	bugSeeds = 100 // among which each bug has to be found
	bugFinds = 3   // by so many
)

// TestSeededBugs shows that cluster histories see what matters: with it broken,
// some of the first hundred seeds fail, three at the least. It stops at the third;
// with SIM_TABLE=1 it runs all of them and tells how many found it. Without a bug
// the seeds pass: TestClusterHistories and TestVotersDirected have them.
func TestSeededBugs(t *testing.T) {
	t.Parallel()
	for _, tt := range seededBugs {
		t.Run(strings.ReplaceAll(tt.name, " ", "_"), func(t *testing.T) {
			t.Parallel()
			all, enough := os.Getenv("SIM_TABLE") != "", bugFinds
			if testing.Short() {
				enough = 1
			}
			var found []uint64
			seed := uint64(1)
			for ; seed <= bugSeeds && (all || len(found) < enough); seed++ {
				var problems []string
				if tt.history == nil {
					problems, _, _ = runStorm(t, seed, tt.bug)
				} else {
					var tr *trace
					problems, tr, _ = runFleet(t, seed, func(fl *fleet) {
						tt.bug(fl)
						tt.history(fl)
					})
					problems = fleetVerdict(problems, tr.history)
				}
				if len(problems) > 0 {
					found = append(found, seed)
					t.Logf("seed %d: %s", seed, firstLine(problems[0]))
				}
			}
			t.Logf("found by %d of %d seeds: %v", len(found), seed-1, found)
			if len(found) < enough {
				t.Errorf("found by %d of %d seeds, want %d", len(found), seed-1, enough)
			}
		})
	}
}
