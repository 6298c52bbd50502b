package node

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/flotilla-log/flotilla/broker/metadata"
	"github.com/flotilla-log/flotilla/internal/vfs"
)

// Names in a data directory. docs/formats.md describes all of them.
const (
	lockName     = "LOCK"
	identityName = "IDENTITY"
	journalDir   = "journal"
	votesDir     = "votes"
	metadataDir  = "metadata"
	shardsDir    = "shards"
	dataDir      = "partitions"

	quarantineDir = "quarantine" // made when there is something to keep
)

// directoryFormat is the version of the data directory's layout.
const directoryFormat = 1

var (
	// ErrInUse reports a data directory that another process serves from.
	ErrInUse = errors.New("node: data directory is in use")

	// ErrNotOurs reports a directory that is not empty and holds no identity:
	// nothing in it is touched.
	ErrNotOurs = errors.New("node: not a data directory")

	// ErrWrongIdentity reports a directory of another cluster or node than the
	// one asked for.
	ErrWrongIdentity = errors.New("node: data directory belongs to another node")

	// ErrNewer reports a directory that a newer version has written.
	ErrNewer = errors.New("node: data directory has a newer format")

	// ErrDamagedIdentity reports an IDENTITY file that is not as it was written.
	ErrDamagedIdentity = errors.New("node: damaged identity")
)

// identity is what a data directory says of whose it is. It is written before
// anything else, and again when a start has come to its end.
type identity struct {
	Format    int    `json:"format"`
	ClusterID string `json:"cluster_id"`
	NodeID    int32  `json:"node_id"`
	Shards    uint32 `json:"shards"` // data shards made at bootstrap: 1 to Shards

	// Incarnation is the directory's own random number: another directory under
	// the same node id is another node.
	Incarnation hexNumber `json:"incarnation"`

	// Started says that the node has served from here: from then on all that
	// belongs to the directory has to be there. Without it a directory may be
	// half made.
	Started bool `json:"started,omitempty"`

	// FeatureLevel is the cluster's finalised feature level, recorded before
	// anything is written that only this level allows: a version that does not
	// know the level refuses the directory by this alone.
	FeatureLevel uint16 `json:"feature_level,omitempty"`

	// Generation counts the times that the node served from here; Next is not 0
	// while it moves on: see checkParts.
	Generation uint64 `json:"generation,omitempty"`
	Next       uint64 `json:"next_generation,omitempty"`

	// Founders are the directories of the cluster's plan, once it is recorded, and
	// Shards is the plan's from then on; a node that is alone has none. Founded says
	// that all of them have recorded it: see plan.
	Founders founders `json:"founders,omitempty"`
	Founded  bool     `json:"founded,omitempty"`

	// Joins says that the node joins, or has joined, a cluster that others have
	// founded: it never founds one. Founders is that cluster's then, and Founded says
	// that the node is registered. Nodes is where the nodes listened for each other
	// when it heard of that last.
	Joins bool        `json:"joins,omitempty"`
	Nodes addressList `json:"nodes,omitempty"`

	// Replaces is the directory of the same node whose place in the cluster this one
	// takes, which was lost, 0 for a founder's: see rejoin.
	Replaces hexNumber `json:"replaces,omitempty"`
}

// hexNumber is a uint64 that stands in JSON as 16 hex digits: JSON's own numbers
// are exact up to 2^53 only for many readers.
type hexNumber uint64

