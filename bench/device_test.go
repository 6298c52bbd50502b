package bench

import (
	"strings"
	"testing"
	"testing/fstest"
)

const someMounts = `22 21 0:5 / /dev rw shared:2 - devtmpfs udev rw
21 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
23 21 8:17 / /srv/two\040words rw - xfs /dev/sdb1 rw
24 21 0:31 /sub /btrfs rw shared:9 master:3 - btrfs /dev/sdc rw,subvol=/sub
25 21 8:1 / /srv/again rw - ext4 /dev/sda1 rw
26 21 254:0 /bind /srv/again rw - ext4 /dev/vda rw
a line that is not one
`

const someDiskstats = ` 254       0 vda 100 1 2000 9 300 4 5000 8 0 7 7 1 2 3 4 77 5
   8      17 sdb1 1 1 1 1 2 1 3 1 0 1 1
   8      32 sdc 1 1 1 1 4 1 6 1 0 1 1
   8       1 sda1 1 1 1 1 4 1 6 1 0 1 1
   8      99 short 1
`

func deviceFS() fstest.MapFS {
	files := procFS()
	files["self/mountinfo"] = &fstest.MapFile{Data: []byte(someMounts)}
	files["diskstats"] = &fstest.MapFile{Data: []byte(someDiskstats)}
	return files
}

func TestDeviceOf(t *testing.T) {
	t.Parallel()
	p := Proc{FS: deviceFS()}
	for dir, want := range map[string]string{
		"/": "vda", "/srv": "vda", "/srvother/two": "vda", "/srv/two words": "sdb1", "/srv/two words/data": "sdb1",
		"/srv/two wordsmore": "vda", "/btrfs/data": "sdc", "/srv/again/data": "vda",
	} {
		if got, err := p.DeviceOf(dir); got != want || err != nil {
			t.Errorf("DeviceOf(%q) = %q, %v, want %q", dir, got, err, want)
		}
	}
	if got, err := p.DeviceOf("/dev/shm"); err == nil || !strings.Contains(err.Error(), "udev") {
		t.Errorf("no block device: %q, %v", got, err)
	}
	for _, missing := range []string{"self/mountinfo", "diskstats"} {
		files := deviceFS()
		delete(files, missing)
		if got, err := (Proc{FS: files}).DeviceOf("/"); err == nil {
			t.Errorf("without %s: %q", missing, got)
		}
	}
}

func TestDeviceSample(t *testing.T) {
	t.Parallel()
	for device, want := range map[string]DeviceUsage{
		"":     {},
		"vda":  {ReadBytes: 2000 * 512, Writes: 300, WrittenBytes: 5000 * 512, Flushes: 77},
		"sdb1": {ReadBytes: 512, Writes: 2, WrittenBytes: 3 * 512, Flushes: Unknown},
	} {
		s, err := Proc{FS: deviceFS(), Device: device}.Sample(7, nil)
		if err != nil || s.Device != want {
			t.Errorf("%q: %+v, %v, want %+v", device, s.Device, err, want)
		}
	}
	files := deviceFS()
	files["diskstats"] = &fstest.MapFile{Data: []byte(strings.Replace(someDiskstats, "5000", "many", 1))}
	for _, p := range []Proc{{FS: deviceFS(), Device: "gone"}, {FS: deviceFS(), Device: "short"}, {FS: files, Device: "vda"}, {FS: procFS(), Device: "vda"}} {
		if s, err := p.Sample(7, nil); err == nil {
			t.Errorf("%s: %+v", p.Device, s.Device)
		}
	}
}
