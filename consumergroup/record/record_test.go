package record

import (
	"bytes"
	"encoding/hex"
	"errors"
	"math/rand/v2"
	"os"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/twmb/franz-go/pkg/kmsg"
)

var (
	topicA = TopicID{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16}
	topicB = TopicID{0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17, 0x18, 0x19, 0x1a, 0x1b, 0x1c, 0x1d, 0x1e, 0x1f, 0x20}
)

// group returns the entry of the vectors group-v0 to group-v4.
func group(version int) *GroupMetadata {
	v := &GroupMetadataValue{
		ProtocolType: "consumer", Generation: 9, Protocol: new("range"), Leader: new("c-1"),
		CurrentStateTimestampMS: 1700000000000,
		Members: []GroupMember{
			{
				MemberID: "c-1", ClientID: "c", ClientHost: "/10.0.0.1", RebalanceTimeoutMS: 60000, SessionTimeoutMS: 45000,
				Subscription: []byte{0, 1, 2}, Assignment: []byte{3},
			},
			{
				MemberID: "d-1", ClientHost: "h", RebalanceTimeoutMS: 1, SessionTimeoutMS: 2,
				Subscription: []byte{}, Assignment: []byte{},
			},
		},
	}
	if version < 2 {
		v.CurrentStateTimestampMS = -1
	}
	if version < 1 {
		v.Members[0].RebalanceTimeoutMS, v.Members[1].RebalanceTimeoutMS = -1, -1
	}
	if version >= 3 {
		v.Members[0].InstanceID = new("static-1")
	}
	return &GroupMetadata{Group: "billing", Value: v}
}

// offset returns the entry of the vectors offset-v0 to offset-v4.
func offset(version int) *OffsetCommit {
	v := &OffsetCommitValue{
		Offset: 1 << 40, LeaderEpoch: -1, Metadata: "a note", CommitTimestampMS: 1700000000000, ExpireTimestampMS: -1,
	}
	if version == 1 {
		v.ExpireTimestampMS = 1700000099000
	}
	if version >= 3 {
		v.LeaderEpoch = 5
	}
	return &OffsetCommit{Group: "billing", Topic: "orders", Partition: 7, Value: v}
}

