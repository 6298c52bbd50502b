package replication

import (
	"context"
	"fmt"
	"log/slog"
	"slices"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
)

// raftLogger hands Raft's log lines to log. Raft's Info is chatty (each
// election, each checkpoint), so it becomes Debug.
func raftLogger(log *slog.Logger) hclog.Logger {
	l := hclog.NewInterceptLogger(&hclog.LoggerOptions{Level: hclog.Debug, Output: discard{}})
	l.RegisterSink(slogSink{log})
	return l
}

// ordinary are the messages that Raft repeats, for each shard, while another node
// is away or has a newer term: of a cluster of which one node is down they are
// dozens in a second. That it is away, the transport says once.
var ordinary = map[string]bool{
	"failed to appendEntries to":                true,
	"failed to heartbeat to":                    true,
	"failed to make requestVote RPC":            true,
	"failed to pipeline appendEntries":          true,
	"failed to start pipeline replication to":   true,
	"failed to contact":                         true,
	"peer has newer term, stopping replication": true,

	// What a replica that is behind its leader's log has to do with, as long as it
	// is: it says itself that it catches up, and what holds it up.
	"failed to get previous log":      true,
	"failed to send snapshot to":      true,
	"skipping application of old log": true,
}

// routine reports whether a message is ordinary by what comes with it: a leader
// finds that the log which a follower needs is compacted, or is told that the
// follower has not taken its checkpoint yet.
func routine(msg string, args []any) bool {
	switch msg {
	case "failed to get log":
		return slices.Contains(args, any(raft.ErrLogNotFound))
	case "failed to install snapshot":
		return slices.Contains(args, any("peer")) // a follower that fails has none
	}
	return ordinary[msg]
}

type discard struct{}

func (discard) Write(b []byte) (int, error) { return len(b), nil }

type slogSink struct{ log *slog.Logger }

// Accept implements hclog.SinkAdapter.
func (s slogSink) Accept(_ string, level hclog.Level, msg string, args ...any) {
	to := slog.LevelDebug
	switch {
	case msg == "failed to take snapshot":
		// Replica.Checkpoint returns it, and a full disk repeats it.
	case routine(msg, args):
	case level == hclog.Warn:
		to = slog.LevelWarn
	case level == hclog.Error:
		to = slog.LevelError
	}
	if !s.log.Enabled(context.Background(), to) {
		return
	}
	for i, a := range args {
		if f, ok := a.(hclog.Format); ok && len(f) > 0 {
			args[i] = fmt.Sprintf(fmt.Sprint(f[0]), f[1:]...)
		}
	}
	s.log.Log(context.Background(), to, "raft: "+msg, args...)
}
