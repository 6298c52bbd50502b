package history

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
)

// name returns the group, also of nobody's.
func (m *Membership) name() string {
	if m == nil {
		return ""
	}
	return m.Group
}

// groupKey is all that happened to a partition in a group.
type groupKey struct {
	group    string
	key      Key
	terms    []term         // in the order in which they began
	commits  []commit       // that may have been taken, in the order of their invocation
	told     []told         // in the order of the answers
	consumed map[int64]bool // offsets that members were given
}

// term is for how long a member had a partition.
type term struct {
	member  string
	process int32
	epoch   int32 // at which it was given to the member; 0: not known
	began   int32 // event
	ended   int32 // event, or never
	lost    bool  // it ended with the word that it may have ended before
}

// commit is an offset that somebody committed.
type commit struct {
	member  string // empty: from outside
	offset  int64
	invoked int32 // event
	done    int32 // event, or never: it is not known whether it was taken
	set     bool  // it may go back
}

// told is a committed offset that somebody was told.
type told struct {
	offset      int64 // NoOffset: nothing is committed
	asked, done int32 // events
}

// groups is what judgeGroups collects.
type groups struct {
	keys  map[string]map[Key]*groupKey
	order []*groupKey
	open  map[int32][]*groupKey // by process: those whose last term of it has not ended
	signs map[string][]int32    // by group and member: invocations of commits that were taken
}

// judgeGroups runs the checks of consumer groups. It leaves out topics that were
// deleted: what a group has of them belongs to one of their lives.
func (c *checker) judgeGroups() {
	gs := &groups{keys: make(map[string]map[Key]*groupKey), open: make(map[int32][]*groupKey), signs: make(map[string][]int32)}
	for i := range c.h {
		if c.h[i].Type == Invoke || c.mate[i] != none {
			c.collectGroup(gs, int32(i))
		}
	}
	for _, gk := range gs.order {
		c.owners(gs, gk)
		c.fenced(gk)
		c.offsetsForward(gk)
		c.phantomCommits(gk)
		c.beyondEnd(gk)
	}
	for _, group := range slices.Sorted(maps.Keys(c.opt.Groups)) {
		c.unconsumed(gs, group)
	}
	c.steady()
}

func (gs *groups) at(group string, key Key) *groupKey {
	of := gs.keys[group]
	if of == nil {
		of = make(map[Key]*groupKey)
		gs.keys[group] = of
	}
	gk := of[key]
	if gk == nil {
		gk = &groupKey{group: group, key: key, consumed: make(map[int64]bool)}
		of[key] = gk
		gs.order = append(gs.order, gk)
	}
	return gk
}

// sign names a member in its group.
func sign(in *Membership) string { return fmt.Sprintf("%q %q", in.Group, in.Member) }

// collectGroup takes what event i says of a group.
func (c *checker) collectGroup(gs *groups, i int32) {
	op := &c.h[i]
	if op.F == Crash && op.Type == Invoke {
		for _, gk := range gs.open[op.Process] {
			gk.end(op.Process, i, true)
		}
		delete(gs.open, op.Process)
		return
	}
	if op.In == nil {
		return
	}
	if op.F == Commit && op.Type == OK && op.In.Member != "" && len(op.Mops) > 0 {
		gs.signs[sign(op.In)] = append(gs.signs[sign(op.In)], c.mate[i])
	}
	for _, m := range op.Mops {
		if c.lives[m.Key.Topic].final() > 0 {
			continue
		}
		gk := gs.at(op.In.Group, m.Key)
		switch {
		case op.F == Assigned && op.Type == Invoke:
			gk.terms = append(gk.terms, term{member: op.In.Member, process: op.Process, epoch: op.In.Epoch, began: i, ended: never})
			gs.open[op.Process] = append(gs.open[op.Process], gk)
		case (op.F == Revoked || op.F == Lost) && op.Type == Invoke:
			gk.end(op.Process, i, op.F == Lost)
		case (op.F == Commit || op.F == SetOffsets) && op.Type == Invoke:
			if mate := c.mate[i]; mate == none || c.h[mate].Type != Fail {
				gk.commits = append(gk.commits, commit{member: op.In.Member, offset: m.From, invoked: i, done: never, set: op.F == SetOffsets})
			}
		case (op.F == Commit || op.F == SetOffsets) && op.Type == OK:
			gk.taken(c.mate[i], i)
		case op.F == FetchOffsets && op.Type == OK:
			gk.told = append(gk.told, told{offset: m.From, asked: c.mate[i], done: i})
		case op.F == Poll && op.Type == OK:
			for _, r := range m.Records {
				gk.consumed[r.Offset] = true
			}
		}
	}
}

// end ends the term that a process has.
func (gk *groupKey) end(process, i int32, lost bool) {
	for n := range gk.terms {
		if t := &gk.terms[n]; t.process == process && t.ended == never {
			t.ended, t.lost = i, lost
		}
	}
}

