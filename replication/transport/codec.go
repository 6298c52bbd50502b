package transport

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/hashicorp/raft"
)

const (
	// callHeadBytes stands before the payload of a call: its method.
	callHeadBytes = 1

	// entryHeadBytes is an entry of an AppendEntries but for its data and
	// extensions, which stand behind the heads of all.
	entryHeadBytes = 8 + 8 + 8 + 1 + 4 + 4

	// copyBytes is the size of a piece of data below which it is copied next to its
	// neighbours: a place of its own in a writev costs more.
	copyBytes = 512

	// zeroTime stands for the zero time.Time.
	zeroTime = math.MinInt64
)

// errBody reports the body of a message that is not what its header says.
var errBody = errors.New("transport: damaged message")

// opOf says which operation a command is.
func opOf(command any) (op, error) {
	switch command.(type) {
	case *raft.AppendEntriesRequest:
		return opAppendEntries, nil
	case *raft.RequestVoteRequest:
		return opRequestVote, nil
	case *raft.RequestPreVoteRequest:
		return opRequestPreVote, nil
	case *raft.TimeoutNowRequest:
		return opTimeoutNow, nil
	case *raft.InstallSnapshotRequest:
		return opInstallSnapshot, nil
	case probe:
		return opProbe, nil
	}
	return 0, fmt.Errorf("transport: no operation for %T", command)
}

// encodeRequest makes the body of a request to the incarnation of a replica. The
// data of entries is not copied: parts alias it. size is the length of all parts.
func encodeRequest(incarnation uint64, command any, snapshot []byte) (parts [][]byte, size int) {
	w := bodyWriter{b: make([]byte, 0, 256)}
	w.u64(incarnation)
	switch req := command.(type) {
	case *raft.AppendEntriesRequest:
		w.header(req.RPCHeader)
		w.u64(req.Term)
		w.bytes(*leaderOf(req))
		w.u64(req.PrevLogEntry)
		w.u64(req.PrevLogTerm)
		w.u64(req.LeaderCommitIndex)
		w.entries(req.Entries)
	case *raft.RequestVoteRequest:
		w.header(req.RPCHeader)
		w.u64(req.Term)
		w.bytes(*candidateOf(req))
		w.u64(req.LastLogIndex)
		w.u64(req.LastLogTerm)
		w.flag(req.LeadershipTransfer)
	case *raft.RequestPreVoteRequest:
		w.header(req.RPCHeader)
		w.u64(req.Term)
		w.u64(req.LastLogIndex)
		w.u64(req.LastLogTerm)
	case *raft.TimeoutNowRequest:
		w.header(req.RPCHeader)
	case *raft.InstallSnapshotRequest:
		w.header(req.RPCHeader)
		w.u64(uint64(req.SnapshotVersion))
		w.u64(req.Term)
		w.bytes(req.Leader)
		w.u64(req.LastLogIndex)
		w.u64(req.LastLogTerm)
		w.bytes(req.Peers)
		w.bytes(req.Configuration)
		w.u64(req.ConfigurationIndex)
		w.u64(uint64(req.Size))
		w.data(snapshot)
	case probe:
	}
	return w.parts()
}

// decodeRequest is the inverse of encodeRequest. What it returns aliases b.
func decodeRequest(o op, b []byte) (incarnation uint64, command any, snapshot []byte, err error) {
	r := bodyReader{b: b}
	incarnation = r.u64()
	switch o {
	case opAppendEntries:
		req := &raft.AppendEntriesRequest{RPCHeader: r.header(), Term: r.u64()}
		*leaderOf(req) = r.bytes()
		req.PrevLogEntry, req.PrevLogTerm, req.LeaderCommitIndex = r.u64(), r.u64(), r.u64()
		req.Entries = r.entries()
		command = req
	case opRequestVote:
		req := &raft.RequestVoteRequest{RPCHeader: r.header(), Term: r.u64()}
		*candidateOf(req) = r.bytes()
		req.LastLogIndex, req.LastLogTerm, req.LeadershipTransfer = r.u64(), r.u64(), r.flag()
		command = req
	case opRequestPreVote:
		command = &raft.RequestPreVoteRequest{RPCHeader: r.header(), Term: r.u64(), LastLogIndex: r.u64(), LastLogTerm: r.u64()}
	case opTimeoutNow:
		command = &raft.TimeoutNowRequest{RPCHeader: r.header()}
	case opInstallSnapshot:
		req := &raft.InstallSnapshotRequest{RPCHeader: r.header(), SnapshotVersion: raft.SnapshotVersion(r.u64())}
		req.Term, req.Leader, req.LastLogIndex, req.LastLogTerm = r.u64(), r.bytes(), r.u64(), r.u64()
		req.Peers = r.bytes()
		req.Configuration, req.ConfigurationIndex, req.Size = r.bytes(), r.u64(), int64(r.u64())
		snapshot = r.rest()
		command = req
	case opProbe:
		command = probe{}
	default:
		return 0, nil, nil, fmt.Errorf("%w: operation %d", errBody, o)
	}
	if err := r.end(); err != nil {
		return 0, nil, nil, fmt.Errorf("%w of operation %d", err, o)
	}
	return incarnation, command, snapshot, nil
}

