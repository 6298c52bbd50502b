package bench

import (
	"io/fs"
	"testing"
	"testing/fstest"
	"time"
)

// procFS is a /proc as Linux writes it.
func procFS() fstest.MapFS {
	file := func(s string) *fstest.MapFile { return &fstest.MapFile{Data: []byte(s)} }
	return fstest.MapFS{
		"7/stat":               file("7 (a (strange) name) S 1 7 7 0 -1 4194560 1000 0 0 0 150 50 3 4 20 0 12 0 5000 1 2 3"),
		"7/status":             file("Name:\tflotilla\nVmHWM:\t  2048 kB\nVmRSS:\t  1024 kB\n"),
		"7/io":                 file("rchar: 1\nwchar: 2\nread_bytes: 4096\nwrite_bytes: 8192\ncancelled_write_bytes: 0\n"),
		"7/fd/0":               file(""),
		"7/fd/1":               file(""),
		"8/stat":               file("8 (x) S 1 7 7 0 -1 4194560 1000 0 0 0 1 1 0 0 20 0 12 0 5000 1 2 3"),
		"8/status":             file("Name:\tzombie\n"),
		"9/stat":               file("9 (x) S 1"),
		"stat":                 file("cpu  100 10 50 9999 77 5 6 0 0 0\ncpu0 1 1 1 1 1 1 1 0 0 0\n"),
		"cpuinfo":              file("processor\t: 0\nmodel name\t: Some CPU\n"),
		"meminfo":              file("MemTotal:       1024 kB\nMemFree: 1 kB\n"),
		"loadavg":              file("0.10 0.20 0.30 1/100 1234\n"),
		"sys/kernel/osrelease": file("6.1.0\n"),
	}
}

func TestUsage(t *testing.T) {
	t.Parallel()
	p := Proc{FS: procFS()}
	u, err := p.Usage(7)
	want := Usage{CPU: 2 * time.Second, RSSBytes: 1 << 20, PeakRSSBytes: 2 << 20, WrittenBytes: 8192, ReadBytes: 4096, Files: 2}
	if err != nil || u != want {
		t.Errorf("%+v, %v", u, err)
	}
	// What cannot be read is unknown, alone and in a sum.
	u, err = p.Usage(8)
	if err != nil || u != (Usage{CPU: 20 * time.Millisecond, WrittenBytes: Unknown, ReadBytes: Unknown, Files: Unknown}) {
		t.Errorf("%+v, %v", u, err)
	}
	s, err := p.Sample(7, []int{7, 8})
	if err != nil || s.Servers.CPU != 2020*time.Millisecond || s.Servers.WrittenBytes != Unknown || s.Servers.RSSBytes != 1<<20 ||
		s.Self != want || s.Busy != 1710*time.Millisecond {
		t.Errorf("%+v, %v", s, err)
	}
	for _, pid := range []int{9, 10} {
		if _, err := p.Sample(7, []int{pid}); err == nil {
			t.Errorf("process %d was read", pid)
		}
		if _, err := p.Sample(pid, nil); err == nil {
			t.Errorf("process %d was read", pid)
		}
	}
}

func TestBusy(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"", "cpu 1 2", "disk 1 2 3 4 5 6 7", "cpu 1 2 x 4 5 6 7"} {
		files := procFS()
		files["stat"] = &fstest.MapFile{Data: []byte(text)}
		if _, err := (Proc{FS: files}).busy(); err == nil {
			t.Errorf("%q was read", text)
		}
	}
	files := procFS()
	delete(files, "stat")
	if _, err := (Proc{FS: files}).Sample(7, nil); err == nil {
		t.Error("read what is not there")
	}
}

func TestMachine(t *testing.T) {
	t.Parallel()
	m := Proc{FS: procFS()}.Machine()
	if m.CPUModel != "Some CPU" || m.MemoryBytes != 1<<20 || m.LoadAverage != "0.10 0.20 0.30" || m.Kernel != "6.1.0" || m.CPUs < 1 {
		t.Errorf("%+v", m)
	}
	var none fs.FS = fstest.MapFS{}
	if m := (Proc{FS: none}).Machine(); m.CPUModel != "" || m.MemoryBytes != 0 || m.OS == "" {
		t.Errorf("%+v", m)
	}
}