// entries has what each vector of testdata/kafka/records.tsv says, as its
// generator has filled it in.
var entries = map[string]Entry{
	"legacy-offset": &OffsetCommit{Group: "billing", Topic: "orders", Partition: 7, legacy: true, Value: &OffsetCommitValue{
		Offset: 42, LeaderEpoch: -1, Metadata: "m", CommitTimestampMS: 1700000000000, ExpireTimestampMS: -1,
	}},
	"legacy-offset-gone": &OffsetCommit{Group: "billing", Topic: "orders", Partition: 7, legacy: true},
	"offset-v0":          offset(0),
	"offset-v1":          offset(1),
	"offset-v2":          offset(2),
	"offset-v3":          offset(3),
	"offset-v4":          offset(4),
	"offset-with-id": &OffsetCommit{Group: "billing", Topic: "orders", Partition: 7, Value: &OffsetCommitValue{
		Offset: 3, LeaderEpoch: -1, CommitTimestampMS: 1, ExpireTimestampMS: -1, TopicID: topicA,
	}},
	"offset-gone": &OffsetCommit{Group: "billing", Topic: "orders", Partition: 7},

	"group-v0": group(0),
	"group-v1": group(1),
	"group-v2": group(2),
	"group-v3": group(3),
	"group-v4": group(4),
	"group-empty": &GroupMetadata{Group: "billing", Value: &GroupMetadataValue{
		ProtocolType: "consumer", Generation: 10, CurrentStateTimestampMS: 1700000000001,
	}},
	"group-gone": &GroupMetadata{Group: "billing"},

	"epoch":      &ConsumerGroup{Group: "g", Value: &ConsumerGroupValue{Epoch: 3}},
	"epoch-hash": &ConsumerGroup{Group: "g", Value: &ConsumerGroupValue{Epoch: 3, MetadataHash: -77}},
	"epoch-gone": &ConsumerGroup{Group: "g"},
	"partition-metadata": &ConsumerPartitionMetadata{Group: "g", Value: &ConsumerPartitionMetadataValue{Topics: []TopicMetadata{
		{TopicID: topicA, Topic: "orders", Partitions: 2, Racks: []PartitionRacks{{Partition: 1, Racks: []string{"r1", "r2"}}}},
		{TopicID: topicB, Topic: "bills", Partitions: 1},
	}}},
	"partition-metadata-gone": &ConsumerPartitionMetadata{Group: "g"},
	"member": &ConsumerMember{Group: "g", MemberID: "m1", Value: &ConsumerMemberValue{
		InstanceID: new("i"), RackID: new("rack"), ClientID: "c", ClientHost: "/h", Topics: []string{"bills", "orders"},
		Regex: new("o.*"), RebalanceTimeoutMS: 300000, Assignor: new("uniform"),
	}},
	"member-nulls": &ConsumerMember{Group: "g", MemberID: "m1", Value: &ConsumerMemberValue{RebalanceTimeoutMS: -1}},
	"member-classic": &ConsumerMember{Group: "g", MemberID: "m1", Value: &ConsumerMemberValue{
		ClientID: "c", ClientHost: "/h", Topics: []string{"orders"}, RebalanceTimeoutMS: 5,
		Classic: &ClassicMember{SessionTimeoutMS: 45000, Protocols: []ClassicProtocol{
			{Name: "range", Metadata: []byte{9, 8}}, {Name: "sticky", Metadata: []byte{}},
		}},
	}},
	"member-gone":       &ConsumerMember{Group: "g", MemberID: "m1"},
	"target-epoch":      &ConsumerTargetEpoch{Group: "g", Value: &ConsumerTargetEpochValue{Epoch: 4}},
	"target-epoch-time": &ConsumerTargetEpoch{Group: "g", Value: &ConsumerTargetEpochValue{Epoch: 4, TimestampMS: 1700000000000}},
	"target-epoch-gone": &ConsumerTargetEpoch{Group: "g"},
	"target": &ConsumerTarget{Group: "g", MemberID: "m1", Value: &ConsumerTargetValue{Partitions: []TopicPartitions{
		{TopicID: topicA, Partitions: []int32{0, 2}}, {TopicID: topicB, Partitions: []int32{200}},
	}}},
	"target-nothing": &ConsumerTarget{Group: "g", MemberID: "m1", Value: &ConsumerTargetValue{}},
	"target-gone":    &ConsumerTarget{Group: "g", MemberID: "m1"},
	"current": &ConsumerCurrent{Group: "g", MemberID: "m1", Value: &ConsumerCurrentValue{
		Epoch: 5, PreviousEpoch: 4, State: UnrevokedPartitions,
		Assigned: []TopicPartitions{{TopicID: topicA, Partitions: []int32{0, 2}, Epochs: []int32{3, 5}}},
		Revoking: []TopicPartitions{{TopicID: topicB, Partitions: []int32{1}}},
	}},
	"current-gone": &ConsumerCurrent{Group: "g", MemberID: "m1"},
	"regex": &ConsumerRegex{Group: "g", Regex: "o.*", Value: &ConsumerRegexValue{
		Topics: []string{"orders", "others"}, Version: 12, TimestampMS: 1700000000000,
	}},
	"regex-gone": &ConsumerRegex{Group: "g", Regex: "o.*"},
	"unknown": &Unknown{
		Type: 11, Key: []byte{0, 11, 0, 1, 'g'}, Value: []byte{0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0},
	},
}

// vector is a line of records.tsv.
type vector struct {
	name       string
	key, value []byte
}

// vectors returns the records that Kafka has encoded.
func vectors(tb testing.TB) (out []vector) {
	b, err := os.ReadFile("testdata/kafka/records.tsv")
	if err != nil {
		tb.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		f := strings.Split(strings.TrimSuffix(line, "\n"), "\t")
		v := vector{name: f[0], key: unhex(tb, f[1])}
		if f[2] != "-" {
			v.value = unhex(tb, f[2])
		}
		out = append(out, v)
	}
	return out
}

func unhex(tb testing.TB, s string) []byte {
	b, err := hex.DecodeString(s)
	if err != nil {
		tb.Fatal(err)
	}
	return b
}