// encodeAnswer makes the body of an answer of Raft's, or of a probe.
func encodeAnswer(answer any) ([]byte, error) {
	w := bodyWriter{b: make([]byte, 0, 128)}
	switch a := answer.(type) {
	case *raft.AppendEntriesResponse:
		w.header(a.RPCHeader)
		w.u64(a.Term)
		w.u64(a.LastLog)
		w.flag(a.Success)
		w.flag(a.NoRetryBackoff)
	case *raft.RequestVoteResponse:
		w.header(a.RPCHeader)
		w.u64(a.Term)
		w.bytes(a.Peers)
		w.flag(a.Granted)
	case *raft.RequestPreVoteResponse:
		w.header(a.RPCHeader)
		w.u64(a.Term)
		w.flag(a.Granted)
	case *raft.TimeoutNowResponse:
		w.header(a.RPCHeader)
	case *raft.InstallSnapshotResponse:
		w.header(a.RPCHeader)
		w.u64(a.Term)
		w.flag(a.Success)
	case uint64:
		w.u64(a)
	default:
		return nil, fmt.Errorf("transport: no answer is a %T", answer)
	}
	return w.b, nil
}

// decodeAnswer is the inverse of encodeAnswer.
func decodeAnswer(o op, b []byte) (answer any, err error) {
	r := bodyReader{b: b}
	switch o {
	case opAppendEntries:
		answer = &raft.AppendEntriesResponse{RPCHeader: r.header(), Term: r.u64(), LastLog: r.u64(), Success: r.flag(), NoRetryBackoff: r.flag()}
	case opRequestVote:
		answer = &raft.RequestVoteResponse{RPCHeader: r.header(), Term: r.u64(), Peers: r.bytes(), Granted: r.flag()}
	case opRequestPreVote:
		answer = &raft.RequestPreVoteResponse{RPCHeader: r.header(), Term: r.u64(), Granted: r.flag()}
	case opTimeoutNow:
		answer = &raft.TimeoutNowResponse{RPCHeader: r.header()}
	case opInstallSnapshot:
		answer = &raft.InstallSnapshotResponse{RPCHeader: r.header(), Term: r.u64(), Success: r.flag()}
	case opProbe:
		answer = r.u64()
	default:
		return nil, fmt.Errorf("%w: answer to operation %d", errBody, o)
	}
	if err := r.end(); err != nil {
		return nil, fmt.Errorf("%w: answer to operation %d", err, o)
	}
	return answer, nil
}

// leaderOf and candidateOf are fields that Raft has no more use for, and that
// travel all the same: who passes a request on may have put something there.
//
//lint:ignore SA1019 see above
func leaderOf(req *raft.AppendEntriesRequest) *[]byte { return &req.Leader }

//lint:ignore SA1019 see leaderOf
func candidateOf(req *raft.RequestVoteRequest) *[]byte { return &req.Candidate }

// bodyWriter makes a body: parts that are done, and one that grows.
type bodyWriter struct {
	done [][]byte
	size int // of done
	b    []byte
}

func (w *bodyWriter) u64(v uint64) { w.b = binary.LittleEndian.AppendUint64(w.b, v) }
func (w *bodyWriter) u32(v int)    { w.b = binary.LittleEndian.AppendUint32(w.b, uint32(v)) }

func (w *bodyWriter) flag(v bool) {
	if v {
		w.b = append(w.b, 1)
	} else {
		w.b = append(w.b, 0)
	}
}

