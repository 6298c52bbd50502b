package replication

import (
	"bytes"
	"errors"
	"log/slog"
	"strings"
	"testing"

	"github.com/hashicorp/raft"
)

// TestRaftLogger: what an operator has to know of is said, and what happens
// whenever a node is away is not.
func TestRaftLogger(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		level, msg string
		args       []any
		want       string
	}{
		{"error", "failed to get log", []any{"index", 7, "error", raft.ErrLogNotFound}, "DEBUG"},
		{"error", "failed to get log", []any{"index", 7, "error", errors.New("journal: damaged")}, "ERROR"},
		{"error", "failed to install snapshot", []any{"peer", raft.ServerID("2"), "id", "6-7", "error", errNewerWanted}, "DEBUG"},
		{"error", "failed to install snapshot", []any{"error", errors.New("no room")}, "ERROR"},
		{"error", "failed to send snapshot to", []any{"peer", "2", "error", errUnknownOffer}, "DEBUG"},
		{"warn", "failed to get previous log", []any{"previous-index", 7}, "DEBUG"},
		{"error", "failed to heartbeat to", nil, "DEBUG"},
		{"info", "entering follower state", nil, "DEBUG"},
		{"warn", "heartbeat timeout reached, starting election", nil, "WARN"},
		{"error", "anything else", nil, "ERROR"},
	} {
		var out bytes.Buffer
		l := raftLogger(slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: slog.LevelDebug})))
		switch c.level {
		case "error":
			l.Error(c.msg, c.args...)
		case "warn":
			l.Warn(c.msg, c.args...)
		default:
			l.Info(c.msg, c.args...)
		}
		if !strings.Contains(out.String(), "level="+c.want+" ") {
			t.Errorf("%s %q %v: %s, want %s", c.level, c.msg, c.args, out.String(), c.want)
		}
	}
}
