package config

import (
	"bufio"
	"bytes"
	"io/fs"
	"path"
	"strconv"
	"strings"
)

// Machine is what defaults are computed from. Zero means that it is not known.
type Machine struct {
	MemoryBytes int64 // what the process may use: physical, or less by a cgroup
	OpenFiles   int64 // the process's limit
}

// Memory returns what the process may use of the machine's memory, 0 if it
// cannot be found out: the physical memory, or the smallest limit of the
// control groups, version 2 or 1, that the process is in. root is the root of
// the file system.
func Memory(root fs.FS) int64 {
	least := physical(root)
	lower := func(n int64) {
		if n > 0 && (least == 0 || n < least) {
			least = n
		}
	}
	groups, err := fs.ReadFile(root, "proc/self/cgroup")
	if err != nil {
		return least
	}
	for line := range strings.Lines(string(groups)) {
		// hierarchy:controllers:path, and in version 2 0::path
		parts := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(parts) != 3 {
			continue
		}
		switch {
		case parts[0] == "0" && parts[1] == "":
			lower(smallest(root, "sys/fs/cgroup", parts[2], "memory.max"))
		case hasWord(parts[1], "memory"):
			lower(smallest(root, "sys/fs/cgroup/memory", parts[2], "memory.limit_in_bytes"))
		}
	}
	return least
}

func hasWord(list, word string) bool {
	for w := range strings.SplitSeq(list, ",") {
		if w == word {
			return true
		}
	}
	return false
}

// smallest returns the smallest limit of a group and those above it. In a
// container the path may be the host's, of which only the mount itself is seen.
func smallest(root fs.FS, mount, group, file string) (least int64) {
	for dir := path.Clean("/" + group); ; dir = path.Dir(dir) {
		if b, err := fs.ReadFile(root, path.Join(mount, dir, file)); err == nil {
			n, err := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64) // "max" is no number
			// Version 1 writes "no limit" as the largest multiple of a page.
			if err == nil && n > 0 && n < 1<<60 && (least == 0 || n < least) {
				least = n
			}
		}
		if dir == "/" {
			return least
		}
	}
}

// physical returns the machine's memory, 0 where there is no /proc/meminfo.
func physical(root fs.FS) int64 {
	b, err := fs.ReadFile(root, "proc/meminfo")
	if err != nil {
		return 0
	}
	lines := bufio.NewScanner(bytes.NewReader(b))
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) == 3 && fields[0] == "MemTotal:" && fields[2] == "kB" {
			if n, err := strconv.ParseInt(fields[1], 10, 64); err == nil && n < 1<<50 {
				return n << 10
			}
		}
	}
	return 0
}
