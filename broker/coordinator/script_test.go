package coordinator

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/flotilla-log/flotilla/consumergroup"
	"github.com/flotilla-log/flotilla/consumergroup/record"
	"github.com/flotilla-log/flotilla/internal/errcode"
)

var errLost = errors.New("the term is lost")

// script is a Log that a test tells what to do. It applies as Apply does: the last
// number of the term + 1, and nothing else (R3).
type script struct {
	t *testing.T

	mu      sync.Mutex
	state   *consumergroup.Groups
	term    uint64
	number  uint64 // of the last decision applied in this term
	sizes   []int  // records of each
	asked   int    // times that Confirm was called
	runners int    // that were started
	leading bool

	// propose and confirm are called before anything is applied or answered, with no
	// lock held; nil: at once, and well. What propose returns as apply says whether
	// the records are applied, whatever is answered.
	propose func(ctx context.Context, number uint64, rs []record.Record) (apply bool, err error)
	confirm func(ctx context.Context) error

	under  *under                             // the proposal under way; nil: none
	extend func(records []record.Record) bool // whether it may be of these; nil: it may not
}

// under is a proposal under way.
type under struct {
	term, number uint64
	records      []record.Record
}

func newScript(t *testing.T) *script {
	return &script{t: t, state: consumergroup.NewGroups(), term: 7, leading: true}
}

func (s *script) Propose(ctx context.Context, term, number uint64, rs []record.Record) error {
	s.mu.Lock()
	propose, now := s.propose, &under{term, number, rs}
	s.under = now
	s.mu.Unlock()
	apply, err := true, error(nil)
	if propose != nil {
		apply, err = propose(ctx, number, rs)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.under == now {
		s.under = nil
	}
	rs = now.records
	if term != s.term {
		return errLost
	}
	if !apply {
		return err
	}
	if number != s.number+1 {
		s.t.Errorf("decision %d of term %d is proposed after %d", number, term, s.number)
		return fmt.Errorf("%w: number %d after %d", ErrRefused, number, s.number)
	}
	s.number++
	s.sizes = append(s.sizes, len(rs))
	for _, r := range rs {
		if err := s.state.Fold(r); err != nil {
			s.t.Errorf("fold: %v", err)
		}
	}
	return err
}

func (s *script) Extend(term, number uint64, rs []record.Record) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.under == nil || s.under.term != term || s.under.number != number {
		return false
	}
	if had := len(s.under.records); had >= len(rs) || !slices.EqualFunc(s.under.records, rs[:had], sameRecord) {
		s.t.Errorf("decision %d: %d records are to be %d others", number, had, len(rs))
	}
	if s.extend == nil || !s.extend(rs) {
		return false
	}
	s.under.records = rs
	return true
}

func sameRecord(x, y record.Record) bool {
	return bytes.Equal(x.Key, y.Key) && bytes.Equal(x.Value, y.Value)
}

func (s *script) Confirm(ctx context.Context, term uint64) error {
	s.mu.Lock()
	s.asked++
	confirm := s.confirm
	s.mu.Unlock()
	if confirm != nil {
		return confirm(ctx)
	}
	return nil
}

func (s *script) Groups(f func(*consumergroup.Groups)) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	f(s.state)
	return nil
}

// offset returns what is applied of a group's offset of t-0, or -1.
func (s *script) offset(group string) int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	if v := s.state.Offset(group, consumergroup.TopicPartition{Topic: "t"}); v != nil {
		return v.Offset
	}
	return -1
}

func (s *script) proposals() []int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]int(nil), s.sizes...)
}

// proposes has propose called from now on, and confirms confirm.
func (s *script) proposes(propose func(context.Context, uint64, []record.Record) (bool, error)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.propose = propose
}

// extends has extend called from now on, with the lock held.
func (s *script) extends(extend func([]record.Record) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.extend = extend
}

func (s *script) confirms(confirm func(context.Context) error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.confirm = confirm
}

// after has proposals, or confirmations, take so long.
func after(d time.Duration) func(context.Context, uint64, []record.Record) (bool, error) {
	return func(ctx context.Context, _ uint64, _ []record.Record) (bool, error) {
		select {
		case <-time.After(d):
			return true, nil
		case <-ctx.Done():
			return false, ctx.Err()
		}
	}
}

