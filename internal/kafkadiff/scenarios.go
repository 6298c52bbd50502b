package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// scenario is a sequence of requests. Scenarios are played in the order of the
// list, all of them on one fresh server, and each uses topics of its own.
type scenario struct {
	name string
	play func(*session)
}

// scenarios is every scenario. The first ones look at all topics, so they come
// before those that create many.
var scenarios = []scenario{
	{"metadata-all", metadataAll},
	{"describelogdirs-all", describeAllLogDirs},
	{"apiversions", apiVersions},
	{"metadata", metadata},
	{"metadata-names", metadataNames},
	{"metadata-create", metadataCreate},
	{"describecluster", describeCluster},
	{"describetopicpartitions", describeTopicPartitions},
	{"createtopics", createTopics},
	{"createtopics-configs", createTopicsConfigs},
	{"deletetopics", deleteTopics},
	{"createpartitions", createPartitions},
	{"deleterecords", deleteRecords},
	{"describeconfigs", describeConfigs},
	{"alterconfigs", alterConfigs},
	{"incrementalalterconfigs", incrementalAlterConfigs},
	{"listconfigresources", listConfigResources},
	{"describelogdirs", describeLogDirs},
	{"listoffsets", listOffsets},
	{"offsetforleaderepoch", offsetForLeaderEpoch},
	{"initproducerid", initProducerID},
	{"describeproducers", describeProducers},
	{"produce", produce},
	{"produce-errors", produceErrors},
	{"produce-batches", produceBatches},
	{"produce-compacted", produceCompacted},
	{"produce-idempotent", produceIdempotent},
	{"produce-configs", produceConfigs},
	{"fetch", fetch},
	{"fetch-errors", fetchErrors},
	{"fetch-limits", fetchLimits},
	{"fetch-sessions", fetchSessions},
	{"findcoordinator", findCoordinator},
	{"joingroup", joinGroup},
	{"syncgroup", syncGroup},
	{"heartbeat", heartbeat},
	{"leavegroup", leaveGroup},
	{"offsetfetch", offsetFetch},
	{"offsetcommit", offsetCommit},
	{"offsetdelete", offsetDelete},
	{"listgroups", listGroups},
	{"describegroups", describeGroups},
	{"deletegroups", deleteGroups},
	{"consumergroupheartbeat", consumerGroupHeartbeat},
	{"consumergroupdescribe", consumerGroupDescribe},
	{"electleaders", electLeaders},
}

// versions are the versions of a request that are asked: those that Kafka 4.4
// serves, see docs/kafka.md, but for DeleteGroups 3, which Kafka 4.3.1 does not know.
type versions struct{ min, max int16 }

var offered = map[kmsg.Key]versions{
	kmsg.Produce:                 {3, 13},
	kmsg.Fetch:                   {4, 18},
	kmsg.ListOffsets:             {1, 11},
	kmsg.Metadata:                {0, 13},
	kmsg.OffsetCommit:            {2, 10},
	kmsg.OffsetFetch:             {1, 10},
	kmsg.FindCoordinator:         {0, 6},
	kmsg.JoinGroup:               {0, 9},
	kmsg.Heartbeat:               {0, 4},
	kmsg.LeaveGroup:              {0, 5},
	kmsg.SyncGroup:               {0, 5},
	kmsg.DescribeGroups:          {0, 6},
	kmsg.ListGroups:              {0, 5},
	kmsg.ApiVersions:             {0, 4},
	kmsg.CreateTopics:            {2, 7},
	kmsg.DeleteTopics:            {1, 6},
	kmsg.DeleteRecords:           {0, 2},
	kmsg.InitProducerID:          {0, 5},
	kmsg.OffsetForLeaderEpoch:    {2, 4},
	kmsg.DescribeConfigs:         {1, 4},
	kmsg.AlterConfigs:            {0, 2},
	kmsg.DescribeLogDirs:         {1, 5},
	kmsg.CreatePartitions:        {0, 3},
	kmsg.DeleteGroups:            {0, 2},
	kmsg.ElectLeaders:            {0, 2},
	kmsg.IncrementalAlterConfigs: {0, 1},
	kmsg.OffsetDelete:            {0, 0},
	kmsg.DescribeCluster:         {0, 2},
	kmsg.DescribeProducers:       {0, 0},
	kmsg.ConsumerGroupHeartbeat:  {0, 1},
	kmsg.ConsumerGroupDescribe:   {0, 1},
	kmsg.ListConfigResources:     {0, 1},
	kmsg.DescribeTopicPartitions: {0, 0},
}

// each calls f for every version of a request.
func each(key kmsg.Key, f func(version int16)) {
	for v := offered[key].min; v <= offered[key].max; v++ {
		f(v)
	}
}

// from is each without the versions below first.
func from(first int16, key kmsg.Key, f func(version int16)) {
	for v := max(first, offered[key].min); v <= offered[key].max; v++ {
		f(v)
	}
}

// latest returns the highest version of a request.
func latest(key kmsg.Key) int16 { return offered[key].max }

