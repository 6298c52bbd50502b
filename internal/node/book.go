package node

import (
	"fmt"
	"maps"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// book is where the other nodes listen for each other: by the metadata, which is where
// they say it, and by what this node was started with or has kept, which is all that
// there is before it hears of the metadata, and may be newer than that when many nodes
// have moved at once. A node whose address does not lead to it is looked for at the next
// one that is known.
//
// It is safe for concurrent use.
type book struct {
	mu    sync.Mutex
	said  map[int32]string // by the metadata
	given map[int32]string // by settings, or from before
	turn  map[int32]int    // how many addresses of a node were tried in vain
}

func newBook(given map[int32]string) *book {
	return &book{given: maps.Clone(given), turn: make(map[int32]int)}
}

// met takes the place of what the metadata has said before.
func (b *book) met(addresses map[int32]string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for id, addr := range addresses {
		if b.said[id] != addr {
			b.turn[id] = 0
		}
	}
	b.said = addresses
}

// give adds addresses that something else than the metadata tells, which take the place
// of those of the same nodes.
func (b *book) give(addresses map[int32]string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.given == nil {
		b.given = make(map[int32]string)
	}
	maps.Copy(b.given, addresses)
}

// known returns an address of each node that has one.
func (b *book) known() map[int32]string {
	b.mu.Lock()
	defer b.mu.Unlock()
	all := make(map[int32]string)
	maps.Copy(all, b.given)
	maps.Copy(all, b.said)
	return all
}

// address returns where to dial a node next.
func (b *book) address(node int32) (addr string, ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	var all []string
	for _, a := range []string{b.said[node], b.given[node]} {
		if a != "" && !slices.Contains(all, a) {
			all = append(all, a)
		}
	}
	if len(all) == 0 {
		return "", false
	}
	addr = all[b.turn[node]%len(all)]
	b.turn[node]++ // in vain, unless state says otherwise
	return addr, true
}

// state takes note of whether the address that was given out last leads to the node.
func (b *book) state(node int32, connected bool) {
	if connected {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.turn[node] = max(b.turn[node]-1, 0) // the metadata may have said another one meanwhile
	}
}

// addressList is where nodes are, as "1@host:port,2@host:port", ascending by id: the
// form that IDENTITY has.
type addressList string

func addressListOf(all map[int32]string) addressList {
	var parts []string
	for _, id := range slices.Sorted(maps.Keys(all)) {
		parts = append(parts, fmt.Sprintf("%d@%s", id, all[id]))
	}
	return addressList(strings.Join(parts, ","))
}

// parseAddressList is the inverse of addressListOf.
func parseAddressList(text string) (map[int32]string, error) {
	all := make(map[int32]string)
	if text == "" {
		return all, nil
	}
	for part := range strings.SplitSeq(text, ",") {
		idText, addr, _ := strings.Cut(part, "@")
		id, badID := strconv.ParseInt(idText, 10, 32)
		if _, _, err := net.SplitHostPort(addr); err != nil || badID != nil || id < 0 {
			return nil, fmt.Errorf("node: %q is no address of a node, ID@HOST:PORT", part)
		}
		all[int32(id)] = addr
	}
	if string(addressListOf(all)) != text {
		return nil, fmt.Errorf("node: addresses %q do not ascend by node", text)
	}
	return all, nil
}