// MarshalText implements encoding.TextMarshaler.
func (n hexNumber) MarshalText() ([]byte, error) { return fmt.Appendf(nil, "%016x", uint64(n)), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (n *hexNumber) UnmarshalText(b []byte) error {
	v, err := strconv.ParseUint(string(b), 16, 64)
	*n = hexNumber(v)
	return err
}

// encode returns the file's bytes.
func (id identity) encode() []byte { return seal(id) }

// seal returns a line of JSON, and a line with its CRC32C in hex.
func seal(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic("node: seal: " + err.Error())
	}
	return fmt.Appendf(b, "\n%08x\n", crc32.Checksum(b, castagnoli))
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// sealedHead is what is judged of a sealed line before everything else: a newer
// one may give the other fields other types.
type sealedHead struct {
	Format       int `json:"format"`
	FeatureLevel int `json:"feature_level"`
}

// openSealed returns the line of JSON, once its checksum is found right, and
// its head.
func openSealed(b []byte) (body []byte, head sealedHead, err error) {
	body, sum, ok := bytes.Cut(b, []byte("\n"))
	if !ok || string(sum) != fmt.Sprintf("%08x\n", crc32.Checksum(body, castagnoli)) {
		return nil, head, errors.New("checksum does not match")
	}
	err = json.Unmarshal(body, &head)
	return body, head, err
}

func decodeIdentity(b []byte) (identity, error) {
	body, head, err := openSealed(b)
	if err != nil {
		return identity{}, fmt.Errorf("%w: %w", ErrDamagedIdentity, err)
	}
	if head.Format > directoryFormat {
		return identity{}, fmt.Errorf("%w: format %d, this version reads up to %d; start the newer version that wrote it", ErrNewer, head.Format, directoryFormat)
	}
	if err := checkLevel(head.FeatureLevel, metadata.MaxFeatureLevel); err != nil {
		return identity{}, err
	}
	var id identity
	if err := json.Unmarshal(body, &id); err != nil {
		return identity{}, fmt.Errorf("%w: %w", ErrDamagedIdentity, err)
	}
	if id.Format < 1 || id.ClusterID == "" || id.NodeID < 0 || id.Shards == 0 || id.Incarnation == 0 {
		return identity{}, fmt.Errorf("%w: incomplete: %s", ErrDamagedIdentity, body)
	}
	if id.Founders != "" {
		if _, err := parseFounders(string(id.Founders)); err != nil {
			return identity{}, fmt.Errorf("%w: %w", ErrDamagedIdentity, err)
		}
	} else if id.Founded {
		return identity{}, fmt.Errorf("%w: founded by nobody: %s", ErrDamagedIdentity, body)
	}
	if _, err := parseAddressList(string(id.Nodes)); err != nil {
		return identity{}, fmt.Errorf("%w: %w", ErrDamagedIdentity, err)
	}
	return id, nil
}

// checkLevel refuses a feature level that a version does not know which knows
// them up to newest.
func checkLevel(level, newest int) error {
	if level > newest {
		return fmt.Errorf("%w: feature level %d, this version knows up to %d; start the newer version that raised it", ErrNewer, level, newest)
	}
	return nil
}

// openDir creates the directory if needed, locks it, and returns its identity.
// fresh says that the directory had none: it was empty, and want was written,
// with a new cluster id if want has none. A feature level in want is the newest
// that there is, for the directory of a newer one to be refused.
func openDir(fsys vfs.FS, dir string, want identity, rand io.Reader) (id identity, fresh bool, lock io.Closer, err error) {
	if _, err := fsys.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		if err := vfs.MkdirAllSync(fsys, dir); err != nil {
			return identity{}, false, nil, fmt.Errorf("node: %w", err)
		}
	}
	if err := checkAside(fsys, dir); err != nil {
		return identity{}, false, nil, err
	}
	if err := checkOurs(fsys, dir); err != nil {
		return identity{}, false, nil, err
	}
	lock, err = fsys.Lock(path.Join(dir, lockName))
	if errors.Is(err, vfs.ErrLocked) {
		return identity{}, false, nil, fmt.Errorf("%w: %s is served by another process; stop it, or give another directory", ErrInUse, dir)
	}
	if err != nil {
		return identity{}, false, nil, fmt.Errorf("node: %w", err)
	}
	// Read under the lock: another process may just have written it.
	var repair string
	if repair, err = Unfinished(fsys, dir); err == nil && repair != "" {
		err = repairingError(repair)
	}
	if err == nil {
		err = checkAside(fsys, dir)
	}
	if err == nil {
		id, fresh, err = readIdentity(fsys, dir)
	}
	if err == nil && !fresh {
		if err = id.check(want, dir); err == nil {
			err = checkVersions(fsys, dir)
		}
	}
	if err == nil {
		// An earlier process may have been killed before the directory's own name
		// was durable.
		err = vfs.MkdirAllSync(fsys, dir)
	}
	if err == nil && fresh {
		id, err = makeIdentity(fsys, dir, want, rand)
	}
	if err == nil {
		err = id.checkParts(fsys, dir)
	}
	if err != nil {
		return identity{}, false, nil, errors.Join(err, lock.Close())
	}
	return id, fresh, lock, nil
}

