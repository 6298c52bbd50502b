package main

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/flotilla-log/flotilla/internal/errcode"
	"github.com/flotilla-log/flotilla/log/batch"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// names are what a session has learned about the server, so that what differs
// from one server to the next, and from one run to the next, is written by name.
// They are the only normalisation: every other value is compared as it is.
type names struct {
	node      int32
	host      string
	port      int32
	clusterID string
	topics    map[[16]byte]string // by id
	epochs    map[int32]bool      // leader epochs of the partitions created
	producers map[int64]int       // ids, numbered in order of appearance
	members   map[string]int      // the random part of ids that servers gave to members of a group, likewise
	first     int32               // epoch of a group that the server assigns; 0: not known
	base      time.Time           // that the records' timestamps count from
	now       time.Time           // of the session's start

	unordered []string // slices of the answer that is being written
}

// ahead is how far in the future some records are dated, to be refused.
const ahead = 2 * time.Hour

// newNames returns names that know nothing yet. Records are dated from an hour
// before now, so that the server's clock cannot be taken for the records'.
func newNames(now time.Time) *names {
	return &names{
		topics:    make(map[[16]byte]string),
		epochs:    make(map[int32]bool),
		producers: make(map[int64]int),
		members:   make(map[string]int),
		base:      now.Add(-time.Hour).Truncate(time.Millisecond),
		now:       now,
	}
}

// canonical returns resp as a tree of maps, slices, strings and numbers. Fields
// that hold their default are left out; what is in no order is sorted by what
// identifies its elements.
func (n *names) canonical(resp kmsg.Response) any {
	n.unordered = unordered[kmsg.Key(resp.Key())]
	return n.value("", reflect.ValueOf(resp).Elem())
}

// unordered are the slices whose order is that of a hash table of Kafka's, or
// drawn at random. All others are compared in their order.
var unordered = map[kmsg.Key][]string{
	kmsg.ApiVersions:       {"SupportedFeatures", "FinalizedFeatures"},
	kmsg.Metadata:          {"Topics"},
	kmsg.DeleteTopics:      {"Topics"},
	kmsg.Produce:           {"Topics", "Partitions"},
	kmsg.DescribeConfigs:   {"Configs"},
	kmsg.DescribeLogDirs:   {"Topics", "Partitions"},
	kmsg.JoinGroup:         {"Members"},
	kmsg.DescribeProducers: {"ActiveProducers"},
	kmsg.DescribeGroups:    {"Members"},
	kmsg.ListGroups:        {"Groups"},
	kmsg.DeleteGroups:      {"Groups"},
	kmsg.OffsetFetch:       {"Topics", "Partitions"},

	kmsg.ConsumerGroupHeartbeat: {"Topics", "Partitions"},
	kmsg.ConsumerGroupDescribe:  {"Members", "TopicPartitions", "Partitions"},
}

func (n *names) value(field string, v reflect.Value) any {
	if s, ok := n.named(field, v); ok {
		return s
	}
	switch v.Kind() {
	case reflect.Pointer:
		if v.IsNil() {
			return nil
		}
		return n.value(field, v.Elem())
	case reflect.Struct:
		return n.structure(v)
	case reflect.Slice:
		return n.slice(field, v)
	case reflect.Bool:
		return v.Bool()
	case reflect.String:
		return v.String()
	case reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		return v.Int()
	case reflect.Uint8, reflect.Uint16, reflect.Uint32:
		return v.Uint()
	case reflect.Array:
		return fmt.Sprintf("%x", v.Interface())
	}
	panic(fmt.Sprintf("kafkadiff: field %s has kind %s", field, v.Kind()))
}

