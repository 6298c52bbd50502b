package kafka_test

import (
	"fmt"
	"math"
	"net"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/flotilla-log/flotilla/internal/errcode"
)

// upTo returns the version of a request in a round that tries the versions of many:
// the round's, or the last that there is, but not one before least.
func upTo(round, least, most int16) int16 { return max(min(round, most), least) }

// TestGroupsAreOffered: clients find the requests about groups by ApiVersions.
func TestGroupsAreOffered(t *testing.T) {
	t.Parallel()
	r := dialRaw(t, startCore(t, nil).addr).ask(kmsg.NewPtrApiVersionsRequest(), 0).(*kmsg.ApiVersionsResponse)
	var offered []string
	for _, k := range r.ApiKeys {
		switch k.ApiKey {
		case 8, 9, 10, 11, 12, 13, 14, 15, 16, 42, 47, 68, 69:
			offered = append(offered, fmt.Sprintf("%d:%d-%d", k.ApiKey, k.MinVersion, k.MaxVersion))
		}
	}
	const want = "8:2-10 9:1-10 10:0-6 11:0-9 12:0-4 13:0-5 14:0-5 15:0-6 16:0-5 42:0-3 47:0-0 68:0-1 69:0-1"
	if got := strings.Join(offered, " "); got != want {
		t.Errorf("%q is offered, want %q", got, want)
	}
}

// TestGroupFeature: who coordinates groups has finalised group.version. Clients fail
// to read a supported feature that begins at 0 in version 3 (KAFKA-17011).
func TestGroupFeature(t *testing.T) {
	t.Parallel()
	_, with := withGroups(t, nil)
	c := dialRaw(t, startCore(t, with).addr)
	for v := range int16(5) {
		req := kmsg.NewPtrApiVersionsRequest()
		req.ClientSoftwareName, req.ClientSoftwareVersion = "test", "1"
		r := c.ask(req, v).(*kmsg.ApiVersionsResponse)
		var got []string
		for _, f := range r.FinalizedFeatures {
			got = append(got, fmt.Sprintf("finalized %s %d-%d", f.Name, f.MinVersionLevel, f.MaxVersionLevel))
		}
		for _, f := range r.SupportedFeatures {
			got = append(got, fmt.Sprintf("supported %s %d-%d", f.Name, f.MinVersion, f.MaxVersion))
		}
		want := []string{"finalized group.version 1-1", "supported group.version 0-1"}
		if v < 4 {
			want = want[:max(v-2, 0)]
		}
		if !slices.Equal(got, want) {
			t.Errorf("version %d: %q, want %q", v, got, want)
		}
	}
}

