package errcode

import (
	"errors"
	"fmt"
	"math"
	"os"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"
)

// TestAgainstKafka compares the table with what Kafka's own Java client says of
// each of its codes: number, name, and whether its exception is a
// RetriableException.
func TestAgainstKafka(t *testing.T) {
	t.Parallel()
	b, err := os.ReadFile("testdata/kafka-4.3.1.tsv")
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(string(b)), "\n")
	if len(lines) != len(codes) {
		t.Fatalf("%d codes, Kafka has %d", len(codes), len(lines))
	}
	for _, line := range lines {
		f := strings.Split(line, "\t")
		n, err := strconv.Atoi(f[0])
		if err != nil {
			t.Fatal(err)
		}
		c := Code(n)
		if !c.Known() || c.Name() != f[1] || strconv.FormatBool(c.Retriable()) != f[2] {
			t.Errorf("code %d = %s retriable %t, Kafka says %s %s", n, c.Name(), c.Retriable(), f[1], f[2])
		}
	}
}

func TestTexts(t *testing.T) {
	t.Parallel()
	seen := make(map[string]Code)
	for i := range codes {
		c := Code(i - 1)
		text := c.Text()
		if text == "" || strings.HasSuffix(text, ".") {
			t.Errorf("%v: text %q, want a sentence without its full stop", c, text)
		}
		if other, ok := seen[text]; ok {
			t.Errorf("%v and %v share the text %q", c, other, text)
		}
		seen[text] = c
	}
}

func TestUnknownCodes(t *testing.T) {
	t.Parallel()
	for _, c := range []Code{math.MinInt16, -2, ShareSessionLimitReached + 1, math.MaxInt16} {
		if c.Known() || c.Retriable() {
			t.Errorf("code %d: known %t retriable %t, want neither", int16(c), c.Known(), c.Retriable())
		}
		if got, want := c.String(), fmt.Sprintf("CODE_%d", int16(c)); got != want {
			t.Errorf("String = %q, want %q", got, want)
		}
		if c.Text() == "" {
			t.Errorf("code %d has no text", int16(c))
		}
	}
}

func TestError(t *testing.T) {
	t.Parallel()
	err := fmt.Errorf("append: %w", Errorf(OutOfOrderSequenceNumber, "producer %d", 7))
	if !errors.Is(err, &Error{Code: OutOfOrderSequenceNumber}) {
		t.Errorf("%v does not match its own code", err)
	}
	if errors.Is(err, &Error{Code: InvalidProducerEpoch}) {
		t.Errorf("%v matches another code", err)
	}
	if got, want := err.Error(), "append: OUT_OF_ORDER_SEQUENCE_NUMBER: producer 7"; got != want {
		t.Errorf("Error = %q, want %q", got, want)
	}
	bare := &Error{Code: RequestTimedOut}
	if got, want := bare.Error(), "REQUEST_TIMED_OUT: "+RequestTimedOut.Text(); got != want {
		t.Errorf("Error = %q, want %q", got, want)
	}

	tests := []struct {
		err  error
		want Code
	}{
		{nil, None},
		{err, OutOfOrderSequenceNumber},
		{errors.New("other"), UnknownServer},
	}
	for _, tt := range tests {
		if got := Of(tt.err); got != tt.want {
			t.Errorf("Of(%v) = %v, want %v", tt.err, got, tt.want)
		}
	}
}

// TestErrorf: what is told of an error is bounded, and stays text.
func TestErrorf(t *testing.T) {
	if got := Errorf(InvalidRequest, "%s and %d", "this", 1).Detail; got != "this and 1" {
		t.Errorf("%q", got)
	}
	long := Errorf(InvalidRequest, "x%s", strings.Repeat("\u20ac", 5000)).Detail
	if len(long) > maxDetailBytes+3 || len(long) < maxDetailBytes-3 || !utf8.ValidString(long) || !strings.HasSuffix(long, "\u20ac...") {
		t.Errorf("%d bytes, ending in %q", len(long), long[len(long)-10:])
	}
	if got := Short("orders"); got != "orders" {
		t.Errorf("%q", got)
	}
	if got := Short(strings.Repeat("o", 300)); got != strings.Repeat("o", 64)+"..." {
		t.Errorf("%q", got)
	}
}
