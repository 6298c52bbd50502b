//go:build !synctests

package sim

// Members with franz-go need the build tag synctests: without it, its goroutines wait
// for each other with mutexes, which stops the clock of a bubble.
var kafkaClassic, kafka848 memberKind

// buildTags is what go test was asked for.
const buildTags = ""
