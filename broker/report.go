package broker

import (
	"encoding/json"
	"fmt"
	"time"
	"unicode/utf8"

	"github.com/flotilla-log/flotilla/broker/metadata"
	"github.com/flotilla-log/flotilla/replication"
	"github.com/flotilla-log/flotilla/replication/transport"
)

// methodReport asks a node what it knows of itself and of its replicas. The
// payload is empty, the answer a nodeReport in JSON: it is for people, seldom
// asked for, and two versions of the software have to understand each other's,
// so fields that are not known are passed over.
const methodReport transport.Method = 5

// nodeReport is what one node says.
type nodeReport struct {
	Node        int32         `json:"node"`
	Incarnation uint64        `json:"incarnation"` // of its directory
	Version     string        `json:"version"`     // of its software
	UptimeMS    int64         `json:"uptime_ms"`
	Trouble     string        `json:"trouble,omitempty"` // what keeps it from serving in full; empty: nothing
	Shards      []shardReport `json:"shards"`
}

// shardReport is what a node says of its replica of a shard.
type shardReport struct {
	Shard        uint32         `json:"shard"`
	Incarnation  uint64         `json:"incarnation"` // of the replica
	Term         uint64         `json:"term"`
	Leading      bool           `json:"leading"`
	Leader       int32          `json:"leader"` // node, as far as the replica knows; -1: unknown
	Last         uint64         `json:"last"`
	Applied      uint64         `json:"applied"`
	Checkpointed uint64         `json:"checkpointed"`
	Quarantined  int            `json:"quarantined,omitempty"` // partitions
	Damaged      int            `json:"damaged,omitempty"`     // ranges
	Members      []memberReport `json:"members"`
}

// memberReport is a replica in the configuration of a shard. How far it is, the
// leader alone can say.
type memberReport struct {
	Node        int32  `json:"node"`
	Incarnation uint64 `json:"incarnation"`
	Voter       bool   `json:"voter"`
	Match       uint64 `json:"match,omitempty"`
	Behind      bool   `json:"behind,omitempty"`
}

// Bounds on a report: what a node that has lost its mind may make another one
// hold and show.
const (
	maxReportMembers   = 4 * metadata.MaxReplicas // while replicas are replaced there are more of them
	maxReportTextBytes = metadata.MaxStringBytes
)

// ownReport returns what this node knows.
func (b *Broker) ownReport() nodeReport {
	r := nodeReport{
		Node: b.opt.NodeID, Incarnation: b.opt.Incarnation, Version: cut(b.opt.Version),
		UptimeMS: max(b.opt.Now().Sub(b.began).Milliseconds(), 0),
	}
	if s := b.DiskState(); s.Low {
		r.Trouble = cut("the disk is nearly full, records and topics are not taken: " + s.Cause)
	}
	if n, d := b.damaged(); n > 0 && r.Trouble == "" {
		r.Trouble = cut(fmt.Sprintf("%d ranges of its partitions are damaged and not yet repaired, the first at offset %d of %s", n, d.From, d.Err.File))
	}
	r.Shards = append(r.Shards, reportOf(uint32(replication.MetadataShard), b.meta.Progress()))
	for _, s := range b.carriedInOrder() {
		one := reportOf(uint32(s.id), s.replica.Progress())
		one.Quarantined, one.Damaged = int(s.quarantined.Load()), len(s.store.Damaged())
		r.Shards = append(r.Shards, one)
	}
	return r
}

func reportOf(shard uint32, p replication.Progress) shardReport {
	r := shardReport{
		Shard: shard, Incarnation: p.ID.Incarnation, Term: p.Term, Leading: p.Leading, Leader: -1,
		Last: p.Last, Applied: p.Applied, Checkpointed: p.Checkpointed,
	}
	if p.HasLeader {
		r.Leader = p.Leader.Node
	}
	for _, m := range p.Members {
		r.Members = append(r.Members, memberReport{
			Node: m.ID.Node, Incarnation: m.ID.Incarnation, Voter: m.Voter, Match: m.Match, Behind: m.Behind,
		})
	}
	return r
}

// cut bounds a text of a report.
func cut(s string) string {
	if len(s) <= maxReportTextBytes {
		return s
	}
	end := maxReportTextBytes
	for end > 0 && !utf8.RuneStart(s[end]) {
		end--
	}
	return s[:end]
}

// answerReport answers methodReport.
func (b *Broker) answerReport() ([]byte, error) { return json.Marshal(b.ownReport()) }

// decodeReport reads what node has answered to methodReport. It never panics,
// whatever the bytes are, and what it returns is within the bounds.
func decodeReport(node int32, raw []byte) (nodeReport, error) {
	var r nodeReport
	if err := json.Unmarshal(raw, &r); err != nil {
		return nodeReport{}, fmt.Errorf("broker: report of node %d: %w", node, err)
	}
	switch {
	case r.Node != node:
		return nodeReport{}, fmt.Errorf("broker: report of node %d says that it is node %d's", node, r.Node)
	case len(r.Version) > maxReportTextBytes || len(r.Trouble) > maxReportTextBytes:
		return nodeReport{}, fmt.Errorf("broker: report of node %d has a text of more than %d bytes", node, maxReportTextBytes)
	case len(r.Shards) > metadata.MaxShards+1:
		return nodeReport{}, fmt.Errorf("broker: report of node %d has %d shards", node, len(r.Shards))
	case r.UptimeMS < 0 || r.UptimeMS > int64(1<<63-1)/int64(time.Millisecond):
		return nodeReport{}, fmt.Errorf("broker: report of node %d: an uptime of %d ms", node, r.UptimeMS)
	}
	seen := make(map[uint32]bool, len(r.Shards))
	for i := range r.Shards {
		s := &r.Shards[i]
		switch {
		case seen[s.Shard]:
			return nodeReport{}, fmt.Errorf("broker: report of node %d has shard %d twice", node, s.Shard)
		case len(s.Members) > maxReportMembers:
			return nodeReport{}, fmt.Errorf("broker: report of node %d has %d members of shard %d", node, len(s.Members), s.Shard)
		case s.Quarantined < 0:
			return nodeReport{}, fmt.Errorf("broker: report of node %d has %d partitions of shard %d in quarantine", node, s.Quarantined, s.Shard)
		case s.Damaged < 0:
			return nodeReport{}, fmt.Errorf("broker: report of node %d has %d damaged ranges of shard %d", node, s.Damaged, s.Shard)
		}
		seen[s.Shard] = true
	}
	return r, nil
}
