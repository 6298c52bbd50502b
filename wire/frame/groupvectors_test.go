package frame

import (
	"github.com/flotilla-log/flotilla/internal/errcode"
	"github.com/flotilla-log/flotilla/wire/pb"
)

// groupVectors are the vectors of consumer groups, about the topic of an id.
func groupVectors(id []byte) []vectorCase {
	const answer = FlagResponse
	member := "5f0c1c2e9d3b4a77a1b2c3d4e5f60718"
	two := &pb.GroupPartitions{Topics: []*pb.GroupTopic{{TopicId: id, Partitions: []int32{0, 2}}}}
	named := []*pb.GroupTopic{{TopicId: id, Name: "orders", Partitions: []int32{0, 2}}}
	return []vectorCase{
		{"find-coordinator-request", "", KindFindCoordinator, 0, 30, &pb.FindCoordinatorRequest{Group: "billing"}, ""},
		{"find-coordinator-response", "", KindFindCoordinator, answer, 30,
			&pb.FindCoordinatorResponse{Node: &pb.Node{Id: 2, Address: "10.0.0.2:9092", Rack: "b"}}, ""},
		{"group-heartbeat-request-join", "A member joins: it says all, and owns nothing (an empty message).", KindGroupHeartbeat, 0, 31,
			&pb.GroupHeartbeatRequest{Group: "billing", MemberId: member, Owned: &pb.GroupPartitions{},
				Subscription: &pb.GroupSubscription{Topics: []string{"orders"}, Regex: "orders-.*", Assignor: "uniform", RebalanceTimeoutMs: 300000}}, ""},
		{"group-heartbeat-response-join", "Two partitions, from epoch 3 on (zigzag: 3 is 06).", KindGroupHeartbeat, answer, 31,
			&pb.GroupHeartbeatResponse{MemberEpoch: 3, IntervalMs: 5000, Assignment: &pb.GroupPartitions{Topics: named}}, ""},
		{"group-heartbeat-request", "A static member has given a partition away, and says what is left.", KindGroupHeartbeat, 0, 32,
			&pb.GroupHeartbeatRequest{Group: "billing", MemberId: member, MemberEpoch: 3, InstanceId: "billing-1", Owned: two}, ""},
		{"group-heartbeat-response", "Nothing has changed.", KindGroupHeartbeat, answer, 32,
			&pb.GroupHeartbeatResponse{MemberEpoch: 4, IntervalMs: 5000}, ""},
		{"group-heartbeat-request-leave", "Epoch -1 (zigzag: 01).", KindGroupHeartbeat, 0, 33,
			&pb.GroupHeartbeatRequest{Group: "billing", MemberId: member, MemberEpoch: -1}, ""},
		{"group-heartbeat-error", "The node does not look after the group (any more): find the coordinator again.", KindGroupHeartbeat, answer | FlagError, 34,
			NewError(errcode.NotCoordinator, "this node does not coordinate the group"), ""},
		{"commit-offsets-request", "Partition 0 goes on at offset 42.", KindCommitOffsets, 0, 35,
			&pb.CommitOffsetsRequest{Group: "billing", MemberId: member, MemberEpoch: 4, InstanceId: "billing-1",
				Offsets: []*pb.GroupOffset{{TopicId: id, Partition: 0, Offset: 42, LeaderEpoch: -1, Metadata: "by hand"}}}, ""},
		{"commit-offsets-response", "", KindCommitOffsets, answer, 35,
			&pb.CommitOffsetsResponse{Results: []*pb.GroupResult{{TopicId: id, Partition: 0}}}, ""},
		{"fetch-offsets-request", "Two partitions, for a member.", KindFetchOffsets, 0, 36,
			&pb.FetchOffsetsRequest{Group: "billing", MemberId: member, MemberEpoch: 4,
				Partitions: []*pb.PartitionRef{{TopicId: id, Partition: 0}, {TopicId: id, Partition: 2}}}, ""},
		{"fetch-offsets-response", "Nothing is committed for partition 2.", KindFetchOffsets, answer, 36,
			&pb.FetchOffsetsResponse{Offsets: []*pb.GroupOffset{
				{TopicId: id, Topic: "orders", Partition: 0, Offset: 42, LeaderEpoch: 3, Metadata: "by hand"},
				{TopicId: id, Topic: "orders", Partition: 2, Offset: -1, LeaderEpoch: -1}}}, ""},
		{"fetch-offsets-request-all", "All that are after partition 2 of orders.", KindFetchOffsets, 0, 37,
			&pb.FetchOffsetsRequest{Group: "billing", All: true, AfterTopic: "orders", AfterPartition: 2}, ""},
		{"delete-offsets-request", "", KindDeleteOffsets, 0, 38,
			&pb.DeleteOffsetsRequest{Group: "billing", Partitions: []*pb.NamedPartition{{Topic: "orders", Partition: 1}}}, ""},
		{"delete-offsets-response", "", KindDeleteOffsets, answer, 38,
			&pb.DeleteOffsetsResponse{Results: []*pb.GroupResult{{Topic: "orders", Partition: 1,
				Error: NewError(errcode.GroupSubscribedToTopic, "the group consumes topic orders")}}}, ""},
		{"list-groups-request", "", KindListGroups, 0, 39, &pb.ListGroupsRequest{States: []string{"Stable"}, Types: []string{"consumer"}, After: "a"}, ""},
		{"list-groups-response", "", KindListGroups, answer, 39,
			&pb.ListGroupsResponse{Groups: []*pb.ListedGroup{{Group: "billing", Type: "consumer", State: "Stable", ProtocolType: "consumer"}}}, ""},
		{"describe-group-request", "", KindDescribeGroup, 0, 40, &pb.DescribeGroupRequest{Group: "billing"}, ""},
		{"describe-group-response", "", KindDescribeGroup, answer, 40,
			&pb.DescribeGroupResponse{Group: "billing", Type: "consumer", State: "Stable", ProtocolType: "consumer", Assignor: "uniform", Epoch: 4, TargetEpoch: 4,
				Members: []*pb.GroupMember{{MemberId: member, InstanceId: "billing-1", Rack: "a", MemberEpoch: 4, ClientId: "orders", ClientHost: "/10.0.0.9",
					Topics: []string{"orders"}, Regex: "orders-.*", Assigned: named, Target: named}}}, ""},
		{"delete-group-request", "", KindDeleteGroup, 0, 41, &pb.DeleteGroupRequest{Group: "billing"}, ""},
		{"delete-group-response", "", KindDeleteGroup, answer, 41, &pb.DeleteGroupResponse{}, ""},
	}
}
