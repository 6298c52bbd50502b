package history

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// TestCorrectRuns checks that the checker has nothing against correct servers,
// and that it did see something.
func TestCorrectRuns(t *testing.T) {
	t.Parallel()
	var lost, reads, acked, recreated int
	for seed := range uint64(800) {
		r := modelRun(seed, 300)
		report := Check(r.h, r.opt)
		if err := report.Err(); err != nil {
			t.Fatalf("seed %d: %v\n%s", seed, err, report)
		}
		reads += report.Distinct
		acked += report.Acked
		lost += report.Ops[Send].Info + report.Ops[Send].Open
		recreated += report.Ops[CreateTopic].OK
	}
	if reads < 20000 || acked < 15000 || lost < 5000 || recreated < 300 {
		t.Errorf("%d values read, %d acked, %d sends unknown, %d topics made again: too few to mean anything", reads, acked, lost, recreated)
	}
}

// script builds small histories by hand. Its methods add both events of an
// operation unless their name says otherwise.
type script struct {
	h  History
	id int64
}

var key = Key{"orders", 0}

func (s *script) add(op Op, t Type) Op {
	op.Type = t
	op.At = time.Duration(len(s.h)) * time.Millisecond
	s.h = append(s.h, op)
	return op
}

func (s *script) invoke(process int32, f F, mops ...Mop) Op {
	s.id++
	return s.add(Op{ID: s.id, Process: process, F: f, Mops: mops}, Invoke)
}

func (s *script) send(process int32, offset int64, values ...int64) {
	op := s.invoke(process, Send, Values(key, values...))
	op.Mops = []Mop{op.Mops[0].At(offset)}
	s.add(op, OK)
}

func (s *script) unknown(process int32, values ...int64) {
	s.add(s.invoke(process, Send, Values(key, values...)), Info)
}

func (s *script) poll(process int32, offset int64, values ...int64) {
	op := s.invoke(process, Poll)
	op.Mops = []Mop{Values(key, values...).At(offset)}
	s.add(op, OK)
}

func (s *script) assign(process int32, from int64) {
	s.add(s.invoke(process, Assign, Mop{Key: key, From: from}), OK)
}

func (s *script) do(process int32, f F, t Type) {
	s.add(s.ask(process, f), t)
}

func (s *script) ask(process int32, f F) Op {
	s.id++
	return s.add(Op{ID: s.id, Process: process, F: f, Topic: key.Topic}, Invoke)
}

