package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"

	"github.com/flotilla-log/flotilla/client"
)

// maxInputBytes bounds what is read into one record. No topic takes a larger
// one.
const maxInputBytes = 32 << 20

// errInputTooLong reports a line, or a whole file, above maxInputBytes.
var errInputTooLong = fmt.Errorf("longer than %s, which no topic takes", formatBytes(maxInputBytes))

// input is the files that records are read from.
type input struct {
	files     []string // none: standard input, as is the name "-"
	stdin     io.Reader
	delimiter []byte
	whole     bool // one record a file
}

// piece is the bytes of one record and where they are from.
type piece struct {
	source string
	number int // from 1, in the source; 0: all of the source
	bytes  []byte
}

func (p piece) String() string {
	if p.number == 0 {
		return p.source
	}
	return fmt.Sprintf("%s, line %d", p.source, p.number)
}

// pieces yields what becomes records, in order. An error ends it, and the piece
// with it says where that was. The bytes are valid until the next piece.
func (in *input) pieces() iter.Seq2[piece, error] {
	return func(yield func(piece, error) bool) {
		if len(in.files) == 0 {
			in.read("standard input", in.stdin, yield)
			return
		}
		for _, name := range in.files {
			if !in.readFile(name, yield) {
				return
			}
		}
	}
}

func (in *input) readFile(name string, yield func(piece, error) bool) bool {
	if name == "-" {
		return in.read("standard input", in.stdin, yield)
	}
	f, err := os.Open(name)
	if err != nil {
		yield(piece{source: name}, errors.Unwrap(err)) // the name is in the piece
		return false
	}
	defer f.Close()
	return in.read(name, f, yield)
}

// read yields the pieces of r and reports whether to go on.
func (in *input) read(source string, r io.Reader, yield func(piece, error) bool) bool {
	if in.whole {
		b, err := io.ReadAll(io.LimitReader(r, maxInputBytes+1))
		if err == nil && len(b) > maxInputBytes {
			err = errInputTooLong
		}
		return yield(piece{source: source, bytes: b}, err) && err == nil
	}
	p := piece{source: source}
	s := bufio.NewScanner(r)
	s.Buffer(make([]byte, 64<<10), maxInputBytes+len(in.delimiter))
	s.Split(splitAt(in.delimiter))
	for s.Scan() {
		p.number++
		p.bytes = s.Bytes()
		if !yield(p, nil) {
			return false
		}
	}
	err := s.Err()
	if errors.Is(err, bufio.ErrTooLong) {
		err = fmt.Errorf("%w; is the --delimiter right?", errInputTooLong)
	}
	if err == nil {
		return true
	}
	p.number++
	yield(piece{source: p.source, number: p.number}, err)
	return false
}

// splitAt splits at a delimiter, which belongs to no piece. The last piece may
// lack it; nothing after it is no piece.
func splitAt(delimiter []byte) bufio.SplitFunc {
	searched := 0 // bytes of data without a delimiter: a long line is searched once
	return func(data []byte, atEOF bool) (int, []byte, error) {
		if i := bytes.Index(data[searched:], delimiter); i >= 0 {
			end := searched + i
			searched = 0
			return end + len(delimiter), data[:end:end], nil
		}
		if atEOF && len(data) > 0 {
			searched = 0
			return len(data), data, nil
		}
		searched = max(0, len(data)-len(delimiter)+1)
		return 0, nil, nil
	}
}

// shape makes records of pieces.
type shape struct {
	partition    int32
	key          []byte // of each record that brings none; nil: none
	keyDelimiter []byte // between key and value; empty: there is no key in the piece
	headers      []client.Header
	emptyIsNull  bool // keys that are in the piece, and values
}

func (s *shape) record(b []byte) client.Record {
	r := client.Record{Partition: s.partition, Key: s.key, Value: b, Headers: s.headers}
	if len(s.keyDelimiter) > 0 {
		if k, v, ok := bytes.Cut(b, s.keyDelimiter); ok {
			r.Key, r.Value = k, v
			if s.emptyIsNull && len(k) == 0 {
				r.Key = nil
			}
		}
	}
	if r.Value == nil {
		r.Value = []byte{}
	}
	if s.emptyIsNull && len(r.Value) == 0 {
		r.Value = nil
	}
	return r
}
