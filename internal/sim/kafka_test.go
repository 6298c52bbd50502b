package sim

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/flotilla-log/flotilla/replication/transport"
)

// kafkaTimeout bounds what a Kafka client waits for.
const kafkaTimeout = 10 * time.Second

// kafkaClient returns a Kafka client of some nodes, which tries nothing twice,
// and sends records where they say.
func (fl *fleet) kafkaClient(of ...*member) *kgo.Client {
	var addrs []string
	for _, m := range of {
		addrs = append(addrs, m.addr())
	}
	c, err := kgo.NewClient(
		kgo.SeedBrokers(addrs...), kgo.DisableIdempotentWrite(), kgo.RecordRetries(0), kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.Dialer(func(ctx context.Context, _, addr string) (net.Conn, error) { return fl.net.Dial(ctx, "kafka", addr) }),
	)
	if err != nil {
		panic(err) // of options that do not depend on anything
	}
	return c
}

// ask asks one node, and takes it for a problem if it does not answer.
func ask[R kmsg.Response](fl *fleet, m *member, req kmsg.Request) (resp R, ok bool) {
	c := fl.kafkaClient(m)
	defer c.Close()
	ctx, cancel := context.WithTimeout(context.Background(), kafkaTimeout)
	defer cancel()
	got, err := c.SeedBrokers()[0].Request(ctx, req)
	if err != nil {
		fl.problem("%s of node %d: %v", kmsg.NameForKey(req.Key()), m.id, err)
		return resp, false
	}
	return got.(R), true
}

// kafkaTopic asks one node for a topic.
func (fl *fleet) kafkaTopic(m *member, name string, create bool) (t kmsg.MetadataResponseTopic, ok bool) {
	req := kmsg.NewPtrMetadataRequest()
	req.AllowAutoTopicCreation = create
	req.Topics = []kmsg.MetadataRequestTopic{{Topic: &name}}
	resp, ok := ask[*kmsg.MetadataResponse](fl, m, req)
	if !ok || len(resp.Topics) != 1 {
		return t, false
	}
	return resp.Topics[0], true
}

// createKafka has one node create a topic of a partition, and returns the code
// that it answers.
func (fl *fleet) createKafka(m *member, name string, configs map[string]string) error {
	req := kmsg.NewPtrCreateTopicsRequest()
	rt := kmsg.NewCreateTopicsRequestTopic()
	rt.Topic, rt.NumPartitions, rt.ReplicationFactor = name, 1, -1
	for k, v := range configs {
		rt.Configs = append(rt.Configs, kmsg.CreateTopicsRequestTopicConfig{Name: k, Value: &v})
	}
	req.Topics, req.TimeoutMillis = append(req.Topics, rt), int32(kafkaTimeout.Milliseconds())
	resp, ok := ask[*kmsg.CreateTopicsResponse](fl, m, req)
	if !ok || len(resp.Topics) != 1 {
		return errors.New("no answer")
	}
	return kerr.ErrorForCode(resp.Topics[0].ErrorCode)
}

// muster starts all nodes, and returns the one that leads the metadata, first,
// and the others.
func (fl *fleet) muster() (all []*member, ok bool) {
	if !fl.startAll() {
		return nil, false
	}
	time.Sleep(settle)
	for _, m := range fl.members {
		if slices.Contains(m.node.Leads(), transport.ShardID(0)) {
			all = slices.Insert(all, 0, m)
		} else {
			all = append(all, m)
		}
	}
	if !slices.Contains(all[0].node.Leads(), transport.ShardID(0)) {
		fl.problem("nobody leads the metadata")
		return nil, false
	}
	return all, true
}

