package main

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// step is one request of a scenario and what was answered.
type step struct {
	Step   string `json:"step"`
	Answer any    `json:"answer"`
}

// unplayable reports a server that does not do what a scenario needs.
type unplayable struct {
	addr string
	error
}

func (u unplayable) Unwrap() error { return u.error }

// fatal ends a scenario that cannot go on; run turns it into an error.
type fatal struct{ error }

// session runs one scenario against one server and keeps the answers.
type session struct {
	*names
	addr     string
	scenario string
	w        *wire
	steps    []step
	seen     map[string]bool // names of the steps
	settled  int             // marker topics created
	given    map[int64]int64 // producer ids, see made.of
	open     []*held         // to the end of the scenario
}

// run runs sc against the server at addr. It returns an unplayable if the server
// does not do what the scenario needs to be able to go on; wrong answers are no
// errors, they are recorded.
func run(addr string, sc scenario, now time.Time) (steps []step, err error) {
	s := &session{names: newNames(now), addr: addr, scenario: sc.name, seen: make(map[string]bool), given: make(map[int64]int64)}
	defer func() {
		if s.w != nil {
			s.w.conn.Close()
		}
		for _, h := range s.open {
			h.w.conn.Close()
		}
		switch r := recover().(type) {
		case nil:
		case fatal:
			steps, err = s.steps, unplayable{addr, fmt.Errorf("scenario %s after %d steps: %w", sc.name, len(s.steps), r.error)}
		default:
			panic(r)
		}
	}()
	s.learn()
	sc.play(s)
	return s.steps, nil
}

func (s *session) fail(format string, args ...any) {
	panic(fatal{fmt.Errorf("kafkadiff: "+format, args...)})
}

// connection returns the open connection, made anew if the server closed it.
func (s *session) connection() *wire {
	if s.w == nil {
		w, err := dial(s.addr)
		if err != nil {
			panic(fatal{err})
		}
		s.w = w
	}
	return s.w
}

func (s *session) hangUp() {
	if s.w != nil {
		s.w.conn.Close()
		s.w = nil
	}
}

// quiet sends req in the given version, and returns the answer, which is not
// recorded.
func (s *session) quiet(req kmsg.Request, version int16) kmsg.Response {
	req.SetVersion(version)
	resp, _, err := s.connection().roundTrip(req)
	if err != nil {
		s.fail("%s v%d: %w", kmsg.NameForKey(req.Key()), version, err)
	}
	s.learnMembers(resp)
	return resp
}

// ask sends req in the given version, records the answer as that to what, and
// returns it, or nil if the server closed the connection or answered nonsense.
func (s *session) ask(what string, req kmsg.Request, version int16) kmsg.Response {
	req.SetVersion(version)
	return s.askRaw(what, req, req.AppendTo(nil), nil)
}

// askRaw is ask with a body that req does not encode to. before, if there is
// one, sees the answer before it is recorded.
func (s *session) askRaw(what string, req kmsg.Request, body []byte, before func(kmsg.Response)) kmsg.Response {
	resp, exact, err := s.connection().roundTripRaw(req, body)
	if err != nil {
		s.hangUp()
	}
	return s.keep(stepName(what, req), resp, exact, err, before)
}

// stepName is the name of the step that a request is.
func stepName(what string, req kmsg.Request) string {
	return fmt.Sprintf("%s v%d %s", kmsg.NameForKey(req.Key()), req.GetVersion(), what)
}

// keep records what came of a request, and returns the answer, or nil if there is
// none.
func (s *session) keep(name string, resp kmsg.Response, exact bool, err error, before func(kmsg.Response)) kmsg.Response {
	switch {
	case errors.Is(err, errClosed):
		s.record(name, "connection closed")
		return nil
	case err != nil:
		s.record(name, err.Error())
		return nil
	}
	if before != nil {
		before(resp)
	}
	s.learnTopics(resp)
	s.learnMembers(resp)
	answer := s.canonical(resp).(map[string]any)
	if !exact {
		answer["~bytes"] = "not as the fields encode"
	}
	s.record(name, answer)
	return resp
}

