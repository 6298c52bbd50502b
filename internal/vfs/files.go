package vfs

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
)

// MkdirAllSync creates the directory name and its missing parents, and returns
// once their names are durable. It creates and syncs one level at a time, and
// syncs the name of the deepest directory it finds as well: an earlier process
// may have been killed between creating that one and syncing it.
func MkdirAllSync(fsys FS, name string) error {
	name = path.Clean(name)
	var missing []string // the deepest first
	for {
		info, err := fsys.Stat(name)
		if err == nil && !info.IsDir() {
			return fmt.Errorf("vfs: %s is not a directory", name)
		}
		if err == nil {
			break
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		missing = append(missing, name)
		if name = path.Dir(name); name == missing[len(missing)-1] {
			return err
		}
	}
	// A parent that we may not even read is somebody else's, and so was the
	// creation of what we found in it.
	err := fsys.SyncDir(path.Dir(name))
	if err != nil && !errors.Is(err, fs.ErrPermission) {
		return err
	}
	for i := len(missing) - 1; i >= 0; i-- {
		if err := fsys.MkdirAll(missing[i]); err != nil {
			return err
		}
		if err := fsys.SyncDir(path.Dir(missing[i])); err != nil {
			return err
		}
	}
	return nil
}

// WriteFile makes data the content of the file name, atomically: after an error
// or a crash the old content or the new is there, and after nil the new one is
// durable. It goes through name + ".tmp", which it replaces; only one WriteFile
// of a name may run at a time.
func WriteFile(fsys FS, name string, data []byte) (err error) {
	tmp := name + ".tmp"
	if err := fsys.Remove(tmp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := fsys.Create(tmp)
	if err != nil {
		return err
	}
	if _, err = f.WriteAt(data, 0); err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = fsys.Rename(tmp, name)
	}
	if err != nil {
		return errors.Join(err, fsys.Remove(tmp))
	}
	return fsys.SyncDir(path.Dir(name))
}

// ReadFile returns the whole content of the file name.
func ReadFile(fsys FS, name string) ([]byte, error) {
	f, err := fsys.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	size, err := f.Size()
	if err != nil {
		return nil, err
	}
	data := make([]byte, size)
	if n, err := f.ReadAt(data, 0); err != nil && !(errors.Is(err, io.EOF) && int64(n) == size) {
		return nil, err
	}
	return data, nil
}

// ReadHead returns the first n bytes of the file name, or as many as it has; none
// if it does not exist.
func ReadHead(fsys FS, name string, n int) ([]byte, error) {
	f, err := fsys.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b := make([]byte, n)
	n, err = f.ReadAt(b, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	return b[:n], nil
}

// ReadDirIfThere is ReadDir, and nothing for a directory that does not exist.
func ReadDirIfThere(fsys FS, name string) ([]string, error) {
	names, err := fsys.ReadDir(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return names, err
}