func TestFindCoordinator(t *testing.T) {
	t.Parallel()
	_, with := withGroups(t, nil)
	n := startCore(t, with)
	host, port, _ := net.SplitHostPort(n.addr)
	there := "7 " + host + ":" + port + " NONE"
	tests := []struct {
		key   string
		kind  int8
		since int16
		want  string
	}{
		{"g", 0, 0, there}, {"", 0, 0, there},
		{"nowhere", 0, 0, "-1 :-1 COORDINATOR_NOT_AVAILABLE"},
		{"g", 1, 1, "-1 :-1 TRANSACTIONAL_ID_AUTHORIZATION_FAILED"}, {"g", 2, 6, "-1 :-1 UNSUPPORTED_VERSION"}, {"g", 3, 1, "-1 :-1 INVALID_REQUEST"},
	}
	c := dialRaw(t, n.addr)
	for v := range int16(7) {
		for _, tt := range tests {
			if v < tt.since {
				continue
			}
			req := kmsg.NewPtrFindCoordinatorRequest()
			req.CoordinatorType, req.CoordinatorKey, req.CoordinatorKeys = tt.kind, tt.key, []string{tt.key, tt.key}
			r := c.ask(req, v).(*kmsg.FindCoordinatorResponse)
			got := r.Coordinators
			if v < 4 {
				got = []kmsg.FindCoordinatorResponseCoordinator{{
					Key: tt.key, NodeID: r.NodeID, Host: r.Host, Port: r.Port, ErrorCode: r.ErrorCode, ErrorMessage: r.ErrorMessage,
				}}
			}
			if want := 1 + min(v/4, 1); len(got) != int(want) {
				t.Fatalf("version %d: %d answers, want %d", v, len(got), want)
			}
			for _, g := range got {
				if is := fmt.Sprintf("%d %s:%d %v", g.NodeID, g.Host, g.Port, errcode.Code(g.ErrorCode)); is != tt.want || g.Key != tt.key {
					t.Errorf("version %d, type %d, key %q: %s, want %s", v, tt.kind, tt.key, is, tt.want)
				}
				said := "null"
				if g.ErrorMessage != nil {
					said = *g.ErrorMessage
				}
				switch want := []string{"null", "NONE", "NONE", "NONE", "", "", ""}[v]; {
				case g.ErrorCode == 0 && said != want:
					t.Errorf("version %d, key %q: message %q, want %q", v, tt.key, said, want)
				case v > 0 && g.ErrorCode != 0 && len(said) < 5:
					t.Errorf("version %d, key %q: message %q of an error", v, tt.key, said)
				}
			}
		}
		req := kmsg.NewPtrFindCoordinatorRequest()
		req.CoordinatorType, req.CoordinatorKey, req.CoordinatorKeys = 2, "g", []string{"g"}
		if v == 0 || v == 6 {
			continue
		}
		r := c.ask(req, v).(*kmsg.FindCoordinatorResponse)
		code := r.ErrorCode
		if v >= 4 {
			code = r.Coordinators[0].ErrorCode
		}
		if code != int16(errcode.InvalidRequest) {
			t.Errorf("version %d: a share group's coordinator: %v", v, errcode.Code(code))
		}
	}
	if r := dialRaw(t, n.other).ask(kmsg.NewPtrFindCoordinatorRequest(), 3).(*kmsg.FindCoordinatorResponse); r.Host != "broker.example.org" || r.Port != 19092 {
		t.Errorf("on the other listener: %+v", r)
	}
}