// checkOurs refuses a directory that holds other things and no identity, before
// anything in it is touched.
func checkOurs(fsys vfs.FS, dir string) error {
	names, err := fsys.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("node: %w", err)
	}
	if slices.Contains(names, identityName) {
		return nil
	}
	if repair, err := Unfinished(fsys, dir); err != nil {
		return err
	} else if repair != "" {
		return repairingError(repair)
	}
	for _, name := range names {
		if name != lockName && name != "lost+found" && !strings.HasSuffix(name, ".tmp") {
			return fmt.Errorf("%w: %s holds %s and no %s file; give an empty directory", ErrNotOurs, dir, name, identityName)
		}
	}
	return nil
}

// readIdentity reads the identity; fresh says that there is none.
func readIdentity(fsys vfs.FS, dir string) (id identity, fresh bool, err error) {
	file := path.Join(dir, identityName)
	b, err := vfs.ReadFile(fsys, file)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return identity{}, true, nil
	case err != nil:
		return identity{}, false, fmt.Errorf("node: %w", err)
	}
	if id, err = decodeIdentity(b); err != nil {
		return identity{}, false, fmt.Errorf("%w (file %s)", err, file)
	}
	return id, false, nil
}

// makeIdentity writes the identity of a fresh directory: want's, with what it
// leaves open drawn.
func makeIdentity(fsys vfs.FS, dir string, want identity, rand io.Reader) (identity, error) {
	id := want
	id.Format, id.FeatureLevel = directoryFormat, 0
	var raw [8 + clusterIDBytes]byte
	if _, err := io.ReadFull(rand, raw[:]); err != nil {
		return identity{}, fmt.Errorf("node: identity: %w", err)
	}
	id.Incarnation = hexNumber(binary.LittleEndian.Uint64(raw[:8]) | 1) // never zero
	if id.ClusterID == "" {
		id.ClusterID = newClusterID([clusterIDBytes]byte(raw[8:]))
	}
	if err := vfs.WriteFile(fsys, path.Join(dir, identityName), id.encode()); err != nil {
		return identity{}, fmt.Errorf("node: %w", err)
	}
	return id, nil
}

// clusterIDBytes are the random bytes of a cluster id.
const clusterIDBytes = 16

// newClusterID returns a cluster id in the form that Kafka's have, 22 characters
// of base64 for URLs: there are tools that take it for a UUID. It does not begin
// with a dash, so that it can be given to a command.
func newClusterID(random [clusterIDBytes]byte) string {
	random[0] &= 0x7f
	return base64.RawURLEncoding.EncodeToString(random[:])
}

// change makes the identity durably what edit makes of it.
func (id *identity) change(fsys vfs.FS, dir string, edit func(*identity)) error {
	now := *id
	edit(&now)
	if now == *id {
		return nil
	}
	if err := vfs.WriteFile(fsys, path.Join(dir, identityName), now.encode()); err != nil {
		return fmt.Errorf("node: %w", err)
	}
	*id = now
	return nil
}

// check refuses a directory that is not want's. What want leaves open matches.
func (id identity) check(want identity, dir string) error {
	if want.ClusterID != "" && want.ClusterID != id.ClusterID {
		return fmt.Errorf("%w: %s belongs to cluster %s, not %s", ErrWrongIdentity, dir, id.ClusterID, want.ClusterID)
	}
	if want.NodeID != id.NodeID {
		return fmt.Errorf("%w: %s belongs to node %d, not %d", ErrWrongIdentity, dir, id.NodeID, want.NodeID)
	}
	if want.FeatureLevel == 0 {
		return nil
	}
	return checkLevel(int(id.FeatureLevel), int(want.FeatureLevel))
}