// TestKafkaController: any node has the one that leads the metadata create a topic. One
// that is cut off from it answers NOT_CONTROLLER, and nothing is created, then or later.
// A topic that is created because a client asks for it can be asked for at any node, too:
// all nodes know it then, and there is one.
func TestKafkaController(t *testing.T) {
	t.Parallel()
	problems, tr, _ := runFleet(t, 1, func(fl *fleet) {
		all, ok := fl.muster()
		if !ok {
			return
		}
		controller, others := all[0], all[1:]
		for _, m := range all {
			name := fmt.Sprint("made-", m.id)
			if err := fl.createKafka(m, name, nil); err != nil {
				fl.problem("node %d, CreateTopics: %v", m.id, err)
			}
			if topic, ok := fl.kafkaTopic(m, name, false); ok && topic.ErrorCode != 0 {
				fl.problem("node %d, %s: code %d", m.id, name, topic.ErrorCode)
			}
		}
		for _, m := range all {
			if err := fl.createKafka(m, fmt.Sprint("made-", others[0].id), nil); !errors.Is(err, kerr.TopicAlreadyExists) {
				fl.problem("node %d, CreateTopics again: %v, want TOPIC_ALREADY_EXISTS", m.id, err)
			}
		}

		fl.isolate(others[0], true, true)
		time.Sleep(settle)
		if err := fl.createKafka(others[0], "lost", nil); !errors.Is(err, kerr.NotController) {
			fl.problem("node %d, cut off, CreateTopics: %v, want NOT_CONTROLLER", others[0].id, err)
		}
		fl.isolate(others[0], false, false)
		time.Sleep(settle)
		if topic, ok := fl.kafkaTopic(controller, "lost", false); ok && kerr.ErrorForCode(topic.ErrorCode) != error(kerr.UnknownTopicOrPartition) {
			fl.problem("topic lost: code %d, want it not to be there", topic.ErrorCode)
		}

		asked, ok := fl.kafkaTopic(others[0], "asked", true)
		if !ok || asked.ErrorCode != 0 {
			fl.problem("node %d, auto-creation: code %d", others[0].id, asked.ErrorCode)
		}
		for _, m := range []*member{others[1], controller} {
			if topic, ok := fl.kafkaTopic(m, "asked", true); ok && (topic.ErrorCode != 0 || topic.TopicID != asked.TopicID || len(topic.Partitions) != 1) {
				fl.problem("node %d: code %d, topic %x, want %x", m.id, topic.ErrorCode, topic.TopicID, asked.TopicID)
			}
		}
		fl.healthy()
	})
	report(t, 1, problems, tr)
}

// TestKafkaNoTopic: each node says of a topic that there is none, also those that do not
// lead the metadata: clients take anything else for something that passes, and ask
// until they give up.
func TestKafkaNoTopic(t *testing.T) {
	t.Parallel()
	problems, tr, _ := runFleet(t, 1, func(fl *fleet) {
		all, ok := fl.muster()
		if !ok {
			return
		}
		name := "none"
		byID := kmsg.NewPtrMetadataRequest()
		byID.Topics = []kmsg.MetadataRequestTopic{{TopicID: [16]byte{1}}}
		described := kmsg.NewPtrDescribeTopicPartitionsRequest()
		described.Topics = []kmsg.DescribeTopicPartitionsRequestTopic{{Topic: name}}
		described.ResponsePartitionLimit = 10
		configs := kmsg.NewPtrDescribeConfigsRequest()
		configs.Resources = []kmsg.DescribeConfigsRequestResource{{ResourceType: kmsg.ConfigResourceTypeTopic, ResourceName: name}}
		for _, m := range all {
			codes := make(map[string]int16)
			if topic, ok := fl.kafkaTopic(m, name, false); ok {
				codes["Metadata"] = topic.ErrorCode
			}
			if resp, ok := ask[*kmsg.DescribeTopicPartitionsResponse](fl, m, described); ok && len(resp.Topics) == 1 {
				codes["DescribeTopicPartitions"] = resp.Topics[0].ErrorCode
			}
			if resp, ok := ask[*kmsg.DescribeConfigsResponse](fl, m, configs); ok && len(resp.Resources) == 1 {
				codes["DescribeConfigs"] = resp.Resources[0].ErrorCode
			}
			for _, request := range []string{"Metadata", "DescribeTopicPartitions", "DescribeConfigs"} {
				if code, ok := codes[request]; !ok || kerr.ErrorForCode(code) != error(kerr.UnknownTopicOrPartition) {
					fl.problem("node %d, %s: code %d, answered: %t; want UNKNOWN_TOPIC_OR_PARTITION", m.id, request, code, ok)
				}
			}
			if resp, ok := ask[*kmsg.MetadataResponse](fl, m, byID); !ok || len(resp.Topics) != 1 || kerr.ErrorForCode(resp.Topics[0].ErrorCode) != error(kerr.UnknownTopicID) {
				fl.problem("node %d, Metadata by an id: %+v, want UNKNOWN_TOPIC_ID", m.id, resp)
			}
		}
		fl.healthy()
	})
	report(t, 1, problems, tr)
}

