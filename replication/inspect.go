package replication

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"

	"github.com/hashicorp/raft"

	"github.com/flotilla-log/flotilla/internal/vfs"
)

// CheckpointInfo is what the header of a checkpoint file says.
type CheckpointInfo struct {
	File        string
	Shard       ShardID
	Incarnation uint64
	Index, Term uint64
	Prev        uint64 // index of the file that this delta builds on; 0: a base
	Voters      []string
	BodyBytes   int64
	Err         error // ErrCorrupt or ErrUnsupported; then nothing else is known
}

// InspectCheckpoint reads one checkpoint file, checks it, and returns its body.
// Damage is in the CheckpointInfo, the error is the file system's.
func InspectCheckpoint(fsys vfs.FS, file string) (CheckpointInfo, []byte, error) {
	_, info, body, err := inspectCheckpoint(fsys, file)
	return info, body, err
}

func inspectCheckpoint(fsys vfs.FS, file string) (checkpointFile, CheckpointInfo, []byte, error) {
	b, err := vfs.ReadFile(fsys, file)
	if err != nil {
		return checkpointFile{}, CheckpointInfo{}, nil, fmt.Errorf("replication: checkpoint: %w", err)
	}
	f, body, err := decodeCheckpoint(b)
	if err == nil && f.name() != path.Base(file) {
		err = fmt.Errorf("%w: it holds what %s should", ErrCorrupt, f.name())
	}
	info := CheckpointInfo{
		File: file, Shard: f.shard, Incarnation: f.incarnation, Index: f.index, Term: f.term, Prev: f.prev,
		BodyBytes: f.bodyBytes, Err: err,
	}
	for _, s := range f.config.Servers {
		if s.Suffrage == raft.Voter {
			info.Voters = append(info.Voters, string(s.ID))
		}
	}
	return f, info, body, nil
}

// CheckpointsFound is what InspectCheckpoints found.
type CheckpointsFound struct {
	Files []CheckpointInfo // all of them, by name

	// Chain is the base and the deltas that a start would take, oldest first,
	// and Bodies their bodies one after the other. Both are empty if there is no
	// checkpoint, or ChainErr says why there is no chain.
	Chain    []CheckpointInfo
	Bodies   io.Reader
	ChainErr error
}

// InspectCheckpoints reads all checkpoints of a replica in dir, leaving out
// files that skip, if not nil, is true for, and changes nothing. A directory
// that is not there has none.
func InspectCheckpoints(fsys vfs.FS, dir string, skip func(name string) bool) (CheckpointsFound, error) {
	var found CheckpointsFound
	names, err := fsys.ReadDir(dir)
	if err != nil {
		return found, fmt.Errorf("replication: checkpoints: %w", err)
	}
	type held struct {
		file checkpointFile
		info CheckpointInfo
		body []byte
	}
	files := make(map[uint64]held)
	var newest held
	for _, name := range names {
		if !strings.HasSuffix(name, checkpointSuffix) || skip != nil && skip(name) {
			continue
		}
		f, info, body, err := inspectCheckpoint(fsys, path.Join(dir, name))
		if err != nil {
			return found, err
		}
		found.Files = append(found.Files, info)
		if info.Err != nil {
			found.ChainErr = errors.Join(found.ChainErr, fmt.Errorf("%w (file %s)", info.Err, info.File))
			continue
		}
		if old, ok := files[f.index]; !ok || old.file.prev != 0 {
			files[f.index] = held{f, info, body}
		}
		if f.index >= newest.file.index {
			newest = files[f.index]
		}
	}
	if found.ChainErr != nil {
		return found, nil
	}
	var bodies []io.Reader
	for h := newest; h.file.index != 0; {
		found.Chain = append(found.Chain, h.info)
		bodies = append(bodies, bytes.NewReader(h.body))
		if h.file.prev == 0 {
			break
		}
		prev, ok := files[h.file.prev]
		if !ok || prev.file.crc != h.file.prevCRC {
			found.Chain, bodies = nil, nil
			found.ChainErr = fmt.Errorf("%w: %s builds on the checkpoint at index %d with checksum %08x, which is missing",
				ErrCorrupt, h.info.File, h.file.prev, h.file.prevCRC)
			break
		}
		h = prev
	}
	slices.Reverse(found.Chain)
	slices.Reverse(bodies)
	found.Bodies = io.MultiReader(bodies...)
	return found, nil
}
