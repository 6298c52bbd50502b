package delivery

import (
	"io"
	"net"
	"os"

	"github.com/flotilla-log/flotilla/broker"
)

// sendfileBytes is from where on a range of a file is sent without a copy
// through this process. Below it the system calls cost more than the copy.
const sendfileBytes = 64 << 10

// fileRange is a chunk of a segment file on its way to a client, but for the
// first skip bytes.
type fileRange struct {
	chunk *broker.Chunk
	skip  int64
	read  func(do func()) error // calls do, which reads the file and waits for no peer
}

func (f fileRange) len() int64 { return f.chunk.Bytes - f.skip }

// WriteTo writes the range: by sendfile if it is worth it and can be.
func (f fileRange) WriteTo(w io.Writer) (int64, error) {
	if f.len() >= sendfileBytes {
		conn, isTCP := w.(*net.TCPConn)
		file, isFile := f.chunk.File.(interface{ OSFile() *os.File }) // the real file system's
		if isTCP && isFile {
			return sendFile(conn, file.OSFile(), f.chunk.Pos+f.skip, f.len(), f.read)
		}
	}
	return io.CopyN(w, &timedReader{io.NewSectionReader(f.chunk.File, f.chunk.Pos+f.skip, f.len()), f.read}, f.len())
}

// timedReader reads a file by read.
type timedReader struct {
	from io.Reader
	read func(do func()) error
}

func (r *timedReader) Read(b []byte) (n int, err error) {
	if late := r.read(func() { n, err = r.from.Read(b) }); late != nil {
		return 0, late
	}
	return n, err
}