// askBriefly is ask of what Kafka is known never to answer, since its handler
// throws: it does not wait for long.
func (s *session) askBriefly(what string, req kmsg.Request, version int16) {
	s.connection().patience = brief
	s.ask(what, req, version)
	if s.w != nil {
		s.w.patience = answerTimeout
	}
}

// brief is longer than a server takes that does answer.
const brief = 2 * time.Second

// askNothing sends req, which is to have no answer, records whether the next
// answer on the connection is that to a request sent after it.
func (s *session) askNothing(what string, req kmsg.Request, version int16) {
	req.SetVersion(version)
	name := stepName(what, req)
	w := s.connection()
	after := kmsg.NewPtrApiVersionsRequest()
	if _, err := w.send(req.Key(), version, req.IsFlexible(), req.AppendTo(nil)); err != nil {
		s.fail("%s: %w", name, err)
	}
	want, err := w.send(after.Key(), 0, false, after.AppendTo(nil))
	got := int32(-1)
	if err == nil {
		got, _, err = w.receive()
	}
	switch {
	case err != nil:
		s.hangUp()
		s.record(name, "connection closed")
	case got != want:
		s.hangUp()
		s.record(name, "an answer")
	default:
		s.record(name, "no answer")
	}
}

// record keeps an answer. Steps have names of their own within a scenario.
func (s *session) record(name string, answer any) {
	if s.seen[name] {
		s.fail("two steps are called %q", name)
	}
	s.seen[name] = true
	s.steps = append(s.steps, step{name, answer})
}

// learn asks for what the names need.
func (s *session) learn() {
	req := kmsg.NewPtrMetadataRequest()
	req.Topics = []kmsg.MetadataRequestTopic{}
	resp := s.quiet(req, 9).(*kmsg.MetadataResponse)
	if len(resp.Brokers) != 1 {
		s.fail("%d brokers, want one", len(resp.Brokers))
	}
	b := resp.Brokers[0]
	s.node, s.host, s.port = b.NodeID, b.Host, b.Port
	if resp.ClusterID != nil {
		s.clusterID = *resp.ClusterID
	}
}

// learnTopics learns the ids and epochs of what the server may just have created.
func (s *session) learnTopics(resp kmsg.Response) {
	switch resp := resp.(type) {
	case *kmsg.CreateTopicsResponse:
		for _, t := range resp.Topics {
			s.learnTopic(t.TopicID, t.Topic)
		}
	case *kmsg.MetadataResponse:
		for _, t := range resp.Topics {
			if t.Topic == nil || *t.Topic == "" {
				continue
			}
			s.learnTopic(t.TopicID, *t.Topic)
			for _, p := range t.Partitions {
				if p.LeaderEpoch >= 0 {
					s.epochs[p.LeaderEpoch] = true
				}
			}
		}
	}
}

// learnMembers learns the ids that members are given, and the first epoch of a group.
func (s *session) learnMembers(resp kmsg.Response) {
	switch resp := resp.(type) {
	case *kmsg.JoinGroupResponse:
		s.member(resp.MemberID)
	case *kmsg.ConsumerGroupHeartbeatResponse:
		if s.first == 0 && resp.MemberEpoch > 0 {
			s.first = resp.MemberEpoch
		}
	}
}

func (s *session) learnTopic(id [16]byte, name string) {
	if _, known := s.topics[id]; !known && id != [16]byte{} {
		s.topics[id] = name
	}
}

// topic returns the name of a topic of this scenario, so that scenarios share a
// server without seeing each other's.
func (s *session) topic(name string) string { return s.scenario + "-" + name }

