package bench

import (
	"context"
	"errors"
	"fmt"
	"net"
	"runtime/debug"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/flotilla-log/flotilla/client"
	"github.com/flotilla-log/flotilla/internal/errcode"
)

// KafkaConfig is how a cluster is reached in Kafka's protocol.
type KafkaConfig struct {
	Bootstrap []string // host:port of some servers
	ClientID  string

	// Timeout is how long to wait for the answer to what is asked once; default
	// client.DefaultRequestTimeout.
	Timeout time.Duration

	// AnswerTimeout is how long a server may leave a request without an answer before
	// its connection is given up; default the client's own: 20 s for a Produce, 10 s
	// for most others.
	AnswerTimeout time.Duration

	// Dial, if not nil, opens the connections for what is asked once. Sinks and
	// sources do without.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
}

// leaderPoll is how long to wait before it is asked again whether a new topic
// has its leaders.
const leaderPoll = 20 * time.Millisecond

const franzGo = "github.com/twmb/franz-go"

// KafkaClient returns the name and version of the client that NewKafka uses.
func KafkaClient() string {
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, m := range info.Deps {
			if m.Path == franzGo {
				return "franz-go " + m.Version
			}
		}
	}
	return "franz-go"
}

// kafka is a cluster that is spoken to in Kafka's protocol, whoever made it.
type kafka struct {
	cfg   KafkaConfig
	cl    *kgo.Client // for what is asked once
	admin *kadm.Client
}

// NewKafka returns a cluster that is reached through franz-go. It connects to
// nothing yet.
func NewKafka(cfg KafkaConfig) (Cluster, error) {
	if len(cfg.Bootstrap) == 0 {
		return nil, errors.New("bench: no bootstrap address")
	}
	if cfg.Timeout == 0 {
		cfg.Timeout = client.DefaultRequestTimeout
	}
	k := &kafka{cfg: cfg}
	opts := k.options()
	if cfg.Dial != nil {
		opts = append(opts, kgo.Dialer(cfg.Dial))
	}
	var err error
	if k.cl, err = kgo.NewClient(opts...); err != nil {
		return nil, fmt.Errorf("bench: %w", err)
	}
	k.admin = kadm.NewClient(k.cl)
	k.admin.SetTimeoutMillis(int32(cfg.Timeout / time.Millisecond))
	return k, nil
}

// options are those of every client.
func (k *kafka) options() []kgo.Opt {
	opts := []kgo.Opt{
		kgo.SeedBrokers(k.cfg.Bootstrap...), kgo.ClientID(k.cfg.ClientID),
		kgo.RetryTimeout(k.cfg.Timeout), kgo.DisableClientMetrics(),
	}
	if half := k.cfg.AnswerTimeout / 2; half > 0 { // what the server is given, and what is waited beyond that
		opts = append(opts, kgo.ProduceRequestTimeout(half), kgo.RequestTimeoutOverhead(half))
	}
	return opts
}

func (k *kafka) Close() { k.cl.Close() }

func (k *kafka) OpenTopic(ctx context.Context, name string, partitions int32) (OpenedTopic, error) {
	ctx, cancel := context.WithTimeout(ctx, k.cfg.Timeout)
	defer cancel()
	const defaultReplicas = -1
	_, err := k.admin.CreateTopic(ctx, partitions, defaultReplicas, nil, name)
	if err != nil && !errors.Is(err, kerr.TopicAlreadyExists) {
		return OpenedTopic{}, fmt.Errorf("bench: create topic %q: %w", name, fromKafka(err))
	}
	opened := OpenedTopic{Created: err == nil}
	for {
		found, err := k.admin.ListTopics(ctx, name)
		if err != nil {
			return opened, fmt.Errorf("bench: metadata of topic %q: %w", name, fromKafka(err))
		}
		topic := found[name]
		if topic.Err != nil && !kerr.IsRetriable(topic.Err) {
			return opened, fmt.Errorf("bench: metadata of topic %q: %w", name, fromKafka(topic.Err))
		}
		if topic.Err == nil && led(topic.Partitions) && (!opened.Created || len(topic.Partitions) == int(partitions)) {
			opened.Partitions = int32(len(topic.Partitions))
			return opened, nil
		}
		if err := Sleep(ctx, leaderPoll); err != nil {
			return opened, fmt.Errorf("bench: topic %q: not every partition has a leader: %w", name, err)
		}
	}
}

// led reports whether there are partitions, and each has a leader.
func led(partitions kadm.PartitionDetails) bool {
	for _, p := range partitions {
		if p.Err != nil || p.Leader < 0 {
			return false
		}
	}
	return len(partitions) > 0
}

func (k *kafka) DeleteTopic(ctx context.Context, name string) error {
	ctx, cancel := context.WithTimeout(ctx, k.cfg.Timeout)
	defer cancel()
	if _, err := k.admin.DeleteTopic(ctx, name); err != nil {
		return fmt.Errorf("bench: delete topic %q: %w", name, fromKafka(err))
	}
	return nil
}

func (k *kafka) Spans(ctx context.Context, topic string) ([]Span, error) {
	ctx, cancel := context.WithTimeout(ctx, k.cfg.Timeout)
	defer cancel()
	from, err := listOffsets(ctx, topic, k.admin.ListStartOffsets)
	if err != nil {
		return nil, err
	}
	until, err := listOffsets(ctx, topic, k.admin.ListEndOffsets)
	if err != nil {
		return nil, err
	}
	var spans []Span
	for p, end := range until[topic] {
		// Partitions may have been added between the two questions.
		if begin, ok := from.Lookup(topic, p); ok {
			spans = append(spans, Span{Topic: topic, Partition: p, From: begin.Offset, Until: end.Offset})
		}
	}
	slices.SortFunc(spans, func(a, b Span) int { return int(a.Partition - b.Partition) })
	return spans, nil
}

// listOffsets asks until ctx is over while the answer is one to ask again about: who
// leads a partition of a new topic may have been told before it knows.
func listOffsets(ctx context.Context, topic string, list func(context.Context, ...string) (kadm.ListedOffsets, error)) (kadm.ListedOffsets, error) {
	for {
		listed, err := list(ctx, topic)
		err = errors.Join(err, listed.Error())
		if err == nil {
			return listed, nil
		}
		if !errors.Is(err, kerr.NotLeaderForPartition) && !errors.Is(err, kerr.LeaderNotAvailable) || Sleep(ctx, leaderPoll) != nil {
			return nil, fmt.Errorf("bench: offsets of topic %q: %w", topic, fromKafka(err))
		}
	}
}

// answerError is an error of franz-go that stems from a server's answer.
type answerError struct {
	code *errcode.Error
	err  error
}

func (e *answerError) Error() string   { return e.err.Error() }
func (e *answerError) Unwrap() []error { return []error{e.code, e.err} }

// fromKafka returns err, with the code of the server's answer in its chain if
// it stems from one.
func fromKafka(err error) error {
	var answer *kerr.Error
	if !errors.As(err, &answer) {
		return err
	}
	return &answerError{code: &errcode.Error{Code: errcode.Code(answer.Code)}, err: err}
}
