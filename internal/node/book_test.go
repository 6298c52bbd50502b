package node

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestBook: a node is dialled where the metadata says it is, then where it was said to be
// at the start, in turn, until one leads to it; a new address is tried first.
func TestBook(t *testing.T) {
	t.Parallel()
	b := newBook(map[int32]string{1: "old:1", 2: "two:2"})
	dial := func(node int32, want string, connected bool) {
		t.Helper()
		addr, ok := b.address(node)
		if addr != want || ok != (want != "") {
			t.Errorf("node %d is dialled at %q, %t, want %q", node, addr, ok, want)
		}
		b.state(node, connected)
	}
	dial(3, "", false)
	dial(1, "old:1", false)
	dial(1, "old:1", true)
	b.met(map[int32]string{1: "new:1", 2: "two:2", 3: "three:3"})
	dial(1, "new:1", false)
	dial(1, "old:1", true) // it moved, and has not said so yet
	dial(1, "old:1", true)
	dial(2, "two:2", true)
	dial(3, "three:3", false)
	dial(3, "three:3", true)
	b.met(map[int32]string{1: "newer:1", 2: "two:2", 3: "three:3"})
	dial(1, "newer:1", true)
	if addr, _ := b.address(1); addr != "newer:1" {
		t.Errorf("node 1 is dialled at %q", addr)
	}
	b.met(map[int32]string{1: "newest:1", 2: "two:2", 3: "three:3"})
	b.state(1, true) // at the one before
	dial(1, "newest:1", true)
	b.met(map[int32]string{1: "newer:1", 2: "two:2", 3: "three:3"})
	b.give(map[int32]string{4: "four:4"})
	if d := cmp.Diff(map[int32]string{1: "newer:1", 2: "two:2", 3: "three:3", 4: "four:4"}, b.known()); d != "" {
		t.Errorf("known differs (-want +got):\n%s", d)
	}
}

// TestAddressList: what IDENTITY keeps of addresses has one form.
func TestAddressList(t *testing.T) {
	t.Parallel()
	all := map[int32]string{4: "h:1", 10: "[::1]:2", 2: "a.b:3"}
	text := string(addressListOf(all))
	if want := "2@a.b:3,4@h:1,10@[::1]:2"; text != want {
		t.Errorf("%q, want %q", text, want)
	}
	got, err := parseAddressList(text)
	if d := cmp.Diff(all, got); d != "" || err != nil {
		t.Errorf("%v, differs (-want +got):\n%s", err, d)
	}
	for _, bad := range []string{"1", "1@h", "x@h:1", "-1@h:1", "2@h:1,1@h:2", "1@h:1,1@h:1", "1@h:1,"} {
		if got, err := parseAddressList(bad); err == nil {
			t.Errorf("%q is read as %v", bad, got)
		}
	}
}
