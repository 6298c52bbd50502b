package tidy

import (
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// schema is wire/pb/flotilla.proto, read as a client's author would: message,
// field number, and what the field is.
type schema struct {
	messages map[string]map[uint64]protoField
	enums    map[string]map[uint64]string
}

type protoField struct {
	name, kind string
	repeated   bool
}

func readSchema(t *testing.T) schema {
	t.Helper()
	src, err := os.ReadFile(filepath.Join("..", "..", "wire", "pb", "flotilla.proto"))
	if err != nil {
		t.Fatal(err)
	}
	s := schema{messages: make(map[string]map[uint64]protoField), enums: make(map[string]map[uint64]string)}
	field := regexp.MustCompile(`(?m)^\s*(repeated )?(\w+) (\w+) = (\d+);`)
	value := regexp.MustCompile(`(?m)^\s*(\w+) = (\d+);`)
	for _, m := range regexp.MustCompile(`(?ms)^(message|enum) (\w+) \{(.*?)\}`).FindAllStringSubmatch(string(src), -1) {
		if m[1] == "enum" {
			s.enums[m[2]] = make(map[uint64]string)
			for _, v := range value.FindAllStringSubmatch(m[3], -1) {
				n, _ := strconv.ParseUint(v[2], 10, 64)
				s.enums[m[2]][n] = v[1]
			}
			continue
		}
		s.messages[m[2]] = make(map[uint64]protoField)
		for _, f := range field.FindAllStringSubmatch(m[3], -1) {
			n, _ := strconv.ParseUint(f[4], 10, 64)
			s.messages[m[2]][n] = protoField{name: camel(f[3]), kind: f[2], repeated: f[1] != ""}
		}
	}
	return s
}

// camel is a field's name in JSON.
func camel(name string) string {
	words := strings.Split(name, "_")
	for i := 1; i < len(words); i++ {
		words[i] = strings.ToUpper(words[i][:1]) + words[i][1:]
	}
	return strings.Join(words, "")
}

// decode reads a message, as protobuf's JSON mapping has it.
func (s schema) decode(message string, b []byte) (map[string]any, error) {
	fields, ok := s.messages[message]
	if !ok {
		return nil, fmt.Errorf("no message %s", message)
	}
	out := make(map[string]any)
	for len(b) > 0 {
		tag, n := binary.Uvarint(b)
		if n <= 0 {
			return nil, fmt.Errorf("%s: no tag in %x", message, b)
		}
		b = b[n:]
		f, ok := fields[tag>>3]
		number, n := binary.Uvarint(b) // every field here is a varint or begins with one
		if !ok || n <= 0 {
			return nil, fmt.Errorf("%s: field %d", message, tag>>3)
		}
		b = b[n:]
		var data []byte
		switch tag & 7 {
		case 0:
		case 2:
			if number > uint64(len(b)) {
				return nil, fmt.Errorf("%s.%s: %d bytes of %d", message, f.name, number, len(b))
			}
			data, b = b[:number], b[number:]
		default:
			return nil, fmt.Errorf("%s.%s: wire type %d", message, f.name, tag&7)
		}
		if err := s.put(out, f, number, data, tag&7 == 2); err != nil {
			return nil, fmt.Errorf("%s.%s: %w", message, f.name, err)
		}
	}
	return out, nil
}

func (s schema) put(out map[string]any, f protoField, number uint64, data []byte, long bool) error {
	scalar := func(v uint64) any {
		switch f.kind {
		case "bool":
			return v == 1
		case "sint32":
			return float64(int32(v>>1) ^ -int32(v&1))
		case "sint64":
			return strconv.FormatInt(int64(v>>1)^-int64(v&1), 10)
		case "int32":
			return float64(int32(v))
		case "uint32":
			return float64(v)
		case "int64":
			return strconv.FormatInt(int64(v), 10)
		case "uint64":
			return strconv.FormatUint(v, 10)
		}
		return s.enums[f.kind][v]
	}
	var values []any
	switch sub, isMessage := s.messages[f.kind]; {
	case isMessage && long && sub != nil:
		m, err := s.decode(f.kind, data)
		if err != nil {
			return err
		}
		values = []any{m}
	case f.kind == "string" && long:
		values = []any{string(data)}
	case f.kind == "bytes" && long:
		values = []any{base64.StdEncoding.EncodeToString(data)}
	case long && f.repeated: // packed
		for len(data) > 0 {
			v, n := binary.Uvarint(data)
			if n <= 0 {
				return fmt.Errorf("packed %x", data)
			}
			values, data = append(values, scalar(v)), data[n:]
		}
	case !long:
		values = []any{scalar(number)}
	default:
		return fmt.Errorf("%d bytes for a %s", len(data), f.kind)
	}
	if f.repeated {
		was, _ := out[f.name].([]any)
		out[f.name] = append(was, values...)
		return nil
	}
	out[f.name] = values[0]
	return nil
}

// TestVectorsOfAnotherReader decodes docs/vectors with a reader that has none
// of this module's code, only the schema and docs/protocol.md's box of a frame:
// each file says what its bytes are, and each message has a file.
func TestVectorsOfAnotherReader(t *testing.T) {
	t.Parallel()
	s := readSchema(t)
	files, err := filepath.Glob(filepath.Join("..", "..", "docs", "vectors", "*.json"))
	if err != nil || len(files) < 30 {
		t.Fatalf("%d vectors, %v", len(files), err)
	}
	seen := make(map[string]bool)
	for _, name := range files {
		raw, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		var v struct {
			Hex, Message, Payload, From string
			Kind, Flags                 uint8
			CorrelationID               uint32
			Header                      map[string]any
		}
		if err := json.Unmarshal(raw, &v); err != nil {
			t.Fatal(name, err)
		}
		b, err := hex.DecodeString(v.Hex)
		if err != nil || len(b) < 16 {
			t.Fatal(name, err)
		}
		length, headerBytes := binary.BigEndian.Uint32(b), binary.BigEndian.Uint32(b[4:])
		if int(length) != len(b)-4 || int(headerBytes) > len(b)-16 || b[8] != v.Kind || b[9] != v.Flags ||
			b[10] != 0 || b[11] != 0 || binary.BigEndian.Uint32(b[12:]) != v.CorrelationID {
			t.Errorf("%s: prefix %x", name, b[:16])
			continue
		}
		header, err := s.decode(v.Message, b[16:16+headerBytes])
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if diff := cmp.Diff(v.Header, header); diff != "" {
			t.Errorf("%s (-file +decoded):\n%s", name, diff)
		}
		if got := hex.EncodeToString(b[16+headerBytes:]); got != v.Payload {
			t.Errorf("%s: payload %s", name, got)
		}
		s.note(seen, v.Message, header)
	}
	for message := range s.messages {
		if !seen[message] {
			t.Errorf("no vector has a %s", message)
		}
	}
}

// note notes which messages are in a header.
func (s schema) note(seen map[string]bool, message string, header map[string]any) {
	seen[message] = true
	for _, f := range s.messages[message] {
		if _, isMessage := s.messages[f.kind]; !isMessage {
			continue
		}
		values, _ := header[f.name].([]any)
		if one, ok := header[f.name].(map[string]any); ok {
			values = []any{one}
		}
		for _, v := range values {
			s.note(seen, f.kind, v.(map[string]any))
		}
	}
}
