package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"

	"go.yaml.in/yaml/v4"
)

// MaxFileBytes bounds a settings file.
const MaxFileBytes = 1 << 20

// File is a settings file: YAML, with nested or dotted keys.
type File struct {
	Name     string
	entries  map[string]fileEntry
	problems []string // found while reading it
}

type fileEntry struct {
	text string
	line int
}

// ParseFile reads a settings file; name is what errors and origins call it.
// What is wrong with it is kept, for Resolve to report together with values
// that are out of range.
func ParseFile(name string, content []byte) *File {
	f := &File{Name: name, entries: make(map[string]fileEntry)}
	if len(content) > MaxFileBytes {
		f.problems = append(f.problems, fmt.Sprintf("%s: larger than %s; this is no settings file", name, FormatSize(MaxFileBytes)))
		return f
	}
	dec := yaml.NewDecoder(bytes.NewReader(content))
	var doc, more yaml.Node
	switch err := dec.Decode(&doc); {
	case errors.Is(err, io.EOF):
		return f // nothing, or comments only
	case err != nil:
		f.problems = append(f.problems, fmt.Sprintf("%s: %s", name, strings.ReplaceAll(err.Error(), "\n", " ")))
		return f
	}
	if err := dec.Decode(&more); !errors.Is(err, io.EOF) {
		f.problems = append(f.problems, fmt.Sprintf("%s: more than one YAML document; give one", name))
	}
	if len(doc.Content) == 1 && !isNull(doc.Content[0]) {
		f.walk("", doc.Content[0])
	}
	return f
}

func isNull(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null" }

func (f *File) refuse(n *yaml.Node, format string, args ...any) {
	f.problems = append(f.problems, fmt.Sprintf("%s:%d: ", f.Name, n.Line)+fmt.Sprintf(format, args...))
}

// walk takes the settings below a key.
func (f *File) walk(prefix string, n *yaml.Node) {
	if n.Kind != yaml.MappingNode {
		f.refuse(n, "give settings as KEY: VALUE, such as journal.bytes: 1GiB")
		return
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		name, value := n.Content[i], n.Content[i+1]
		key := name.Value
		if prefix != "" {
			key = prefix + "." + key
		}
		f.enter(key, name, value)
	}
}

func (f *File) enter(key string, name, value *yaml.Node) {
	known := Find(key) != nil
	switch {
	case name.Kind != yaml.ScalarNode:
		f.refuse(name, "a key is text, such as journal.bytes")
	case value.Kind == yaml.AliasNode || value.Anchor != "":
		f.refuse(value, "%s: anchors and aliases are not taken; write the value", key)
	case value.Kind == yaml.MappingNode:
		if !known && !hasBelow(key) {
			f.refuse(name, "%s", Unknown("setting", key, Keys()))
			return
		}
		f.walk(key, value)
	case !known:
		f.refuse(name, "%s", Unknown("setting", key, Keys()))
	case value.Kind != yaml.ScalarNode:
		f.refuse(value, "%s: give one value, not a list", key)
	case isNull(value):
		f.refuse(name, `%s has no value; leave the line out for the default, or give "" for none`, key)
	default:
		if before, twice := f.entries[key]; twice {
			f.refuse(name, "%s is given in line %d already", key, before.line)
			return
		}
		f.entries[key] = fileEntry{text: value.Value, line: name.Line}
	}
}

// hasBelow reports whether some setting's key begins with prefix and a dot.
func hasBelow(prefix string) bool {
	for i := range Settings {
		if strings.HasPrefix(Settings[i].Key, prefix+".") {
			return true
		}
	}
	return false
}
