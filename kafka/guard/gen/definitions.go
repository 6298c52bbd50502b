package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// message is a request as Kafka's definitions describe it.
type message struct {
	Key      int16  `json:"apiKey"`
	Name     string `json:"name"`
	Valid    ranged `json:"validVersions"`
	Flexible ranged `json:"flexibleVersions"`
	Unstable bool   `json:"latestVersionUnstable"`
	Fields   []node `json:"fields"`

	Common []struct {
		Name   string `json:"name"`
		Fields []node `json:"fields"`
	} `json:"commonStructs"`
}

// node is a field of a request or of a struct in one.
type node struct {
	Name     string `json:"name"`
	Type     string `json:"type"` // as "int32", "[]string" or "[]TopicProduceData"
	Versions ranged `json:"versions"`
	Nullable ranged `json:"nullableVersions"`
	Tagged   ranged `json:"taggedVersions"`
	Tag      uint32 `json:"tag"`
	Fields   []node `json:"fields"`
}

// scalars are the types that are no struct.
var scalars = map[string]int{
	"bool": 1, "int8": 1, "int16": 2, "uint16": 2, "int32": 4, "int64": 8, "float64": 8, "uuid": 16,
	"string": 0, "bytes": 0, "records": 0,
}

// comment is a line of a definition that JSON does not have.
var comment = regexp.MustCompile(`(?m)^\s*//.*$`)

// readDefinitions reads the requests among Kafka's definitions in dir, by key.
// Those that Kafka has removed, and a last version that is still unstable, are
// left out.
func readDefinitions(dir string) ([]message, error) {
	names, err := filepath.Glob(filepath.Join(dir, "*Request.json"))
	if err != nil {
		return nil, err
	}
	if len(names) == 0 {
		return nil, fmt.Errorf("%s: no *Request.json in it: unpack common/message of the kafka-clients jar", dir)
	}
	var out []message
	for _, name := range names {
		text, err := os.ReadFile(name)
		if err != nil {
			return nil, err
		}
		m := message{Key: -1}
		if err := json.Unmarshal(comment.ReplaceAll(text, nil), &m); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		if m.Valid.empty() {
			continue
		}
		if m.Unstable {
			m.Valid.last--
		}
		if m.Fields, err = m.resolve(m.Fields, 0); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		m.Common = nil
		out = append(out, m)
	}
	slices.SortFunc(out, func(a, b message) int { return int(a.Key) - int(b.Key) })
	return out, nil
}

// maxDepth is how deep structs may lie in each other. Kafka's own lie no deeper
// than five; a struct that holds itself would never end.
const maxDepth = 8

// resolve gives each field of a struct type the fields of its struct, and
// checks that its type is known.
func (m *message) resolve(fields []node, depth int) ([]node, error) {
	if depth > maxDepth {
		return nil, fmt.Errorf("structs lie more than %d deep in each other", maxDepth)
	}
	out := slices.Clone(fields)
	for i := range out {
		f := &out[i]
		elem := strings.TrimPrefix(f.Type, "[]")
		if _, ok := scalars[elem]; ok {
			if len(f.Fields) > 0 {
				return nil, fmt.Errorf("%s is a %s with fields", f.Name, f.Type)
			}
			continue
		}
		if len(f.Fields) == 0 {
			for _, c := range m.Common {
				if c.Name == elem {
					f.Fields = c.Fields
				}
			}
		}
		if len(f.Fields) == 0 {
			return nil, fmt.Errorf("%s is of the unknown type %s", f.Name, f.Type)
		}
		var err error
		if f.Fields, err = m.resolve(f.Fields, depth+1); err != nil {
			return nil, fmt.Errorf("%s: %w", f.Name, err)
		}
	}
	return out, nil
}
