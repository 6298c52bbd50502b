package guard

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"reflect"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// each runs f for every version of every request that is defined.
func each(t *testing.T, f func(t *testing.T, key, version int16)) {
	t.Helper()
	n := 0
	for key := range int16(len(requests)) {
		first, last, ok := Versions(key)
		if !ok {
			continue
		}
		for version := first; version <= last; version++ {
			n++
			t.Run(fmt.Sprintf("%s/v%d", requests[key].name, version), func(t *testing.T) { f(t, key, version) })
		}
	}
	if n < 250 {
		t.Fatalf("only %d versions of requests are defined", n)
	}
}

// walkWhole walks a body, and returns how many bytes that took.
func walkWhole(key, version int16, body []byte) (at int, err error) {
	r := &requests[key]
	w := walker{body: body, end: len(body), limits: LimitsFor(len(body)), flexible: r.flexible != never && version >= r.flexible}
	if !w.request(root(key, version)) {
		return w.at, w.error(r.name, version)
	}
	return w.at, nil
}

// decode decodes a body as a listener would.
func decode(key, version int16, body []byte) (kmsg.Request, error) {
	req := kmsg.RequestForKey(key)
	req.SetVersion(version)
	return req, req.ReadFrom(body)
}

// tagsSince are the tagged fields that not every flexible version has, with the
// first that does. kmsg writes them in every version, unless they have their
// default, and Kafka then refuses the request.
var tagsSince = map[string]int16{
	"FetchRequest.ReplicaState":                             15,
	"FetchRequestTopicPartition.ReplicaDirectoryID":         17,
	"FetchRequestTopicPartition.HighWatermark":              18,
	"FetchSnapshotRequestTopicPartition.ReplicaDirectoryID": 1,
	"BrokerHeartbeatRequest.OfflineLogDirs":                 1,
	"BrokerHeartbeatRequest.CordonedLogDirs":                2,
}

// chance makes the bodies of one test.
type chance struct {
	*rand.Rand
	most int // elements in an array
}

func newChance(seed uint64, most int) *chance {
	return &chance{Rand: rand.New(rand.NewPCG(seed, 0)), most: most}
}

func (c *chance) bytes(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(c.UintN(256))
	}
	return b
}

// fill gives everything in v, of a kmsg message, a random value.
func (c *chance) fill(v reflect.Value, version int16) {
	switch v.Kind() {
	case reflect.Struct:
		if tags, ok := v.Addr().Interface().(*kmsg.Tags); ok {
			for range c.IntN(3) * c.IntN(2) {
				tags.Set(100+c.Uint32N(1000), c.bytes(c.IntN(5)))
			}
			return
		}
		v.Addr().Interface().(interface{ Default() }).Default()
		for i := range v.NumField() {
			name := v.Type().Field(i).Name
			if name != "Version" && version >= tagsSince[v.Type().Name()+"."+name] {
				c.fill(v.Field(i), version)
			}
		}
	case reflect.Pointer:
		if v.SetZero(); c.IntN(3) > 0 {
			v.Set(reflect.New(v.Type().Elem()))
			c.fill(v.Elem(), version)
		}
	case reflect.Slice:
		if v.SetZero(); c.IntN(4) > 0 {
			n := c.IntN(c.most + 1)
			v.Set(reflect.MakeSlice(v.Type(), n, n))
			for i := range n {
				c.fill(v.Index(i), version)
			}
		}
	case reflect.Array:
		for i := range v.Len() {
			c.fill(v.Index(i), version)
		}
	case reflect.String:
		v.SetString(string(c.bytes(c.IntN(20))))
	case reflect.Bool:
		v.SetBool(c.IntN(2) > 0)
	case reflect.Float64:
		v.SetFloat(c.Float64())
	case reflect.Uint8, reflect.Uint16:
		v.SetUint(c.Uint64N(1 << v.Type().Bits()))
	default: // an int: any of its bits
		v.SetInt(int64(c.Uint64()) >> (64 - v.Type().Bits()))
	}
}

// arrays returns the arrays that a struct has, and the structs in it.
func arrays(s *structure) (out []*field) {
	add := func(f *field) {
		if f.kind == scalars || f.kind == texts || f.kind == structs {
			out = append(out, f)
		}
		if f.kind == structs || f.kind == nested {
			out = append(out, arrays(&structures[f.elem])...)
		}
	}
	for i := range s.fields {
		add(&s.fields[i])
	}
	return out
}

