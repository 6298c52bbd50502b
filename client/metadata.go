package client

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/flotilla-log/flotilla/internal/errcode"
	"github.com/flotilla-log/flotilla/wire/frame"
	"github.com/flotilla-log/flotilla/wire/pb"
)

// unknownTopicAnswers is how many times in a row servers must say that there is
// no such topic before it is taken for missing: a topic just created reaches the
// nodes one after the other. A node that says that it may be behind says nothing
// of the topic.
const unknownTopicAnswers = 5

// TopicID tells a topic from another that had the same name before.
type TopicID [16]byte

func (id TopicID) String() string {
	return fmt.Sprintf("%x-%x-%x-%x-%x", id[0:4], id[4:6], id[6:8], id[8:10], id[10:])
}

// topic is what is known of a topic. It is immutable.
type topic struct {
	name    string
	id      TopicID
	leaders []leader // by partition
	err     error    // then nothing else is known
	misses  int      // how many times in a row there was no such topic
}

// missing reports that servers have said for good, or often enough, that there is
// no such topic, or that it is not for us. Until then they are asked again.
func (t *topic) missing() bool {
	return t.err != nil && (t.misses >= unknownTopicAnswers || !retriable(t.err))
}

// failure is what was heard last of a topic of which nothing is known.
func (t *topic) failure() error {
	if t == nil {
		return nil
	}
	return &PartitionError{Topic: t.name, Partition: -1, Offset: -1, Err: t.err}
}

// leader is who leads a partition; node -1: nobody that we know of.
type leader struct {
	node  int32
	epoch int32
}

// image is what is known of the cluster. It is immutable.
type image struct {
	nodes   map[int32]string // address by node id
	topics  map[string]*topic
	answers int   // refreshes that were answered
	err     error // of the last refresh
}

// hopeless reports an error that shows, before any node of the cluster has
// answered, that the addresses given are those of something else.
func (img *image) hopeless(err error) bool {
	if len(img.nodes) > 0 {
		return false
	}
	code, _ := CodeOf(err)
	return errors.Is(err, frame.ErrForeign) || errors.Is(err, frame.ErrVersion) || code == errcode.InconsistentClusterID
}

// metadata holds the newest image and the topics to keep up with.
type metadata struct {
	image   atomic.Pointer[image]
	refresh chan struct{} // 1-buffered: somebody needs newer

	mu      sync.Mutex
	wanted  map[string]bool
	changed chan struct{} // closed and replaced with each new image

	askedElsewhere time.Time // since an answer was overdue
}

func (m *metadata) init() {
	m.image.Store(&image{nodes: map[int32]string{}, topics: map[string]*topic{}})
	m.refresh = make(chan struct{}, 1)
	m.wanted = make(map[string]bool)
	m.changed = make(chan struct{})
}

// watch returns the image and a channel that is closed when there is a newer.
func (m *metadata) watch() (*image, <-chan struct{}) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.image.Load(), m.changed
}

// want adds a topic to those that each refresh asks for.
func (m *metadata) want(name string) {
	m.mu.Lock()
	m.wanted[name] = true
	m.mu.Unlock()
}

// update replaces the image by what edit makes of a copy.
func (m *metadata) update(edit func(*image)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	next := *m.image.Load()
	next.nodes, next.topics = maps.Clone(next.nodes), maps.Clone(next.topics)
	edit(&next)
	m.image.Store(&next)
	close(m.changed)
	m.changed = make(chan struct{})
}

// topic returns what is known of a topic, and asks, waits and asks again if
// that is nothing yet. A topic that the servers do not know is an error once
// several in a row have said so.
func (c *Client) topic(ctx context.Context, name string) (*topic, error) {
	if t := c.meta.image.Load().topics[name]; t != nil && t.err == nil {
		return t, nil
	}
	c.meta.want(name)
	first := c.meta.image.Load().answers
	for {
		img, changed := c.meta.watch()
		t := img.topics[name]
		switch {
		case t == nil:
		case t.err == nil:
			return t, nil
		case img.answers > first && t.missing():
			return nil, t.failure()
		}
		if img.hopeless(img.err) {
			return nil, fmt.Errorf("client: metadata: %w", img.err)
		}
		poke(c.meta.refresh)
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, errors.Join(ctx.Err(), img.err, t.failure())
		case <-c.ctx.Done():
			return nil, ErrClosed
		}
	}
}

