// Package pb holds the messages of the native protocol, generated from
// flotilla.proto. What they mean, their limits and their order on a connection
// are specified in docs/protocol.md; wire/frame carries them.
package pb

//go:generate go run ./gen
