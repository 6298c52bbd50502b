package replication

import (
	"testing"
	"time"
)

// TestCampaign ends a leader: the voter that both others agree on leads within
// milliseconds, long before an election timeout, with everything acknowledged.
func TestCampaign(t *testing.T) {
	withTrio(t, func(t *testing.T, tr *trio) {
		a := tr.leader(1, 2, 3)
		lines := numbered("acknowledged", 20, 10)
		tr.mustWrite(a, lines...)
		b, c := tr.others(a)[0], tr.others(a)[1]
		tr.agree(lines, b, c)
		tr.kill(a)
		ended := time.Now()
		claim, ok := tr.rigs[b].replica.Claim(ended, int32(a))
		if !ok {
			t.Fatalf("node %d does not want to follow on node %d, whose voter it is", b, a)
		}
		if !tr.rigs[c].replica.Grant(ended, claim) {
			t.Fatalf("node %d does not agree to %+v", c, claim)
		}
		if !tr.rigs[b].replica.Campaign(claim.Term) {
			t.Fatalf("node %d does not campaign after term %d", b, claim.Term)
		}
		if got := tr.leader(b, c); got != b {
			t.Errorf("node %d leads, want %d", got, b)
		}
		if took := time.Since(ended); took >= electionTimeout/4 {
			t.Errorf("node %d led after %v", b, took)
		}
		if tr.rigs[b].replica.Campaign(claim.Term) {
			t.Error("who leads already campaigned once more")
		}
		tr.agree(lines, b, c)
	})
}

// TestGrant: a voter lets one other campaign at a time, one that lacks nothing,
// and none while it has another leader or knows better.
func TestGrant(t *testing.T) {
	withTrio(t, func(t *testing.T, tr *trio) {
		a := tr.leader(1, 2, 3)
		lines := numbered("acknowledged", 20, 10)
		tr.mustWrite(a, lines...)
		b, c := tr.others(a)[0], tr.others(a)[1]
		tr.agree(lines, b, c)
		rb, rc := tr.rigs[b].replica, tr.rigs[c].replica
		if _, ok := tr.rigs[a].replica.Claim(time.Now(), int32(a)); ok {
			t.Error("the leader wants to follow on itself")
		}
		if _, ok := rb.Claim(time.Now(), int32(c)); ok {
			t.Error("a follower wants to follow on a node that does not lead")
		}
		now := time.Now()
		claim, ok := rb.Claim(now, int32(a))
		if !ok {
			t.Fatal("a follower has no claim")
		}
		for name, edit := range map[string]func(c *Claim){
			"of another shard":           func(c *Claim) { c.Shard++ },
			"of an earlier term":         func(c *Claim) { c.Term-- },
			"of a later term":            func(c *Claim) { c.Term++ },
			"which lacks an entry":       func(c *Claim) { c.LastIndex-- },
			"with entries of older term": func(c *Claim) { c.LastTerm--; c.LastIndex += 9 },
			"of another incarnation":     func(c *Claim) { c.By.Incarnation++ },
			"against the granting node":  func(cl *Claim) { cl.Lost = int32(c) },
			"against itself":             func(c *Claim) { c.Lost = c.By.Node },
			"against who does not lead":  func(cl *Claim) { cl.Lost = 9 },
		} {
			wrong := claim
			edit(&wrong)
			if rc.Grant(now, wrong) {
				t.Errorf("a claim %s was granted: %+v", name, wrong)
			}
		}
		if tr.rigs[a].replica.Grant(now, claim) {
			t.Error("the leader agreed to a claim against itself")
		}
		for n := range 2 {
			if !rc.Grant(now, claim) {
				t.Errorf("a claim was not granted to the same for the %d. time", n+1)
			}
		}
		if other, ok := rc.Claim(now.Add(GrantWindow-1), int32(a)); ok {
			t.Errorf("who has let another campaign wants to campaign as well: %+v", other)
		}
		other, ok := rc.Claim(now.Add(GrantWindow), int32(a))
		if !ok || !rb.Grant(now.Add(GrantWindow), other) {
			t.Error("after the window nobody else may campaign")
		}
	})
}

// TestGrantWhileAsking: a voter whose election timeout is over asks for pre-votes, and
// the other, which still has a leader, refuses. It lets that other one campaign.
func TestGrantWhileAsking(t *testing.T) {
	withTrio(t, func(t *testing.T, tr *trio) {
		for range 20 {
			a := tr.leader(1, 2, 3)
			tr.rest(time.Second)
			tr.isolate(int32(a), true)
			asks, other := 0, 0
			for asks == 0 {
				tr.rest(time.Millisecond)
				for i, node := range tr.others(a) {
					if !tr.rigs[node].replica.follows() {
						asks, other = node, tr.others(a)[1-i]
					}
				}
			}
			claim, ok := tr.rigs[other].replica.Claim(time.Now(), int32(a))
			if !ok { // both timers ended in one moment, or the election is over
				tr.isolate(int32(a), false)
				tr.rest(10 * time.Second)
				continue
			}
			began := time.Now()
			if !tr.rigs[asks].replica.Grant(began, claim) {
				t.Fatalf("node %d, which asks for pre-votes, does not agree to %+v", asks, claim)
			}
			tr.rigs[other].replica.Campaign(claim.Term)
			if got := tr.leader(asks, other); got != other {
				t.Errorf("node %d leads, want %d", got, other)
			}
			if took := time.Since(began); took >= electionTimeout/4 {
				t.Errorf("node %d led after %v", other, took)
			}
			return
		}
		t.Fatal("never did one voter notice before the other")
	})
}

// TestLateTimeoutNow: who leads already is not deposed by being told to campaign.
func TestLateTimeoutNow(t *testing.T) {
	withTrio(t, func(t *testing.T, tr *trio) {
		a := tr.leader(1, 2, 3)
		r := tr.rigs[a].replica
		term := r.Leading()
		r.campaign()
		tr.rest(5 * time.Second)
		if now := r.Leading(); now != term {
			t.Errorf("node %d led term %d, and leads term %d after it was told to campaign", a, term, now)
		}
	})
}