// awaitPartitions returns once the metadata shows that many partitions of a topic
// that has them, or that it is gone. Nodes learn of them one after the other.
func (c *Client) awaitPartitions(ctx context.Context, name string, total int) error {
	ctx, cancel := context.WithTimeout(ctx, c.cfg.RequestTimeout)
	defer cancel()
	c.meta.want(name)
	first := c.meta.image.Load().answers
	for {
		img, changed := c.meta.watch()
		switch t := img.topics[name]; {
		case t == nil:
		case t.err == nil && len(t.leaders) >= total:
			return nil
		case img.answers > first && t.missing():
			return nil
		}
		if img.answers > first {
			c.links.next.Add(1) // another node may know more
		}
		poke(c.meta.refresh)
		select {
		case <-changed:
		case <-ctx.Done():
			return errors.Join(ctx.Err(), img.err)
		case <-c.ctx.Done():
			return ErrClosed
		}
	}
}

// refreshLoop asks for metadata when somebody needs it, and when it is old.
func (c *Client) refreshLoop() {
	failures := 0
	age := time.NewTimer(c.cfg.MetadataMaxAge)
	defer age.Stop()
	for {
		select {
		case <-c.meta.refresh:
		case <-age.C:
		case <-c.ctx.Done():
			return
		}
		if err := c.refreshNow(failures); err != nil {
			failures++
		} else {
			failures = 0
		}
		// However many need it, the servers are asked no faster than this.
		if !pause(c.ctx, c.backoff(max(failures, 1))) {
			return
		}
		age.Reset(c.cfg.MetadataMaxAge)
	}
}

// refreshNow asks one node about all wanted topics, after so many failures.
func (c *Client) refreshNow(failures int) error {
	c.meta.mu.Lock()
	names := slices.Sorted(maps.Keys(c.meta.wanted))
	c.meta.mu.Unlock()
	resp, err := c.askMetadata(c.ctx, c.anyLink(), &pb.MetadataRequest{Names: names}, c.patience(failures))
	if err != nil {
		c.links.next.Add(1) // another node the next time
		c.meta.update(func(img *image) { img.err = err })
		return err
	}
	c.learn(resp)
	if incomplete(resp) {
		c.links.next.Add(1) // another node may know more, the next time
	}
	return nil
}

// incomplete reports an answer that leaves something open: a node that is cut
// off from the others has such answers, and does not know that they have better.
func incomplete(resp *pb.MetadataResponse) bool {
	return slices.ContainsFunc(resp.Topics, func(t *pb.Topic) bool { return t.Error != nil || slices.Contains(t.Leaders, -1) })
}

// askMetadata sends a request, and more for what did not fit in one response,
// each of which may take so long.
func (c *Client) askMetadata(ctx context.Context, l *link, req *pb.MetadataRequest, patience time.Duration) (*pb.MetadataResponse, error) {
	all := new(pb.MetadataResponse)
	for {
		resp := new(pb.MetadataResponse)
		callCtx, cancel := context.WithTimeout(ctx, patience)
		_, sent, err := l.do(callCtx, &call{kind: frame.KindMetadata, req: req, resp: resp})
		cancel()
		if err != nil && ctx.Err() == nil {
			err = l.noAnswer(err, sent, patience)
		}
		if err != nil {
			return nil, err
		}
		n := len(resp.Topics)
		asked := len(req.Names) + len(req.TopicIds)
		if !req.All && n > asked || resp.More && n == 0 || !req.All && !resp.More && n != asked {
			return nil, fmt.Errorf("%w: %d topics of %d", ErrProtocol, n, asked)
		}
		all.ClusterId, all.Nodes = resp.ClusterId, resp.Nodes
		all.Topics = append(all.Topics, resp.Topics...)
		if !resp.More {
			return all, nil
		}
		if req.All {
			req = &pb.MetadataRequest{All: true, After: resp.Topics[n-1].Name}
			continue
		}
		named := min(n, len(req.Names))
		req = &pb.MetadataRequest{Names: req.Names[named:], TopicIds: req.TopicIds[n-named:]}
	}
}

