package client

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/flotilla-log/flotilla/internal/errcode"
	"github.com/flotilla-log/flotilla/wire/frame"
	"github.com/flotilla-log/flotilla/wire/pb"
)

// TestNewTopic learns of a topic from nodes that know more and less.
func TestNewTopic(t *testing.T) {
	t.Parallel()
	id := func(b byte) []byte { return append(make([]byte, 15), b) }
	answer := func(b byte, leader, epoch int32) *pb.Topic {
		return &pb.Topic{Name: "a", TopicId: id(b), Leaders: []int32{leader}, LeaderEpochs: []int32{epoch}}
	}
	missing := &pb.Topic{Name: "a", Error: frame.NewError(errcode.UnknownTopicOrPartition, "")}
	behind := &pb.Topic{Name: "a", Error: frame.NewError(errcode.LeaderNotAvailable, "")}
	forbidden := &pb.Topic{Name: "a", Error: frame.NewError(errcode.TopicAuthorizationFailed, "")}
	tests := []struct {
		name    string
		answers []*pb.Topic
		want    leader // node -1: an error
		misses  int
	}{
		{"first", []*pb.Topic{answer(1, 5, 7)}, leader{5, 7}, 0},
		{"newer leader", []*pb.Topic{answer(1, 5, 7), answer(1, 6, 8)}, leader{6, 8}, 0},
		{"older leader", []*pb.Topic{answer(1, 5, 7), answer(1, 6, 6)}, leader{5, 7}, 0},
		{"older epoch of another topic", []*pb.Topic{answer(1, 5, 7), answer(2, 6, 1)}, leader{6, 1}, 0},
		{"missing once", []*pb.Topic{answer(1, 5, 7), missing}, leader{5, 7}, 1},
		{"missing, then there", []*pb.Topic{missing, missing, answer(1, 5, 7)}, leader{5, 7}, 0},
		{"missing for good", []*pb.Topic{answer(1, 5, 7), missing, missing, missing, missing, missing}, leader{node: -1}, 5},
		{"nodes that are behind", []*pb.Topic{answer(1, 5, 7), behind, behind, behind, behind, behind, behind}, leader{5, 7}, 0},
		{"nodes that are behind, then missing", []*pb.Topic{answer(1, 5, 7), missing, behind, behind, behind, behind, missing}, leader{5, 7}, 2},
		{"forbidden", []*pb.Topic{answer(1, 5, 7), forbidden}, leader{node: -1}, 1},
		{"short id", []*pb.Topic{{Name: "a", TopicId: []byte{1}}}, leader{node: -1}, 1},
		{"fewer epochs", []*pb.Topic{{Name: "a", TopicId: id(1), Leaders: []int32{1}}}, leader{node: -1}, 1},
	}
	for _, tt := range tests {
		var got *topic
		for _, a := range tt.answers {
			got = newTopic(a, got)
		}
		l := leader{node: -1}
		if got.err == nil {
			l = got.leaders[0]
		}
		if l != tt.want || got.misses != tt.misses {
			t.Errorf("%s: %+v, error %v, %d misses, want %+v and %d", tt.name, l, got.err, got.misses, tt.want, tt.misses)
		}
	}
}

// TestMetadataOfNodesBehind: a node that may be behind does not decide whether
// there is a topic, unless no other one answers.
func TestMetadataOfNodesBehind(t *testing.T) {
	for _, tt := range []struct {
		name   string
		behind map[int32]int
		topic  string
		want   errcode.Code
	}{
		{"others know it", map[int32]int{0: -1, 1: -1}, "a", errcode.None},
		{"others know that there is none", map[int32]int{0: -1, 1: -1}, "b", errcode.UnknownTopicOrPartition},
		{"nobody knows", map[int32]int{0: -1, 1: -1, 2: -1}, "a", errcode.LeaderNotAvailable},
	} {
		t.Run(strings.ReplaceAll(tt.name, " ", "_"), func(t *testing.T) {
			bubble(t, 3, func(t *testing.T, f *fakeCluster) {
				f.createTopic("a", 1)
				f.behind = tt.behind
				c := f.client()
				defer c.Close()
				_, topics, err := c.Admin().Metadata(t.Context(), tt.topic)
				if err != nil || len(topics) != 1 {
					t.Fatalf("Metadata = %v, %v", topics, err)
				}
				if code, _ := CodeOf(topics[0].Err); code != tt.want {
					t.Errorf("%s: %v, want %v", tt.topic, topics[0].Err, tt.want)
				}
			})
		})
	}
}

// TestPartitionsNeverGo: a node that does not know of new partitions yet proves
// nothing, but for another topic of that name.
func TestPartitionsNeverGo(t *testing.T) {
	t.Parallel()
	answer := func(id byte, leaders ...int32) *pb.Topic {
		return &pb.Topic{Name: "a", TopicId: append(make([]byte, 15), id), Leaders: leaders, LeaderEpochs: make([]int32, len(leaders))}
	}
	had := newTopic(answer(1, 5, 6, 7), nil)
	if got := newTopic(answer(1, 8), had).leaders; len(got) != 3 || got[0].node != 8 || got[2].node != 7 {
		t.Errorf("leaders %+v, want nodes 8, 6 and 7", got)
	}
	if got := newTopic(answer(2, 8), had).leaders; len(got) != 1 {
		t.Errorf("leaders of another topic: %+v", got)
	}
}

// TestHint adopts a leader from an error, unless it is an older one.
func TestHint(t *testing.T) {
	bubble(t, 1, func(t *testing.T, f *fakeCluster) {
		f.createTopic("a", 1)
		c := f.client()
		defer c.Close()
		if _, err := c.topic(t.Context(), "a"); err != nil {
			t.Fatal(err)
		}
		hint := func(node, epoch int32, addr string) {
			e := frame.NewError(errcode.NotLeaderOrFollower, "")
			e.Leader = &pb.LeaderHint{NodeId: node, LeaderEpoch: epoch, Address: addr}
			c.misled("a", 0, fromServer(e))
		}
		hint(8, 1, "late:1") // the image has epoch 1
		hint(7, 3, "new:1")
		hint(9, 2, "late:2")
		hint(9, 4, "")
		img := c.meta.image.Load()
		if diff := cmp.Diff(map[int32]string{0: "node0:9092", 7: "new:1"}, img.nodes); diff != "" {
			t.Errorf("nodes (-want +got):\n%s", diff)
		}
		if got := img.topics["a"].leaders[0]; got != (leader{7, 3}) {
			t.Errorf("leader %+v, want node 7 in epoch 3", got)
		}
	})
}
