package bench

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"runtime"
	"strconv"
	"strings"
	"time"
)

// Proc reads what Linux says in /proc about processes and the machine.
type Proc struct {
	FS     fs.FS
	Device string // block device that a Sample says more about; "": none
}

// clockTick is the unit of times in /proc, the same on every architecture that
// Go runs on.
const clockTick = time.Second / 100

// Unknown is a number that the system does not tell.
const Unknown = -1

// Sample is what the machine and some processes on it have used up so far.
type Sample struct {
	Servers Usage         // all of them together
	Self    Usage         // the load
	Busy    time.Duration // CPU time of everything on the machine
	Device  DeviceUsage   // zero without a Proc.Device
}

// Usage is what processes have used up since they started, and what they hold.
type Usage struct {
	CPU          time.Duration
	RSSBytes     int64
	PeakRSSBytes int64
	WrittenBytes int64 // pages made dirty, by the folio; Unknown for processes of other users
	ReadBytes    int64 // from disks; likewise
	Files        int64 // open descriptors; likewise
}

// Sample reads servers, which are process ids, and the process self.
func (p Proc) Sample(self int, servers []int) (s Sample, err error) {
	for _, pid := range servers {
		u, err := p.Usage(pid)
		if err != nil {
			return s, err
		}
		s.Servers = s.Servers.plus(u)
	}
	if s.Self, err = p.Usage(self); err != nil {
		return s, err
	}
	if s.Busy, err = p.busy(); err != nil || p.Device == "" {
		return s, err
	}
	s.Device, err = p.device()
	return s, err
}

func (u Usage) plus(v Usage) Usage {
	return Usage{
		CPU:          u.CPU + v.CPU,
		RSSBytes:     u.RSSBytes + v.RSSBytes,
		PeakRSSBytes: u.PeakRSSBytes + v.PeakRSSBytes,
		WrittenBytes: plusKnown(u.WrittenBytes, v.WrittenBytes),
		ReadBytes:    plusKnown(u.ReadBytes, v.ReadBytes),
		Files:        plusKnown(u.Files, v.Files),
	}
}

func plusKnown(a, b int64) int64 {
	if a == Unknown || b == Unknown {
		return Unknown
	}
	return a + b
}

// Usage reads one process.
func (p Proc) Usage(pid int) (u Usage, err error) {
	dir := strconv.Itoa(pid) + "/"
	stat, err := fs.ReadFile(p.FS, dir+"stat")
	if err != nil {
		return u, fmt.Errorf("bench: process %d: %w (it has to run on this machine, and this machine to be Linux)", pid, err)
	}
	if u.CPU, err = cpuOfStat(stat); err != nil {
		return u, fmt.Errorf("bench: process %d: %w", pid, err)
	}
	status, err := fs.ReadFile(p.FS, dir+"status")
	if err != nil {
		return u, fmt.Errorf("bench: process %d: %w", pid, err)
	}
	// A process that has just ended has no memory any more.
	u.RSSBytes, u.PeakRSSBytes = max(0, field(status, "VmRSS:"))<<10, max(0, field(status, "VmHWM:"))<<10
	u.WrittenBytes, u.ReadBytes, u.Files = Unknown, Unknown, Unknown
	if io, err := fs.ReadFile(p.FS, dir+"io"); err == nil {
		u.WrittenBytes, u.ReadBytes = field(io, "write_bytes:"), field(io, "read_bytes:")
	}
	if fds, err := fs.ReadDir(p.FS, dir+"fd"); err == nil {
		u.Files = int64(len(fds))
	}
	return u, nil
}

// cpuOfStat returns the user and system time in /proc/PID/stat.
func cpuOfStat(stat []byte) (time.Duration, error) {
	// The second field is the name in parentheses, which may hold anything.
	end := bytes.LastIndexByte(stat, ')')
	fields := strings.Fields(string(stat[end+1:]))
	const user, system = 11, 12 // counted from the third field
	if end < 0 || len(fields) <= system {
		return 0, errors.New("unexpected stat")
	}
	return ticks(fields[user], fields[system])
}

// busy returns the time that all CPUs together did not idle.
func (p Proc) busy() (time.Duration, error) {
	b, err := fs.ReadFile(p.FS, "stat")
	if err != nil {
		return 0, fmt.Errorf("bench: %w", err)
	}
	line, _, _ := strings.Cut(string(b), "\n")
	fields := strings.Fields(line)
	// cpu user nice system idle iowait irq softirq steal ...; what a guest
	// used is in user already.
	if len(fields) < 8 || fields[0] != "cpu" {
		return 0, errors.New("bench: unexpected /proc/stat")
	}
	return ticks(fields[1], fields[2], fields[3], fields[6], fields[7])
}

func ticks(fields ...string) (sum time.Duration, err error) {
	for _, f := range fields {
		n, err := strconv.ParseInt(f, 10, 64)
		if err != nil {
			return 0, err
		}
		sum += time.Duration(n) * clockTick
	}
	return sum, nil
}

// field returns the number after a name at the beginning of a line, Unknown if
// there is none.
func field(text []byte, name string) int64 {
	for line := range strings.Lines(string(text)) {
		rest, ok := strings.CutPrefix(line, name)
		if !ok {
			continue
		}
		if f := strings.Fields(rest); len(f) > 0 {
			if n, err := strconv.ParseInt(f[0], 10, 64); err == nil {
				return n
			}
		}
	}
	return Unknown
}

// Machine is where a figure was measured.
type Machine struct {
	OS          string `json:"os"`
	Arch        string `json:"arch"`
	CPUs        int    `json:"cpus"`
	CPUModel    string `json:"cpu_model,omitempty"`
	Kernel      string `json:"kernel,omitempty"`
	MemoryBytes int64  `json:"memory_bytes,omitempty"`
	LoadAverage string `json:"load_average,omitempty"` // over 1, 5 and 15 minutes, before the run
}

// Machine describes this machine, as far as it tells.
func (p Proc) Machine() Machine {
	text := func(name string) string {
		b, err := fs.ReadFile(p.FS, name)
		if err != nil {
			return ""
		}
		return strings.TrimSpace(string(b))
	}
	m := Machine{OS: runtime.GOOS, Arch: runtime.GOARCH, CPUs: runtime.NumCPU(), Kernel: text("sys/kernel/osrelease")}
	for line := range strings.Lines(text("cpuinfo")) {
		if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
			m.CPUModel = strings.TrimSpace(value)
			break
		}
	}
	m.MemoryBytes = max(0, field([]byte(text("meminfo")), "MemTotal:")) << 10
	if f := strings.Fields(text("loadavg")); len(f) >= 3 {
		m.LoadAverage = strings.Join(f[:3], " ")
	}
	return m
}
