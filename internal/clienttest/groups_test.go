package clienttest

import (
	"cmp"
	"errors"
	"fmt"
	"slices"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// groupFeatures are the rows about consumer groups.
var groupFeatures = []feature{
	{"FindCoordinator", kmsg.FindCoordinator, (*result).groupConsumed},
	{"JoinGroup", kmsg.JoinGroup, (*result).groupConsumed},
	{"SyncGroup", kmsg.SyncGroup, (*result).groupConsumed},
	{"Heartbeat: a member hears of another one", kmsg.Heartbeat, (*result).groupShared},
	{"LeaveGroup: the others have its partitions", kmsg.LeaveGroup, (*result).groupLeft},
	{"OffsetCommit", kmsg.OffsetCommit, (*result).committedEnds},
	{"OffsetFetch", kmsg.OffsetFetch, (*result).committedSeen},
	{"ListGroups", kmsg.ListGroups, (*result).listedGroups},
	{"DescribeGroups", kmsg.DescribeGroups, (*result).describedGroup},
	{"OffsetDelete", kmsg.OffsetDelete, (*result).deletedOffset},
	{"DeleteGroups", kmsg.DeleteGroups, (*result).deletedGroup},
	{"ConsumerGroupHeartbeat", kmsg.ConsumerGroupHeartbeat, (*result).assignedConsumed},
	{"ConsumerGroupDescribe", kmsg.ConsumerGroupDescribe, (*result).describedAssigned},
}

// groupOf names the group that a program has for its topic. What it has for other
// purposes begins with that.
func groupOf(topic string) string { return topic + "-group" }

func (r *result) groupConsumed() error    { return r.consumedIn("group-consumed") }
func (r *result) assignedConsumed() error { return r.consumedIn("assigned-consumed") }

// groupShared: of two members each has a partition.
func (r *result) groupShared() error {
	l, err := r.out.one("group-shared")
	return cmp.Or(err, l.sharesOut(2))
}

// groupLeft: the one that is left has both.
func (r *result) groupLeft() error {
	l, err := r.out.one("group-left")
	return cmp.Or(err, l.sharesOut(1))
}

// sharesOut checks that so many members have the partitions, each as many.
func (l line) sharesOut(members int) error {
	var all []int32
	for _, has := range l.Members {
		all = append(all, has...)
		if len(l.Members) != members || len(has) != partitions/members {
			return fmt.Errorf("the members have %v, want %d of %d each", l.Members, members, partitions/members)
		}
	}
	slices.Sort(all)
	return same("partitions of all members", all, []int32{0, 1})
}

// committedEnds: the group has committed what it has consumed.
func (r *result) committedEnds() error {
	if len(r.facts.records) == 0 {
		return errors.New("nothing was produced")
	}
	for p := range r.facts.records {
		if have, ok := r.facts.committed[p]; !ok || have != r.facts.end(p) {
			return fmt.Errorf("partition %d is committed at %d, want %d", p, have, r.facts.end(p))
		}
	}
	return nil
}

// committedSeen: and the program sees it.
func (r *result) committedSeen() error {
	if n := len(r.out["committed"]); n != partitions {
		return fmt.Errorf("offsets of %d partitions, want %d", n, partitions)
	}
	for _, l := range r.out["committed"] {
		if *l.Offset == 0 || *l.Offset != r.facts.committed[l.Partition] {
			return fmt.Errorf("partition %d is shown at %d, and is at %d", l.Partition, *l.Offset, r.facts.committed[l.Partition])
		}
	}
	return nil
}

func (r *result) listedGroups() error {
	l, err := r.out.one("groups")
	if err == nil && (!slices.Contains(l.Groups, groupOf(r.topic)) || l.State != "" && l.State != "Stable") {
		err = fmt.Errorf("groups %q in state %q, without %s", l.Groups, l.State, groupOf(r.topic))
	}
	return err
}

func (r *result) describedGroup() error {
	l, err := r.out.one("described-group")
	if err == nil && (l.Group != groupOf(r.topic) || l.State != "Stable" || l.Protocol == "") {
		err = fmt.Errorf("group %q in state %q with protocol %q", l.Group, l.State, l.Protocol)
	}
	return cmp.Or(err, l.sharesOut(2))
}

func (r *result) describedAssigned() error {
	l, err := r.out.one("described-assigned")
	if err == nil && (l.Group != groupOf(r.topic)+"-assigned" || l.State != "Stable" || l.Assignor != "uniform") {
		err = fmt.Errorf("group %q in state %q with assignor %q", l.Group, l.State, l.Assignor)
	}
	return cmp.Or(err, l.sharesOut(1))
}

// deletedOffset: of the offsets of two partitions that of the first is left.
func (r *result) deletedOffset() error {
	l, err := r.out.one("offsets-left")
	if err == nil && (l.Partition != 0 || *l.Offset != 1) {
		err = fmt.Errorf("partition %d is committed at %d, want 0 at 1", l.Partition, *l.Offset)
	}
	return err
}

func (r *result) deletedGroup() error {
	l, err := r.out.one("delete-group")
	if err == nil && (l.Exists == nil || *l.Exists || r.facts.scratchGroup || l.Group != groupOf(r.topic)+"-scratch") {
		err = fmt.Errorf("group %q exists still", l.Group)
	}
	return err
}
