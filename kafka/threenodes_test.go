package kafka_test

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"reflect"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/flotilla-log/flotilla/internal/errcode"
	"github.com/flotilla-log/flotilla/internal/netsim"
	"github.com/flotilla-log/flotilla/internal/node"
	"github.com/flotilla-log/flotilla/internal/vfs"
)

// inCluster runs a test against a cluster of three nodes in virtual time. dial returns a
// client of each; nodes count from 1, clients from 0.
func inCluster(t *testing.T, test func(t *testing.T, dial func() []*rawClient)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		network := netsim.New(1)
		t.Cleanup(func() { _ = network.Close() })
		var starting sync.WaitGroup
		nodes, parts := make([]*node.Node, 3), make([]func() error, 3)
		var peers []node.Peer
		for i := range nodes {
			peers = append(peers, node.Peer{ID: int32(i + 1), Address: fmt.Sprintf("node%d:9093", i+1)})
		}
		for i := range nodes {
			host := fmt.Sprintf("node%d", i+1)
			var ls [2]net.Listener
			for j, port := range []string{":9092", ":9093"} {
				l, err := network.Listen(host + port)
				if err != nil {
					t.Fatal(err)
				}
				ls[j] = l
			}
			opt := node.Options{
				FS: vfs.NewMem(uint64(i + 1)), Dir: "data", NodeID: int32(i + 1), ClusterID: "three", Version: "test", Listener: ls[0],
				JournalBytes: 64 << 20, JournalFileBytes: 8 << 20, MemoryBytes: 64 << 20,
				Now: time.Now, Rand: rand.Reader, Log: slog.New(slog.DiscardHandler),
				Resolve: func(context.Context, string) error { return errors.New("no such host") },
			}
			var err error
			opt.Cluster, parts[i], err = node.Meet(&opt, node.Meeting{Peers: peers, Listener: ls[1], Dial: func(ctx context.Context, addr string) (net.Conn, error) {
				return network.Dial(ctx, host, addr)
			}})
			if err != nil {
				t.Fatal(err)
			}
			opt.Cluster.Nodes = []int32{1, 2, 3}
			starting.Go(func() { // each waits for the others
				var err error
				if nodes[i], err = node.Start(t.Context(), opt); err != nil {
					t.Error(err)
				}
			})
		}
		starting.Wait()
		t.Cleanup(func() {
			var closing sync.WaitGroup
			for i, n := range nodes {
				if n != nil {
					closing.Go(func() {
						_ = n.Close(context.Background())
						_ = parts[i]()
					})
				}
			}
			closing.Wait()
		})
		if t.Failed() {
			return
		}
		time.Sleep(10 * time.Second) // until there are leaders
		test(t, func() (clients []*rawClient) {
			for i := range nodes {
				nc, err := network.Dial(t.Context(), "client", fmt.Sprintf("node%d:9092", i+1))
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { _ = nc.Close() })
				clients = append(clients, &rawClient{t: t, nc: nc})
			}
			return clients
		})
	})
}