func TestCheck(t *testing.T) {
	t.Parallel()
	idempotent := Options{Idempotent: true, Assigned: true, Final: true}
	retrying := Options{Assigned: true, Final: true}
	tests := []struct {
		name string
		opt  Options
		h    func(s *script)
		want map[Kind]int
	}{
		{name: "nothing", opt: idempotent, h: func(*script) {}},
		{name: "simple", opt: idempotent, h: func(s *script) {
			s.send(1, 0, 10, 11)
			s.poll(2, 0, 10, 11)
		}},
		{name: "unknown send appears", opt: idempotent, h: func(s *script) {
			s.unknown(1, 10)
			s.poll(2, 0, 10)
		}},
		{name: "unknown send does not", opt: idempotent, h: func(s *script) { s.unknown(1, 10) }},
		{name: "unknown send appears twice", opt: idempotent, h: func(s *script) {
			s.unknown(1, 10)
			s.poll(2, 0, 10, 10)
		}, want: map[Kind]int{Duplicate: 1}},
		{name: "a retry may duplicate without idempotence", opt: retrying, h: func(s *script) {
			s.send(1, 1, 10)
			s.poll(2, 0, 10, 10)
		}},
		{name: "acknowledged where a retry is not", opt: retrying, h: func(s *script) {
			s.send(1, 0, 10)
			s.send(1, 1, 11)
			s.poll(2, 0, 11, 10)
		}, want: map[Kind]int{AckMismatch: 2, NonmonotonicSend: 1}},
		{name: "acknowledged copy not read yet", opt: retrying, h: func(s *script) {
			s.send(1, 7, 10)
			s.poll(2, 0, 10)
		}},
		{name: "acknowledgement without offset", opt: idempotent, h: func(s *script) {
			op := s.invoke(1, Send, Values(key, 10))
			s.add(op, OK)
			s.poll(2, 0, 10)
		}},
		{name: "acknowledgement without offset, never read", opt: idempotent, h: func(s *script) {
			op := s.invoke(1, Send, Values(key, 10))
			s.add(op, OK)
		}, want: map[Kind]int{Unseen: 1}},
		{name: "unseen needs final polls", opt: Options{Idempotent: true}, h: func(s *script) { s.send(1, 0, 10) }},
		{name: "acknowledged in part", opt: idempotent, h: func(s *script) {
			op := s.invoke(1, Send, Values(key, 10, 11))
			op.Mops = []Mop{Values(key, 10).At(0)}
			s.add(op, OK)
			s.poll(2, 0, 10)
		}},
		{name: "late second acknowledgement agrees", opt: idempotent, h: func(s *script) {
			op := s.invoke(1, Send, Values(key, 10))
			s.add(op, Info)
			op.Mops = []Mop{op.Mops[0].At(0)}
			s.add(op, OK)
			s.add(op, OK)
			s.poll(2, 0, 10)
		}},
		{name: "pipelined sends in any order without idempotence", opt: retrying, h: func(s *script) {
			s.unknown(1, 10)
			s.send(1, 0, 11)
			s.poll(2, 0, 11, 10)
		}},
		{name: "pipelined sends in order with it", opt: idempotent, h: func(s *script) {
			s.unknown(1, 10)
			s.send(1, 0, 11)
			s.poll(2, 0, 11, 10)
		}, want: map[Kind]int{NonmonotonicSend: 1}},
		{name: "a crash ends the order of unknown sends", opt: idempotent, h: func(s *script) {
			s.unknown(1, 10)
			s.do(1, Crash, Info)
			s.send(1, 0, 11)
			s.poll(2, 0, 11, 10)
		}},
		{name: "but not of acknowledged ones", opt: idempotent, h: func(s *script) {
			s.send(1, 1, 10)
			s.do(1, Crash, Info)
			s.send(1, 0, 11)
			s.poll(2, 0, 11, 10)
		}, want: map[Kind]int{NonmonotonicSend: 1}},
		{name: "concurrent sends of two processes in any order", opt: idempotent, h: func(s *script) {
			a, b := s.invoke(1, Send, Values(key, 10)), s.invoke(2, Send, Values(key, 11))
			a.Mops, b.Mops = []Mop{a.Mops[0].At(1)}, []Mop{b.Mops[0].At(0)}
			s.add(a, OK)
			s.add(b, OK)
			s.poll(3, 0, 11, 10)
		}},
		{name: "order known from acknowledgements alone", opt: Options{Idempotent: true}, h: func(s *script) {
			s.send(1, 5, 10)
			s.send(2, 4, 11)
		}, want: map[Kind]int{RealtimeSend: 1}},
		{name: "poll skips what nobody has read yet", opt: idempotent, h: func(s *script) {
			s.send(1, 0, 10)
			s.send(1, 1, 11)
			s.poll(2, 1, 11)
		}, want: map[Kind]int{LostWrite: 1}},
		{name: "a consumer without a start may begin anywhere", opt: idempotent, h: func(s *script) {
			s.send(1, 0, 10, 11, 12)
			s.assign(2, NoOffset)
			s.poll(2, 1, 11)
			s.assign(2, 0)
			s.poll(2, 0, 10, 11, 12)
		}},
		{name: "a group may jump between polls", opt: idempotent, h: func(s *script) {
			s.send(1, 0, 10, 11, 12)
			s.do(2, Subscribe, OK)
			s.poll(2, 2, 12)
			s.poll(2, 0, 10)
			s.poll(3, 0, 10, 11, 12)
		}},
		{name: "but not inside one", opt: idempotent, h: func(s *script) {
			s.send(1, 0, 10, 11, 12)
			s.do(2, Subscribe, OK)
			op := s.invoke(2, Poll)
			op.Mops = []Mop{{Key: key, Records: []Record{{0, 10}, {2, 12}, {1, 11}}}}
			s.add(op, OK)
		}, want: map[Kind]int{IntPollSkip: 1, IntNonmonotonicPoll: 1}},
		{name: "processes without a subscription follow the options", opt: Options{Idempotent: true}, h: func(s *script) {
			s.send(1, 0, 10)
			s.poll(2, 0, 10)
			s.poll(2, 0, 10)
		}},
		{name: "and again, assigned", opt: idempotent, h: func(s *script) {
			s.send(1, 0, 10)
			s.poll(2, 0, 10)
			s.poll(2, 0, 10)
		}, want: map[Kind]int{NonmonotonicPoll: 1}},
		{name: "an unknown poll may have moved", opt: idempotent, h: func(s *script) {
			s.send(1, 0, 10, 11, 12)
			s.poll(3, 0, 10, 11, 12)
			s.poll(2, 0, 10)
			s.add(s.invoke(2, Poll), Info)
			s.poll(2, 2, 12)
		}},
		{name: "a failed poll has not", opt: idempotent, h: func(s *script) {
			s.send(1, 0, 10, 11, 12)
			s.poll(3, 0, 10, 11, 12)
			s.poll(2, 0, 10)
			s.add(s.invoke(2, Poll), Fail)
			s.poll(2, 2, 12)
		}, want: map[Kind]int{PollSkip: 1}},
		{name: "below the log start", opt: Options{Idempotent: true, Assigned: true, Final: true, LogStart: map[Key]int64{key: 2}}, h: func(s *script) {
			s.send(1, 0, 10, 11, 12)
			s.assign(2, 0)
			s.poll(2, 2, 12)
		}},
		{name: "a hole", opt: idempotent, h: func(s *script) {
			s.send(1, 0, 10)
			s.send(1, 2, 12)
			s.poll(2, 0, 10)
			s.poll(2, 2, 12)
		}, want: map[Kind]int{LostOffset: 1}},
		{name: "a hole of a transaction", opt: Options{Idempotent: true, Holes: true}, h: func(s *script) {
			s.send(1, 0, 10)
			s.send(1, 2, 12)
			s.poll(2, 0, 10)
			s.poll(2, 2, 12)
		}},
		{name: "a hole partly acknowledged", opt: idempotent, h: func(s *script) {
			s.send(1, 1, 11)
			s.send(1, 2, 12)
			s.poll(2, 2, 12)
		}, want: map[Kind]int{LostWrite: 1, LostOffset: 1}},
		{name: "two acknowledged where a third is read", opt: idempotent, h: func(s *script) {
			s.unknown(3, 9)
			s.send(1, 0, 10)
			s.unknown(1, 11)
			s.poll(2, 0, 9)
		}, want: map[Kind]int{InconsistentOffsets: 1, LostWrite: 1}},
		{name: "offsets start again in a new incarnation", opt: idempotent, h: func(s *script) {
			s.do(9, CreateTopic, OK)
			s.send(1, 0, 10, 11)
			s.assign(2, 0)
			s.poll(2, 0, 10, 11)
			s.do(9, DeleteTopic, OK)
			s.do(9, CreateTopic, OK)
			s.send(1, 0, 12)
			s.assign(2, 0)
			s.poll(2, 0, 12)
		}},
		{name: "a delete of unknown outcome, then a create", opt: idempotent, h: func(s *script) {
			s.send(1, 0, 10)
			s.do(9, DeleteTopic, Info)
			s.do(9, CreateTopic, OK)
			s.send(1, 0, 12)
			s.assign(2, 0)
			s.poll(2, 0, 12)
		}},
		{name: "no boundary: the delete failed", opt: idempotent, h: func(s *script) {
			s.send(1, 0, 10)
			s.do(9, DeleteTopic, Fail)
			s.send(1, 0, 12)
			s.assign(2, 0)
			s.poll(2, 0, 12)
		}, want: map[Kind]int{InconsistentOffsets: 1, LostWrite: 1}},
		{name: "a create that shows an unseen delete", opt: idempotent, h: func(s *script) {
			s.do(9, CreateTopic, OK)
			s.send(1, 0, 10)
			s.do(9, CreateTopic, OK)
			s.send(1, 0, 12)
			s.assign(2, 0)
			s.poll(2, 0, 12)
		}},
		{name: "a deleted topic loses nothing", opt: idempotent, h: func(s *script) {
			s.send(1, 0, 10)
			s.do(9, DeleteTopic, Info)
		}},
		{name: "a deleted topic may still lie", opt: idempotent, h: func(s *script) {
			s.send(1, 0, 10)
			s.assign(2, 0)
			s.poll(2, 1, 10)
			s.do(9, DeleteTopic, OK)
		}, want: map[Kind]int{AckMismatch: 1}},
		{name: "stale read", opt: idempotent, h: func(s *script) {
			s.send(1, 0, 10)
			s.do(9, DeleteTopic, OK)
			s.do(9, CreateTopic, OK)
			s.assign(2, 0)
			s.poll(2, 0, 10)
		}, want: map[Kind]int{StaleTopic: 1}},
		{name: "a client from before may hold old records", opt: idempotent, h: func(s *script) {
			s.send(1, 0, 10)
			s.assign(2, 0)
			s.do(9, DeleteTopic, OK)
			s.do(9, CreateTopic, OK)
			s.poll(2, 0, 10)
		}},
		{name: "a late send may land in the new incarnation", opt: idempotent, h: func(s *script) {
			s.unknown(1, 10)
			s.do(9, DeleteTopic, OK)
			s.do(9, CreateTopic, OK)
			s.assign(2, 0)
			s.poll(2, 0, 10)
		}},
		{name: "the value of another key", opt: idempotent, h: func(s *script) {
			op := s.invoke(1, Send, Values(Key{"orders", 1}, 10))
			s.add(op, Info)
			s.poll(2, 0, 10)
		}, want: map[Kind]int{Phantom: 1}},
		{name: "order is judged in the incarnation that a read settles", opt: idempotent, h: func(s *script) {
			s.unknown(1, 10)
			s.do(9, DeleteTopic, OK)
			s.do(9, CreateTopic, OK)
			s.send(1, 0, 12)
			s.assign(2, 0)
			s.poll(2, 0, 12, 10)
		}, want: map[Kind]int{NonmonotonicSend: 1}},
		{name: "poll skips in a later incarnation", opt: idempotent, h: func(s *script) {
			s.do(9, DeleteTopic, OK)
			s.do(9, CreateTopic, OK)
			s.send(1, 0, 10, 11)
			s.assign(2, 0)
			s.poll(2, 0, 10, 11)
			s.assign(3, 0)
			s.poll(3, 1, 11)
		}, want: map[Kind]int{PollSkip: 1}},
		{name: "several deletes, all answered", opt: idempotent, h: func(s *script) {
			s.do(9, DeleteTopic, OK)
			s.do(9, DeleteTopic, OK)
			s.do(9, CreateTopic, OK)
			s.send(1, 0, 10)
		}, want: map[Kind]int{Unseen: 1}},
		{name: "several deletes, one of which overlaps the create", opt: idempotent, h: func(s *script) {
			s.do(9, CreateTopic, OK)
			late := s.ask(8, DeleteTopic)
			s.do(9, DeleteTopic, OK)
			create := s.ask(9, CreateTopic)
			s.add(late, OK)
			s.add(create, OK)
			late = s.ask(8, DeleteTopic) // finds nothing, and waits
			s.do(9, CreateTopic, OK)
			s.send(1, 0, 10)
			s.add(late, Info)
		}},
		{name: "several deletes, one of which may be late", opt: idempotent, h: func(s *script) {
			s.do(9, DeleteTopic, Info)
			s.do(9, DeleteTopic, OK)
			s.do(9, CreateTopic, OK)
			s.send(1, 0, 10)
		}},
		{name: "a wrong acknowledgement in a deleted incarnation, retrying", opt: retrying, h: func(s *script) {
			s.unknown(3, 9)
			s.send(1, 0, 10)
			s.assign(2, 0)
			s.poll(2, 0, 9, 10)
			s.do(9, DeleteTopic, OK)
		}, want: map[Kind]int{AckMismatch: 1}},
		{name: "the acknowledged copy is gone", opt: retrying, h: func(s *script) {
			s.unknown(3, 12)
			s.send(1, 1, 10)
			op := s.invoke(2, Poll)
			op.Mops = []Mop{{Key: key, Records: []Record{{0, 10}, {2, 12}}}}
			s.add(op, OK)
		}, want: map[Kind]int{AckMismatch: 1}},
		{name: "two acknowledged at one offset, in turn", opt: Options{Idempotent: true}, h: func(s *script) {
			s.send(1, 0, 10)
			s.send(2, 0, 11)
		}, want: map[Kind]int{InconsistentOffsets: 1}},
		{name: "they do not fill a hole twice", opt: idempotent, h: func(s *script) {
			s.send(1, 0, 10)
			s.send(2, 0, 11)
			s.send(1, 2, 12)
			s.poll(2, 2, 12)
		}, want: map[Kind]int{InconsistentOffsets: 1, LostWrite: 2, LostOffset: 1}},
		{name: "a wrong order is counted once", opt: idempotent, h: func(s *script) {
			s.send(1, 1, 10)
			s.send(1, 0, 11)
			s.poll(2, 0, 11, 10)
		}, want: map[Kind]int{NonmonotonicSend: 1}},
		{name: "failed without a list of records", opt: idempotent, h: func(s *script) {
			op := s.invoke(1, Send, Values(key, 10))
			op.Mops = nil
			s.add(op, Fail)
			s.poll(2, 0, 10)
		}, want: map[Kind]int{G1a: 1}},
		{name: "acknowledges the value of another send", opt: Options{Idempotent: true}, h: func(s *script) {
			s.unknown(1, 10)
			op := s.invoke(1, Send, Values(key, 11))
			op.Mops = []Mop{Values(key, 10).At(0)}
			s.add(op, OK)
		}, want: map[Kind]int{Malformed: 1}},
		{name: "sends what stands for garbage", opt: idempotent, h: func(s *script) {
			s.invoke(1, Send, Values(key, Garbled))
		}, want: map[Kind]int{Malformed: 1}},
		{name: "completed by another process", opt: idempotent, h: func(s *script) {
			op := s.invoke(1, Poll)
			op.Process = 2
			s.add(op, OK)
		}, want: map[Kind]int{Malformed: 1}},
		{name: "transactions are not checked", opt: idempotent, h: func(s *script) {
			s.add(s.invoke(1, Txn, Mop{Key: key, F: Send, Records: []Record{{NoOffset, 1}}}), OK)
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var s script
			tt.h(&s)
			report := Check(s.h, tt.opt)
			want := tt.want
			if want == nil {
				want = map[Kind]int{}
			}
			if diff := cmp.Diff(want, report.Counts); diff != "" {
				t.Errorf("counts (-want +got):\n%s\n%s", diff, report)
			}
		})
	}
}