// start starts a Runner on the script.
func (s *script) start(tune ...func(*Options)) *Runner {
	s.t.Helper()
	s.mu.Lock()
	s.runners++
	runner, ids := s.runners, 0
	opt := Options{Log: s, Term: s.term, Number: s.number, Groups: consumergroup.DefaultOptions(), Now: time.Now}
	s.mu.Unlock()
	opt.Groups.NewID = func() string { ids++; return fmt.Sprintf("%d-%d", runner, ids) }
	opt.Groups.InitialRebalanceDelay = 0
	for _, f := range tune {
		f(&opt)
	}
	r, err := Start(opt)
	if err != nil {
		s.t.Fatal(err)
	}
	return r
}

// inBubble gives a test a Runner in virtual time, and holds its decided state against
// the applied one at the end, if it has not ended before.
func inBubble(t *testing.T, test func(t *testing.T, s *script, r *Runner), tune ...func(*Options)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s := newScript(t)
		r := s.start(tune...)
		test(t, s, r)
		r.Stop()
	})
}

// commits returns a commit of an offset of t-0, from outside of the group.
func commits(group string, offset int64) *consumergroup.CommitRequest {
	return &consumergroup.CommitRequest{Group: group, Generation: -1, RetentionMS: -1, Offsets: []consumergroup.CommitOffset{
		{Topic: "t", Offset: offset, LeaderEpoch: -1},
	}}
}

func commit(ctx context.Context, r *Runner, group string, offset int64) errcode.Code {
	reply := r.CommitOffsets(ctx, commits(group, offset))
	if reply.Err != nil {
		return reply.Err.Code
	}
	if reply.Offsets[0] != nil {
		return reply.Offsets[0].Code
	}
	return errcode.None
}

// fetch returns a group's offset of t-0 as the Runner tells it.
func fetch(ctx context.Context, r *Runner, group string) (int64, errcode.Code) {
	reply := r.FetchOffsets(ctx, &consumergroup.FetchRequest{Group: group, Partitions: []consumergroup.FetchPartition{{Topic: "t"}}})
	if reply.Err != nil {
		return -1, reply.Err.Code
	}
	return reply.Offsets[0].Offset, errcode.None
}

// joins returns a JoinGroup of a consumer that subscribes to t.
func joins(group, member string) *consumergroup.JoinRequest {
	return &consumergroup.JoinRequest{
		Group: group, MemberID: member, ClientID: "c", SessionTimeoutMS: 10_000, RebalanceTimeoutMS: 60_000, ProtocolType: "consumer",
		Protocols: []consumergroup.Protocol{{Name: "range", Metadata: record.AppendSubscription(nil, &record.Subscription{Topics: []string{"t"}})}},
	}
}

// alone joins a group, and syncs, as its only member.
func alone(t *testing.T, r *Runner, group string) *consumergroup.JoinReply {
	t.Helper()
	join := r.JoinGroup(t.Context(), joins(group, ""))
	if join.Err != nil {
		t.Fatal(join.Err)
	}
	sync := r.SyncGroup(t.Context(), &consumergroup.SyncRequest{
		Group: group, MemberID: join.MemberID, Generation: join.Generation,
		Assignments: []consumergroup.Assignment{{MemberID: join.MemberID, Bytes: []byte("all")}},
	})
	if sync.Err != nil || string(sync.Assignment) != "all" {
		t.Fatalf("sync: %v, %q", sync.Err, sync.Assignment)
	}
	return join
}

// beat sends a heartbeat.
func beat(ctx context.Context, r *Runner, group string, join *consumergroup.JoinReply) errcode.Code {
	reply := r.HeartbeatGroup(ctx, &consumergroup.HeartbeatRequest{Group: group, MemberID: join.MemberID, Generation: join.Generation})
	if reply.Err != nil {
		return reply.Err.Code
	}
	return errcode.None
}

// answers collects what calls return that run beside the test.
type answers struct {
	mu  sync.Mutex
	got map[string]errcode.Code
}

func (a *answers) add(name string, code errcode.Code) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.got == nil {
		a.got = make(map[string]errcode.Code)
	}
	a.got[name] = code
}

// ask has a group commit, and lets everything run that can.
func (a *answers) ask(t *testing.T, r *Runner, group string) {
	go func() { a.add(group, commit(t.Context(), r, group, 1)) }()
	synctest.Wait()
}

// check lets everything run that can, and fails unless exactly these are answered.
func (a *answers) check(t *testing.T, when string, want map[string]errcode.Code) {
	t.Helper()
	synctest.Wait()
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.got) != len(want) {
		t.Errorf("%s: answered %v, want %v", when, a.got, want)
	}
	for name, code := range want {
		if got, ok := a.got[name]; !ok || got != code {
			t.Errorf("%s: %s: answered %t, %v; want %v", when, name, ok, got, code)
		}
	}
}
