package broker

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/flotilla-log/flotilla/broker/metadata"
	"github.com/flotilla-log/flotilla/internal/errcode"
	"github.com/flotilla-log/flotilla/internal/vfs"
)

// TestMerge: what three nodes say of a shard, and what is to be believed.
func TestMerge(t *testing.T) {
	t.Parallel()
	down := errors.New("down")
	members := func(matches ...uint64) (ms []memberReport) {
		for i := range int32(3) {
			m := memberReport{Node: i + 1, Incarnation: uint64(i + 1), Voter: true}
			if matches != nil {
				m.Match = matches[i]
			}
			ms = append(ms, m)
		}
		return ms
	}
	leads := func(node int32, term, last uint64, matches ...uint64) shardReport {
		return shardReport{Shard: 7, Incarnation: uint64(node), Term: term, Leading: true, Leader: node, Last: last, Applied: last, Members: members(matches...)}
	}
	follows := func(node, leader int32, term, last uint64) shardReport {
		return shardReport{Shard: 7, Incarnation: uint64(node), Term: term, Leader: leader, Last: last, Applied: last - 1, Members: members()}
	}
	behind := leads(1, 2, 100, 100, 100, 10)
	behind.Members[2].Behind = true
	other := follows(3, 1, 2, 5)
	other.Incarnation = 99
	quarantined := follows(3, 1, 2, 100)
	quarantined.Quarantined, quarantined.Damaged = 2, 3
	tests := []struct {
		name string
		said map[int32]shardReport
		down map[int32]error
		want string // leader term last: node=status match lag applied
	}{
		{"healthy", map[int32]shardReport{1: leads(1, 2, 100, 100, 99, 100), 2: follows(2, 1, 2, 99), 3: follows(3, 1, 2, 100)}, nil,
			"1 2 100: 1=ok 100 0 100, 2=ok 99 1 98, 3=ok 100 0 99"},
		{"lags by what is allowed", map[int32]shardReport{1: leads(1, 2, 1000, 1000, 1000-maxLagEntries, 1000), 2: follows(2, 1, 2, 800), 3: follows(3, 1, 2, 1000)}, nil,
			"1 2 1000: 1=ok 1000 0 1000, 2=ok 872 128 799, 3=ok 1000 0 999"},
		{"lags by more", map[int32]shardReport{1: leads(1, 2, 1000, 1000, 999-maxLagEntries, 1000), 2: follows(2, 1, 2, 800), 3: follows(3, 1, 2, 1000)}, nil,
			"1 2 1000: 1=ok 1000 0 1000, 2=lags 871 129 799, 3=ok 1000 0 999"},
		{"not heard of by a new leader", map[int32]shardReport{1: leads(1, 2, 100, 100, 100, 0), 2: follows(2, 1, 2, 100), 3: follows(3, 1, 2, 90)}, nil,
			"1 2 100: 1=ok 100 0 100, 2=ok 100 0 99, 3=lags -1 -1 89"},
		{"catching up", map[int32]shardReport{1: behind, 2: follows(2, 1, 2, 100), 3: follows(3, 1, 2, 10)}, nil,
			"1 2 100: 1=ok 100 0 100, 2=ok 100 0 99, 3=catching up 10 90 9"},
		{"a follower is down", map[int32]shardReport{1: leads(1, 2, 100, 100, 100, 100), 2: follows(2, 1, 2, 100)}, map[int32]error{3: down},
			"1 2 100: 1=ok 100 0 100, 2=ok 100 0 99, 3=silent 100 0 -1"},
		{"the leader does not answer", map[int32]shardReport{2: follows(2, 1, 2, 100), 3: follows(3, 1, 2, 100)}, map[int32]error{1: down},
			"1 2 -1: 1=silent -1 -1 -1, 2=unknown -1 -1 99, 3=unknown -1 -1 99"},
		{"who leads does not say so", map[int32]shardReport{1: follows(1, 1, 2, 100), 2: follows(2, 1, 2, 100), 3: follows(3, 1, 2, 100)}, nil,
			"-1 2 -1: 1=unknown -1 -1 99, 2=unknown -1 -1 99, 3=unknown -1 -1 99"},
		{"two lead", map[int32]shardReport{1: leads(1, 2, 100, 100, 1, 1), 2: leads(2, 3, 90, 90, 90, 90), 3: follows(3, 2, 3, 90)}, nil,
			"2 3 90: 1=ok 90 0 100, 2=ok 90 0 90, 3=ok 90 0 89"},
		{"a candidate of a later term", map[int32]shardReport{1: leads(1, 2, 100, 100, 100, 100), 2: follows(2, 1, 2, 100), 3: follows(3, -1, 9, 90)}, nil,
			"1 2 100: 1=ok 100 0 100, 2=ok 100 0 99, 3=ok 100 0 89"},
		{"a wiped node has another replica", map[int32]shardReport{1: leads(1, 2, 100, 100, 100, 40), 2: follows(2, 1, 2, 100), 3: other}, nil,
			"1 2 100: 1=ok 100 0 100, 2=ok 100 0 99, 3=lost 40 60 -1"},
		{"a node without the replica", map[int32]shardReport{1: leads(1, 2, 100, 100, 100, 40), 2: follows(2, 1, 2, 100)}, nil,
			"1 2 100: 1=ok 100 0 100, 2=ok 100 0 99, 3=lost 40 60 -1"},
		{"partitions in quarantine, and damage", map[int32]shardReport{1: leads(1, 2, 100, 100, 100, 100), 2: follows(2, 1, 2, 100), 3: quarantined}, nil,
			"1 2 100: 1=ok 100 0 100, 2=ok 100 0 99, 3=ok 100 0 99 quarantined=2 damaged=3"},
		{"nobody says anything", nil, map[int32]error{1: down, 2: down, 3: down}, "-1 0 -1: "},
	}
	names := map[ReplicaStatus]string{
		ReplicaOK: "ok", ReplicaUnknown: "unknown", ReplicaLags: "lags", ReplicaCatchingUp: "catching up", ReplicaSilent: "silent", ReplicaLost: "lost",
	}
	for _, tt := range tests {
		t.Run(strings.ReplaceAll(tt.name, " ", "_"), func(t *testing.T) {
			reports := make(map[int32]nodeReport)
			for node, one := range tt.said {
				reports[node] = nodeReport{Node: node, Shards: []shardReport{{Shard: 6, Leading: true, Term: 100}, one}}
			}
			var s ShardState
			s.merge(7, reports, tt.down)
			var rs []string
			for _, r := range s.Replicas {
				text := fmt.Sprintf("%d=%s %d %d %d", r.Node, names[r.Status], r.Match, r.Lag, r.Applied)
				if r.Quarantined > 0 {
					text += fmt.Sprintf(" quarantined=%d", r.Quarantined)
				}
				if r.Damaged > 0 {
					text += fmt.Sprintf(" damaged=%d", r.Damaged)
				}
				rs = append(rs, text)
			}
			if got := fmt.Sprintf("%d %d %d: %s", s.Leader, s.Term, s.Last, strings.Join(rs, ", ")); got != tt.want {
				t.Errorf("\n got %s\nwant %s", got, tt.want)
			}
		})
	}
}

