package client

import (
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"

	"github.com/flotilla-log/flotilla/internal/errcode"
	"github.com/flotilla-log/flotilla/wire/pb"
)

// TestGroupsAdmin goes through what an operator does.
func TestGroupsAdmin(t *testing.T) {
	inGroups(t, 3, func(t *testing.T, f *fakeCluster) {
		f.createTopic("z", 1)
		c := f.client()
		defer c.Close()
		gs, ctx := c.Groups(), t.Context()
		code := func(err error) errcode.Code {
			got, _ := CodeOf(err)
			return got
		}
		if _, err := gs.Describe(ctx, "g"); code(err) != errcode.GroupIDNotFound {
			t.Errorf("Describe of no group = %v", err)
		}
		if err := gs.Delete(ctx, "g"); code(err) != errcode.GroupIDNotFound {
			t.Errorf("Delete of no group = %v", err)
		}
		set := map[TopicPartition]int64{{"a", 0}: 10, {"a", 1}: 20, {"z", 0}: 0}
		if err := gs.SetOffsets(ctx, "g", set); err != nil {
			t.Fatal(err)
		}
		if err := gs.SetOffsets(ctx, "g", map[TopicPartition]int64{{"a", 1}: 5}); err != nil {
			t.Fatal(err)
		}
		offsets, err := gs.Offsets(ctx, "g")
		want := []CommittedOffset{{TopicPartition{"a", 0}, 10, ""}, {TopicPartition{"a", 1}, 5, ""}, {TopicPartition{"z", 0}, 0, ""}}
		if diff := cmp.Diff(want, offsets); err != nil || diff != "" {
			t.Errorf("Offsets, %v (-want +got):\n%s", err, diff)
		}
		if err := gs.DeleteOffsets(ctx, "g", TopicPartition{"z", 0}); err != nil {
			t.Fatal(err)
		}
		if err := gs.SetOffsets(ctx, "h", set); err != nil {
			t.Fatal(err)
		}

		a, b := f.works(t, newOwnership(t), "a"), f.works(t, newOwnership(t), "b")
		a.run(ctx, 10*time.Second)
		b.run(ctx, 10*time.Second)
		time.Sleep(time.Minute)
		synctest.Wait()
		all, err := gs.List(ctx)
		wantAll := []GroupListing{{Group: "g", Type: "consumer", State: "Stable", ProtocolType: "consumer"}, {Group: "h", Type: "classic", State: "Empty"}}
		if diff := cmp.Diff(wantAll, all); err != nil || diff != "" {
			t.Errorf("List, %v (-want +got):\n%s", err, diff)
		}
		d, err := gs.Describe(ctx, "g")
		if err != nil || len(d.Members) != 2 || d.State != "Stable" || d.Assignor != "uniform" || d.Members[0].ID >= d.Members[1].ID {
			t.Fatalf("Describe = %+v, %v", d, err)
		}
		lags, err := gs.Lag(ctx, d)
		if err != nil || len(lags) != 3 {
			t.Fatalf("Lag = %+v, %v", lags, err)
		}
		for i, l := range lags {
			has := func(m GroupMember) bool { return m.ID == l.Member && slices.Contains(m.Assigned, l.TopicPartition) }
			if l.Topic != "a" || l.Partition != int32(i) || l.End != 100 || l.Lag != 100-max(l.Offset, 0) || l.Lag > 100 || !slices.ContainsFunc(d.Members, has) {
				t.Errorf("lag %+v", l)
			}
		}
		if err := gs.SetOffsets(ctx, "g", set); code(err) != errcode.UnknownMemberID {
			t.Errorf("SetOffsets of a group with members = %v", err)
		}
		if err := gs.DeleteOffsets(ctx, "g", TopicPartition{"a", 0}); code(err) != errcode.GroupSubscribedToTopic {
			t.Errorf("DeleteOffsets of what is consumed = %v", err)
		}
		if err := gs.Delete(ctx, "g"); code(err) != errcode.NonEmptyGroup {
			t.Errorf("Delete of a group with members = %v", err)
		}
		a.leaves()
		b.leaves()
		// The answer is lost, and the second attempt finds nothing to delete.
		lost := false
		f.hook(func() {
			f.groups.onGroup = func(_ int32, req proto.Message) fault {
				if _, ok := req.(*pb.DeleteGroupRequest); ok && !lost {
					lost = true
					return loseResponse
				}
				return noFault
			}
		})
		if err := gs.Delete(ctx, "g"); err != nil || !lost {
			t.Errorf("Delete = %v", err)
		}
		f.setDown("node2:9092", true)
		if all, err := gs.List(ctx); err == nil || len(all) != 1 || !errors.Is(err, ErrConnection) {
			t.Errorf("List without a node = %v, %v, want what the others have, and that one is missing", all, err)
		}
	})
}
