package main

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/flotilla-log/flotilla/client"
)

// split returns the pieces of text, and the error that ended them.
func split(text, delimiter string, whole bool) (pieces []string, last piece, err error) {
	in := &input{stdin: iotest.OneByteReader(strings.NewReader(text)), delimiter: []byte(delimiter), whole: whole}
	for p, err := range in.pieces() {
		if err != nil {
			return pieces, p, err
		}
		pieces = append(pieces, string(p.bytes))
	}
	return pieces, piece{}, nil
}

func TestPieces(t *testing.T) {
	t.Parallel()
	tests := []struct {
		text, delimiter string
		whole           bool
		want            []string
	}{
		{"a\nb\n", "\n", false, []string{"a", "b"}},
		{"a\nb", "\n", false, []string{"a", "b"}},
		{"\n\na\n\n", "\n", false, []string{"", "", "a", ""}},
		{"", "\n", false, nil},
		{"\n", "\n", false, []string{""}},
		{"a\r\nb\r\n", "\n", false, []string{"a\r", "b\r"}},
		{"a\x00b\nc\x00", "\x00", false, []string{"a", "b\nc"}},
		{"aENDbENENDDEN", "END", false, []string{"a", "bEN", "DEN"}},
		{"a---b--", "--", false, []string{"a", "-b"}},
		{"a\nb\n", "\n", true, []string{"a\nb\n"}},
		{"", "\n", true, []string{""}},
	}
	for _, tt := range tests {
		got, _, err := split(tt.text, tt.delimiter, tt.whole)
		if err != nil {
			t.Errorf("%q: %v", tt.text, err)
		}
		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Errorf("%q by %q: %s", tt.text, tt.delimiter, diff)
		}
	}
}

// TestPiecesAreSplit checks the splitter, which sees its input in any portions,
// against strings.Split.
func TestPiecesAreSplit(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		letters := rapid.StringOfN(rapid.SampledFrom([]rune("ab")), 0, 40, -1)
		text, delimiter := letters.Draw(t, "text"), letters.Filter(func(s string) bool { return s != "" && len(s) < 4 }).Draw(t, "delimiter")
		want := strings.Split(text, delimiter)
		if want[len(want)-1] == "" {
			want = want[:len(want)-1]
		}
		got, _, err := split(text, delimiter, false)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Join(got, "|") != strings.Join(want, "|") || len(got) != len(want) {
			t.Fatalf("%q by %q = %q, want %q", text, delimiter, got, want)
		}
	})
}

func TestPiecesTooLong(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", maxInputBytes+1)
	in := &input{stdin: strings.NewReader("a\n" + long), delimiter: []byte("\n")}
	n := 0
	for p, err := range in.pieces() {
		n++
		if n == 2 && (!errors.Is(err, errInputTooLong) || p.String() != "standard input, line 2") {
			t.Errorf("%s: %v, want %v in line 2", p, err, errInputTooLong)
		}
	}
	if n != 2 {
		t.Errorf("%d pieces, want 1 and an error", n)
	}
	in = &input{stdin: strings.NewReader(long), whole: true}
	for p, err := range in.pieces() {
		if !errors.Is(err, errInputTooLong) {
			t.Errorf("%s: %v, want %v", p, err, errInputTooLong)
		}
	}
}

func TestShape(t *testing.T) {
	t.Parallel()
	none, empty := []byte(nil), []byte{}
	tests := []struct {
		name       string
		shape      shape
		in         string
		key, value []byte
	}{
		{"value", shape{}, "v", none, []byte("v")},
		{"empty value", shape{}, "", none, empty},
		{"empty as null", shape{emptyIsNull: true}, "", none, none},
		{"fixed key", shape{key: []byte("k")}, "v", []byte("k"), []byte("v")},
		{"fixed empty key", shape{key: empty, emptyIsNull: true}, "v", empty, []byte("v")},
		{"delimiter", shape{keyDelimiter: []byte("::")}, "k::v::w", []byte("k"), []byte("v::w")},
		{"no delimiter in it", shape{keyDelimiter: []byte(":")}, "v", none, []byte("v")},
		{"fixed key as fallback", shape{keyDelimiter: []byte(":"), key: []byte("f")}, "v", []byte("f"), []byte("v")},
		{"own key first", shape{keyDelimiter: []byte(":"), key: []byte("f")}, "k:v", []byte("k"), []byte("v")},
		{"empty parts", shape{keyDelimiter: []byte(":")}, ":", empty, empty},
		{"empty parts as null", shape{keyDelimiter: []byte(":"), emptyIsNull: true}, ":", none, none},
	}
	for _, tt := range tests {
		r := tt.shape.record([]byte(tt.in))
		if !same(r.Key, tt.key) || !same(r.Value, tt.value) {
			t.Errorf("%s: key %#v value %#v, want %#v and %#v", tt.name, r.Key, r.Value, tt.key, tt.value)
		}
	}
	if r := (&shape{partition: client.AnyPartition}).record(nil); r.Partition != client.AnyPartition || r.Value == nil {
		t.Errorf("record(nil) = %+v, want an empty value and any partition", r)
	}
}

// same tells null from empty.
func same(a, b []byte) bool { return bytes.Equal(a, b) && (a == nil) == (b == nil) }