// replicaLag is for longer than which a voter that lacks records does not count as
// in sync: replica.lag.time.max, by default.
const replicaLag = 30 * time.Second

// musterInsync is muster with a topic of one partition that wants all three replicas in
// sync, and returns its leader too.
func (fl *fleet) musterInsync(topic string) (all []*member, leader *member, ok bool) {
	if all, ok = fl.muster(); !ok {
		return nil, nil, false
	}
	if err := fl.createKafka(all[0], topic, map[string]string{"min.insync.replicas": "3"}); err != nil {
		fl.problem("CreateTopics: %v", err)
		return nil, nil, false
	}
	time.Sleep(settle)
	known, ok := fl.kafkaTopic(all[0], topic, false)
	if !ok || len(known.Partitions) != 1 || known.Partitions[0].Leader < 1 {
		fl.problem("nobody leads: %+v", known)
		return nil, nil, false
	}
	return all, fl.members[known.Partitions[0].Leader-1], true
}

// TestKafkaMinInsync: a topic that wants all three replicas in sync takes no
// records when one of them has lagged for long, says so by Kafka's code, and
// appends nothing of what it refuses; when the replica has caught up, it takes
// records again.
func TestKafkaMinInsync(t *testing.T) {
	t.Parallel()
	problems, tr, _ := runFleet(t, 1, func(fl *fleet) {
		const topic = "wants3"
		_, leader, ok := fl.musterInsync(topic)
		if !ok {
			return
		}
		late := fl.members[leader.id%fleetNodes] // not the leader
		c := fl.kafkaClient(fl.members[:]...)
		defer c.Close()
		var taken int64
		produce := func() error {
			ctx, cancel := context.WithTimeout(context.Background(), kafkaTimeout)
			defer cancel()
			r, err := c.ProduceSync(ctx, &kgo.Record{Topic: topic, Value: fmt.Append(nil, taken)}).First()
			if err == nil && r.Offset != taken {
				fl.problem("record %d is at offset %d: something that was refused was appended", taken, r.Offset)
			}
			if err == nil {
				taken++
			}
			return err
		}
		if err := produce(); err != nil {
			fl.problem("with all replicas: %v", err)
		}
		fl.isolate(late, true, true)
		for range 3 {
			if err := produce(); err != nil {
				fl.problem("a replica that has just been cut off counts no more, after %d records: %v", taken, err)
			}
		}
		time.Sleep(replicaLag + 5*time.Second)
		for range 3 {
			if err := produce(); !errors.Is(err, kerr.NotEnoughReplicas) {
				fl.problem("with a replica that has been cut off for long, after %d records: %v", taken, err)
			}
		}
		fl.isolate(late, false, false)
		time.Sleep(settle)
		if err := produce(); err != nil {
			fl.problem("with all replicas again: %v", err)
		}
		fl.healthy()
	})
	report(t, 1, problems, tr)
}