func TestReport(t *testing.T) {
	t.Parallel()
	var s script
	s.send(1, 0, 10, 11) // events 0, 1
	s.poll(2, 0, 10)     // 2, 3
	s.unknown(1, 12)     // 4, 5
	s.invoke(1, Send)    // 6
	s.poll(2, 2, 12)     // 7, 8
	report := Check(s.h, Options{Idempotent: true})
	want := &Report{
		Anomalies: []Anomaly{{
			Kind: LostWrite, Key: key, Values: []int64{11}, Offsets: []int64{1}, Events: []int{0, 1},
			Detail: "acknowledged, never read, though offset 2 was",
		}},
		Counts: map[Kind]int{LostWrite: 1},
		Ops:    map[F]Outcomes{Send: {OK: 1, Info: 1, Open: 1}, Poll: {OK: 2}},
		Events: 9, Keys: 1, Sent: 3, Acked: 2, Reads: 2, Distinct: 2,
		Lag: Lag{P50: 2 * time.Millisecond, P99: 2 * time.Millisecond, Max: 2 * time.Millisecond},
	}
	ignore := cmp.FilterPath(func(p cmp.Path) bool { return slices.Contains([]string{"keep", "off"}, p.Last().String()[1:]) }, cmp.Ignore())
	if diff := cmp.Diff(want, report, ignore); diff != "" {
		t.Errorf("report (-want +got):\n%s", diff)
	}
	if err := report.Err(); !errors.Is(err, ErrAnomalies) || !strings.Contains(err.Error(), "lost-write 1") {
		t.Errorf("Err = %v", err)
	}
	for _, part := range []string{"INVALID: lost-write 1", "lost-write orders/0", "send: ok=1 fail=0 info=1 open=1"} {
		if !strings.Contains(report.String(), part) {
			t.Errorf("String lacks %q:\n%s", part, report)
		}
	}
}

// TestLagIsNotNegative reads a value before its acknowledgement arrives.
func TestLagIsNotNegative(t *testing.T) {
	t.Parallel()
	var s script
	op := s.invoke(1, Send, Values(key, 10))
	s.poll(2, 0, 10)
	op.Mops = []Mop{op.Mops[0].At(0)}
	s.add(op, OK)
	if report := Check(s.h, Options{}); report.Lag != (Lag{}) || report.Distinct != 1 {
		t.Errorf("lag %v of %d values", report.Lag, report.Distinct)
	}
}

func TestReportKeepsAFew(t *testing.T) {
	t.Parallel()
	var s script
	for v := range int64(100) {
		s.poll(2, v, v)
	}
	report := Check(s.h, Options{Keep: 3})
	if len(report.Anomalies) != 3 || report.Counts[Phantom] != 100 {
		t.Errorf("%d kept of %d, want 3 of 100", len(report.Anomalies), report.Counts[Phantom])
	}
}