// exact compares entries, and tells nil from empty only where a format does.
var exact = cmp.Options{cmp.AllowUnexported(OffsetCommit{}), cmpopts.EquateEmpty()}

// TestVectors decodes what Kafka's classes have encoded, and encodes it again,
// in the version that it has: the bytes are the same both ways.
func TestVectors(t *testing.T) {
	t.Parallel()
	seen := 0
	for _, v := range vectors(t) {
		if len(v.key) == 0 {
			continue
		}
		want, ok := entries[v.name]
		if !ok {
			t.Fatalf("%s: no entry says what it is", v.name)
		}
		seen++
		got, err := Decode(v.key, v.value)
		if err != nil {
			t.Errorf("%s: %v", v.name, err)
			continue
		}
		if diff := cmp.Diff(want, got, exact); diff != "" {
			t.Errorf("%s (-want +got):\n%s", v.name, diff)
		}
		again := want.Encode()
		if e, ok := want.(entry); ok {
			version := int16(0)
			if v.value != nil {
				version = int16(v.value[1])
			}
			again = encode(Type(v.key[1]), e, version)
		}
		if !bytes.Equal(again.Key, v.key) || !bytes.Equal(again.Value, v.value) || (again.Value == nil) != (v.value == nil) {
			t.Errorf("%s: encodes to\n%x %x, Kafka to\n%x %x", v.name, again.Key, again.Value, v.key, v.value)
		}
	}
	if seen != len(entries) {
		t.Errorf("%d vectors, %d entries", seen, len(entries))
	}
}

// TestWrittenVersions pins the versions that are written: those of Kafka 4.3.1.
func TestWrittenVersions(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]byte{"offset-v4": 4, "offset-v1": 1, "group-v3": 3, "epoch": 0, "member": 0, "target": 0, "current": 0, "regex": 0} {
		if got := entries[name].Encode().Value[1]; got != want {
			t.Errorf("%s is written in version %d, want %d", name, got, want)
		}
	}
	// A legacy key becomes one of type 1: compaction tells the two apart, readers do not.
	if got := entries["legacy-offset"].Encode().Key[1]; got != 1 {
		t.Errorf("an offset is written under a key of type %d, want 1", got)
	}
}

// TestTypes holds the names of types against Kafka's.
func TestTypes(t *testing.T) {
	t.Parallel()
	b, err := os.ReadFile("testdata/kafka/types.tsv")
	if err != nil {
		t.Fatal(err)
	}
	names := 0
	for line := range strings.Lines(string(b)) {
		id, name, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "\t")
		n, err := strconv.Atoi(id)
		if err != nil {
			t.Fatal(err)
		}
		names++
		if got := screaming(Type(n).String()); got != name {
			t.Errorf("type %d is called %s, Kafka says %s", n, got, name)
		}
	}
	for _, name := range typeNames {
		if name != "" {
			names--
		}
	}
	if names != 0 {
		t.Errorf("Kafka has %d types more than there are names", names)
	}
	if got := Type(-3).String(); got != "type -3" {
		t.Errorf("a type without a name is called %q", got)
	}
}

// screaming turns CamelCase into CAMEL_CASE.
func screaming(s string) string {
	var b strings.Builder
	for i, r := range s {
		if i > 0 && r >= 'A' && r <= 'Z' {
			b.WriteByte('_')
		}
		b.WriteRune(r)
	}
	return strings.ToUpper(b.String())
}