// TestGroupsOfThreeNodes: each node names the same coordinator of a group, which alone
// answers about it, and lists it.
func TestGroupsOfThreeNodes(t *testing.T) {
	t.Parallel()
	inCluster(t, func(t *testing.T, dial func() []*rawClient) {
		dial()[0].ask(kmsg.NewPtrFindCoordinatorRequest(), 0) // makes the topic
		time.Sleep(time.Minute)
		clients := dial()
		by := make(map[int32][]string)
		for i := range 12 {
			group := fmt.Sprint("group", i)
			find := kmsg.NewPtrFindCoordinatorRequest()
			find.CoordinatorKeys = []string{group}
			var said []int32
			for _, c := range clients {
				at := c.ask(find, 4).(*kmsg.FindCoordinatorResponse).Coordinators[0]
				if at.ErrorCode != 0 || at.Host != fmt.Sprint("node", at.NodeID) || at.Port != 9092 {
					t.Fatalf("%s: %+v", group, at)
				}
				said = append(said, at.NodeID)
			}
			if said[0] != said[1] || said[0] != said[2] {
				t.Fatalf("%s is coordinated by %v", group, said)
			}
			by[said[0]] = append(by[said[0]], group)
			for n, c := range clients {
				want := errcode.NotCoordinator
				if int32(n+1) == said[0] {
					want = 0
				}
				if got := c.groupCodes(group); slices.ContainsFunc(got, func(code errcode.Code) bool { return code != want }) {
					t.Errorf("%s: node %d answers %v, want %v", group, n+1, got, want)
				}
			}
		}
		for n, c := range clients {
			var got []string
			for _, g := range c.ask(kmsg.NewPtrListGroupsRequest(), 4).(*kmsg.ListGroupsResponse).Groups {
				got = append(got, g.Group)
			}
			slices.Sort(got)
			want := slices.Sorted(slices.Values(by[int32(n+1)]))
			if !slices.Equal(got, want) {
				t.Errorf("node %d lists %q, want %q", n+1, got, want)
			}
		}
	})
}

// groupCodes asks a node about a group in each way that needs no members, and returns
// the codes. It leaves the group with a member of KIP-848.
func (c *rawClient) groupCodes(group string) []errcode.Code {
	c.t.Helper()
	beat := kmsg.NewPtrConsumerGroupHeartbeatRequest()
	beat.Group, beat.MemberID, beat.RebalanceTimeoutMillis = group, "m", 60_000
	beat.SubscribedTopicNames, beat.Topics = []string{"none"}, []kmsg.ConsumerGroupHeartbeatRequestTopic{}
	joined := c.ask(beat, 1).(*kmsg.ConsumerGroupHeartbeatResponse)
	beat.MemberEpoch = joined.MemberEpoch
	fetch := kmsg.NewPtrOffsetFetchRequest()
	fetch.Groups = []kmsg.OffsetFetchRequestGroup{{Group: group, MemberEpoch: -1}}
	describe := kmsg.NewPtrConsumerGroupDescribeRequest()
	describe.Groups = []string{group}
	return []errcode.Code{
		errcode.Code(joined.ErrorCode),
		errcode.Code(c.ask(beat, 1).(*kmsg.ConsumerGroupHeartbeatResponse).ErrorCode),
		errcode.Code(c.ask(fetch, 8).(*kmsg.OffsetFetchResponse).Groups[0].ErrorCode),
		errcode.Code(c.ask(describe, 0).(*kmsg.ConsumerGroupDescribeResponse).Groups[0].ErrorCode),
	}
}

// TestElectLeadersOfThreeNodes: any node has elections held, in every version.
func TestElectLeadersOfThreeNodes(t *testing.T) {
	t.Parallel()
	inCluster(t, func(t *testing.T, dial func() []*rawClient) {
		dial()[0].create("a", 3)
		time.Sleep(time.Minute) // leaders are where they are to be
		clients := dial()
		for version := range int16(3) {
			for n, c := range clients {
				req := kmsg.NewPtrElectLeadersRequest()
				req.TimeoutMillis = adminTimeoutMS
				req.Topics = []kmsg.ElectLeadersRequestTopic{{Topic: "a", Partitions: []int32{0, 1, 2}}}
				resp := c.ask(req, version).(*kmsg.ElectLeadersResponse)
				if len(resp.Topics) != 1 || len(resp.Topics[0].Partitions) != 3 || resp.ErrorCode != 0 {
					t.Fatalf("version %d, node %d: %+v", version, n+1, resp)
				}
				for _, p := range resp.Topics[0].Partitions {
					if errcode.Code(p.ErrorCode) != errcode.ElectionNotNeeded {
						t.Errorf("version %d, node %d: partition %d: %v, want %v", version, n+1, p.Partition, errcode.Code(p.ErrorCode), errcode.ElectionNotNeeded)
					}
				}
			}
		}
	})
}

