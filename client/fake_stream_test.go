package client

import (
	"fmt"
	"slices"
	"time"

	"github.com/flotilla-log/flotilla/internal/errcode"
	"github.com/flotilla-log/flotilla/log/batch"
	"github.com/flotilla-log/flotilla/wire/frame"
	"github.com/flotilla-log/flotilla/wire/pb"
)

// fakeStream is a stream of a fakeConn. Its fields are guarded by the
// cluster's mu.
type fakeStream struct {
	s             *fakeConn
	id            uint32
	granted, sent uint64
	maxBytes      uint32
	parts         []*pb.StreamPart // in the order of their turns
	ended         bool
}

// changed wakes the pumps of all streams.
func (f *fakeCluster) changedLocked() {
	close(f.grown)
	f.grown = make(chan struct{})
}

// stream handles the requests about streams.
func (s *fakeConn) stream(fr frame.Frame) bool {
	s.f.mu.Lock()
	defer s.f.mu.Unlock()
	defer s.f.changedLocked()
	refuse := func(code errcode.Code) bool { return s.answer(fr, frame.NewError(code, "by the fake")) }
	switch fr.Kind {
	case frame.KindSubscribe:
		m := decode(s.f.t, fr, new(pb.SubscribeRequest))
		if s.streams[m.Stream] != nil || m.Stream == 0 {
			s.f.t.Errorf("Subscribe of stream %d", m.Stream)
			return refuse(errcode.InvalidRequest)
		}
		if s.f.refuseStreams != errcode.None {
			return refuse(s.f.refuseStreams)
		}
		st := &fakeStream{s: s, id: m.Stream, granted: m.CreditBytes, maxBytes: m.MaxPartitionBytes, parts: m.Parts}
		s.streams[m.Stream] = st
		s.f.open = append(s.f.open, st)
		s.f.window = max(s.f.window, m.CreditBytes)
		s.handlers.Go(st.pump)
		return s.answer(fr, &pb.SubscribeResponse{})
	case frame.KindChangeStream:
		m := decode(s.f.t, fr, new(pb.ChangeStreamRequest))
		st := s.streams[m.Stream]
		if st == nil {
			return refuse(errcode.ResourceNotFound)
		}
		st.change(m)
		return s.answer(fr, &pb.ChangeStreamResponse{})
	case frame.KindUnsubscribe:
		m := decode(s.f.t, fr, new(pb.UnsubscribeRequest))
		st := s.streams[m.Stream]
		if st == nil {
			return refuse(errcode.ResourceNotFound)
		}
		st.ended = true
		delete(s.streams, m.Stream)
		return s.answer(fr, &pb.UnsubscribeResponse{})
	}
	m := decode(s.f.t, fr, new(pb.Credit))
	if st := s.streams[m.Stream]; st != nil {
		if m.TotalBytes < st.granted {
			s.f.t.Errorf("credit of %d bytes after %d", m.TotalBytes, st.granted)
		}
		st.granted = m.TotalBytes
	}
	return true
}

func (st *fakeStream) change(m *pb.ChangeStreamRequest) {
	t := st.s.f.t
	seen := make(map[string]bool)
	find := func(id []byte, partition int32) int {
		key := fmt.Sprintf("%x %d", id, partition)
		if seen[key] {
			t.Errorf("partition %d twice in a change", partition)
		}
		seen[key] = true
		return slices.IndexFunc(st.parts, func(p *pb.StreamPart) bool {
			return string(p.TopicId) == string(id) && p.Partition == partition
		})
	}
	for _, p := range m.Set {
		if i := find(p.TopicId, p.Partition); i >= 0 {
			if p.Generation <= st.parts[i].Generation {
				t.Errorf("generation %d after %d", p.Generation, st.parts[i].Generation)
			}
			st.parts[i] = p
		} else {
			st.parts = append(st.parts, p)
		}
	}
	for _, p := range m.Remove {
		if i := find(p.TopicId, p.Partition); i >= 0 {
			st.parts = slices.Delete(st.parts, i, i+1)
		}
	}
	for _, p := range m.Pause {
		if i := find(p.TopicId, p.Partition); i >= 0 {
			st.parts[i].Paused = true
			st.s.f.pauses++
		}
	}
	for _, p := range m.Resume {
		if i := find(p.TopicId, p.Partition); i >= 0 {
			st.parts[i].Paused = false
		}
	}
}

// pump delivers one partition after another until the connection ends.
func (st *fakeStream) pump() {
	s := st.s
	for {
		s.f.mu.Lock()
		grown := s.f.grown
		m, data := st.nextLocked()
		ended := st.ended
		s.f.mu.Unlock()
		switch {
		case ended:
			return
		case m != nil:
			s.push(m, data)
			select {
			case <-time.After(s.f.pace):
				continue
			case <-s.closed:
				return
			}
		}
		select {
		case <-grown:
		case <-s.closed:
			return
		}
	}
}

func (st *fakeStream) nextLocked() (*pb.Deliver, []byte) {
	if st.ended || st.sent >= st.granted {
		return nil, nil
	}
	if f := st.s.f; f.onAny != nil && f.onAny(st.s.id, frame.KindDeliver) {
		return nil, nil
	}
	for i, part := range st.parts {
		if part.Paused {
			continue
		}
		most := uint32(min(uint64(st.maxBytes), st.granted-st.sent))
		res, data := st.s.f.readLocked(st.s.id, &pb.FetchPart{
			TopicId: part.TopicId, Partition: part.Partition, Offset: part.Offset, MaxBytes: most, LeaderEpoch: part.LeaderEpoch,
		})
		if res.Error == nil && len(data) == 0 {
			continue
		}
		out := &pb.DeliverPart{
			TopicId: part.TopicId, Partition: part.Partition, Generation: part.Generation, Error: res.Error,
			HighWatermark: res.HighWatermark, LogStartOffset: res.LogStartOffset, Length: uint32(len(data)),
		}
		st.parts = slices.Delete(st.parts, i, i+1)
		if res.Error == nil {
			part.Offset = after(data)
			st.parts = append(st.parts, part) // behind the others
		}
		st.sent += uint64(len(data))
		return &pb.Deliver{Stream: st.id, Parts: []*pb.DeliverPart{out}}, data
	}
	return nil, nil
}

// push writes a delivery.
func (s *fakeConn) push(m *pb.Deliver, data []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.w.Queue(frame.KindDeliver, 0, 0, m, frame.Part{Bytes: data}); err != nil {
		s.f.t.Errorf("deliver: %v", err)
	}
	_ = s.w.Flush()
}

// after returns the offset after the last whole batch of data.
func after(data []byte) (next int64) {
	for len(data) > 0 {
		b, rest, err := batch.Split(data)
		if err != nil {
			break
		}
		h, _ := batch.ParseHeader(b)
		next, data = h.LastOffset()+1, rest
	}
	return next
}
