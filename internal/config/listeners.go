package config

import (
	"fmt"
	"net"
	"strconv"
	"strings"
)

// FirstListener is the name of the listener that every node has: the one without
// a name in the setting listen.
const FirstListener = "client"

// nodeListener is what the address of node.listen is called among a node's.
const nodeListener = "node"

// maxListenerNameBytes is the longest name of a listener, and maxListeners how
// many a node may have.
const (
	maxListenerNameBytes = 64
	maxListeners         = 16
)

// Listener is one of a node's listeners for clients.
type Listener struct {
	Name      string
	Listen    string // host:port; port 0: any free one
	Advertise string // host:port that clients are told; "": the address listened on
}

// Listeners returns the listeners that the settings listen and advertise name:
// [NAME=]HOST:PORT, and commas between several. The first one is FirstListener
// and has no name. An advertised address belongs to the listener of the same
// name. The error says what is wrong, and what to give.
func Listeners(listen, advertise string) ([]Listener, error) {
	var all []Listener
	find := func(name string) *Listener {
		for i := range all {
			if all[i].Name == name {
				return &all[i]
			}
		}
		return nil
	}
	for i, entry := range strings.Split(listen, ",") {
		name, addr := splitListener(entry)
		if _, _, err := net.SplitHostPort(addr); err != nil {
			return nil, fmt.Errorf("listen %q: give HOST:PORT, such as 127.0.0.1:9092, and NAME=HOST:PORT for each further listener", entry)
		}
		switch {
		case name == nodeListener:
			return nil, fmt.Errorf("listen %q: a listener for clients cannot be called %s; for the other nodes there is node.listen", entry, nodeListener)
		case i == 0 && name != FirstListener:
			return nil, fmt.Errorf("listen %q: the first listener has no name, or %s", entry, FirstListener)
		case !validListenerName(name):
			return nil, fmt.Errorf("listen %q: a listener's name is made of a-z, 0-9 and '-', at most %d", entry, maxListenerNameBytes)
		case find(name) != nil:
			return nil, fmt.Errorf("listen %q: two listeners are called %s; give NAME=HOST:PORT", entry, name)
		case i == maxListeners:
			return nil, fmt.Errorf("listen: more than %d listeners", maxListeners)
		}
		all = append(all, Listener{Name: name, Listen: addr})
	}
	if advertise == "" {
		return all, nil
	}
	for _, entry := range strings.Split(advertise, ",") {
		name, addr := splitListener(entry)
		host, port, err := net.SplitHostPort(addr)
		n, badPort := strconv.ParseUint(port, 10, 16)
		l := find(name)
		switch {
		case err != nil || host == "" || badPort != nil || n == 0:
			return nil, fmt.Errorf("advertise %q: give the HOST:PORT that clients connect to", entry)
		case l == nil:
			return nil, fmt.Errorf("advertise %q: listen has no listener called %s", entry, name)
		case l.Advertise != "":
			return nil, fmt.Errorf("advertise %q: the listener %s has two addresses", entry, name)
		}
		l.Advertise = addr
	}
	return all, nil
}

// splitListener splits [NAME=]HOST:PORT.
func splitListener(entry string) (name, addr string) {
	name, addr, ok := strings.Cut(strings.TrimSpace(entry), "=")
	if !ok {
		return FirstListener, name
	}
	return name, addr
}

func validListenerName(s string) bool {
	for i := range len(s) {
		if c := s[i]; !('a' <= c && c <= 'z' || '0' <= c && c <= '9' || c == '-') {
			return false
		}
	}
	return s != "" && len(s) <= maxListenerNameBytes
}
