package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// askListed asks for all groups, and records those of the scenario.
func (s *session) askListed(what string, req *kmsg.ListGroupsRequest, version int16) {
	req.SetVersion(version)
	s.askRaw(what, req, req.AppendTo(nil), func(resp kmsg.Response) {
		r := resp.(*kmsg.ListGroupsResponse)
		r.Groups = slices.DeleteFunc(r.Groups, func(g kmsg.ListGroupsResponseGroup) bool { return !strings.HasPrefix(g.Group, s.scenario) })
	})
}

// someGroups makes groups, one in each state that lasts, and returns their names by
// state.
func (s *session) someGroups() map[string]string {
	name, _ := s.create("t", 2)
	groups := make(map[string]string)
	for _, state := range []string{"stable", "preparing", "completing", "empty", "offsets", "consumer", "left", "pending", "another", "static"} {
		groups[state] = s.group(state)
	}
	s.stable(groups["stable"], name)
	s.alone(groups["completing"], name)
	s.leave(s.stable(groups["empty"], name))
	s.commit(groups["offsets"], name, 0, 5, "")
	s.admit(groups["pending"], nil, name)
	s.static(groups["static"], "i", name)
	s.consumes(groups["consumer"], "m", name)
	s.consumes(groups["left"], "m", name)
	s.quiet(beatingConsumer(groups["left"], "m", -1), 0)

	s.stable(groups["preparing"], name)
	b := s.admit(groups["preparing"], nil, name)
	s.open = append(s.open, s.hold("", joining(groups["preparing"], b.id, nil, name), latest(kmsg.JoinGroup)))
	s.awaitState(groups["preparing"], "PreparingRebalance")

	req := joining(groups["another"], "", nil)
	req.ProtocolType, req.Protocols[0].Metadata = "another", []byte("what it says")
	resp := s.quiet(req, 3).(*kmsg.JoinGroupResponse)
	sync := syncing(&member{group: groups["another"], id: resp.MemberID, generation: resp.Generation}, resp.MemberID, "what it has")
	s.quiet(sync, 0)
	return groups
}

// listGroups lists groups.
func listGroups(s *session) {
	s.someGroups()
	each(kmsg.ListGroups, func(v int16) {
		ask := func(what string, states, types []string) {
			req := kmsg.NewPtrListGroupsRequest()
			req.StatesFilter, req.TypesFilter = states, types
			s.askListed(what, req, v)
		}
		ask("all", nil, nil)
		if v >= 4 {
			for _, state := range []string{
				"Stable", "stable", "Empty", "PreparingRebalance", "CompletingRebalance", "completing_rebalance", "Dead", "Assigning",
				"Reconciling", "NotReady", "Unknown", "nonsense", "", " Stable ",
			} {
				ask(fmt.Sprintf("state %q", state), []string{state}, nil)
			}
			ask("two states", []string{"Stable", "Empty"}, nil)
			ask("a state twice", []string{"Stable", "Stable"}, nil)
			ask("a state, and nonsense", []string{"Stable", "nonsense"}, nil)
		}
		if v >= 5 {
			for _, kind := range []string{"classic", "Classic", "consumer", "CONSUMER", "share", "streams", "unknown", "nonsense", "", " classic "} {
				ask(fmt.Sprintf("type %q", kind), nil, []string{kind})
			}
			ask("two types", nil, []string{"classic", "consumer"})
			ask("a state of a type", []string{"Stable"}, []string{"consumer"})
			ask("another state of a type", []string{"Empty"}, []string{"consumer"})
		}
	})
}

// describeGroups asks for classic groups and their members.
func describeGroups(s *session) {
	groups := s.someGroups()
	each(kmsg.DescribeGroups, func(v int16) {
		ask := func(what string, operations bool, names ...string) {
			req := kmsg.NewPtrDescribeGroupsRequest()
			req.Groups, req.IncludeAuthorizedOperations = names, operations
			s.ask(what, req, v)
		}
		for _, state := range []string{"stable", "preparing", "completing", "empty", "offsets", "consumer", "left", "pending", "another", "static"} {
			ask(state, false, groups[state])
		}
		ask("a group that there is not", false, s.topic("unknown"))
		ask("no name", false, "")
		ask("two groups", false, groups["stable"], groups["another"])
		ask("known and unknown", false, groups["stable"], s.topic("unknown"))
		ask("a group twice", false, groups["stable"], groups["stable"])
		ask("nothing", false)
		if v >= 3 {
			ask("with authorized operations", true, groups["stable"])
			ask("with authorized operations, of a group that there is not", true, s.topic("unknown"))
			ask("with authorized operations, of a group that the server assigns", true, groups["consumer"])
		}
	})
}

// deleteGroups deletes groups.
func deleteGroups(s *session) {
	groups := s.someGroups()
	name := s.topic("t")
	each(kmsg.DeleteGroups, func(v int16) {
		ask := func(what string, names ...string) {
			req := kmsg.NewPtrDeleteGroupsRequest()
			req.Groups = names
			s.ask(what, req, v)
		}
		ask("a group that there is not", s.topic("unknown"))
		ask("no name", "")
		ask("nothing")
		for _, state := range []string{"stable", "preparing", "completing", "consumer", "another"} {
			ask(state, groups[state])
		}
		fresh := func(what string) string {
			g := s.group(fmt.Sprintf("%s-%d", what, v))
			s.commit(g, name, 0, 5, "")
			return g
		}
		offsets := fresh("offsets")
		ask("offsets alone", offsets)
		ask("offsets alone, again", offsets)
		s.ask(fmt.Sprintf("after v%d offsets alone", v), allCommitted(offsets), latest(kmsg.OffsetFetch))
		empty := s.group(fmt.Sprintf("empty-%d", v))
		s.leave(s.stable(empty, name))
		ask("a group without members", empty)
		left := s.group(fmt.Sprintf("left-%d", v))
		s.consumes(left, "m", name)
		s.quiet(beatingConsumer(left, "m", -1), 0)
		ask("a group without members that the server assigned", left)
		ask("a group twice", fresh("twice"), s.topic(fmt.Sprintf("twice-%d", v)))
		ask("two groups", fresh("one"), fresh("two"))
		ask("known and unknown", fresh("known"), s.topic("unknown"))
		ask("with and without members", fresh("without"), groups["stable"])
	})
}
