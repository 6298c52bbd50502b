// Package disktest fills the disk of the real server, and looks what it and its
// clients do: a file system in memory, of a few MiB, that is mounted in a name
// space of the test's own. It holds tests only, and they need Linux.
package disktest