// TestClassicGroupVersions goes through the life of a group in every version of each
// request: each answer has to be of that version to its last byte.
func TestClassicGroupVersions(t *testing.T) {
	t.Parallel()
	_, with := withGroups(t, nil)
	n := startCore(t, with)
	c := dialRaw(t, n.addr)
	ids := c.makeTopics("a")
	for v := range int16(11) {
		group, instance := fmt.Sprint("group", v), "instance"
		wrong := func(what string, got any) { t.Helper(); t.Errorf("round %d: %s: %+v", v, what, got) }

		join := kmsg.NewPtrJoinGroupRequest()
		join.Group, join.SessionTimeoutMillis, join.RebalanceTimeoutMillis, join.ProtocolType = group, 60_000, 60_000, "consumer"
		join.Protocols = []kmsg.JoinGroupRequestProtocol{{Name: "range", Metadata: []byte("says")}}
		jv := upTo(v, 0, 9)
		joined := c.ask(join, jv).(*kmsg.JoinGroupResponse)
		if jv >= 4 {
			if joined.ErrorCode != int16(errcode.MemberIDRequired) || joined.MemberID == "" || joined.Generation != -1 || jv >= 7 && (joined.Protocol != nil || joined.ProtocolType != nil) {
				wrong("a new member", joined)
			}
			join.MemberID = joined.MemberID
			joined = c.ask(join, jv).(*kmsg.JoinGroupResponse)
		}
		if joined.ErrorCode != 0 || joined.Generation != 1 || joined.LeaderID != joined.MemberID || *joined.Protocol != "range" || joined.SkipAssignment ||
			len(joined.Members) != 1 || joined.Members[0].MemberID != joined.MemberID || string(joined.Members[0].ProtocolMetadata) != "says" || joined.Members[0].InstanceID != nil {
			wrong("joined", joined)
		}
		if jv >= 7 != (joined.ProtocolType != nil) {
			wrong("protocol type", joined.ProtocolType)
		}
		sync := kmsg.NewPtrSyncGroupRequest()
		sync.Group, sync.Generation, sync.MemberID = group, 1, joined.MemberID
		sync.GroupAssignment = []kmsg.SyncGroupRequestGroupAssignment{{MemberID: joined.MemberID, MemberAssignment: []byte("gets")}}
		sv := upTo(v, 0, 5)
		if sv == 5 {
			if r := c.ask(sync, sv).(*kmsg.SyncGroupResponse); r.ErrorCode != int16(errcode.InconsistentGroupProtocol) || r.ProtocolType != nil {
				wrong("a SyncGroup without its protocol", r)
			}
			sync.ProtocolType, sync.Protocol = kmsg.StringPtr("consumer"), kmsg.StringPtr("range")
		}
		if r := c.ask(sync, sv).(*kmsg.SyncGroupResponse); r.ErrorCode != 0 || string(r.MemberAssignment) != "gets" || sv == 5 && (*r.ProtocolType != "consumer" || *r.Protocol != "range") {
			wrong("synced", r)
		}
		beat := kmsg.NewPtrHeartbeatRequest()
		beat.Group, beat.Generation, beat.MemberID = group, 1, joined.MemberID
		if r := c.ask(beat, upTo(v, 0, 4)).(*kmsg.HeartbeatResponse); r.ErrorCode != 0 {
			wrong("heartbeat", r)
		}
		if beat.InstanceID = &instance; v >= 3 {
			if r := c.ask(beat, upTo(v, 0, 4)).(*kmsg.HeartbeatResponse); r.ErrorCode != int16(errcode.UnknownMemberID) {
				wrong("heartbeat of an instance that did not join", r)
			}
		}
		describe := kmsg.NewPtrDescribeGroupsRequest()
		describe.Groups, describe.IncludeAuthorizedOperations = []string{group, "none", "elsewhere", group}, true
		dv := upTo(v, 0, 6)
		described := c.ask(describe, dv).(*kmsg.DescribeGroupsResponse)
		if len(described.Groups) != 3 {
			t.Fatalf("round %d: %d groups, want each once", v, len(described.Groups))
		}
		operations := int32(math.MinInt32)
		if dv >= 3 {
			operations = 1<<3 | 1<<6 | 1<<8 | 1<<10 | 1<<11
		}
		g := described.Groups[0]
		if g.ErrorCode != 0 || g.State != "Stable" || g.ProtocolType != "consumer" || g.Protocol != "range" || g.AuthorizedOperations != operations || len(g.Members) != 1 {
			wrong("described", g)
		} else if m := g.Members[0]; m.MemberID != joined.MemberID || m.InstanceID != nil || m.ClientID != "test" || m.ClientHost != "/127.0.0.1" ||
			string(m.ProtocolMetadata) != "says" || string(m.MemberAssignment) != "gets" {
			wrong("described", m)
		}
		code := errcode.Code(0)
		if dv >= 6 {
			code = errcode.GroupIDNotFound
		}
		if g := described.Groups[1]; errcode.Code(g.ErrorCode) != code || g.State != "Dead" || (g.ErrorMessage != nil) != (dv >= 6) {
			wrong("described none", g)
		}
		if g := described.Groups[2]; g.ErrorCode != int16(errcode.NotCoordinator) || g.State != "" {
			wrong("described another node's", g)
		}
		commit := kmsg.NewPtrOffsetCommitRequest()
		commit.Group, commit.Generation, commit.MemberID = group, 1, joined.MemberID
		commit.Topics = []kmsg.OffsetCommitRequestTopic{{Topic: "a", TopicID: ids["a"], Partitions: []kmsg.OffsetCommitRequestTopicPartition{
			{Partition: 0, Offset: 5, LeaderEpoch: 3, Metadata: kmsg.StringPtr("here")}, {Partition: 1, Offset: 6}, {Partition: -1, Offset: 6},
		}}, {Topic: "none", TopicID: [16]byte{1}, Partitions: []kmsg.OffsetCommitRequestTopicPartition{{Partition: 0, Offset: 5}}}}
		cv := upTo(v, 2, 10)
		committed := codesOf(c.ask(commit, cv).(*kmsg.OffsetCommitResponse))
		unknown := errcode.UnknownTopicOrPartition
		if cv >= 10 {
			unknown = errcode.UnknownTopicID
		}
		if want := []errcode.Code{0, errcode.UnknownTopicOrPartition, errcode.UnknownTopicOrPartition, unknown}; !slices.Equal(committed, want) {
			wrong("committed", committed)
		}
		commit.Generation = 2
		if got := codesOf(c.ask(commit, cv).(*kmsg.OffsetCommitResponse)); got[0] != errcode.IllegalGeneration || got[3] != unknown {
			wrong("committed in another generation", got)
		}
		commit.Group = "unseen"
		gone := errcode.IllegalGeneration
		if cv >= 9 {
			gone = errcode.GroupIDNotFound
		}
		if got := codesOf(c.ask(commit, cv).(*kmsg.OffsetCommitResponse)); got[0] != gone {
			wrong("committed as a member of no group", got)
		}
		fv := upTo(v, 1, 10)
		epoch := int32(-1)
		if cv >= 6 && fv >= 5 {
			epoch = 3
		}
		want := []string{fmt.Sprintf("a-0=5 epoch %d %q NONE", epoch, "here"), `a-1=-1 epoch -1 "" NONE`}
		if got := c.fetchOffsets(fv, group, ids, []int32{0, 1}); !slices.Equal(got, want) {
			wrong("fetched", cmp.Diff(want, got))
		}
		if got := c.fetchOffsets(fv, group, ids, nil); fv >= 2 && !slices.Equal(got, want[:1]) {
			wrong("fetched all", cmp.Diff(want[:1], got))
		}
		if got := c.fetchOffsets(fv, "unseen", ids, []int32{0}); !slices.Equal(got, []string{`a-0=-1 epoch -1 "" NONE`}) {
			wrong("fetched of a group never seen", got)
		}
		refused := []string{"NOT_COORDINATOR"}
		if fv < 2 {
			refused = []string{`a-0=-1 epoch -1 "" NOT_COORDINATOR`}
		}
		if got := c.fetchOffsets(fv, "elsewhere", ids, []int32{0}); !slices.Equal(got, refused) {
			wrong("fetched of another node's", got)
		}
		list := kmsg.NewPtrListGroupsRequest()
		lv := upTo(v, 0, 5)
		if lv >= 4 {
			list.StatesFilter = []string{"stable"}
		}
		if lv >= 5 {
			list.TypesFilter = []string{"Classic"}
		}
		listed := c.ask(list, lv).(*kmsg.ListGroupsResponse)
		state, kind := "", ""
		if lv >= 4 {
			state = "Stable"
		}
		if lv >= 5 {
			kind = "classic"
		}
		if len(listed.Groups) != 1 || listed.ErrorCode != 0 {
			wrong("listed", listed)
		} else if g := listed.Groups[0]; g.Group != group || g.ProtocolType != "consumer" || g.GroupState != state || g.GroupType != kind {
			wrong("listed", g)
		}
		if list.StatesFilter = []string{"Empty"}; lv >= 4 {
			if r := c.ask(list, lv).(*kmsg.ListGroupsResponse); len(r.Groups) != 0 {
				wrong("listed those without members", r.Groups)
			}
		}
		if list.TypesFilter = []string{" classic "}; lv >= 5 {
			list.StatesFilter = []string{" stable "}
			if r := c.ask(list, lv).(*kmsg.ListGroupsResponse); len(r.Groups) != 0 {
				wrong("listed those of a type with blanks", r.Groups)
			}
			if list.TypesFilter = nil; len(c.ask(list, lv).(*kmsg.ListGroupsResponse).Groups) != 1 {
				wrong("not listed those in a state with blanks", nil)
			}
		}
		del := kmsg.NewPtrDeleteGroupsRequest()
		del.Groups = []string{group, "none", group}
		delv := upTo(v, 0, 3)
		wantCodes := func(when string, want ...errcode.Code) {
			t.Helper()
			r := c.ask(del, delv).(*kmsg.DeleteGroupsResponse)
			var got []errcode.Code
			for _, g := range r.Groups {
				got = append(got, errcode.Code(g.ErrorCode))
				if (g.ErrorMessage != nil) != (delv >= 3 && g.ErrorCode != 0) {
					wrong("message", g.ErrorMessage)
				}
			}
			if !slices.Equal(got, want) {
				wrong(when, got)
			}
		}
		wantCodes("deleted with members", errcode.NonEmptyGroup, errcode.GroupIDNotFound)
		leave := kmsg.NewPtrLeaveGroupRequest()
		leave.Group, leave.MemberID = group, joined.MemberID
		leave.Members = []kmsg.LeaveGroupRequestMember{{MemberID: joined.MemberID, Reason: kmsg.StringPtr("over")}, {InstanceID: &instance}}
		leaves := upTo(v, 0, 5)
		left := c.ask(leave, leaves).(*kmsg.LeaveGroupResponse)
		if left.ErrorCode != 0 || leaves >= 3 && (len(left.Members) != 2 || left.Members[0].ErrorCode != 0 || left.Members[0].InstanceID != nil ||
			left.Members[1].ErrorCode != int16(errcode.UnknownMemberID) || *left.Members[1].InstanceID != instance) {
			wrong("left", left)
		}
		if r := c.ask(leave, min(leaves, 2)).(*kmsg.LeaveGroupResponse); r.ErrorCode != int16(errcode.UnknownMemberID) {
			wrong("left again", r)
		}
		wantCodes("deleted", 0, errcode.GroupIDNotFound)
	}
}

