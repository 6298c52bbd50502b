package node

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/flotilla-log/flotilla/broker"
	"github.com/flotilla-log/flotilla/internal/admin"
)

// ProfilesFor is how long AllowProfiles lasts.
const ProfilesFor = admin.ProfilesFor

// startAdmin serves metrics and health, before anything is opened: that the node
// is starting is worth knowing too.
func (n *Node) startAdmin() {
	if n.opt.Admin == nil {
		return
	}
	n.admin = admin.New(n.adminSource(), n.opt.Log, n.opt.Profiles)
	n.serving.Go(func() {
		if err := n.admin.Serve(n.opt.Admin); err != nil {
			n.fail(fmt.Errorf("node: admin listener: %w", err))
		}
	})
}

// stopAdmin ends the admin listener, which answers until the rest has stopped.
func (n *Node) stopAdmin(ctx context.Context) {
	if n.admin != nil {
		n.admin.Close(ctx)
	}
	n.serving.Wait()
}

// AllowProfiles allows Go profiles at the admin listener, if there is one, for
// ProfilesFor, and reports whether there is.
func (n *Node) AllowProfiles() bool {
	if n.admin != nil {
		n.admin.AllowProfiles()
	}
	return n.admin != nil
}

func (n *Node) adminSource() admin.Source {
	opt := &n.opt
	return admin.Source{
		Version: opt.Version, Commit: opt.Commit, NodeID: opt.NodeID, Now: opt.Now,
		CommitMax: opt.CommitMax,
		Broker: func() *broker.Broker {
			if !n.started.Load() {
				return nil
			}
			return n.broker
		},
		Failed: func() error {
			if cause := n.cause.Load(); cause != nil {
				return *cause
			}
			return nil
		},
		Stopping: n.stopping.Load,
		Waiting: func() string {
			if w := n.healing.Load(); w != nil {
				return w.text()
			}
			if f := n.founding.Load(); f != nil {
				if why := f.waiting(); why != "" {
					return "waiting for the cluster to be founded: " + why
				}
			}
			if n.joining != nil {
				return n.joining.vigil.reason()
			}
			return ""
		},
		Recovery: func() admin.Recovery {
			r := n.jour.Recovery()
			return admin.Recovery{Took: n.recovered, RewrittenBytes: r.RewrittenBytes, TornTail: r.Torn, SetAside: int(n.setAside.Load())}
		},
		Memory: n.memory,
		Streams: func() admin.Streams {
			s := n.Streams()
			return admin.Streams{Open: s.Streams, Partitions: s.Partitions, PartitionLimit: s.PartitionLimit, HeldBytes: s.HeldBytes}
		},
		Sessions: func() admin.FetchSessions {
			s := n.kafka.Sessions()
			return admin.FetchSessions{Open: s.Sessions, Limit: s.Limit, Partitions: s.Partitions, Evicted: s.Evicted}
		},
		Disk: func() admin.Disk {
			if n.started.Load() {
				s := n.broker.DiskState()
				d := admin.Disk{FreeBytes: s.FreeBytes, ReserveBytes: s.ReserveBytes, Entered: s.Entered, Refused: s.Refused}
				if s.Low {
					d.Refuses = "the disk is nearly full, records and topics are not taken: " + s.Cause
					if led := n.broker.Leads(); n.opt.Cluster != nil && len(led) > 0 {
						d.Refuses += fmt.Sprintf("; shards %v stay led here, as too few of their voters on other nodes have room", led)
					}
				}
				return d
			}
			free, err := opt.FS.Free(opt.Dir)
			return admin.Disk{FreeBytes: free, Err: err}
		},
		Listeners: func() []broker.MeterStats {
			if !n.started.Load() {
				return nil
			}
			return append(n.server.Stats(), n.kafka.Stats())
		},
		ConnectionLimit: func() int {
			if !n.started.Load() {
				return 0
			}
			return n.server.MaxConnections()
		},
	}
}

// memory lists the node's budgets.
func (n *Node) memory() []admin.Memory {
	tails := n.store.Stats()
	budget := func(name string, b *broker.Budget) admin.Memory {
		return admin.Memory{For: name, Used: b.Used(), Limit: b.Limit(), Waiting: b.Waiting()}
	}
	unfolding, muchUnfolding := n.broker.Unfolding()
	pulled, pulledByOthers := n.broker.Pulling()
	all := []admin.Memory{
		{For: "tails", Used: tails.MemoryBytes, Limit: tails.MemoryLimitBytes, Waiting: tails.Waiting},
		budget("requests", n.requests),
		budget("small requests", n.small),
		budget("answers", n.answers),
		budget("pulled", pulled),
		budget("pulled by others", pulledByOthers),
		budget("decompression", unfolding),
		budget("large decompression", muchUnfolding),
		budget("recompressed", n.broker.Recompressed()),
	}
	kafkas := n.kafka.Memory()
	for _, name := range slices.Sorted(maps.Keys(kafkas)) {
		all = append(all, budget(name, kafkas[name]))
	}
	return all
}