// TestInspectAlone: a node alone is a cluster of one.
func TestInspectAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := startRig(t, vfs.NewMem(1))
		defer r.stop()
		r.create("t", 3, nil)
		time.Sleep(time.Hour)
		s, err := r.Inspect(t.Context(), ClientListener, time.Second)
		if err != nil {
			t.Fatal(err)
		}
		if len(s.Nodes) != 1 || len(s.Shards) != 3 {
			t.Fatalf("Inspect = %+v, want one node and three shards", s)
		}
		n := s.Nodes[0]
		if s.ClusterID != "c" || s.Asked != 1 || s.Controller != 1 || s.FeatureLevel != metadata.MaxFeatureLevel || s.Topics != 1 || s.Partitions != 3 {
			t.Errorf("Inspect = %+v", s)
		}
		if n.ID != 1 || n.Address != "localhost:9092" || n.Incarnation != 9 || n.Err != nil || n.Uptime.Round(time.Minute) != time.Hour || n.Leads != 3 || n.Replicas != 3 {
			t.Errorf("node %+v", n)
		}
		for i, shard := range s.Shards {
			if inSync := fmt.Sprint(shard.InSync); i == 0 && inSync != "[]" || i > 0 && inSync != "[1]" {
				t.Errorf("shard %d: %s in sync", i, inSync)
			}
			want := []ReplicaState{{
				Node: 1, Incarnation: shard.Replicas[0].Incarnation, Voter: true, Status: ReplicaOK, Match: shard.Last, Applied: shard.Last,
			}}
			if diff := cmp.Diff(want, shard.Replicas); diff != "" || shard.ID != uint32(i) || shard.Leader != 1 || shard.Term == 0 || shard.Last < 1 {
				t.Errorf("shard %+v (-want +got):\n%s", shard, diff)
			}
		}
		if got := s.Shards[1].Partitions + s.Shards[2].Partitions; got != 3 {
			t.Errorf("%d partitions on the shards, want 3", got)
		}
	})
}

