package node

import (
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"path"
	"strings"

	"github.com/flotilla-log/flotilla/broker"
	"github.com/flotilla-log/flotilla/internal/vfs"
	"github.com/flotilla-log/flotilla/partition"
)

// Names in a data directory, for who looks at one that no node serves from.
const (
	IdentityName   = identityName
	GenerationName = generationName
	JournalDir     = journalDir
	VotesDir       = votesDir
	MetadataDir    = metadataDir
	ShardsDir      = shardsDir
	PartitionsDir  = dataDir
	QuarantineDir  = quarantineDir

	// QuarantineSuffix ends the names of the files in QuarantineDir.
	QuarantineSuffix = broker.QuarantineSuffix

	// RepairPrefix begins the names of the directories in which flotilla repair
	// keeps what it replaced, and PlanName is the file in them that says what is
	// to be done; DoneName is there once it is done. A start passes them over,
	// but for one that is not done.
	RepairPrefix = "repair-"
	PlanName     = "PLAN"
	DoneName     = "DONE"
)

// ErrRepairing reports a repair that was cut short.
var ErrRepairing = errors.New("node: a repair of the data directory has not come to its end")

// Parts returns the folders that hold a GENERATION file.
func Parts() []string { return append([]string(nil), countedDirs...) }

// Identity is the content of IDENTITY.
type Identity struct {
	ClusterID   string
	NodeID      int32
	Shards      uint32
	Incarnation uint64
	Started     bool
	Generation  uint64
	Next        uint64 // 0, or what the generation is moving on to

	FeatureLevel uint16 // that the directory may need

	Founders string // the cluster's nodes and their directories, "" if it is alone
	Founded  bool   // all of them know each other
	Joins    bool   // the node is none of them: it joins, or has joined, later

	Replaces uint64 // the directory of the same node that was lost; 0: none
	Nodes    string // where the nodes are, as a node that has joined has heard last
}

// ReadIdentity reads the IDENTITY of a data directory. It returns
// ErrDamagedIdentity, ErrNewer, or the file system's error.
func ReadIdentity(fsys vfs.FS, dir string) (Identity, error) {
	id, fresh, err := readIdentity(fsys, dir)
	if fresh {
		err = &fs.PathError{Op: "open", Path: path.Join(dir, identityName), Err: fs.ErrNotExist}
	}
	return Identity{
		ClusterID: id.ClusterID, NodeID: id.NodeID, Shards: id.Shards, Incarnation: uint64(id.Incarnation),
		Started: id.Started, Generation: id.Generation, Next: id.Next, FeatureLevel: id.FeatureLevel,
		Founders: string(id.Founders), Founded: id.Founded, Joins: id.Joins, Replaces: uint64(id.Replaces), Nodes: string(id.Nodes),
	}, err
}

// Encode returns the bytes of the IDENTITY file.
func (id Identity) Encode() []byte {
	return identity{
		Format: directoryFormat, ClusterID: id.ClusterID, NodeID: id.NodeID, Shards: id.Shards,
		Incarnation: hexNumber(id.Incarnation), Started: id.Started, Generation: id.Generation, Next: id.Next, FeatureLevel: id.FeatureLevel,
		Founders: founders(id.Founders), Founded: id.Founded, Joins: id.Joins, Replaces: hexNumber(id.Replaces), Nodes: addressList(id.Nodes),
	}.encode()
}

// Generation is the content of a GENERATION file.
type Generation struct{ Incarnation, Generation uint64 }

// ReadGeneration reads the GENERATION of one part of a data directory.
func ReadGeneration(fsys vfs.FS, part string) (Generation, error) {
	b, err := vfs.ReadFile(fsys, path.Join(part, generationName))
	if err != nil {
		return Generation{}, err
	}
	g, err := decodeGeneration(b)
	return Generation{uint64(g.Incarnation), g.Generation}, err
}

// Encode returns the bytes of the GENERATION file.
func (g Generation) Encode() []byte {
	return seal(generation{Format: directoryFormat, Incarnation: hexNumber(g.Incarnation), Generation: g.Generation})
}

// ReadQuarantine reads a file of QuarantineDir, and returns the shard and what
// the file says of a partition of it. An error names the file, and a start fails
// with it.
func ReadQuarantine(fsys vfs.FS, file string) (shard uint32, q *partition.Quarantine, err error) {
	id, q, err := broker.ReadQuarantine(fsys, file)
	return uint32(id), q, err
}

// Lock locks an existing data directory against nodes and other tools. It
// returns ErrInUse if a node serves from it, and ErrNotOurs if it holds none of
// a node's files.
func Lock(fsys vfs.FS, dir string) (io.Closer, error) {
	names, err := fsys.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("node: %w", err)
	}
	ours := false
	for _, name := range names {
		switch name {
		case identityName, journalDir, votesDir, metadataDir, shardsDir, dataDir:
			ours = true
		}
	}
	if !ours {
		return nil, fmt.Errorf("%w: %s holds no file of a node", ErrNotOurs, dir)
	}
	lock, err := fsys.Lock(path.Join(dir, lockName))
	if errors.Is(err, vfs.ErrLocked) {
		return nil, fmt.Errorf("%w: %s is served by another process, or another tool looks at it; stop it first", ErrInUse, dir)
	}
	return lock, err
}

func repairingError(repair string) error {
	return fmt.Errorf("%w: %s; run flotilla repair --execute again", ErrRepairing, repair)
}

// Unfinished returns the directory of a repair that was cut short, or "".
func Unfinished(fsys vfs.FS, dir string) (string, error) {
	names, err := fsys.ReadDir(dir)
	if err != nil {
		return "", fmt.Errorf("node: %w", err)
	}
	for _, name := range names {
		if !strings.HasPrefix(name, RepairPrefix) {
			continue
		}
		planned, err := there(fsys, path.Join(dir, name, PlanName))
		if err != nil || !planned {
			if err != nil {
				return "", fmt.Errorf("node: %w", err)
			}
			continue
		}
		if done, err := there(fsys, path.Join(dir, name, DoneName)); err != nil {
			return "", fmt.Errorf("node: %w", err)
		} else if !done {
			return path.Join(dir, name), nil
		}
	}
	return "", nil
}

// UnfinishedAside returns the folder in which damaged data is still being set aside,
// or "".
func UnfinishedAside(fsys vfs.FS, dir string) (string, error) {
	set, err := unfinishedAside(fsys, dir)
	if set == nil {
		return "", err
	}
	return path.Join(dir, set.name()), err
}

// Seal returns a line of JSON, and a line with its CRC32C in hex.
func Seal(line []byte) []byte { return fmt.Appendf(line, "\n%08x\n", crc32.Checksum(line, castagnoli)) }

// Unseal returns the line of JSON of a file that Seal made, once its checksum is
// found right.
func Unseal(b []byte) ([]byte, error) {
	body, _, err := openSealed(b)
	return body, err
}