// named returns the value of a field that is written by name.
func (n *names) named(field string, v reflect.Value) (any, bool) {
	switch x := v.Interface().(type) {
	case int8:
		if field == "ConfigType" || field == "Source" {
			return nil, false
		}
	case int16:
		if strings.HasSuffix(field, "ErrorCode") {
			return errcode.Code(x).String(), true
		}
	case int32:
		switch field {
		case "NodeID", "Leader", "LeaderID", "ControllerID", "BrokerID", "Replicas", "ISR", "OfflineReplicas":
			if x == n.node {
				return "<node>", true
			}
		case "Port":
			if x == n.port {
				return "<port>", true
			}
		case "LeaderEpoch", "CurrentLeaderEpoch", "CoordinatorEpoch":
			if n.epochs[x] {
				return "<epoch>", true
			}
		case "SessionID":
			if x != 0 {
				return "<session>", true
			}
		case "MemberEpoch", "Epoch", "AssignmentEpoch", "Generation":
			if n.first > 0 && x >= n.first {
				return fmt.Sprintf("<first epoch>+%d", x-n.first), true
			}
		}
	case int64:
		switch field {
		case "Timestamp", "MaxTimestamp", "LastTimestamp", "LogAppendTime":
			return n.timestamp(x), true
		case "ProducerID":
			if x >= 0 {
				return n.producer(x), true
			}
		case "FinalizedFeaturesEpoch":
			if x >= 0 {
				return "<features epoch>", true
			}
		case "TotalBytes", "UsableBytes":
			if x > 0 {
				return "<bytes>", true
			}
		}
	case string:
		switch {
		case field == "Host" && x == n.host:
			return "<host>", true
		case field == "MemberID" || field == "LeaderID":
			return n.member(x), true
		case field == "ClusterID" && x == n.clusterID && clusterIDs.MatchString(x):
			return "<cluster>", true
		case field == "Dir" && x != "":
			return "<dir>", true
		case strings.HasSuffix(field, "ErrorMessage"):
			return times.ReplaceAllString(x, "<time>"), true
		}
	case [16]byte:
		if name, ok := n.topics[x]; ok {
			return "<id of " + name + ">", true
		}
	case []byte:
		if field == "Records" || field == "RecordBatches" {
			return n.batches(x), true
		}
		return string(x), true
	}
	return nil, false
}

// clusterIDs are what the ids of clusters look like: 16 bytes in base64 for URLs.
var clusterIDs = regexp.MustCompile(`^[A-Za-z0-9_-]{22}$`)

// times are times in ms, and bounds of them, in texts.
var times = regexp.MustCompile(`-?\b[0-9]{13,}\b`)

// timestamp writes a time in ms by what it counts from.
func (n *names) timestamp(ms int64) any {
	t := time.UnixMilli(ms)
	switch d := t.Sub(n.base); {
	case d >= 0 && d < time.Minute:
		return fmt.Sprintf("base+%d", d.Milliseconds())
	case t.After(n.now.Add(-10*time.Minute)) && t.Before(n.now.Add(10*time.Minute)):
		return "<now>"
	case t.After(n.now.Add(ahead-10*time.Minute)) && t.Before(n.now.Add(ahead+10*time.Minute)):
		return "<now+2h>"
	}
	return ms
}

// givenIDs are ids that a server gave to a member: what the client calls itself, if
// anything, and random bits, as a UUID in one form or another.
var givenIDs = regexp.MustCompile(`^(?:(.*-)?([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})|([A-Za-z0-9_-]{22}))$`)

// member writes the id of a member of a group. What is random in it is written by
// name.
func (n *names) member(id string) string {
	m := givenIDs.FindStringSubmatch(id)
	if m == nil {
		return id
	}
	random := m[2] + m[3]
	i, ok := n.members[random]
	if !ok {
		i = len(n.members) + 1
		n.members[random] = i
	}
	return fmt.Sprintf("%s<member %d>", m[1], i)
}

func (n *names) producer(id int64) string {
	i, ok := n.producers[id]
	if !ok {
		i = len(n.producers) + 1
		n.producers[id] = i
	}
	return fmt.Sprintf("<producer %d>", i)
}

// structure leaves the defaults out, but for those that are written by name: a
// node's id may be the default on one server and not on another.
func (n *names) structure(v reflect.Value) any {
	def := reflect.New(v.Type())
	if d, ok := def.Interface().(interface{ Default() }); ok {
		d.Default()
	}
	m := make(map[string]any)
	for i := range v.NumField() {
		f := v.Type().Field(i)
		if f.Name == "Version" || f.Name == "UnknownTags" {
			continue
		}
		value := n.value(f.Name, v.Field(i))
		if name, ok := value.(string); !ok || !strings.HasPrefix(name, "<") {
			if reflect.DeepEqual(v.Field(i).Interface(), def.Elem().Field(i).Interface()) {
				continue
			}
		}
		m[f.Name] = value
	}
	return m
}