// create makes a topic of the scenario, waits until it can be used, and returns
// its name and id.
func (s *session) create(name string, partitions int32, configs ...string) (string, [16]byte) {
	t := kmsg.NewCreateTopicsRequestTopic()
	t.Topic, t.NumPartitions, t.ReplicationFactor = s.topic(name), partitions, 1
	t.Configs = createConfigs(configs)
	req := kmsg.NewPtrCreateTopicsRequest()
	req.TimeoutMillis = 10_000
	req.Topics = append(req.Topics, t)
	resp := s.quiet(req, 7).(*kmsg.CreateTopicsResponse)
	if e := resp.Topics[0].ErrorCode; e != 0 {
		message := ""
		if m := resp.Topics[0].ErrorMessage; m != nil {
			message = *m
		}
		s.fail("create %s: error %d %s", t.Topic, e, message)
	}
	return t.Topic, s.await(t.Topic)
}

func createConfigs(pairs []string) []kmsg.CreateTopicsRequestTopicConfig {
	var out []kmsg.CreateTopicsRequestTopicConfig
	for _, p := range pairs {
		k, v, _ := strings.Cut(p, "=")
		c := kmsg.NewCreateTopicsRequestTopicConfig()
		c.Name, c.Value = k, &v
		out = append(out, c)
	}
	return out
}

// await waits until every partition of a topic has a leader that answers, and
// learns the topic's id and epochs.
func (s *session) await(topic string) [16]byte {
	for range awaitTries {
		if id, ok := s.look(topic); ok {
			return id
		}
		time.Sleep(awaitEvery)
	}
	s.fail("topic %s has no leader after %v", topic, awaitTries*awaitEvery)
	return [16]byte{}
}

// A change is visible within at most awaitTries*awaitEvery, or the scenario fails.
const (
	awaitTries = 500
	awaitEvery = 20 * time.Millisecond
)

func (s *session) look(topic string) (id [16]byte, ok bool) {
	t := s.metadata(topic)
	if t.ErrorCode != 0 || len(t.Partitions) == 0 {
		return id, false
	}
	list := kmsg.NewListOffsetsRequestTopic()
	list.Topic = topic
	for _, p := range t.Partitions {
		if p.ErrorCode != 0 || p.Leader < 0 {
			return id, false
		}
		lp := kmsg.NewListOffsetsRequestTopicPartition()
		lp.Partition, lp.Timestamp = p.Partition, -1
		list.Partitions = append(list.Partitions, lp)
	}
	req := kmsg.NewPtrListOffsetsRequest()
	req.ReplicaID = -1
	req.Topics = append(req.Topics, list)
	for _, p := range s.quiet(req, 4).(*kmsg.ListOffsetsResponse).Topics[0].Partitions {
		if p.ErrorCode != 0 {
			return id, false
		}
	}
	for _, p := range t.Partitions {
		s.epochs[p.LeaderEpoch] = true
	}
	s.topics[t.TopicID] = topic
	return t.TopicID, true
}

// metadata returns what the server says of a topic, which it does not create.
func (s *session) metadata(topic string) kmsg.MetadataResponseTopic {
	req := kmsg.NewPtrMetadataRequest()
	mt := kmsg.NewMetadataRequestTopic()
	mt.Topic = &topic
	req.Topics = append(req.Topics, mt)
	resp := s.quiet(req, 12).(*kmsg.MetadataResponse)
	if len(resp.Topics) != 1 {
		s.fail("metadata of %s names %d topics", topic, len(resp.Topics))
	}
	return resp.Topics[0]
}

// awaitGone waits until a deleted topic is unknown.
func (s *session) awaitGone(topic string) {
	for range awaitTries {
		if s.metadata(topic).ErrorCode == 3 {
			return
		}
		time.Sleep(awaitEvery)
	}
	s.fail("topic %s is still there after %v", topic, awaitTries*awaitEvery)
}

// settle returns when what was asked before is done everywhere in the server:
// Kafka publishes changes of metadata in order, one after the other, so when the
// second of two new topics is seen, whatever precedes the first has been
// published to everyone.
func (s *session) settle() {
	for range 2 {
		s.settled++
		s.create(fmt.Sprintf("settle-%d", s.settled), 1)
	}
}

// unknownID is the id of no topic.
func unknownID(what string) (id [16]byte) {
	sum := sha256.Sum256([]byte(what))
	copy(id[:], sum[:])
	return id
}
