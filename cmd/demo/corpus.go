package main

import (
	"bufio"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// file is one regular file of the corpus: the records whose key it is.
type file struct {
	path  string // where it is
	key   string // relative to the corpus, with slashes
	first int    // number of its first line in the whole corpus
	lines int
	hash  [sha256.Size]byte // of its content
}

// corpus is what is sent: every line of every regular file, in the order of
// their names. A line is its bytes with the newline, so that a file is the
// concatenation of its lines.
type corpus struct {
	files   []file
	lines   int
	bytes   int64
	longest int // line, in bytes
}

// scan reads the whole tree once. What is expected of the server comes from
// here alone.
func scan(root string) (*corpus, error) {
	c := new(corpus)
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		key, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		if key == "." {
			key = filepath.Base(path) // the corpus is one file
		}
		f := file{path: path, key: filepath.ToSlash(key), first: c.lines}
		sum := sha256.New()
		err = eachLine(path, func(line []byte) error {
			sum.Write(line)
			f.lines++
			c.bytes += int64(len(line))
			c.longest = max(c.longest, len(line))
			return nil
		})
		f.hash = [sha256.Size]byte(sum.Sum(nil))
		c.lines += f.lines
		c.files = append(c.files, f)
		return err
	})
	if err == nil && c.lines == 0 {
		err = fmt.Errorf("%s holds no line to send", root)
	}
	return c, err
}

// eachLine calls do with each line of a file, its newline included.
func eachLine(path string, do func(line []byte) error) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	r := bufio.NewReaderSize(f, 256<<10)
	var long []byte
	for {
		line, err := r.ReadSlice('\n')
		if errors.Is(err, bufio.ErrBufferFull) {
			long = append(long, line...)
			continue
		}
		if err != nil && err != io.EOF {
			return err
		}
		if len(long) > 0 {
			long = append(long, line...)
			line = long
		}
		if len(line) > 0 {
			if err := do(line); err != nil {
				return err
			}
		}
		long = long[:0]
		if err == io.EOF {
			return nil
		}
	}
}