func codesOf(r *kmsg.OffsetCommitResponse) (codes []errcode.Code) {
	for _, t := range r.Topics {
		for _, p := range t.Partitions {
			codes = append(codes, errcode.Code(p.ErrorCode))
		}
	}
	return codes
}

// fetchOffsets returns the offsets of topic a that a group has committed, or the
// group's error; of all topics, if no partitions are asked for.
func (c *rawClient) fetchOffsets(version int16, group string, ids map[string][16]byte, partitions []int32) (got []string) {
	c.t.Helper()
	req := kmsg.NewPtrOffsetFetchRequest()
	req.Group, req.RequireStable = group, true
	g := kmsg.NewOffsetFetchRequestGroup()
	if g.Group = group; partitions != nil {
		req.Topics = []kmsg.OffsetFetchRequestTopic{{Topic: "a", Partitions: partitions}}
		g.Topics = []kmsg.OffsetFetchRequestGroupTopic{{Topic: "a", TopicID: ids["a"], Partitions: partitions}}
	}
	req.Groups = []kmsg.OffsetFetchRequestGroup{g}
	r := c.ask(req, version).(*kmsg.OffsetFetchResponse)
	say := func(p int32, offset int64, epoch int32, metadata *string, code int16) {
		got = append(got, fmt.Sprintf("a-%d=%d epoch %d %q %v", p, offset, epoch, *metadata, errcode.Code(code)))
	}
	for _, t := range r.Topics {
		for _, p := range t.Partitions {
			say(p.Partition, p.Offset, p.LeaderEpoch, p.Metadata, p.ErrorCode)
		}
	}
	for _, g := range r.Groups {
		r.ErrorCode = max(r.ErrorCode, g.ErrorCode)
		for _, t := range g.Topics {
			if version >= 10 && t.TopicID != ids["a"] {
				c.t.Errorf("version %d: topic id %x", version, t.TopicID)
			}
			for _, p := range t.Partitions {
				say(p.Partition, p.Offset, p.LeaderEpoch, p.Metadata, p.ErrorCode)
			}
		}
	}
	if r.ErrorCode != 0 {
		got = append(got, errcode.Code(r.ErrorCode).String())
	}
	return got
}
