//go:build !linux

package vfs

// WriteVecAt writes one buffer after the other: there is no pwritev here.
func (f *osFile) WriteVecAt(bufs [][]byte, off int64) (n int64, err error) {
	for _, b := range bufs {
		w, err := f.WriteAt(b, off+n)
		n += int64(w)
		if err != nil {
			return n, err
		}
	}
	return n, nil
}

// SyncData is Sync, which on darwin also empties the drive's cache.
func (f *osFile) SyncData() error { return f.Sync() }

func (f *osFile) Preallocate(size int64) error { return f.extendWithZeros(size) }

// WriteBack does nothing: there is no call for it here.
func (f *osFile) WriteBack(off, n int64) {}
