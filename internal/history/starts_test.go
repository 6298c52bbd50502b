package history

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// told adds an operation on the log start of key: asked with one offset,
// answered with another.
func (s *script) told(f F, asked, start int64) {
	op := s.invoke(9, f, Mop{Key: key, From: asked})
	op.Mops = []Mop{{Key: key, From: start}}
	s.add(op, OK)
}

func TestLogStarts(t *testing.T) {
	t.Parallel()
	bySize := Options{Retention: map[string]Retention{key.Topic: {Age: -1, Records: 2}}}
	byAge := Options{Retention: map[string]Retention{key.Topic: {Age: 5 * time.Millisecond, Records: -1}}}
	tests := []struct {
		name string
		opt  Options
		h    func(s *script)
		want map[Kind]int
	}{
		{name: "deleted before anybody read", h: func(s *script) {
			s.send(1, 0, 10, 11, 12)
			s.told(DeleteRecords, 2, 2)
			s.poll(2, 2, 12)
			s.told(LogStarts, 0, 2)
		}},
		{name: "a deletion of unknown outcome, and nobody asked", h: func(s *script) {
			s.send(1, 0, 10, 11, 12)
			s.add(s.invoke(9, DeleteRecords, Mop{Key: key, From: 2}), Info)
			s.poll(2, 2, 12)
		}},
		{name: "a deletion of unknown outcome had none", h: func(s *script) {
			s.send(1, 0, 10, 11, 12)
			s.add(s.invoke(9, DeleteRecords, Mop{Key: key, From: 2}), Info)
			s.poll(2, 2, 12)
			s.told(LogStarts, 0, 0)
		}, want: map[Kind]int{LostWrite: 2}},
		{name: "a deletion that failed excuses nothing", h: func(s *script) {
			s.send(1, 0, 10, 11, 12)
			s.add(s.invoke(9, DeleteRecords, Mop{Key: key, From: 2}), Fail)
			s.poll(2, 2, 12)
		}, want: map[Kind]int{LostWrite: 2}},
		{name: "missing above the log start", h: func(s *script) {
			s.send(1, 0, 10, 11, 12, 13)
			s.told(DeleteRecords, 1, 1)
			s.poll(2, 1, 11)
			s.poll(3, 3, 13)
			s.told(LogStarts, 0, 1)
		}, want: map[Kind]int{LostWrite: 1}},
		{name: "a reader jumps to the log start", h: func(s *script) {
			s.send(1, 0, 10, 11, 12)
			s.poll(2, 0, 10)
			s.poll(3, 0, 10, 11)
			s.told(DeleteRecords, 2, 2)
			s.poll(2, 2, 12)
			s.told(LogStarts, 0, 2)
		}},
		{name: "a reader jumps further", h: func(s *script) {
			s.send(1, 0, 10, 11, 12, 13)
			s.poll(2, 0, 10)
			s.poll(3, 0, 10, 11, 12)
			s.told(DeleteRecords, 2, 2)
			s.poll(2, 3, 13)
			s.told(LogStarts, 0, 2)
		}, want: map[Kind]int{PollSkip: 1}},
		{name: "a reader jumps before the deletion", h: func(s *script) {
			s.send(1, 0, 10, 11, 12)
			s.poll(3, 0, 10, 11)
			s.assign(2, 0)
			s.poll(2, 2, 12)
			s.told(DeleteRecords, 2, 2)
		}, want: map[Kind]int{PollSkip: 1}},
		{name: "the buffer of an older reader", h: func(s *script) {
			s.send(1, 0, 10, 11, 12)
			s.assign(2, 0)
			s.told(DeleteRecords, 2, 2)
			s.poll(2, 0, 10, 11, 12)
		}},
		{name: "what was deleted, to a new reader", h: func(s *script) {
			s.send(1, 0, 10, 11, 12)
			s.told(DeleteRecords, 2, 2)
			s.assign(2, 0)
			s.poll(2, 1, 11, 12)
		}, want: map[Kind]int{BelowStart: 1}},
		{name: "offsets given again below the log start", h: func(s *script) {
			s.send(1, 0, 10, 11)
			s.told(DeleteRecords, 2, 2)
			s.send(1, 1, 12)
			s.assign(2, 0)
			s.told(LogStarts, 0, 2)
		}, want: map[Kind]int{BelowStart: 1, InconsistentOffsets: 1}},
		{name: "other content below the log start", h: func(s *script) {
			s.send(1, 0, 10, 11)
			s.unknown(1, 12)
			s.poll(2, 0, 10, 11)
			s.assign(3, 0)
			s.told(DeleteRecords, 2, 2)
			s.poll(3, 1, 12)
			s.told(LogStarts, 0, 2)
		}, want: map[Kind]int{InconsistentOffsets: 1}},
		{name: "all there is", h: func(s *script) {
			s.send(1, 0, 10, 11)
			s.told(DeleteRecords, NoOffset, 2)
			s.assign(2, 0)
			s.told(LogStarts, 0, 2)
		}},
		{name: "less than all there is", h: func(s *script) {
			s.send(1, 0, 10, 11)
			s.told(DeleteRecords, NoOffset, 1)
			s.poll(2, 1, 11)
			s.told(LogStarts, 0, 1)
		}, want: map[Kind]int{Undeleted: 1}},
		{name: "it went back", h: func(s *script) {
			s.send(1, 0, 10, 11)
			s.told(DeleteRecords, 1, 1)
			s.told(LogStarts, 0, 0)
			s.poll(2, 0, 10, 11)
		}, want: map[Kind]int{StartBack: 1}},
		{name: "it did not go back in an older answer", h: func(s *script) {
			s.send(1, 0, 10, 11)
			early := s.invoke(8, LogStarts)
			s.told(DeleteRecords, 1, 1)
			early.Mops = []Mop{{Key: key}}
			s.add(early, OK)
			s.poll(2, 1, 11)
			s.told(LogStarts, 0, 1)
		}},
		{name: "a topic made again starts at 0", h: func(s *script) {
			s.do(7, CreateTopic, OK)
			s.send(1, 0, 10, 11)
			s.told(DeleteRecords, 2, 2)
			s.do(7, DeleteTopic, OK)
			s.do(7, CreateTopic, OK)
			s.told(LogStarts, 0, 0)
			s.assign(2, 0)
			s.send(1, 0, 12)
			s.poll(2, 0, 12)
		}},
		{name: "it moved by itself", h: func(s *script) {
			s.send(1, 0, 10, 11)
			s.told(LogStarts, 0, 1)
			s.poll(2, 1, 11)
			s.told(LogStarts, 0, 1)
		}, want: map[Kind]int{UnexplainedStart: 1}},
		{name: "it moved before it was asked to", h: func(s *script) {
			s.send(1, 0, 10, 11)
			s.told(LogStarts, 0, 1)
			s.told(DeleteRecords, 1, 1)
			s.poll(2, 1, 11)
			s.told(LogStarts, 0, 1)
		}, want: map[Kind]int{UnexplainedStart: 1}},
		{name: "size", opt: bySize, h: func(s *script) {
			s.send(1, 0, 10, 11, 12)
			s.poll(2, 1, 11, 12)
			s.told(LogStarts, 0, 1)
		}},
		{name: "size, and an unknown send may lie above", opt: bySize, h: func(s *script) {
			s.send(1, 0, 10, 11, 12)
			s.unknown(1, 13)
			s.poll(2, 2, 12)
			s.told(LogStarts, 0, 2)
		}},
		{name: "size, too few left", opt: bySize, h: func(s *script) {
			s.send(1, 0, 10, 11, 12)
			s.poll(2, 2, 12)
			s.told(LogStarts, 0, 2)
			s.send(1, 3, 13)
			s.poll(2, 3, 13)
			s.told(LogStarts, 0, 2)
		}, want: map[Kind]int{UnexplainedStart: 1}},
		{name: "size, and what it left is missing", opt: bySize, h: func(s *script) {
			s.send(1, 0, 10, 11, 12)
			s.poll(2, 2, 12)
			s.told(LogStarts, 0, 1)
		}, want: map[Kind]int{LostWrite: 1}},
		{name: "age", opt: byAge, h: func(s *script) {
			s.send(1, 0, 10)
			s.send(1, 1, 11) // at 2 ms
			s.poll(2, 0, 10)
			s.told(LogStarts, 0, 2) // told at 7 ms
		}},
		{name: "age, too young", opt: byAge, h: func(s *script) {
			s.send(1, 0, 10)
			s.send(1, 1, 11) // at 2 ms
			s.told(LogStarts, 0, 2)
		}, want: map[Kind]int{UnexplainedStart: 1}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := new(script)
			tt.h(s)
			tt.opt.Idempotent, tt.opt.Assigned, tt.opt.Final = true, true, true
			r := Check(s.h, tt.opt)
			want := tt.want
			if want == nil {
				want = map[Kind]int{}
			}
			if diff := cmp.Diff(want, r.Counts); diff != "" {
				t.Errorf("anomalies (-want +got):\n%s\n%s", diff, r)
			}
		})
	}
}
