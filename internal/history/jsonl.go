package history

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"slices"
	"time"
)

// Version is the only version of saved histories that this build writes or
// reads.
const Version = 1

// maxLineBytes bounds the memory that one line of a saved history may take.
const maxLineBytes = 64 << 20

var (
	// ErrDamaged reports text that is not a saved history, or one cut off.
	ErrDamaged = errors.New("history: damaged")

	// ErrVersion reports a history saved by a newer build.
	ErrVersion = errors.New("history: unsupported version")
)

type header struct {
	Version int `json:"flotilla-history"`
}

type line struct {
	ID      int64     `json:"id"`
	Process int32     `json:"p"`
	Type    string    `json:"t"`
	F       string    `json:"f"`
	At      int64     `json:"at"`
	Topic   string    `json:"topic,omitempty"`
	Saw     string    `json:"saw,omitempty"`
	Group   string    `json:"g,omitempty"`
	Member  string    `json:"c,omitempty"`
	Epoch   int32     `json:"e,omitempty"`
	Mops    []lineMop `json:"m,omitempty"`
	Err     string    `json:"err,omitempty"`
}

type lineMop struct {
	F         string  `json:"f,omitempty"`
	Topic     string  `json:"k"`
	Partition int32   `json:"n"`
	From      int64   `json:"o,omitempty"`
	Records   []int64 `json:"r,omitempty"`
}

// Write saves h to w, buffered. Text that is not UTF-8 comes back as U+FFFD.
func Write(w io.Writer, h History) error {
	b := bufio.NewWriterSize(w, 64<<10)
	enc := json.NewEncoder(b) // ends each value with a newline
	enc.SetEscapeHTML(false)
	if err := enc.Encode(header{Version: Version}); err != nil {
		return fmt.Errorf("history: write: %w", err)
	}
	var l line
	for i := range h {
		encodeOp(&l, &h[i])
		if err := enc.Encode(&l); err != nil {
			return fmt.Errorf("history: write event %d: %w", i, err)
		}
	}
	if err := b.Flush(); err != nil {
		return fmt.Errorf("history: write: %w", err)
	}
	return nil
}

// encodeOp fills l from op, reusing l's memory.
func encodeOp(l *line, op *Op) {
	mops := l.Mops[:0]
	for _, m := range op.Mops {
		lm := lineMop{Topic: m.Key.Topic, Partition: m.Key.Partition, From: m.From}
		if n := len(mops); n < cap(mops) {
			lm.Records = mops[:n+1][n].Records[:0]
		}
		if m.F != 0 {
			lm.F = m.F.String()
		}
		for _, r := range m.Records {
			lm.Records = append(lm.Records, r.Offset, r.Value)
		}
		mops = append(mops, lm)
	}
	*l = line{
		ID: op.ID, Process: op.Process, Type: op.Type.String(), F: op.F.String(), At: int64(op.At),
		Topic: op.Topic, Saw: op.Saw.String(), Mops: mops, Err: op.Err,
	}
	if op.In != nil {
		l.Group, l.Member, l.Epoch = op.In.Group, op.In.Member, op.In.Epoch
	}
}

// Read reads a whole saved history. On an error it also returns the events
// before the damage.
func Read(r io.Reader) (History, error) {
	var h History
	for op, err := range Scan(r) {
		if err != nil {
			return h, err
		}
		h = append(h, op)
	}
	return h, nil
}

// Scan yields the events of a saved history one at a time, in memory for one
// line. It stops after the first error: ErrDamaged or ErrVersion, wrapped with
// the line's number, or what r returned. A last line without its newline is
// damaged, whatever it holds, so that a cut is always seen.
func Scan(r io.Reader) iter.Seq2[Op, error] {
	return func(yield func(Op, error) bool) {
		s := scanner{lines: bufio.NewScanner(r), names: make(map[string]string)}
		s.lines.Buffer(nil, maxLineBytes)
		s.lines.Split(splitLine)
		if err := s.header(); err != nil {
			yield(Op{}, err)
			return
		}
		for s.lines.Scan() {
			s.number++
			op, err := s.op()
			if !yield(op, err) || err != nil {
				return
			}
		}
		if err := s.err(); err != nil {
			yield(Op{}, err)
		}
	}
}

