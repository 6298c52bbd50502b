package vfs

import (
	"bufio"
	"errors"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// rule is one line of a fault script.
type rule struct {
	kinds []OpKind // nil: all
	path  string   // pattern; empty: all

	nth   int64 // only this match, from 1; 0: all
	after int64 // not the first matches, this many
	times int64 // at most this often; 0: no limit

	seen, fired int64
	fault       Fault
}

// ParseScript turns a fault script into an Injector. A script has one rule a
// line; empty lines and those that begin with # are skipped:
//
//	sync path=*.journal nth=3 err=EIO
//	write path=seg/* after=100 delay=20ms
//	* disk=full
//
// A rule begins with the kind of operation, as OpKind's String names it, or
// "sync" for fsync and fdatasync, or * for all. What follows, in any order:
//
//	path=P      only names whose last elements match P, a pattern of path.Match
//	nth=N       only the Nth match
//	after=N     only after N matches
//	times=N     only N times
//	err=E       fail with E: EIO, ENOSPC, EDQUOT, EROFS, EACCES, EMFILE,
//	            ENFILE, EINVAL
//	short=N     write N bytes, then fail (with err, or a short write)
//	applied     fail after the operation took effect
//	delay=D     take D, as time.ParseDuration reads it
//	disk=full   find no free space
//
// Every rule counts its matches, and the first that applies to an operation
// decides its fault. The counts belong to the Injector, which may serve several
// Mems.
func ParseScript(text string) (Injector, error) {
	var rules []*rule
	sc := bufio.NewScanner(strings.NewReader(text))
	for line := 1; sc.Scan(); line++ {
		words := strings.Fields(sc.Text())
		if len(words) == 0 || strings.HasPrefix(words[0], "#") {
			continue
		}
		r, err := parseRule(words)
		if err != nil {
			return nil, fmt.Errorf("vfs: script line %d: %w", line, err)
		}
		rules = append(rules, r)
	}
	if err := sc.Err(); err != nil {
		return nil, fmt.Errorf("vfs: script: %w", err)
	}
	var mu sync.Mutex
	return func(op Op) (ft Fault) {
		mu.Lock()
		defer mu.Unlock()
		decided := false
		for _, r := range rules {
			if r.applies(op) && !decided {
				decided = true
				r.fired++
				ft = r.fault
			}
		}
		return ft
	}, nil
}

func parseRule(words []string) (*rule, error) {
	kinds, err := parseKinds(words[0])
	if err != nil {
		return nil, err
	}
	r := &rule{kinds: kinds}
	for _, w := range words[1:] {
		key, value, _ := strings.Cut(w, "=")
		if err := r.set(key, value); err != nil {
			return nil, fmt.Errorf("%q: %w", w, err)
		}
	}
	if r.fault == (Fault{}) || r.fault.Applied && r.fault.Err == nil {
		return nil, fmt.Errorf("%q: no fault", strings.Join(words, " "))
	}
	return r, nil
}

func parseKinds(word string) ([]OpKind, error) {
	switch word {
	case "*":
		return nil, nil
	case "sync":
		return []OpKind{OpSync, OpSyncData}, nil
	}
	for k, name := range opNames {
		if name == word && name != "" {
			return []OpKind{OpKind(k)}, nil
		}
	}
	return nil, fmt.Errorf("%q: unknown operation", word)
}

func (r *rule) set(key, value string) (err error) {
	switch key {
	case "path":
		r.path = value
		_, err = path.Match(value, "")
	case "nth":
		r.nth, err = parseCount(value)
	case "after":
		r.after, err = parseCount(value)
	case "times":
		r.times, err = parseCount(value)
	case "short":
		r.fault.Short, err = parseCount(value)
	case "err":
		r.fault.Err, err = parseErrno(value)
	case "delay":
		r.fault.Delay, err = time.ParseDuration(value)
	case "applied":
		r.fault.Applied = true
	case "disk":
		r.fault.Full = true
		if value != "full" {
			err = errors.New("want full")
		}
	default:
		err = errors.New("unknown key")
	}
	return err
}

func parseCount(value string) (int64, error) {
	n, err := strconv.ParseInt(value, 10, 64)
	if err == nil && n < 1 {
		err = errors.New("want at least 1")
	}
	return n, err
}

func parseErrno(name string) (error, error) {
	errno, ok := map[string]syscall.Errno{
		"EIO":    syscall.EIO,
		"ENOSPC": syscall.ENOSPC,
		"EDQUOT": syscall.EDQUOT,
		"EROFS":  syscall.EROFS,
		"EACCES": syscall.EACCES,
		"EMFILE": syscall.EMFILE,
		"ENFILE": syscall.ENFILE,
		"EINVAL": syscall.EINVAL,
	}[name]
	if !ok {
		return nil, errors.New("unknown error")
	}
	return errno, nil
}

// applies counts op if the rule matches it, and reports whether the rule wants
// to decide its fault.
func (r *rule) applies(op Op) bool {
	if !r.matches(op) {
		return false
	}
	r.seen++
	return (r.nth == 0 || r.seen == r.nth) && r.seen > r.after && (r.times == 0 || r.fired < r.times)
}

func (r *rule) matches(op Op) bool {
	if r.kinds != nil && !slices.Contains(r.kinds, op.Kind) {
		return false
	}
	return r.path == "" || matchTail(r.path, op.Path) || op.From != "" && matchTail(r.path, op.From)
}

// matchTail reports whether as many last elements of name as pattern has match
// pattern.
func matchTail(pattern, name string) bool {
	have, want := strings.Split(name, "/"), strings.Count(pattern, "/")+1
	if len(have) < want {
		return false
	}
	ok, err := path.Match(pattern, strings.Join(have[len(have)-want:], "/"))
	return ok && err == nil
}