func (n *names) slice(field string, v reflect.Value) any {
	out := make([]any, 0, v.Len())
	for i := range v.Len() {
		out = append(out, n.value(field, v.Index(i)))
	}
	if slices.Contains(n.unordered, field) {
		slices.SortStableFunc(out, func(a, b any) int {
			return cmp.Compare(identity(a), identity(b))
		})
	}
	return out
}

// identifiers are the fields that tell the elements of a slice apart.
var identifiers = []string{
	"ApiKey", "ResourceType", "ResourceName", "Topic", "TopicID", "Name", "Partition", "NodeID", "RelativeOffset", "ProducerID", "FirstOffset",
	"Group", "MemberID", "InstanceID", "Key",
}

// identity returns what tells an element of a slice from the others of the same
// slice, or "" if nothing does.
func identity(v any) string {
	if i, ok := v.(int64); ok {
		return fmt.Sprintf("%05d", i)
	}
	m, ok := v.(map[string]any)
	if !ok {
		return ""
	}
	var parts []string
	for _, k := range identifiers {
		switch x := m[k].(type) {
		case nil:
		case int64:
			parts = append(parts, fmt.Sprintf("%s %05d", k, x))
		default:
			parts = append(parts, fmt.Sprint(x))
		}
	}
	return strings.Join(parts, " ")
}

// batches writes record batches out, records decompressed: how well a codec
// compresses is no part of an answer.
func (n *names) batches(b []byte) any {
	out := []any{}
	for len(b) > 0 {
		first, rest, err := batch.Split(b)
		if err != nil {
			return append(out, fmt.Sprintf("%d bytes of an incomplete batch", len(b)))
		}
		out = append(out, n.batch(first))
		b = rest
	}
	return out
}

func (n *names) batch(b []byte) any {
	h, err := batch.ParseHeader(b)
	if err != nil {
		return err.Error()
	}
	m := map[string]any{
		"Attributes":      int64(h.Attributes),
		"FirstOffset":     h.BaseOffset,
		"LastOffsetDelta": h.LastOffsetDelta,
		"BaseTimestamp":   n.timestamp(h.BaseTimestamp),
		"MaxTimestamp":    n.timestamp(h.MaxTimestamp),
	}
	m["LeaderEpoch"], _ = n.named("LeaderEpoch", reflect.ValueOf(h.LeaderEpoch))
	if m["LeaderEpoch"] == nil {
		m["LeaderEpoch"] = h.LeaderEpoch
	}
	if h.Attributes.Codec() == batch.None {
		m["Bytes"] = len(b)
	}
	if h.Producer.ID >= 0 {
		m["Producer"] = fmt.Sprintf("%s epoch %d sequence %d", n.producer(h.Producer.ID), h.Producer.Epoch, h.Producer.Sequence)
	}
	if err := batch.CheckCRC(b); err != nil {
		m["CRC"] = err.Error()
	}
	var it batch.Iterator
	records := []any{}
	if err := it.Reset(b, 0); err != nil {
		m["Error"] = err.Error()
	}
	for r, ok := it.Next(); ok; r, ok = it.Next() {
		records = append(records, n.record(r))
	}
	m["Records"] = records
	return m
}

func (n *names) record(r batch.Record) any {
	s := fmt.Sprintf("%d %v %s=%s", r.Offset, n.timestamp(r.Timestamp), orNull(r.Key), orNull(r.Value))
	for h := range r.Headers.All() {
		s += fmt.Sprintf(" %s:%s", h.Key, orNull(h.Value))
	}
	return s
}

func orNull(b []byte) string {
	switch {
	case b == nil:
		return "null"
	case len(b) > 40:
		return fmt.Sprintf("%q... (%d bytes)", b[:10], len(b))
	}
	return string(b)
}

// encode returns v as one line of JSON, keys in order.
func encode(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return nil, fmt.Errorf("kafkadiff: %w", err)
	}
	return bytes.TrimSpace(b.Bytes()), nil
}