// splitLine is bufio.ScanLines, but a last line needs its newline too.
func splitLine(data []byte, atEOF bool) (int, []byte, error) {
	if i := bytes.IndexByte(data, '\n'); i >= 0 {
		return i + 1, data[:i], nil
	}
	if atEOF && len(data) > 0 {
		return 0, nil, fmt.Errorf("%w: cut off", ErrDamaged)
	}
	return 0, nil, nil
}

type scanner struct {
	lines  *bufio.Scanner
	number int               // of the line read last, from 1
	names  map[string]string // one string for each name, not one for each event
}

func (s *scanner) err() error {
	switch err := s.lines.Err(); {
	case err == nil:
		return nil
	case errors.Is(err, bufio.ErrTooLong):
		return fmt.Errorf("%w: line %d: over %d bytes", ErrDamaged, s.number+1, maxLineBytes)
	default:
		return fmt.Errorf("history: read line %d: %w", s.number+1, err)
	}
}

func (s *scanner) header() error {
	if !s.lines.Scan() {
		if err := s.err(); err != nil {
			return err
		}
		return fmt.Errorf("%w: line 1: no header", ErrDamaged)
	}
	s.number++
	var h header
	if err := json.Unmarshal(s.lines.Bytes(), &h); err != nil || h.Version <= 0 {
		return fmt.Errorf("%w: line 1: no header", ErrDamaged)
	}
	if h.Version != Version {
		return fmt.Errorf("%w: %d, this build reads %d", ErrVersion, h.Version, Version)
	}
	return nil
}

func (s *scanner) op() (Op, error) {
	var l line
	if err := json.Unmarshal(s.lines.Bytes(), &l); err != nil {
		return Op{}, fmt.Errorf("%w: line %d: %w", ErrDamaged, s.number, err)
	}
	op, err := s.decode(&l)
	if err != nil {
		return Op{}, fmt.Errorf("%w: line %d: %w", ErrDamaged, s.number, err)
	}
	return op, nil
}

func (s *scanner) decode(l *line) (Op, error) {
	t := slices.Index(typeNames[:], l.Type)
	f := slices.Index(fNames[:], l.F)
	saw := slices.Index(presenceNames[:], l.Saw)
	if t <= 0 || f <= 0 || saw < 0 {
		return Op{}, fmt.Errorf("unknown type %q, function %q or presence %q", l.Type, l.F, l.Saw)
	}
	op := Op{
		ID: l.ID, At: time.Duration(l.At), Process: l.Process, Type: Type(t), F: F(f),
		Saw: Presence(saw), Topic: s.intern(l.Topic), Err: l.Err,
	}
	if l.Group != "" {
		op.In = &Membership{Group: s.intern(l.Group), Member: s.intern(l.Member), Epoch: l.Epoch}
	}
	if len(l.Mops) > 0 {
		op.Mops = make([]Mop, len(l.Mops))
	}
	for i, lm := range l.Mops {
		mf := slices.Index(fNames[:], lm.F)
		if mf < 0 || len(lm.Records)%2 != 0 {
			return Op{}, fmt.Errorf("micro-operation %d: function %q, %d numbers of offsets and values", i, lm.F, len(lm.Records))
		}
		m := Mop{Key: Key{Topic: s.intern(lm.Topic), Partition: lm.Partition}, From: lm.From, F: F(mf)}
		if len(lm.Records) > 0 {
			m.Records = make([]Record, 0, len(lm.Records)/2)
		}
		for pair := range slices.Chunk(lm.Records, 2) {
			m.Records = append(m.Records, Record{Offset: pair[0], Value: pair[1]})
		}
		op.Mops[i] = m
	}
	return op, nil
}

func (s *scanner) intern(name string) string {
	if known, ok := s.names[name]; ok {
		return known
	}
	s.names[name] = name
	return name
}