// TestDecodeRefuses shows what each kind of damage is called.
func TestDecodeRefuses(t *testing.T) {
	t.Parallel()
	key := []byte{0, 1, 0, 1, 'g', 0, 1, 't', 0, 0, 0, 7}
	group := []byte{0, 2, 0, 1, 'g'}
	current := []byte{0, 8, 0, 1, 'g', 0, 1, 'm'}
	tests := []struct {
		name       string
		key, value []byte
		want       error
		says       string
	}{
		{"no key", nil, nil, ErrDamaged, "a key of 0 bytes"},
		{"half a type", []byte{0}, nil, ErrDamaged, "a key of 1 bytes"},
		{"a key cut off", key[:8], nil, ErrDamaged, "key of OffsetCommit: partition: cut off: 4 bytes, 0 left"},
		{"a key with more", append(bytes.Clone(key), 1), nil, ErrDamaged, "1 bytes after the last field"},
		{"a null group", []byte{0, 2, 0xff, 0xff}, nil, ErrDamaged, "group: null"},
		{"a group of -2 bytes", []byte{0, 2, 0xff, 0xfe}, nil, ErrDamaged, "group: -2 bytes"},
		{"an empty value", key, []byte{}, ErrDamaged, "value of OffsetCommit: 0 bytes"},
		{"version 5", key, []byte{0, 5}, ErrVersion, "5 of the value of OffsetCommit, this build reads 0 to 4"},
		{"version -1", key, []byte{0xff, 0xff}, ErrVersion, "-1 of the value of OffsetCommit"},
		{"a legacy value in version 1", []byte{0, 0, 0, 1, 'g', 0, 1, 't', 0, 0, 0, 7}, []byte{0, 1}, ErrVersion, "LegacyOffsetCommit, this build reads 0 to 0"},
		{"a value cut off", key, []byte{0, 0, 0, 0}, ErrDamaged, "offset: cut off: 8 bytes, 2 left"},
		{"a count that cannot be", group, []byte{0, 0, 0, 0, 0, 0, 0, 1, 0xff, 0xff, 0xff, 0xff, 0x7f, 0xff, 0xff, 0xff}, ErrDamaged, "members: cut off: a count of 2147483647, 0 bytes left"},
		{"a count below null", group, []byte{0, 0, 0, 0, 0, 0, 0, 1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xfe}, ErrDamaged, "members: a count of -2"},
		{"a null list", group, []byte{0, 0, 0, 0, 0, 0, 0, 1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, ErrDamaged, "members: null"},
		{"an endless varint", group, []byte{0, 4, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, ErrDamaged, "protocol type: cut off: a varint"},
		{
			"a compact string that no record holds", group,
			append([]byte{0, 4, 0x81, 0x80, 2}, make([]byte, 1<<15)...), ErrDamaged, "a string of 32768 bytes, the limit is 32767",
		},
		{"tags out of order", []byte{0, 3, 0, 1, 'g'}, []byte{0, 0, 0, 0, 0, 3, 2, 9, 0, 8, 0}, ErrDamaged, "tag 8 after 9"},
		{"a short tag", []byte{0, 3, 0, 1, 'g'}, []byte{0, 0, 0, 0, 0, 3, 1, 0, 7, 1, 2, 3, 4, 5, 6, 7}, ErrDamaged, "metadata hash: cut off: 8 bytes, 7 left"},
		{"a long tag", []byte{0, 3, 0, 1, 'g'}, []byte{0, 0, 0, 0, 0, 3, 1, 0, 9, 1, 2, 3, 4, 5, 6, 7, 8, 9}, ErrDamaged, "1 bytes after the last field"},
		{"many tags", []byte{0, 3, 0, 1, 'g'}, []byte{0, 0, 0, 0, 0, 3, 0xff, 0xff, 0xff, 0xff, 7}, ErrDamaged, "tag: cut off"},
		{
			"epochs for other partitions", current,
			append(append([]byte{0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 2}, make([]byte, 16)...), 2, 0, 0, 0, 7, 1, 0, 1, 1, 1, 0), ErrDamaged, "assignment epochs: 0 of them for 1 partitions",
		},
	}
	for _, tt := range tests {
		_, err := Decode(tt.key, tt.value)
		if !errors.Is(err, tt.want) || !strings.Contains(err.Error(), tt.says) {
			t.Errorf("%s: %v, want %v and %q", tt.name, err, tt.want, tt.says)
		}
	}
}

// TestDecodeCutAnywhere cuts each vector at every byte: what is left is an error
// that says so, whatever the cut.
func TestDecodeCutAnywhere(t *testing.T) {
	t.Parallel()
	for _, v := range vectors(t) {
		if v.name == "unknown" || len(v.key) == 0 {
			continue
		}
		for n := range len(v.key) {
			if _, err := Decode(v.key[:n], v.value); !errors.Is(err, ErrDamaged) {
				t.Errorf("%s: a key of %d bytes: %v", v.name, n, err)
			}
		}
		for n := range len(v.value) {
			if _, err := Decode(v.key, v.value[:n:n]); !errors.Is(err, ErrDamaged) {
				t.Errorf("%s: a value of %d bytes: %v", v.name, n, err)
			}
		}
	}
}

// TestUnknownTag skips a tagged field that a later build has added.
func TestUnknownTag(t *testing.T) {
	t.Parallel()
	got, err := Decode([]byte{0, 3, 0, 1, 'g'}, []byte{0, 0, 0, 0, 0, 3, 2, 0, 8, 0, 0, 0, 0, 0, 0, 0, 7, 5, 2, 1, 2})
	want := &ConsumerGroup{Group: "g", Value: &ConsumerGroupValue{Epoch: 3, MetadataHash: 7}}
	if diff := cmp.Diff(Entry(want), got); err != nil || diff != "" {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
}

// TestDecodeKeepsNothing changes the bytes of a record once it is decoded.
func TestDecodeKeepsNothing(t *testing.T) {
	t.Parallel()
	for _, v := range vectors(t) {
		if v.name == "unknown" || len(v.key) == 0 {
			continue
		}
		got, err := Decode(v.key, v.value)
		if err != nil {
			t.Fatal(err)
		}
		clear(v.key)
		clear(v.value)
		if diff := cmp.Diff(entries[v.name], got, exact); diff != "" {
			t.Errorf("%s changed with its bytes:\n%s", v.name, diff)
		}
	}
}

// TestDecodeIsBounded decodes values whose counts claim as much as there is room
// for, or more, and measures what that takes.
func TestDecodeIsBounded(t *testing.T) {
	const size = 1 << 20
	fill := func(head ...byte) []byte {
		return append(head, make([]byte, size)...)
	}
	// A varint of 1,000,000.
	count := []byte{0xc0, 0x84, 0x3d}
	tests := []struct {
		name       string
		key, value []byte
	}{
		{"topics of a regular expression", []byte{0, 16, 0, 1, 'g', 0, 1, 'r'}, fill(append([]byte{0, 0}, count...)...)},
		{"topics that are not there", []byte{0, 16, 0, 1, 'g', 0, 1, 'r'}, fill(0, 0, 0x80, 0xa4, 0xe8, 3)}, // 8,000,000
		{"members", []byte{0, 2, 0, 1, 'g'}, fill(0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0, 0, 0xe0, 0)},
		{"partitions", []byte{0, 7, 0, 1, 'g', 0, 1, 'm'}, fill(append([]byte{0, 0}, 0x80, 0x80, 3)...)},
	}
	for _, tt := range tests {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, _ = Decode(tt.key, tt.value) // whether it decodes is not the question
		runtime.ReadMemStats(&after)
		if got := after.TotalAlloc - before.TotalAlloc; got > 21*size {
			t.Errorf("%s: %d bytes for a value of %d", tt.name, got, len(tt.value))
		}
	}
}

// TestEncodeTooLong shows what the caller is promised for a string that no
// record holds.
func TestEncodeTooLong(t *testing.T) {
	t.Parallel()
	defer func() {
		if got, _ := recover().(string); !strings.HasPrefix(got, "record: group: a string of 32768 bytes") {
			t.Errorf("panic %q", got)
		}
	}()
	(&GroupMetadata{Group: strings.Repeat("g", MaxStringBytes+1)}).Encode()
}

// FuzzDecode checks, for any bytes at all, that
//   - Decode does not panic, and its errors are of a known kind,
//   - an entry survives being encoded, and being encoded twice.
func FuzzDecode(f *testing.F) {
	for _, v := range vectors(f) {
		f.Add(v.key, v.value, v.value == nil)
	}
	f.Fuzz(func(t *testing.T, key, value []byte, gone bool) {
		if gone {
			value = nil
		} else if value == nil {
			value = []byte{}
		}
		e, err := Decode(key, value)
		if err != nil {
			if !errors.Is(err, ErrDamaged) && !errors.Is(err, ErrVersion) {
				t.Fatalf("an error of no kind: %v", err)
			}
			return
		}
		r := e.Encode()
		again, err := Decode(r.Key, r.Value)
		if err != nil {
			t.Fatalf("%x %x encodes to %x %x: %v", key, value, r.Key, r.Value, err)
		}
		if o, ok := e.(*OffsetCommit); ok {
			o.legacy = false // it is written as any other
			if o.Value != nil && o.Value.ExpireTimestampMS != -1 {
				o.Value.LeaderEpoch, o.Value.TopicID = -1, TopicID{} // version 1 has neither
			}
		}
		if diff := cmp.Diff(e, again, exact); diff != "" {
			t.Fatalf("%x %x changes on its way (-first +again):\n%s", key, value, diff)
		}
		if second := again.Encode(); !bytes.Equal(r.Key, second.Key) || !bytes.Equal(r.Value, second.Value) {
			t.Fatalf("%x %x, then %x %x", r.Key, r.Value, second.Key, second.Value)
		}
	})
}

// TestProtocolVectors decodes what Kafka's consumers send each other, holds it
// against franz-go's reading of the same bytes, and encodes it again.
func TestProtocolVectors(t *testing.T) {
	t.Parallel()
	seen := 0
	for _, v := range vectors(t) {
		kind, what, _ := strings.Cut(v.name, "-")
		full := what != "nulls"
		switch {
		case len(v.key) > 0:
			continue
		case kind == "subscription":
			want := &Subscription{Version: int16(v.value[1]), Generation: -1}
			if full {
				want.Topics, want.UserData = []string{"bills", "orders"}, []byte{1, 2}
			}
			if full && want.Version >= 1 {
				want.Owned = []Owned{{"orders", []int32{3, 4}}}
			}
			if full && want.Version >= 2 {
				want.Generation = 6
			}
			if full && want.Version >= 3 {
				want.RackID = new("r")
			}
			got, err := DecodeSubscription(v.value)
			if diff := cmp.Diff(want, got); err != nil || diff != "" {
				t.Errorf("%s: %v (-want +got):\n%s", v.name, err, diff)
				continue
			}
			if again := AppendSubscription(nil, got); !bytes.Equal(again, v.value) {
				t.Errorf("%s encodes to %x", v.name, again)
			}
			sameAsFranz(t, v, got)
		case kind == "assignment":
			want := &Assignment{Version: int16(v.value[1])}
			if full {
				want.Partitions, want.UserData = []Owned{{"orders", []int32{3, 4}}}, []byte{5}
			}
			got, err := DecodeAssignment(v.value)
			if diff := cmp.Diff(want, got); err != nil || diff != "" {
				t.Errorf("%s: %v (-want +got):\n%s", v.name, err, diff)
				continue
			}
			if again := AppendAssignment(nil, got); !bytes.Equal(again, v.value) {
				t.Errorf("%s encodes to %x", v.name, again)
			}
			var k kmsg.ConsumerMemberAssignment
			if err := k.ReadFrom(v.value); err != nil || len(k.Topics) != len(got.Partitions) || !bytes.Equal(k.UserData, got.UserData) {
				t.Errorf("%s: franz-go reads %+v, %v", v.name, k, err)
			}
		default:
			t.Errorf("a vector that nothing reads: %s", v.name)
		}
		seen++
	}
	if seen != 10 {
		t.Errorf("%d vectors, want 10", seen)
	}
}

// sameAsFranz holds a subscription against franz-go's reading and writing.
func sameAsFranz(t *testing.T, v vector, got *Subscription) {
	t.Helper()
	var k kmsg.ConsumerMemberMetadata
	if err := k.ReadFrom(v.value); err != nil {
		t.Fatalf("%s: franz-go: %v", v.name, err)
	}
	franz := &Subscription{
		Version: k.Version, Topics: k.Topics, UserData: k.UserData, Generation: k.Generation, RackID: k.Rack,
	}
	for _, o := range k.OwnedPartitions {
		franz.Owned = append(franz.Owned, Owned{o.Topic, o.Partitions})
	}
	if diff := cmp.Diff(franz, got, cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("%s (-franz-go +got):\n%s", v.name, diff)
	}
}

// TestProtocolOddities are bytes of clients that are no model, and of clients to
// come.
func TestProtocolOddities(t *testing.T) {
	t.Parallel()
	s, err := DecodeSubscription([]byte{0, 1, 0, 0, 0, 1, 0, 1, 't', 0xff, 0xff, 0xff, 0xff})
	if want := (&Subscription{Version: 1, Topics: []string{"t"}, Generation: -1}); err != nil || !cmp.Equal(want, s) {
		t.Errorf("version 1 without owned partitions: %+v, %v", s, err)
	}
	newer := AppendSubscription(nil, &Subscription{Version: 3, Topics: []string{"t"}, Generation: 2})
	newer[1] = 9
	s, err = DecodeSubscription(append(newer, "fields of a later version"...))
	if want := (&Subscription{Version: 9, Topics: []string{"t"}, Generation: 2}); err != nil || !cmp.Equal(want, s) {
		t.Errorf("a later version: %+v, %v", s, err)
	}
	for _, b := range [][]byte{nil, {0}, {0xff, 0xff, 0, 0, 0, 0}, {0, 2, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff}, {0, 0, 0x7f, 0xff, 0xff, 0xff}} {
		if s, err := DecodeSubscription(b); !errors.Is(err, ErrDamaged) {
			t.Errorf("DecodeSubscription(%x) = %+v, %v", b, s, err)
		}
	}
	for _, b := range [][]byte{{0}, {0xff, 0xff, 0, 0, 0, 0, 0, 0, 0, 0}, {0, 0, 0, 0, 0, 1}} {
		if a, err := DecodeAssignment(b); !errors.Is(err, ErrDamaged) {
			t.Errorf("DecodeAssignment(%x) = %+v, %v", b, a, err)
		}
	}
	if a, err := DecodeAssignment(nil); err != nil || len(a.Partitions) != 0 {
		t.Errorf("no bytes: %+v, %v", a, err)
	}
}

// FuzzProtocol checks that what members send each other decodes without a panic,
// and survives being encoded.
func FuzzProtocol(f *testing.F) {
	for _, v := range vectors(f) {
		if len(v.key) == 0 {
			f.Add(v.value)
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if s, err := DecodeSubscription(b); err == nil {
			s.Version = min(s.Version, NewestProtocol)
			again, err := DecodeSubscription(AppendSubscription(nil, s))
			if diff := cmp.Diff(s, again, cmpopts.EquateEmpty()); err != nil || diff != "" {
				t.Fatalf("%x: %v\n%s", b, err, diff)
			}
		}
		if a, err := DecodeAssignment(b); err == nil {
			a.Version = min(a.Version, NewestProtocol)
			again, err := DecodeAssignment(AppendAssignment(nil, a))
			if diff := cmp.Diff(a, again, cmpopts.EquateEmpty()); err != nil || diff != "" {
				t.Fatalf("%x: %v\n%s", b, err, diff)
			}
		}
	})
}

// BenchmarkOffsetCommit gives the cost of a commit's record, both ways.
func BenchmarkOffsetCommit(b *testing.B) {
	e := offset(4)
	r := e.Encode()
	b.Run("encode", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			r = e.Encode()
		}
	})
	b.Run("decode", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := Decode(r.Key, r.Value); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// TestRandomEntries encodes and decodes entries of random content. With the name of
// a file in RECORDS_FOR_KAFKA it leaves them there, for testdata/kafka/Gen.java to
// read: Gen.java check < FILE.
func TestRandomEntries(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(1, 2))
	var out strings.Builder
	for i := range 500 {
		e := randomEntry(rng)
		r := e.Encode()
		got, err := Decode(r.Key, r.Value)
		if diff := cmp.Diff(e, got, exact); err != nil || diff != "" {
			t.Fatalf("entry %d: %v (-want +got):\n%s", i, err, diff)
		}
		value := "-"
		if r.Value != nil {
			value = hex.EncodeToString(r.Value)
		}
		out.WriteString(strconv.Itoa(i) + "\t" + hex.EncodeToString(r.Key) + "\t" + value + "\n")
	}
	if name := os.Getenv("RECORDS_FOR_KAFKA"); name != "" {
		if err := os.WriteFile(name, []byte(out.String()), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}
