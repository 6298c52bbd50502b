package vfs

import (
	"runtime/debug"
	"strings"
	"sync"
)

// Mine makes a Mem's reads panic under a function, once it is laid: for tests of
// who has to survive that. Its Inject is the Mem's Injector. The zero value is
// not laid; safe for concurrent use.
type Mine struct {
	mu    sync.Mutex
	under string // "": none
	blown int
}

// Lay lays the mine under a function, named as in a stack, or under none if that
// is empty. It returns how many reads have panicked since it was laid last.
func (m *Mine) Lay(under string) (blown int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	blown, m.under, m.blown = m.blown, under, 0
	return blown
}

// Inject is an Injector.
func (m *Mine) Inject(op Op) Fault {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.under != "" && op.Kind == OpReadAt && strings.Contains(string(debug.Stack()), m.under) {
		m.blown++
		panic("planted under " + m.under)
	}
	return Fault{}
}
