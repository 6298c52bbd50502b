package disktest

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/flotilla-log/flotilla/internal/proctest"
)

// Set in the environment of the process that runs the tests: where the server
// is, and where to mount the disk.
const (
	envProgram = "DISKTEST_PROGRAM"
	envMount   = "DISKTEST_MOUNT"
)

// program is the binary under test, built once, and mountPoint where each test
// mounts a disk of its own.
var program, mountPoint string

func TestMain(m *testing.M) { os.Exit(testMain(m)) }

func testMain(m *testing.M) int {
	if program, mountPoint = os.Getenv(envProgram), os.Getenv(envMount); program != "" {
		// What is mounted from here on nobody else sees, and it goes with us.
		if err := syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""); err != nil {
			fmt.Fprintln(os.Stderr, "disktest: make mounts private:", err)
			return 1
		}
		return m.Run()
	}
	dir, err := os.MkdirTemp("", "flotilla-disk")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	built, mount := filepath.Join(dir, "flotilla"), filepath.Join(dir, "mnt")
	if built, err = proctest.Build("", built); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	if err := os.Mkdir(mount, 0o755); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	// Without a name space of users only root may mount.
	id := func(of int) []syscall.SysProcIDMap {
		return []syscall.SysProcIDMap{{ContainerID: 0, HostID: of, Size: 1}}
	}
	attr := &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS,
		UidMappings: id(os.Getuid()), GidMappings: id(os.Getgid()),
	}
	code, err := inside(attr, built, mount)
	if err != nil && os.Geteuid() == 0 {
		code, err = inside(&syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS}, built, mount)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "disktest: needs a mount name space, as root or with user name spaces allowed (sysctl user.max_user_namespaces, kernel.unprivileged_userns_clone):", err)
		return 1
	}
	return code
}

// inside runs this very test binary once more, with the same arguments, in name
// spaces of its own. The error is that it could not be started.
func inside(attr *syscall.SysProcAttr, built, mount string) (code int, err error) {
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(), envProgram+"="+built, envMount+"="+mount)
	cmd.SysProcAttr = attr
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	_ = cmd.Wait()
	return cmd.ProcessState.ExitCode(), nil
}

// mountDisk mounts an empty disk of that size until the test ends.
func mountDisk(t *testing.T, bytes int64) (dir string) {
	t.Helper()
	dir, err := os.MkdirTemp(mountPoint, "")
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprintf("size=%d", bytes)); err != nil {
		t.Fatalf("mount a tmpfs on %s: %v", dir, err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Error("unmount:", err)
		}
	})
	return dir
}

// ballast is a file that somebody else has on the disk.
type ballast struct {
	t    *testing.T
	name string
}

// fill makes the ballast take all of the disk but leave bytes.
func (b ballast) fill(leave int64) {
	b.t.Helper()
	f, err := os.OpenFile(b.name, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		b.t.Fatal(err)
	}
	defer f.Close()
	chunk := make([]byte, 4096)
	for free(b.t, filepath.Dir(b.name)) > leave {
		if _, err := f.Write(chunk); errors.Is(err, syscall.ENOSPC) {
			return
		} else if err != nil {
			b.t.Fatal(err)
		}
	}
}

func (b ballast) remove() {
	b.t.Helper()
	if err := os.Remove(b.name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		b.t.Fatal(err)
	}
}

func free(t *testing.T, dir string) int64 {
	t.Helper()
	var st syscall.Statfs_t
	if err := syscall.Statfs(dir, &st); err != nil {
		t.Fatal(err)
	}
	return int64(st.Bavail) * st.Bsize
}
