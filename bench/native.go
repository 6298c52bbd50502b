package bench

import (
	"context"
	"errors"

	"github.com/flotilla-log/flotilla/client"
	"github.com/flotilla-log/flotilla/internal/errcode"
)

// native is a cluster that is spoken to in its own protocol.
type native struct {
	cfg client.Config
	cl  *client.Client // for what is asked once
}

// NewNative returns a cluster that is reached through the native client. Dial,
// if there is one, is for what is asked once: sinks and sources, which have
// clients of their own, do without.
func NewNative(cfg client.Config) (Cluster, error) {
	cl, err := client.New(cfg)
	if err != nil {
		return nil, err
	}
	cfg.Dial = nil
	return &native{cfg: cfg, cl: cl}, nil
}

func (n *native) Close() { _ = n.cl.Close() }

func (n *native) OpenTopic(ctx context.Context, name string, partitions int32) (OpenedTopic, error) {
	admin := n.cl.Admin()
	_, err := admin.CreateTopic(ctx, client.TopicSpec{Name: name, Partitions: partitions})
	if code, _ := client.CodeOf(err); code != errcode.TopicAlreadyExists {
		return OpenedTopic{Partitions: partitions, Created: err == nil}, err
	}
	partitions, err = n.partitions(ctx, name)
	return OpenedTopic{Partitions: partitions}, err
}

// partitions returns how many partitions a topic has. One that does not exist
// is an error at once.
func (n *native) partitions(ctx context.Context, topic string) (int32, error) {
	_, topics, err := n.cl.Admin().Metadata(ctx, topic)
	if err == nil {
		err = topics[0].Err
	}
	if err != nil {
		return 0, err
	}
	return int32(len(topics[0].Leaders)), nil
}

func (n *native) DeleteTopic(ctx context.Context, name string) error {
	return n.cl.Admin().DeleteTopic(ctx, name)
}

func (n *native) Spans(ctx context.Context, topic string) ([]Span, error) {
	// Offsets would wait for the topic to come into being.
	if _, err := n.partitions(ctx, topic); err != nil {
		return nil, err
	}
	admin := n.cl.Admin()
	from, err := admin.Offsets(ctx, topic, client.Earliest)
	if err != nil {
		return nil, err
	}
	until, err := admin.Offsets(ctx, topic, client.Latest)
	if err != nil {
		return nil, err
	}
	// Partitions may have been added between the two questions.
	spans := make([]Span, min(len(from), len(until)))
	for p := range spans {
		spans[p] = Span{Topic: topic, Partition: int32(p), From: from[p], Until: until[p]}
	}
	return spans, nil
}

// nativeSink is a producer with a client of its own.
type nativeSink struct {
	*client.Producer
	cl *client.Client
}

func (n *native) NewSink(cfg SinkConfig) (ClosingSink, error) {
	cl, err := client.New(n.cfg)
	if err != nil {
		return nil, err
	}
	p, err := cl.NewProducer(cfg.ProducerConfig)
	if err != nil {
		_ = cl.Close()
		return nil, err
	}
	return &nativeSink{Producer: p, cl: cl}, nil
}

func (s *nativeSink) Close(ctx context.Context) error {
	return errors.Join(s.Producer.Close(ctx), s.cl.Close())
}

// nativeSource is a client whose consumers read.
type nativeSource struct {
	cfg client.ConsumerConfig
	cl  *client.Client
}

func (n *native) NewSource(cfg SourceConfig) (Source, error) {
	cl, err := client.New(n.cfg)
	if err != nil {
		return nil, err
	}
	return &nativeSource{cl: cl, cfg: client.ConsumerConfig{
		MaxFetchBytes: cfg.FetchBytes, MaxPartitionBytes: cfg.PartitionBytes, MaxPrefetchedBytes: cfg.PrefetchBytes,
	}}, nil
}

func (s *nativeSource) Close() { _ = s.cl.Close() }

func (s *nativeSource) Open(spans []Span) (Reader, error) {
	cfg := s.cfg
	for _, span := range spans {
		cfg.Assignments = append(cfg.Assignments, client.Assignment{Topic: span.Topic, Partition: span.Partition, Offset: span.From})
	}
	co, err := s.cl.NewConsumer(cfg)
	if err != nil {
		return nil, err
	}
	return &nativeReader{co: co}, nil
}

// nativeReader is a consumer.
type nativeReader struct {
	co       *client.Consumer
	portions []Portion
}

func (r *nativeReader) Close() { _ = r.co.Close() }

func (r *nativeReader) Poll(ctx context.Context) ([]Portion, error) {
	got, err := r.co.Poll(ctx)
	if err != nil {
		return nil, err
	}
	r.portions = r.portions[:0]
	for i := range got {
		f := &got[i]
		if f.Err != nil {
			return nil, f.Err
		}
		next, err := r.co.Position(f.Topic, f.Partition)
		if err != nil {
			return nil, err
		}
		r.portions = append(r.portions, Portion{Topic: f.Topic, Partition: f.Partition, Next: next, Records: f.Records()})
	}
	return r.portions, nil
}