func (w *bodyWriter) bytes(b []byte) {
	w.u32(len(b))
	w.b = append(w.b, b...)
}

func (w *bodyWriter) header(h raft.RPCHeader) {
	w.u64(uint64(h.ProtocolVersion))
	w.bytes(h.ID)
	w.bytes(h.Addr)
}

// data adds bytes without their length, and without a copy if they are many.
func (w *bodyWriter) data(b []byte) {
	if len(b) < copyBytes {
		w.b = append(w.b, b...)
		return
	}
	w.flush()
	w.done, w.size = append(w.done, b), w.size+len(b)
}

func (w *bodyWriter) flush() {
	if len(w.b) > 0 {
		w.done, w.size = append(w.done, w.b), w.size+len(w.b)
		w.b = w.b[len(w.b):]
	}
}

func (w *bodyWriter) parts() ([][]byte, int) {
	w.flush()
	return w.done, w.size
}

func (w *bodyWriter) entries(entries []*raft.Log) {
	w.u32(len(entries))
	if len(entries) == 0 {
		return
	}
	w.done = make([][]byte, 0, 2*len(entries))
	for _, e := range entries {
		at := int64(zeroTime)
		if !e.AppendedAt.IsZero() {
			at = e.AppendedAt.UnixNano()
		}
		w.u64(e.Index)
		w.u64(e.Term)
		w.u64(uint64(at))
		w.b = append(w.b, byte(e.Type))
		w.u32(len(e.Extensions))
		w.u32(len(e.Data))
	}
	for _, e := range entries {
		w.data(e.Extensions)
		w.data(e.Data)
	}
}

// bodyReader takes a body apart. What is missing reads as zero and is an error at the
// end.
type bodyReader struct {
	b     []byte
	short bool
}

// take returns the next n bytes, with no room behind them: who appends to them
// writes elsewhere.
func (r *bodyReader) take(n int) []byte {
	if n < 0 || n > len(r.b) {
		r.short, r.b = true, nil
		return nil
	}
	b := r.b[:n:n]
	r.b = r.b[n:]
	return b
}

func (r *bodyReader) u64() uint64 {
	if b := r.take(8); b != nil {
		return binary.LittleEndian.Uint64(b)
	}
	return 0
}

func (r *bodyReader) u32() int {
	if b := r.take(4); b != nil {
		return int(binary.LittleEndian.Uint32(b))
	}
	return 0
}

func (r *bodyReader) flag() bool {
	b := r.take(1)
	if b != nil && b[0] > 1 {
		r.short = true
	}
	return b != nil && b[0] == 1
}

// bytes returns nil for none: as Raft has it.
func (r *bodyReader) bytes() []byte {
	if n := r.u32(); n > 0 {
		return r.take(n)
	}
	return nil
}

func (r *bodyReader) header() raft.RPCHeader {
	return raft.RPCHeader{ProtocolVersion: raft.ProtocolVersion(r.u64()), ID: r.bytes(), Addr: r.bytes()}
}

// rest returns what is left, which is never nil.
func (r *bodyReader) rest() []byte {
	b := r.take(len(r.b))
	if b == nil {
		b = []byte{}
	}
	return b
}

func (r *bodyReader) end() error {
	if r.short || len(r.b) > 0 {
		return fmt.Errorf("%w: cut off, or %d bytes too many", errBody, len(r.b))
	}
	return nil
}

func (r *bodyReader) entries() []*raft.Log {
	n := r.u32()
	if n == 0 || n > len(r.b)/entryHeadBytes {
		r.short = r.short || n != 0
		return nil
	}
	logs := make([]raft.Log, n)
	entries := make([]*raft.Log, n)
	heads := bodyReader{b: r.take(n * entryHeadBytes)}
	for i := range logs {
		e := &logs[i]
		e.Index, e.Term = heads.u64(), heads.u64()
		if at := int64(heads.u64()); at != zeroTime {
			e.AppendedAt = time.Unix(0, at)
		}
		e.Type = raft.LogType(heads.take(1)[0])
		extensions, data := heads.u32(), heads.u32()
		if extensions > 0 {
			e.Extensions = r.take(extensions)
		}
		e.Data = r.take(data)
		entries[i] = e
	}
	return entries
}
