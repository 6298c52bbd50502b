package batch

import "sync"

// maker makes zstd's coders, on a goroutine that lives as long as the program:
// they hold channels, and in a test a channel that was made inside a synctest
// bubble must not be used in another one, as a coder from a pool would be.
var maker = struct {
	mu   sync.Mutex // held from a send to its answer
	make chan func() any
	made chan any
}{make: make(chan func() any), made: make(chan any)}

func init() {
	go func() {
		for f := range maker.make {
			maker.made <- f()
		}
	}()
}

// makeOutside returns what f returns, called outside of every bubble.
func makeOutside[T any](f func() T) T {
	maker.mu.Lock()
	defer maker.mu.Unlock()
	maker.make <- func() any { return f() }
	return (<-maker.made).(T)
}