// root returns the struct of a request.
func root(key, version int16) *structure {
	return &structures[requests[key].bodies[version-requests[key].first]]
}

// encoder returns an encoder of one version of a request.
func (c *chance) encoder(key, version int16) *encoder {
	r := &requests[key]
	return &encoder{chance: c, flexible: r.flexible != never && version >= r.flexible}
}

// body encodes a request as the tables say.
func (c *chance) body(key, version int16) []byte {
	e := c.encoder(key, version)
	e.structure(root(key, version))
	return e.out
}

// encoder writes what a walker walks. It is the test's own reading of the
// protocol.
type encoder struct {
	*chance
	flexible bool
	strange  bool // with tags that are in no definition
	least    int  // elements in an array
	out      []byte

	// wide, if it is not nil, is the one array that has width elements; the others
	// have one. small makes everything as small as it can be.
	wide  *field
	width int
	small bool
}

// count returns how many elements the array f gets.
func (e *encoder) count(f *field) int {
	switch {
	case e.wide == f:
		return e.width
	case e.wide != nil && f.kind != blob:
		return 1
	case e.small:
		return e.least
	}
	return e.least + e.IntN(e.most+1-e.least)
}

func (e *encoder) length(n, bytes int) {
	switch {
	case e.flexible:
		e.out = binary.AppendUvarint(e.out, uint64(n+1))
	case bytes == 2:
		e.out = binary.BigEndian.AppendUint16(e.out, uint16(n))
	default:
		e.out = binary.BigEndian.AppendUint32(e.out, uint32(n))
	}
}

func (e *encoder) structure(s *structure) {
	for i := range s.fields {
		e.field(&s.fields[i])
	}
	if !e.flexible {
		return
	}
	outer, n := e.out, 0
	e.out = nil
	for _, t := range s.tags {
		if t.valid && (e.wide != nil || e.IntN(2) > 0) {
			before, f := e.out, t.field
			e.out, f.nullable, e.least = nil, false, 1 // kmsg leaves out what has its default
			e.field(&f)
			value := e.out
			e.least = 0
			e.out = binary.AppendUvarint(before, uint64(t.tag))
			e.out = binary.AppendUvarint(e.out, uint64(len(value)))
			e.out = append(e.out, value...)
			n++
		}
	}
	for e.strange && e.IntN(2) > 0 {
		size := e.IntN(200)
		e.out = binary.AppendUvarint(e.out, uint64(100+e.IntN(1000)))
		e.out = binary.AppendUvarint(e.out, uint64(size))
		e.out = append(e.out, e.bytes(size)...)
		n++
	}
	tags := e.out
	e.out = append(binary.AppendUvarint(outer, uint64(n)), tags...)
}

// null says whether f, which may be null, is.
func (e *encoder) null(f *field) bool {
	switch {
	case e.wide != nil && f.kind >= scalars:
		return false // the wide one may be in it
	case e.small:
		return true
	}
	return e.IntN(4) == 0
}

func (e *encoder) text() {
	if e.small {
		e.length(0, 2)
		return
	}
	n := e.IntN(30)
	e.length(n, 2)
	e.out = append(e.out, e.bytes(n)...)
}

func (e *encoder) field(f *field) {
	if f.nullable && e.null(f) {
		switch {
		case f.kind == nested:
			e.out = append(e.out, 0xff)
		case f.kind == text:
			e.length(-1, 2)
		default:
			e.length(-1, 4)
		}
		return
	}
	switch f.kind {
	case fixed:
		if e.small {
			e.out = append(e.out, make([]byte, f.size)...)
			return
		}
		for range f.size {
			e.out = append(e.out, byte(e.IntN(2))) // a bool may be in it
		}
		return
	case text:
		e.text()
		return
	case nested:
		if f.nullable {
			e.out = append(e.out, 1)
		}
		e.structure(&structures[f.elem])
		return
	}
	n := e.count(f)
	e.length(n, 4)
	if e.small && f.kind == scalars {
		e.out = append(e.out, make([]byte, n*int(f.size))...)
		return
	}
	for range n {
		switch f.kind {
		case blob:
			e.out = append(e.out, byte(e.UintN(256)))
		case scalars:
			e.out = append(e.out, e.bytes(int(f.size))...)
		case texts:
			e.text()
		case structs:
			e.structure(&structures[f.elem])
		}
	}
}