func TestTransferShardAlone(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		for shard := range uint32(3) {
			if leader, term, err := r.TransferShard(t.Context(), shard, 1); err != nil || leader != 1 || term == 0 {
				t.Errorf("to the leader: %d, %d, %v", leader, term, err)
			}
			for to, want := range map[int32]errcode.Code{2: errcode.InvalidReplicaAssignment, -1: errcode.EligibleLeadersNotAvailable} {
				if _, _, err := r.TransferShard(t.Context(), shard, to); errcode.Of(err) != want {
					t.Errorf("to %d: %v, want %v", to, err, want)
				}
			}
		}
		if _, _, err := r.TransferShard(t.Context(), 9, 1); errcode.Of(err) != errcode.ResourceNotFound {
			t.Errorf("shard 9: %v", err)
		}
	})
}

// TestReportBounds: what is not of a node in its mind is refused, and named.
func TestReportBounds(t *testing.T) {
	t.Parallel()
	good := nodeReport{Node: 2, Incarnation: 1<<64 - 1, Version: "v", Shards: []shardReport{{Shard: 1, Members: []memberReport{{Node: 2}}}}}
	tests := []struct {
		name string
		edit func(*nodeReport)
		want string
	}{
		{"good", func(*nodeReport) {}, ""},
		{"another node's", func(r *nodeReport) { r.Node = 3 }, "says that it is node 3's"},
		{"long version", func(r *nodeReport) { r.Version = strings.Repeat("x", maxReportTextBytes+1) }, "a text of more than"},
		{"long trouble", func(r *nodeReport) { r.Trouble = strings.Repeat("x", maxReportTextBytes+1) }, "a text of more than"},
		{"too many shards", func(r *nodeReport) { r.Shards = make([]shardReport, metadata.MaxShards+2) }, "shards"},
		{"a shard twice", func(r *nodeReport) { r.Shards = append(r.Shards, r.Shards[0]) }, "shard 1 twice"},
		{"too many members", func(r *nodeReport) { r.Shards[0].Members = make([]memberReport, maxReportMembers+1) }, "members of shard 1"},
		{"quarantine", func(r *nodeReport) { r.Shards[0].Quarantined = -1 }, "in quarantine"},
		{"damage", func(r *nodeReport) { r.Shards[0].Damaged = -1 }, "-1 damaged ranges"},
		{"uptime", func(r *nodeReport) { r.UptimeMS = -1 }, "an uptime of -1 ms"},
		{"long uptime", func(r *nodeReport) { r.UptimeMS = 1<<63 - 1 }, "an uptime of"},
	}
	for _, tt := range tests {
		r := good
		r.Shards = append([]shardReport(nil), good.Shards...)
		tt.edit(&r)
		raw, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		got, err := decodeReport(2, raw)
		if tt.want == "" {
			if diff := cmp.Diff(good, got); diff != "" || err != nil {
				t.Errorf("%s: %v (-want +got):\n%s", tt.name, err, diff)
			}
			continue
		}
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", tt.name, err, tt.want)
		}
	}
	if got := cut(strings.Repeat("é", maxReportTextBytes)); len(got) != maxReportTextBytes {
		t.Errorf("cut leaves %d bytes", len(got))
	}
	if got := cut("x" + strings.Repeat("é", maxReportTextBytes)); len(got) != maxReportTextBytes-1 {
		t.Errorf("cut within a character leaves %d bytes", len(got))
	}
}

// FuzzDecodeReport: whatever a node says, another one does not fall over it, and
// what it takes is within the bounds.
func FuzzDecodeReport(f *testing.F) {
	f.Add([]byte(`{"node":2,"incarnation":18446744073709551615,"version":"0.1.0","uptime_ms":5,"shards":[{"shard":0,"term":3,"leading":true,"leader":2,"last":9,"members":[{"node":2,"incarnation":1,"voter":true,"match":9}]}]}`))
	f.Add([]byte(`{"node":2,"shards":[{"shard":1},{"shard":1}]}`))
	f.Add([]byte(`{"node":1}`))
	f.Add([]byte(`[`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		r, err := decodeReport(2, raw)
		if err != nil {
			return
		}
		again, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := decodeReport(2, again); err != nil && !strings.Contains(err.Error(), "a text of more than") { // Go writes U+FFFD for what is no UTF-8
			t.Errorf("what was taken is refused: %v", err)
		}
		var s ShardState
		for _, one := range r.Shards {
			s = ShardState{}
			s.merge(one.Shard, map[int32]nodeReport{2: r}, nil)
			if len(s.Replicas) > maxReportMembers {
				t.Errorf("%d replicas", len(s.Replicas))
			}
		}
	})
}