// badNames are topic names that no topic may have.
var badNames = []struct{ what, name string }{
	{"empty", ""},
	{"one dot", "."},
	{"two dots", ".."},
	{"a blank", "bad name"},
	{"a slash", "bad/name"},
	{"a letter outside ASCII", "naïve"},
	{"250 bytes", strings.Repeat("a", 250)},
}

// apiVersions asks what is served, and what happens to what is not.
func apiVersions(s *session) {
	ask := func(what, name, version string, v int16) {
		req := kmsg.NewPtrApiVersionsRequest()
		req.ClientSoftwareName, req.ClientSoftwareVersion = name, version
		s.ask(what, req, v)
	}
	each(kmsg.ApiVersions, func(v int16) { ask("plain", "kafkadiff", "1.0", v) })
	ask("newer than known", "kafkadiff", "1.0", 99)
	ask("after one that is newer than known", "kafkadiff", "1.0", 0)
	for _, c := range []struct{ what, name, version string }{
		{"software name empty", "", "1.0"},
		{"software version empty", "kafkadiff", ""},
		{"software name with a blank", "kafka diff", "1.0"},
		{"software version with a slash", "kafkadiff", "1/0"},
		{"software name that ends with a dash", "kafkadiff-", "1.0"},
		{"software name that begins with a dot", ".kafkadiff", "1.0"},
		{"software name and version with all that is allowed", "Kafka-diff.2", "v1.0-rc.1"},
		{"software name of one letter", "k", "1"},
	} {
		from(3, kmsg.ApiVersions, func(v int16) { ask(c.what, c.name, c.version, v) })
	}
	unserved(s)
	malformed(s)
}

// unserved sends requests of versions, and of keys, that nobody serves.
func unserved(s *session) {
	for _, key := range slices.Sorted(maps.Keys(offered)) {
		if key != kmsg.ApiVersions {
			s.ask("newer than known", kmsg.RequestForKey(int16(key)), latest(key)+50)
		}
	}
	s.ask("older than served", kmsg.NewPtrProduceRequest(), 2)
	s.ask("older than served", kmsg.NewPtrFetchRequest(), 3)
	s.ask("older than served", kmsg.NewPtrListOffsetsRequest(), 0)
	s.ask("older than served", kmsg.NewPtrCreateTopicsRequest(), 1)
	s.ask("older than served", kmsg.NewPtrDeleteTopicsRequest(), 0)
	s.ask("older than served", kmsg.NewPtrOffsetForLeaderEpochRequest(), 1)
	s.ask("older than served", kmsg.NewPtrDescribeConfigsRequest(), 0)
	s.ask("older than served", kmsg.NewPtrDescribeLogDirsRequest(), 0)
	s.ask("negative version", kmsg.NewPtrMetadataRequest(), -1)
	for _, key := range []int16{-1, 999, 32767} {
		w := s.connection()
		if _, err := w.send(key, 0, false, nil); err != nil {
			s.fail("key %d: %w", key, err)
		}
		_, _, err := w.receive()
		s.hangUp()
		s.record(fmt.Sprintf("unknown key %d", key), closedOr(err))
	}
}

func closedOr(err error) string {
	if err != nil {
		return "connection closed"
	}
	return "an answer"
}

// malformed sends bodies that are cut off, or too long.
func malformed(s *session) {
	for _, key := range slices.Sorted(maps.Keys(offered)) {
		each(key, func(v int16) {
			req := kmsg.RequestForKey(int16(key))
			req.SetVersion(v)
			if body := req.AppendTo(nil); len(body) > 0 {
				s.askRaw("body without its last byte", req, body[:len(body)-1], nil)
			}
		})
	}
	req := kmsg.NewPtrMetadataRequest()
	req.Topics = []kmsg.MetadataRequestTopic{}
	req.SetVersion(9)
	s.askRaw("body with a byte too many", req, append(req.AppendTo(nil), 0), nil)
	req.SetVersion(1)
	s.askRaw("array of 2^31-1 topics", req, []byte{0x7f, 0xff, 0xff, 0xff}, nil)
	s.askRaw("array of -2 topics", kmsg.RequestForKey(3), []byte{0xff, 0xff, 0xff, 0xfe}, nil)
}

// describeCluster asks for the nodes.
func describeCluster(s *session) {
	each(kmsg.DescribeCluster, func(v int16) {
		req := kmsg.NewPtrDescribeClusterRequest()
		s.ask("plain", req, v)
		req.IncludeClusterAuthorizedOperations = true
		s.ask("with authorized operations", req, v)
	})
	from(1, kmsg.DescribeCluster, func(v int16) {
		for _, endpoint := range []int8{0, 2, 3} {
			req := kmsg.NewPtrDescribeClusterRequest()
			req.EndpointType = endpoint
			s.ask(fmt.Sprintf("endpoint type %d", endpoint), req, v)
		}
	})
	req := kmsg.NewPtrDescribeClusterRequest()
	req.IncludeFencedBrokers = true
	s.ask("with fenced brokers", req, 2)
}
