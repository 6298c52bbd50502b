package bench

import (
	"fmt"
	"io/fs"
	"path"
	"strconv"
	"strings"
)

// sectorBytes is the unit of /proc/diskstats, whatever the device's own is.
const sectorBytes = 512

// DeviceUsage is what a block device has done since the machine started, for
// everything on it.
type DeviceUsage struct {
	ReadBytes    int64
	Writes       int64 // requests, as they left for the device
	WrittenBytes int64
	Flushes      int64 // of the device's cache; Unknown before Linux 5.5
}

// DeviceOf returns the name of the block device, a disk or a part of one, that
// holds a directory, whose path is absolute and without symbolic links.
func (p Proc) DeviceOf(dir string) (string, error) {
	mounts, err := fs.ReadFile(p.FS, "self/mountinfo")
	if err != nil {
		return "", fmt.Errorf("bench: %w (this machine has to be Linux)", err)
	}
	var at, number, source string
	for line := range strings.Lines(string(mounts)) {
		// id parent major:minor root mount-point options [tags] - type source options
		left, right, found := strings.Cut(line, " - ")
		l, r := strings.Fields(left), strings.Fields(right)
		if !found || len(l) < 5 || len(r) < 2 {
			continue
		}
		// A later mount hides an earlier one of the same place.
		if point := unescapeMount(l[4]); below(dir, point) && len(point) >= len(at) {
			at, number, source = point, l[2], path.Base(r[1])
		}
	}
	rows, err := p.diskstats()
	if err != nil {
		return "", err
	}
	for _, f := range rows {
		// By number; or by name, where the file system has a number of its own.
		if f[0]+":"+f[1] == number || f[2] == source {
			return f[2], nil
		}
	}
	return "", fmt.Errorf("bench: no block device for %s: it is mounted from %s, which /proc/diskstats does not list", dir, source)
}

// below reports whether dir is point or lies below it.
func below(dir, point string) bool {
	return dir == point || strings.HasPrefix(dir, strings.TrimSuffix(point, "/")+"/")
}

// unescapeMount undoes the escapes of /proc/self/mountinfo.
func unescapeMount(s string) string {
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(s)
}

// diskstats returns the fields of each line that has those of every kernel.
func (p Proc) diskstats() (rows [][]string, err error) {
	b, err := fs.ReadFile(p.FS, "diskstats")
	if err != nil {
		return nil, fmt.Errorf("bench: %w (this machine has to be Linux)", err)
	}
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) >= 14 {
			rows = append(rows, f)
		}
	}
	return rows, nil
}

// device reads p.Device.
func (p Proc) device() (u DeviceUsage, err error) {
	rows, err := p.diskstats()
	if err != nil {
		return u, err
	}
	// major minor name, then: reads merged sectors ms, writes merged sectors ms,
	// under-way ms weighted, discards merged sectors ms, flushes ms.
	const readSectors, writes, writtenSectors, flushes = 5, 7, 9, 18
	for _, f := range rows {
		if f[2] != p.Device {
			continue
		}
		number := func(i int) (n int64) {
			if err == nil {
				n, err = strconv.ParseInt(f[i], 10, 64)
			}
			return n
		}
		u = DeviceUsage{
			ReadBytes: number(readSectors) * sectorBytes, Writes: number(writes), WrittenBytes: number(writtenSectors) * sectorBytes, Flushes: Unknown,
		}
		if len(f) > flushes {
			u.Flushes = number(flushes)
		}
		if err != nil {
			err = fmt.Errorf("bench: /proc/diskstats: %w", err)
		}
		return u, err
	}
	return u, fmt.Errorf("bench: /proc/diskstats has no device %s any more", p.Device)
}
