package kafka_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/flotilla-log/flotilla/internal/errcode"
)

// commitSome commits offset 5 of the first partition of topics, from outside of the
// group's membership.
func (c *rawClient) commitSome(group string, topics ...string) []errcode.Code {
	c.t.Helper()
	req := kmsg.NewPtrOffsetCommitRequest()
	req.Group = group
	for _, name := range topics {
		req.Topics = append(req.Topics, kmsg.OffsetCommitRequestTopic{
			Topic: name, Partitions: []kmsg.OffsetCommitRequestTopicPartition{{Partition: 0, Offset: 5, LeaderEpoch: -1}},
		})
	}
	return codesOf(c.ask(req, 9).(*kmsg.OffsetCommitResponse))
}

// fetchGroups asks for all offsets of groups, at version 8 or later, and says which
// topics have some.
func (c *rawClient) fetchGroups(version int16, groups ...string) (got []string) {
	c.t.Helper()
	req := kmsg.NewPtrOffsetFetchRequest()
	for _, name := range groups {
		g := kmsg.NewOffsetFetchRequestGroup()
		g.Group = name
		req.Groups = append(req.Groups, g)
	}
	for _, g := range c.ask(req, version).(*kmsg.OffsetFetchResponse).Groups {
		said := g.Group + " " + errcode.Code(g.ErrorCode).String()
		for _, t := range g.Topics {
			said += fmt.Sprintf(" %s%x=%d", t.Topic, t.TopicID[:min(len(t.TopicID), 2)], t.Partitions[0].Offset)
		}
		got = append(got, said)
	}
	return got
}

// TestOffsetsOfEarlierTopics: what was committed to a topic that was deleted and made
// again is not that topic's; and of no topic by its id.
func TestOffsetsOfEarlierTopics(t *testing.T) {
	t.Parallel()
	_, with := withGroups(t, nil)
	c := dialRaw(t, startCore(t, with).addr)
	c.makeTopics("a", "b", "c")
	if got := c.commitSome("g", "a", "b", "c", "none", ""); !slices.Equal(got, []errcode.Code{0, 0, 0, errcode.UnknownTopicOrPartition, errcode.UnknownTopicOrPartition}) {
		t.Fatalf("committed: %v", got)
	}
	del := kmsg.NewPtrDeleteTopicsRequest()
	del.TopicNames, del.TimeoutMillis = []string{"b", "c"}, 10_000
	c.ask(del, 5)
	ids := c.makeTopics("a", "b")
	if got, want := c.fetchGroups(9, "g", "unseen"), []string{"g NONE a0000=5 c0000=5", "unseen NONE"}; !slices.Equal(got, want) {
		t.Errorf("by name: %q, want %q", got, want)
	}
	id := ids["a"]
	if got, want := c.fetchGroups(10, "g"), []string{fmt.Sprintf("g NONE %x=5", id[:2])}; !slices.Equal(got, want) {
		t.Errorf("by id: %q, want %q", got, want)
	}
	req := kmsg.NewPtrOffsetFetchRequest()
	g := kmsg.NewOffsetFetchRequestGroup()
	g.Group = "g"
	g.Topics = []kmsg.OffsetFetchRequestGroupTopic{{TopicID: [16]byte{9}, Partitions: []int32{0, 1}}, {TopicID: ids["b"], Partitions: []int32{0}}, {TopicID: id, Partitions: []int32{0}}}
	req.Groups = append(req.Groups, g)
	var got []string
	for _, t := range c.ask(req, 10).(*kmsg.OffsetFetchResponse).Groups[0].Topics {
		for _, p := range t.Partitions {
			got = append(got, fmt.Sprintf("%x %d=%d %v", t.TopicID[:1], p.Partition, p.Offset, errcode.Code(p.ErrorCode)))
		}
	}
	of := func(name string) []byte { id := ids[name]; return id[:1] }
	want := []string{"09 0=-1 UNKNOWN_TOPIC_ID", "09 1=-1 UNKNOWN_TOPIC_ID", fmt.Sprintf("%x 0=-1 NONE", of("b")), fmt.Sprintf("%x 0=5 NONE", of("a"))}
	if !slices.Equal(got, want) {
		t.Errorf("of topics by id: %q, want %q", got, want)
	}
}

