package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"path/filepath"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/flotilla-log/flotilla/internal/peer"
)

const (
	leaveTopic      = "leaves"
	leavePartitions = 12
	leaveMembers    = 3
	leaveEvery      = 5 * time.Millisecond // a record of each partition
	leavePatience   = time.Minute          // for a group to settle
	calm            = 2500 * time.Millisecond
)

// leave has members leave a group on each server in each protocol, in turns.
func (o options) leave(ctx context.Context, dir string, stderr io.Writer) (rows []leaveRow, err error) {
	ports, err := peer.FreePorts(3)
	if err != nil {
		return nil, err
	}
	servers := []*peer.Server{peer.Flotilla(o.binary, filepath.Join(dir, "leaves"), ports[0])}
	if o.jars != "" {
		servers = append(servers, peer.Kafka(o.script, o.jars, filepath.Join(dir, "kafka"), ports[1]))
	}
	for _, s := range servers {
		if err := s.Start(ctx, dir); err != nil {
			return nil, err
		}
		defer func() { err = errors.Join(err, s.Stop()) }()
		if err := openTopic(ctx, s.Addr, leaveTopic, leavePartitions); err != nil {
			return nil, fmt.Errorf("%s: %w", s.Name, err)
		}
	}
	if o.plot != "" {
		fmt.Fprintln(stderr, "a member leaves, and comes back")
		if err := plot(ctx, servers[0], o.plot); err != nil {
			return nil, err
		}
	}
	for _, protocol := range protocols {
		if o.leaves == 0 {
			break
		}
		for _, s := range servers {
			fmt.Fprintf(stderr, "%d members leave %s, %s\n", o.leaves, s.Name, protocol)
			row, err := o.leaveOne(ctx, s, protocol)
			if err != nil {
				return rows, fmt.Errorf("%s, %s: %w", s.Name, protocol, err)
			}
			rows = append(rows, row)
		}
	}
	return rows, nil
}

// seen is who consumed a record, and when.
type seen struct {
	member    int
	partition int32
	at        time.Time
}

// party is a group, and who produces for it.
type party struct {
	address, protocol string
	records           chan seen
	running           context.Context
	members           [leaveMembers]*kgo.Client
	consuming         [leaveMembers]*sync.WaitGroup
	owner             [leavePartitions]int // who consumed the partition last
}

func (o options) leaveOne(ctx context.Context, s *peer.Server, protocol string) (leaveRow, error) {
	row := leaveRow{Server: s.Name, Protocol: protocol}
	// Members hear of a change with a heartbeat, so it matters where in its interval a
	// leave falls: anywhere, and for each server at the same.
	chance := rand.New(rand.NewPCG(1, 1))
	return row, inParty(ctx, s, protocol, func(p *party) error {
		for n := range o.leaves {
			if err := p.settles(calm + time.Duration(chance.Int64N(int64(2*calm)))); err != nil {
				return err
			}
			who := n % leaveMembers
			wait, err := p.without(who)
			if err != nil {
				return err
			}
			row.Waits = append(row.Waits, wait)
			if err := p.joins(who); err != nil {
				return err
			}
		}
		return nil
	})
}

// inParty calls do with a group all of whose members have been told to join.
func inParty(ctx context.Context, s *peer.Server, protocol string, do func(*party) error) error {
	running, end := context.WithCancel(ctx)
	p := &party{address: s.Addr, protocol: protocol, records: make(chan seen, 1<<16), running: running}
	producer, err := kgo.NewClient(kgo.SeedBrokers(s.Addr), kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ProducerLinger(0))
	if err != nil {
		end()
		return err
	}
	var producing sync.WaitGroup
	producing.Go(func() { produce(running, producer) })
	defer func() {
		for i := range p.members {
			p.leaves(i)
		}
		end()
		producing.Wait()
		producer.Close()
	}()
	for i := range p.members {
		if err := p.joins(i); err != nil {
			return err
		}
	}
	return do(p)
}

// produce sends a record to each partition, again and again.
func produce(ctx context.Context, cl *kgo.Client) {
	tick := time.NewTicker(leaveEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		for i := range int32(leavePartitions) {
			cl.Produce(ctx, &kgo.Record{Topic: leaveTopic, Partition: i, Value: []byte("tick")}, nil)
		}
	}
}

// joins has the i-th member join, and consume.
func (p *party) joins(i int) error {
	opts := []kgo.Opt{
		kgo.SeedBrokers(p.address), kgo.ConsumerGroup("leaves-" + p.protocol), kgo.ConsumeTopics(leaveTopic), kgo.ConsumeResetOffset(kgo.NewOffset().AtEnd()),
		kgo.Balancers(kgo.CooperativeStickyBalancer()),
	}
	if p.protocol == consumer {
		opts = append(opts, kgo.Balancers(kgo.StickyBalancer()), kgo.ServerSideBalancer())
	}
	cl, err := kgo.NewClient(opts...)
	if err != nil {
		return err
	}
	p.members[i], p.consuming[i] = cl, new(sync.WaitGroup)
	p.consuming[i].Go(func() {
		for {
			fetched := cl.PollFetches(p.running)
			if fetched.IsClientClosed() || p.running.Err() != nil {
				return
			}
			for it := fetched.RecordIter(); !it.Done(); {
				r := it.Next()
				select {
				case p.records <- seen{i, r.Partition, time.Now()}:
				case <-p.running.Done():
					return
				}
			}
		}
	})
	return nil
}

// leaves has the i-th member leave, if it is there, and returns when it has.
func (p *party) leaves(i int) {
	if p.members[i] == nil {
		return
	}
	p.members[i].Close() // says so to the coordinator
	p.consuming[i].Wait()
	p.members[i] = nil
}

// settles waits until all members have had as many partitions as each other for so long.
func (p *party) settles(calm time.Duration) error {
	patience := time.NewTimer(leavePatience)
	defer patience.Stop()
	var since time.Time
	for {
		select {
		case r := <-p.records:
			if p.owner[r.partition] != r.member {
				p.owner[r.partition], since = r.member, time.Time{}
			}
		case <-patience.C:
			return fmt.Errorf("the group does not settle: partitions are with %v", p.owner)
		case <-p.running.Done():
			return p.running.Err()
		}
		if p.even() {
			if since.IsZero() {
				since = time.Now()
			}
			if time.Since(since) > calm {
				return nil
			}
		}
	}
}

func (p *party) even() bool {
	var has [leaveMembers]int
	for _, m := range p.owner {
		has[m]++
	}
	return has == [leaveMembers]int{leavePartitions / leaveMembers, leavePartitions / leaveMembers, leavePartitions / leaveMembers}
}

// without has a member leave, and returns how long after it said so all its partitions
// were consumed again.
func (p *party) without(who int) (time.Duration, error) {
	mine := make(map[int32]bool)
	for i, m := range p.owner {
		if m == who {
			mine[int32(i)] = true
		}
	}
	left := make(chan struct{})
	began := time.Now()
	go func() { // joined below
		defer close(left)
		p.leaves(who)
	}()
	defer func() { <-left }()
	patience := time.NewTimer(leavePatience)
	defer patience.Stop()
	for len(mine) > 0 {
		select {
		case r := <-p.records:
			if r.member != who {
				delete(mine, r.partition)
				p.owner[r.partition] = r.member
			}
		case <-patience.C:
			return 0, fmt.Errorf("partitions %v are consumed by nobody", mine)
		case <-p.running.Done():
			return 0, p.running.Err()
		}
	}
	return time.Since(began), nil
}