// taken takes note that the commit invoked at an event was acknowledged.
func (gk *groupKey) taken(invoked, done int32) {
	n, ok := slices.BinarySearchFunc(gk.commits, invoked, func(a commit, i int32) int { return cmp.Compare(a.invoked, i) })
	if ok && gk.commits[n].done == never {
		gk.commits[n].done = done
	}
}

func (c *checker) reportGroup(k Kind, gk *groupKey, detail string, offsets []int64, events ...int32) {
	a := Anomaly{Kind: k, Key: gk.key, Offsets: offsets, Detail: fmt.Sprintf("group %q: %s", gk.group, detail)}
	for _, e := range events {
		a.Events = append(a.Events, int(e))
	}
	c.report.add(a)
}

// owners checks that one member has a partition at a time. Of two terms, that of the
// later epoch was given later, whichever client was the first to hear of its own.
func (c *checker) owners(gs *groups, gk *groupKey) {
	for n := range gk.terms {
		y := &gk.terms[n]
		for m := range gk.terms {
			x := &gk.terms[m]
			switch {
			case x.member == y.member || x.epoch == 0 || y.epoch == 0:
			case x.epoch == y.epoch && m < n:
				c.reportGroup(TwoOwners, gk, fmt.Sprintf("given to %s and to %s at epoch %d", x.member, y.member, x.epoch), nil, x.began, y.began)
			case x.epoch < y.epoch && x.began < y.began && y.began < x.ended && !x.lost:
				if at, ok := gs.sign(gk.group, x.member, y.began, x.ended); ok {
					c.reportGroup(TwoOwners, gk, fmt.Sprintf("given to %s at epoch %d while %s had it, which was a member still", y.member, y.epoch, x.member),
						nil, x.began, y.began, at)
				}
			}
		}
	}
}

// sign returns an event between two at which a member sent a commit that was taken.
func (gs *groups) sign(group, member string, after, before int32) (int32, bool) {
	all := gs.signs[sign(&Membership{Group: group, Member: member})]
	n := slices.IndexFunc(all, func(i int32) bool { return i > after && i < before })
	if n < 0 {
		return 0, false
	}
	return all[n], true
}

// fenced checks that commits are taken of who has the partition. What a member had
// last before it sent one is older than what another one got at a later epoch.
func (c *checker) fenced(gk *groupKey) {
	for i := range gk.commits {
		cm := &gk.commits[i]
		if cm.set || cm.done == never || cm.member == "" {
			continue
		}
		var own, other *term
		for n := range gk.terms {
			t := &gk.terms[n]
			switch {
			case t.began > cm.invoked:
			case t.member == cm.member:
				own = t
			case other == nil || t.epoch > other.epoch:
				other = t
			}
		}
		if own != nil && other != nil && own.epoch != 0 && own.epoch < other.epoch {
			c.reportGroup(FencedCommit, gk, fmt.Sprintf("committed by %s, which had it at epoch %d, after %s had got it at epoch %d", cm.member, own.epoch, other.member, other.epoch),
				[]int64{cm.offset}, own.began, other.began, cm.invoked, cm.done)
		}
	}
}

// known is that an offset was committed by an event.
type known struct {
	offset         int64
	invoked, event int32
}

// knownOffsets returns what is known of committed offsets, in the order of the events
// that told it, and by whom each of them was exceeded so far: the place of the
// greatest up to each.
func (gk *groupKey) knownOffsets() (all []known, tops []int) {
	for _, cm := range gk.commits {
		if cm.done != never {
			all = append(all, known{cm.offset, cm.invoked, cm.done})
		}
	}
	for _, t := range gk.told {
		all = append(all, known{t.offset, t.asked, t.done})
	}
	slices.SortFunc(all, func(a, b known) int { return cmp.Compare(a.event, b.event) })
	tops = make([]int, len(all))
	for n := range all {
		if tops[n] = n; n > 0 && all[tops[n-1]].offset >= all[n].offset {
			tops[n] = tops[n-1]
		}
	}
	return all, tops
}

// offsetsForward checks that no committed offset is below one that was acknowledged,
// or told, before: neither one that is told, nor one that is committed, unless
// somebody has set offsets meanwhile, or a commit without an answer may have come late.
func (c *checker) offsetsForward(gk *groupKey) {
	all, tops := gk.knownOffsets()
	check := func(kind Kind, what, member string, offset int64, invoked, done int32) {
		since := gk.setBefore(invoked, done)
		before, _ := slices.BinarySearchFunc(all, invoked, func(k known, i int32) int { return cmp.Compare(k.event, i) })
		if before == 0 {
			return
		}
		top := &all[tops[before-1]]
		if since > 0 { // what was there before counts no more
			top = nil
			for n := range all[:before] {
				if k := &all[n]; k.invoked >= since && (top == nil || k.offset > top.offset) {
					top = k
				}
			}
		}
		if top != nil && offset < top.offset && !gk.late(kind, member, offset, done) {
			c.reportGroup(kind, gk, fmt.Sprintf("%s %d, and %d was committed before", what, offset, top.offset), []int64{top.offset, offset}, top.event, invoked, done)
		}
	}
	for _, cm := range gk.commits {
		if cm.done != never && !cm.set {
			check(CommitBack, "committed", cm.member, cm.offset, cm.invoked, cm.done)
		}
	}
	for _, t := range gk.told {
		check(LostCommit, "told", "", t.offset, t.asked, t.done)
	}
}