// learn makes a new image from an answer to refreshNow.
func (c *Client) learn(resp *pb.MetadataResponse) {
	c.meta.update(func(img *image) {
		img.answers++
		img.err = nil
		img.meet(resp.Nodes)
		for _, pt := range resp.Topics {
			img.topics[pt.Name] = newTopic(pt, img.topics[pt.Name])
		}
	})
}

// meet takes over the nodes that an answer names, if it names some.
func (img *image) meet(nodes []*pb.Node) {
	if len(nodes) > 0 {
		clear(img.nodes)
	}
	for _, n := range nodes {
		img.nodes[n.Id] = n.Address
	}
}

// newTopic returns what pt says, except where old, which may be nil, is newer.
func newTopic(pt *pb.Topic, old *topic) *topic {
	t := &topic{name: pt.Name, err: fromServer(pt.Error)}
	if t.err == nil && (len(pt.TopicId) != len(t.id) || len(pt.Leaders) != len(pt.LeaderEpochs)) {
		t.err = fmt.Errorf("%w: topic %q with an id of %d bytes, %d leaders, %d epochs",
			ErrProtocol, pt.Name, len(pt.TopicId), len(pt.Leaders), len(pt.LeaderEpochs))
	}
	if t.err != nil {
		if old != nil {
			t.misses = old.misses
		}
		if code, _ := CodeOf(t.err); code != errcode.LeaderNotAvailable {
			t.misses++
		}
		if old != nil && old.err == nil && !t.missing() {
			kept := *old // one node that does not know it yet proves nothing
			kept.misses = t.misses
			return &kept
		}
		return t
	}
	copy(t.id[:], pt.TopicId)
	t.leaders = make([]leader, len(pt.Leaders))
	for i := range t.leaders {
		t.leaders[i] = leader{node: pt.Leaders[i], epoch: pt.LeaderEpochs[i]}
		// Nodes learn of a new leader one after the other: never go back.
		if old != nil && old.id == t.id && i < len(old.leaders) && old.leaders[i].epoch > t.leaders[i].epoch {
			t.leaders[i] = old.leaders[i]
		}
	}
	// Nor of new partitions, and none is ever taken away.
	if old != nil && old.id == t.id && len(old.leaders) > len(t.leaders) {
		t.leaders = append(t.leaders, old.leaders[len(t.leaders):]...)
	}
	return t
}

// misled takes note that an answer contradicts the image: it adopts the hint of
// a newer leader, if there is one, and asks for metadata.
func (c *Client) misled(name string, partition int32, err error) {
	poke(c.meta.refresh)
	var se *serverError
	if !errors.As(err, &se) || se.leader == nil || se.leader.Address == "" {
		return
	}
	hint := se.leader
	c.meta.update(func(img *image) {
		t := img.topics[name]
		if t == nil || int(partition) >= len(t.leaders) || t.leaders[partition].epoch >= hint.LeaderEpoch {
			return
		}
		next := *t
		next.leaders = slices.Clone(t.leaders)
		next.leaders[partition] = leader{node: hint.NodeId, epoch: hint.LeaderEpoch}
		img.topics[name] = &next
		img.nodes[hint.NodeId] = hint.Address
	})
}

// movesAway reports errors that mean: ask again who leads the partition.
func movesAway(err error) bool {
	code, ok := CodeOf(err)
	if !ok {
		return true // no answer at all
	}
	switch code {
	case errcode.NotLeaderOrFollower, errcode.FencedLeaderEpoch, errcode.UnknownLeaderEpoch,
		errcode.LeaderNotAvailable, errcode.UnknownTopicOrPartition, errcode.UnknownTopicID,
		errcode.InconsistentTopicID:
		return true
	}
	return false
}
