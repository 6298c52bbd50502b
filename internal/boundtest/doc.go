// Package boundtest abuses a node, a process of its own, and looks at what it
// takes: its resident memory stays below memory.bytes plus the constants that
// docs/configuration.md states, and a healthy client beside the abuse keeps
// being served. It holds tests only.
//
// Under the race detector, which takes memory of its own, the bounds are multiples
// of that.
//
// With -short the abuses go on for a fifth of the time, with a fifth of the idle
// connections; make test runs them whole.
//
// The node is the one of internal/node; a test may give it a slow disk.
package boundtest