// late reports whether a commit that was never answered explains that an offset is told
// by an event, or that another member, which was told of it, has committed one: it may be
// on its way for as long as the connection that it was sent on lives at the server's end.
func (gk *groupKey) late(kind Kind, member string, offset int64, event int32) bool {
	return slices.ContainsFunc(gk.commits, func(cm commit) bool {
		after := kind == CommitBack && cm.offset < offset && cm.member != member
		return cm.done == never && cm.invoked <= event && (cm.offset == offset || after)
	})
}

// setBefore returns the event from which on nothing but what is invoked by it counts:
// the last invocation that may have set an offset back, or never if that may have
// taken effect beside what was invoked and done at two events.
func (gk *groupKey) setBefore(invoked, done int32) (since int32) {
	for _, cm := range gk.commits {
		if !cm.set || cm.invoked > done {
			continue
		}
		if cm.done > invoked {
			return never
		}
		since = max(since, cm.invoked)
		for _, other := range gk.commits { // what ran beside it may have come before or after
			if other.invoked < cm.done && other.done > cm.invoked && other.invoked != cm.invoked {
				since = max(since, cm.done)
			}
		}
	}
	return since
}

// phantomCommits checks that what is told was committed by somebody.
func (c *checker) phantomCommits(gk *groupKey) {
	first := make(map[int64]int32, len(gk.commits)) // event of an offset's first commit
	for _, cm := range gk.commits {
		if _, ok := first[cm.offset]; !ok {
			first[cm.offset] = cm.invoked
		}
	}
	for _, t := range gk.told {
		if at, ok := first[t.offset]; t.offset != NoOffset && (!ok || at > t.done) {
			c.reportGroup(PhantomCommit, gk, fmt.Sprintf("told %d, which nobody has committed", t.offset), []int64{t.offset}, t.asked, t.done)
		}
	}
}

// beyondEnd checks that what is told lies in the log, at the end of the history.
func (c *checker) beyondEnd(gk *groupKey) {
	p := c.partitions[gk.key]
	if !c.opt.Final || p == nil {
		return
	}
	end := int64(0)
	if reads := p.within(0); len(reads) > 0 {
		end = reads[len(reads)-1].offset + 1
	}
	end = max(end, c.needed(p, 0))
	for _, t := range gk.told {
		if t.offset > end {
			c.reportGroup(CommitBeyondEnd, gk, fmt.Sprintf("told %d, and the log ends at %d", t.offset, end), []int64{t.offset, end}, t.asked, t.done)
			return
		}
	}
}

// unconsumed checks that a group was given every record that anybody read of its
// topics.
func (c *checker) unconsumed(gs *groups, group string) {
	for _, p := range c.order {
		if !slices.Contains(c.opt.Groups[group], p.key.Topic) || c.lives[p.key.Topic].final() > 0 {
			continue
		}
		gk := gs.at(group, p.key)
		for _, r := range from(p.within(0), c.needed(p, 0)) {
			if !gk.consumed[r.offset] {
				c.reportGroup(Unconsumed, gk, fmt.Sprintf("no member was given offset %d", r.offset), []int64{r.offset}, r.event)
				break
			}
		}
	}
}

// steady checks that nothing moved while nothing was to move.
func (c *checker) steady() {
	since := make(map[string]int32) // by group: the invocation of a Steady that is under way
	for i := range c.h {
		op := &c.h[i]
		switch {
		case op.In == nil:
		case op.F == Steady && op.Type == Invoke && c.mate[i] != none && c.h[c.mate[i]].Type == OK:
			since[op.In.Group] = int32(i)
		case op.F == Steady && op.Type != Invoke:
			delete(since, op.In.Group)
		case op.Type == Invoke && (op.F == Assigned || op.F == Revoked || op.F == Lost):
			if from, ok := since[op.In.Group]; ok {
				c.report.add(Anomaly{
					Kind: NeedlessRebalance, Key: firstKey(op.Mops), Events: []int{int(from), i},
					Detail: fmt.Sprintf("group %q: %s by member %s at epoch %d, %d partitions, though all members were there", op.In.Group, op.F, op.In.Member, op.In.Epoch, len(op.Mops)),
				})
			}
		}
	}
}

func firstKey(mops []Mop) Key {
	if len(mops) == 0 {
		return Key{}
	}
	return mops[0].Key
}
