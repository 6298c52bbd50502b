// Package config knows a node's settings: what there is, what each means, and
// which value holds. A setting is named as in journal.bytes, and is given, in
// order of precedence, as the flag --journal.bytes, as the environment variable
// FLOTILLA_JOURNAL_BYTES, or in one YAML file, as
//
//	journal:
//	  bytes: 2GiB
//
// or, which is the same, journal.bytes: 2GiB. There is no implicit file.
//
// Settings is the one table: the command line, `flotilla config`, the
// documentation and the checks are made of it. Resolve is pure; what it needs
// to know of the machine comes in as a Machine.
package config

import (
	"errors"
	"fmt"
	"strings"
	"time"
)

// Kind is the type of a setting's value.
type Kind uint8

const (
	Text     Kind = iota + 1
	Int           // a whole number
	Size          // bytes: 64MiB, 1GiB, or a plain number
	Duration      // 10s, 1m30s
	Bool          // true or false
	Choice        // one of Setting.Choices
)

var kindNames = [...]string{Text: "text", Int: "number", Size: "size", Duration: "duration", Bool: "true or false", Choice: "choice"}

// String returns the kind's name in documentation.
func (k Kind) String() string { return kindNames[k] }

// Setting describes one setting. All are read at the start of a node: a change
// takes effect at the next one.
type Setting struct {
	Key     string
	Section string // in documentation
	Kind    Kind
	Choices []string // of a Choice

	// Default is a value, or empty if computed gives it; DefaultText then says
	// how, for people.
	Default     string
	DefaultText string
	computed    func(m Machine, v *Values) int64

	// Min and Max bound numbers, sizes in bytes and durations in nanoseconds,
	// inclusively; Multiple, if not 0, divides the value.
	Min, Max, Multiple int64

	Doc     string // one line
	Explain string // the rest of what a reader should know; may be empty

	// Of a limit: the metric that shows how close it is, and the error, with
	// its code if there is one, that meets who goes beyond it.
	Metric, Error string
}

// Variable returns the setting's environment variable.
func (s *Setting) Variable() string { return Variable(s.Key) }

// Prefix is how the environment variables of settings begin.
const Prefix = "FLOTILLA_"

// Variable returns the environment variable of a key: FLOTILLA_JOURNAL_BYTES of
// journal.bytes.
func Variable(key string) string {
	return Prefix + strings.ToUpper(strings.NewReplacer(".", "_", "-", "_").Replace(key))
}

// Range says in words which values a setting takes, or nothing if any.
func (s *Setting) Range() string {
	switch {
	case s.Kind == Choice:
		return alternatives(s.Choices)
	case s.Kind == Bool || s.Kind == Text:
		return ""
	case s.Multiple > 1:
		return fmt.Sprintf("a multiple of %s from %s to %s", s.format(s.Multiple), s.format(s.Min), s.format(s.Max))
	}
	return fmt.Sprintf("%s to %s", s.format(s.Min), s.format(s.Max))
}

// DefaultForPeople returns the default as documentation shows it.
func (s *Setting) DefaultForPeople() string {
	switch {
	case s.DefaultText != "":
		return s.DefaultText
	case s.Default == "":
		return "none"
	}
	return s.Default
}

func alternatives(names []string) string {
	last := len(names) - 1
	return strings.Join(names[:last], ", ") + " or " + names[last]
}

// OriginKind says where a value comes from.
type OriginKind uint8

const (
	FromDefault OriginKind = iota
	FromFile
	FromEnvironment
	FromFlag
)

// Origin is where a value comes from.
type Origin struct {
	Kind OriginKind
	File string // of FromFile
	Line int    // in it, from 1
}

// Value is the value of one setting.
type Value struct {
	Setting *Setting
	Text    string // canonical: parsing it gives the same value
	Number  int64  // of an Int, a Size, a Duration (ns) and a Bool (0 or 1)
	Origin  Origin
}

// From says where the value comes from: "default", "flotilla.yaml:3",
// "FLOTILLA_JOURNAL_BYTES" or "--journal.bytes".
func (v *Value) From() string {
	switch v.Origin.Kind {
	case FromFile:
		return fmt.Sprintf("%s:%d", v.Origin.File, v.Origin.Line)
	case FromEnvironment:
		return v.Setting.Variable()
	case FromFlag:
		return "--" + v.Setting.Key
	}
	return "default"
}

// Name names the setting the way it was given, so that an error about it says
// where to look.
func (v *Value) Name() string {
	switch v.Origin.Kind {
	case FromFile:
		return v.From() + ": " + v.Setting.Key
	case FromDefault:
		return v.Setting.Key
	}
	return v.From()
}

// Values are the values of all settings. They do not change.
type Values struct {
	all []Value // in the order of the table
}

// All returns the values in the order of the table. The caller must not change
// them.
func (v *Values) All() []Value { return v.all }

// Of returns the value of a key. It panics for a key that is in no table, which
// is a bug in the caller.
func (v *Values) Of(key string) *Value {
	for i := range v.all {
		if v.all[i].Setting.Key == key {
			return &v.all[i]
		}
	}
	panic("config: no setting " + key)
}

// Text returns a value as text, Int as a number, Bytes as a size, Duration as a
// duration, and Bool as itself. They panic for a key of another kind.
func (v *Values) Text(key string) string { return v.of(key, Text, Choice).Text }

// Int returns a number; see Text.
func (v *Values) Int(key string) int64 { return v.of(key, Int).Number }

// Bytes returns a size; see Text.
func (v *Values) Bytes(key string) int64 { return v.of(key, Size).Number }

// Duration returns a duration; see Text.
func (v *Values) Duration(key string) time.Duration {
	return time.Duration(v.of(key, Duration).Number)
}

// Bool returns a truth value; see Text.
func (v *Values) Bool(key string) bool { return v.of(key, Bool).Number != 0 }

func (v *Values) of(key string, kinds ...Kind) *Value {
	val := v.Of(key)
	for _, k := range kinds {
		if val.Setting.Kind == k {
			return val
		}
	}
	panic(fmt.Sprintf("config: %s is a %s", key, val.Setting.Kind))
}

// ErrInvalid matches every *Error.
var ErrInvalid = errors.New("config: invalid settings")

// Error lists all that is wrong with the settings, one problem each, with its
// file and line, variable or flag, and what to do.
type Error struct{ Problems []string }

func (e *Error) Error() string { return strings.Join(e.Problems, "\n") }

// Is makes errors.Is(err, ErrInvalid) true.
func (e *Error) Is(target error) bool { return target == ErrInvalid }

// Find returns the setting of a key, or nil.
func Find(key string) *Setting {
	for i := range Settings {
		if Settings[i].Key == key {
			return &Settings[i]
		}
	}
	return nil
}

// Keys returns the keys of all settings, in the order of the table.
func Keys() []string {
	keys := make([]string, len(Settings))
	for i := range Settings {
		keys[i] = Settings[i].Key
	}
	return keys
}

// Unknown says that there is no setting of a name, and which one was meant.
// near are the names that there are.
func Unknown(what, name string, near []string) string {
	if n := Nearest(name, near); n != "" {
		return fmt.Sprintf("unknown %s %s; did you mean %s?", what, name, n)
	}
	return fmt.Sprintf("unknown %s %s; there are %s", what, name, strings.Join(near, ", "))
}
