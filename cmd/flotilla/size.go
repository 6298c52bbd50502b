package main

import (
	"fmt"

	"github.com/flotilla-log/flotilla/internal/config"
)

// byteSize is a flag's number of bytes, above 0, as sizes of settings are
// written: "64MiB", "1GiB", or plain bytes.
type byteSize int64

// String implements pflag.Value.
func (b byteSize) String() string { return config.FormatSize(int64(b)) }

// Set implements pflag.Value.
func (b *byteSize) Set(s string) error {
	n, err := config.ParseSize(s)
	if err != nil {
		return err
	}
	if n == 0 {
		return fmt.Errorf("%q: give at least 1", s)
	}
	*b = byteSize(n)
	return nil
}

// Type implements pflag.Value.
func (b byteSize) Type() string { return "size" }
