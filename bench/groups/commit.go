package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/flotilla-log/flotilla/internal/peer"
)

const (
	commitTopic      = "committed"
	commitPartitions = 16
	committers       = 1000 // groups, each with a connection of its own
	commitWarmUp     = 3 * time.Second
	commitNodes      = 3
	commitBalance    = time.Second // how often leaders are balanced
	maxShare         = 40          // per cent of the groups that one node coordinates
)

// commit has groups commit at a rate, on three nodes, on a schedule: a commit is due
// whatever became of those before it, and counts from then on.
func (o options) commit(ctx context.Context, dir string) (row commitRow, err error) {
	row.Rate = o.commits
	ports, err := peer.FreePorts(commitNodes * peer.PortsPerNode)
	if err != nil {
		return row, err
	}
	c := peer.FlotillaCluster(o.binary, filepath.Join(dir, "commits"), ports, "--memory.bytes", "682MiB", "--leader.balance.interval", commitBalance.String())
	if err := c.Start(ctx, dir); err != nil {
		return row, err
	}
	defer func() { err = errors.Join(err, c.Stop()) }()
	bootstrap := c.Nodes[0].Addr
	for {
		if err = openTopic(ctx, bootstrap, commitTopic, commitPartitions); err == nil {
			break
		}
		select {
		case <-time.After(200 * time.Millisecond): // the nodes look for each other
		case <-ctx.Done():
			return row, err
		}
	}
	conns := make([]*conn, committers)
	defer func() {
		for _, c := range conns {
			if c != nil {
				_ = c.Close()
			}
		}
	}()
	coordinators, err := spreadCoordinators(ctx, bootstrap)
	if err != nil {
		return row, err
	}
	for i, at := range coordinators {
		if conns[i], err = dial(ctx, at); err != nil {
			return row, err
		}
	}
	var pids []int
	for _, s := range c.Nodes {
		pids = append(pids, s.Process())
	}
	if _, err := o.commitAll(conns, commitWarmUp); err != nil {
		return row, err
	}
	before, err := proc.Sample(pids[0], pids)
	if err != nil {
		return row, err
	}
	began := time.Now()
	done, err := o.commitAll(conns, o.commitFor)
	if err != nil {
		return row, err
	}
	took := time.Since(began)
	after, err := proc.Sample(pids[0], pids)
	if err != nil {
		return row, err
	}
	row.Core = (after.Servers.CPU - before.Servers.CPU).Seconds() / took.Seconds()
	var waits []time.Duration
	for _, d := range done {
		waits = append(waits, d.waits...)
		row.Refused += d.refused
	}
	slices.Sort(waits)
	row.Done, row.P50, row.P99, row.P999, row.Max = len(waits), quantile(waits, 0.5), quantile(waits, 0.99), quantile(waits, 0.999), quantile(waits, 1)
	return row, nil
}

// spreadCoordinators returns the addresses of the groups' coordinators, once each node
// has its share of them and they have stayed where they are for a while: at first a node may
// lead more shards than it is to, or others.
func spreadCoordinators(ctx context.Context, bootstrap string) ([]string, error) {
	var before []string
	for {
		at, of := make([]string, committers), make(map[string]int)
		for i := range at {
			var err error
			if at[i], err = coordinator(ctx, bootstrap, groupName(i)); err != nil {
				return nil, err
			}
			of[at[i]]++
		}
		if most := slices.Max(slices.Collect(maps.Values(of))); most <= committers*maxShare/100 && slices.Equal(at, before) {
			return at, nil
		}
		before = at
		select {
		case <-time.After(3 * commitBalance):
		case <-ctx.Done():
			return nil, fmt.Errorf("the groups' coordinators are not spread over the nodes, but %v: %w", of, ctx.Err())
		}
	}
}

func groupName(i int) string { return fmt.Sprint("committer-", i) }

// committed is what became of one group's commits.
type committed struct {
	waits   []time.Duration
	refused int
}

// commitAll has each group commit its share of the rate for so long.
func (o options) commitAll(conns []*conn, for_ time.Duration) ([]committed, error) {
	all, errs := make([]committed, len(conns)), make([]error, 2*len(conns))
	every := time.Second * time.Duration(len(conns)) / time.Duration(o.commits)
	n := int(for_ / every)
	began := time.Now()
	var group sync.WaitGroup
	for i, c := range conns {
		first := began.Add(every * time.Duration(i) / time.Duration(len(conns)))
		group.Go(func() {
			req := kmsg.NewPtrOffsetCommitRequest()
			req.Version, req.Group, req.Generation = commitVersion, groupName(i), -1
			part := kmsg.NewOffsetCommitRequestTopicPartition()
			part.Partition = int32(i % commitPartitions)
			topic := kmsg.NewOffsetCommitRequestTopic()
			topic.Topic, topic.Partitions = commitTopic, append(topic.Partitions, part)
			req.Topics = append(req.Topics, topic)
			for k := range n {
				time.Sleep(time.Until(first.Add(every * time.Duration(k))))
				req.Topics[0].Partitions[0].Offset = int64(k)
				if errs[2*i] = c.send(req); errs[2*i] != nil {
					_ = c.Close() // nobody answers the rest
					return
				}
			}
		})
		group.Go(func() {
			for k := range n {
				resp := kmsg.NewPtrOffsetCommitResponse()
				resp.Version = commitVersion
				if errs[2*i+1] = c.receive(resp); errs[2*i+1] != nil {
					return
				}
				if kerr.ErrorForCode(resp.Topics[0].Partitions[0].ErrorCode) != nil {
					all[i].refused++
					continue
				}
				all[i].waits = append(all[i].waits, time.Since(first.Add(every*time.Duration(k))))
			}
		})
	}
	group.Wait()
	return all, errors.Join(errs...)
}