// TestControlledOfThreeNodes: what the node that leads the metadata does, any node has it
// do, in every version, and then knows of it.
func TestControlledOfThreeNodes(t *testing.T) {
	t.Parallel()
	inCluster(t, func(t *testing.T, dial func() []*rawClient) {
		for n := range 3 {
			c := dial()[n] // one that says nothing for 10 s is closed
			check := func(what string, version int16, got, want any) {
				if !reflect.DeepEqual(got, want) {
					t.Errorf("node %d, %s version %d: %v, want %v", n+1, what, version, got, want)
				}
			}
			for v := int16(2); v <= 7; v++ {
				name := fmt.Sprintf("created-%d-%d", n+1, v)
				r := c.createTopics(v, false, newTopic(name, 2), newTopic("a/b", 1))
				if len(r) != 2 || r[0].Topic != name || r[0].ErrorCode != 0 || errcode.Code(r[1].ErrorCode) != errcode.InvalidTopic {
					t.Errorf("node %d, CreateTopics version %d: %+v", n+1, v, r)
				}
				check("Metadata after CreateTopics", v, len(c.metadata(9, false, name).Topics[0].Partitions), 2)
			}
			name := fmt.Sprintf("created-%d-7", n+1)
			for v := range int16(4) {
				req := kmsg.NewPtrCreatePartitionsRequest()
				req.TimeoutMillis = adminTimeoutMS
				req.Topics = []kmsg.CreatePartitionsRequestTopic{{Topic: name, Count: int32(v) + 3}}
				r := c.ask(req, v).(*kmsg.CreatePartitionsResponse).Topics
				check("CreatePartitions", v, outcome(r[0].ErrorCode, r[0].ErrorMessage), "NONE: null")
				check("Metadata after CreatePartitions", v, len(c.metadata(9, false, name).Topics[0].Partitions), int(v)+3)
			}
			for v := range int16(2) {
				size := fmt.Sprint(1000 + v)
				check("IncrementalAlterConfigs", v, c.alter(v, false, 2, name, configOp{name: "retention.ms", value: size}), "NONE: null")
				check("DescribeConfigs after IncrementalAlterConfigs", v, c.value(name, "retention.ms"), size)
				id := fmt.Sprint(n + 1)
				check("IncrementalAlterConfigs of itself", v, c.alter(v, false, 4, id), "NONE: null")
			}
			for v := range int16(3) {
				size := fmt.Sprint(2000 + v)
				req := kmsg.NewPtrAlterConfigsRequest()
				req.Resources = []kmsg.AlterConfigsRequestResource{{
					ResourceType: kmsg.ConfigResourceTypeTopic, ResourceName: name,
					Configs: []kmsg.AlterConfigsRequestResourceConfig{{Name: "retention.ms", Value: &size}},
				}}
				r := c.ask(req, v).(*kmsg.AlterConfigsResponse).Resources
				check("AlterConfigs", v, outcome(r[0].ErrorCode, r[0].ErrorMessage), "NONE: null")
				check("DescribeConfigs after AlterConfigs", v, c.value(name, "retention.ms"), size)
				req.Resources = []kmsg.AlterConfigsRequestResource{{ResourceType: kmsg.ConfigResourceTypeBroker, ResourceName: fmt.Sprint(n + 1)}}
				r = c.ask(req, v).(*kmsg.AlterConfigsResponse).Resources
				check("AlterConfigs of itself", v, outcome(r[0].ErrorCode, r[0].ErrorMessage), "NONE: null")
			}
			for v := int16(1); v <= 6; v++ {
				name := fmt.Sprintf("created-%d-%d", n+1, v+1)
				check("DeleteTopics", v, c.deleteTopics(v, kmsg.DeleteTopicsRequestTopic{Topic: &name}), []string{name + " NONE: null"})
				check("Metadata after DeleteTopics", v, errcode.Code(c.metadata(9, false, name).Topics[0].ErrorCode), errcode.UnknownTopicOrPartition)
			}
		}
	})
}