// TestOffsetDelete: offsets of partitions that there are are forgotten; the group's
// error stands alone.
func TestOffsetDelete(t *testing.T) {
	t.Parallel()
	_, with := withGroups(t, nil)
	c := dialRaw(t, startCore(t, with).addr)
	c.makeTopics("a", "b")
	c.commitSome("g", "a", "b")
	forget := func(group string, topics ...string) string {
		req := kmsg.NewPtrOffsetDeleteRequest()
		req.Group = group
		for _, name := range topics {
			req.Topics = append(req.Topics, kmsg.OffsetDeleteRequestTopic{Topic: name, Partitions: []kmsg.OffsetDeleteRequestTopicPartition{{Partition: 0}, {Partition: 7}}})
		}
		r := c.ask(req, 0).(*kmsg.OffsetDeleteResponse)
		said := []string{errcode.Code(r.ErrorCode).String()}
		for _, t := range r.Topics {
			for _, p := range t.Partitions {
				said = append(said, fmt.Sprintf("%s-%d %v", t.Topic, p.Partition, errcode.Code(p.ErrorCode)))
			}
		}
		return strings.Join(said, ", ")
	}
	const u = "UNKNOWN_TOPIC_OR_PARTITION"
	for _, tt := range []struct{ group, topics, want string }{
		{"g", "a none", "NONE, a-0 NONE, a-7 " + u + ", none-0 " + u + ", none-7 " + u},
		{"none", "a", "GROUP_ID_NOT_FOUND"},
		{"none", "none", "GROUP_ID_NOT_FOUND"},
		{"", "a", "INVALID_GROUP_ID"},
	} {
		if got := forget(tt.group, strings.Fields(tt.topics)...); got != tt.want {
			t.Errorf("%q %s: %s, want %s", tt.group, tt.topics, got, tt.want)
		}
	}
	if got := c.fetchGroups(8, "g"); !slices.Equal(got, []string{"g NONE b0000=5"}) {
		t.Errorf("left: %q", got)
	}
	// A topic without partitions is left out.
	del := kmsg.NewPtrOffsetDeleteRequest()
	del.Group, del.Topics = "g", []kmsg.OffsetDeleteRequestTopic{{Topic: "b"}}
	if r := c.ask(del, 0).(*kmsg.OffsetDeleteResponse); r.ErrorCode != 0 || len(r.Topics) != 0 {
		t.Errorf("of no partitions: %+v", r)
	}
	commit := kmsg.NewPtrOffsetCommitRequest()
	commit.Group, commit.Topics = "g", []kmsg.OffsetCommitRequestTopic{{Topic: "b"}}
	if r := c.ask(commit, 9).(*kmsg.OffsetCommitResponse); len(r.Topics) != 0 {
		t.Errorf("committed for no partitions: %+v", r)
	}
}

// TestRepeatedGroupsAreBounded: a few bytes that name a group with many offsets again
// and again do not make the node answer with more than it has memory for.
func TestRepeatedGroupsAreBounded(t *testing.T) {
	t.Parallel()
	_, with := withGroups(t, nil)
	n := startCore(t, with)
	c := dialRaw(t, n.addr)
	c.makeTopics("a")
	req := kmsg.NewPtrOffsetCommitRequest()
	req.Group = "g"
	metadata := strings.Repeat("m", 4096)
	req.Topics = []kmsg.OffsetCommitRequestTopic{{Topic: "a", Partitions: []kmsg.OffsetCommitRequestTopicPartition{{Offset: 5, Metadata: &metadata}}}}
	if got := codesOf(c.ask(req, 9).(*kmsg.OffsetCommitResponse)); got[0] != 0 {
		t.Fatal(got)
	}
	all := kmsg.NewPtrOffsetFetchRequest()
	all.Version = 9
	for range 20_000 {
		g := kmsg.NewOffsetFetchRequestGroup()
		g.Group = "g"
		all.Groups = append(all.Groups, g)
	}
	c.start(all)
	var b [1]byte
	if n, err := c.nc.Read(b[:]); n != 0 || err == nil {
		t.Fatalf("%d bytes, %v; want the connection's end", n, err)
	}
	n.log.await(t, "its answer would take more memory than there is", 1)
}
