package consumergroup

import (
	"regexp"
	"regexp/syntax"

	"github.com/flotilla-log/flotilla/internal/errcode"
)

// Bounds of a subscription by regular expression. Looking at one topic takes at most
// time proportional to the length of its name times the instructions.
const (
	// MaxRegexBytes bounds its text.
	MaxRegexBytes = 1024

	// MaxRegexInstructions bounds what it compiles to, about: a letter is one
	// instruction, and a repetition as many as it repeats.
	MaxRegexInstructions = 1000
)

// Regex is a subscription by regular expression: it stands for all topics whose whole
// name matches. The syntax is RE2's, as in Kafka. Safe for concurrent use.
type Regex struct{ re *regexp.Regexp }

// CompileRegex returns the Regex of a pattern. It returns an *errcode.Error of code
// INVALID_REGULAR_EXPRESSION for one that does not parse, or passes a bound.
func CompileRegex(pattern string) (*Regex, *errcode.Error) {
	invalid := func(format string, args ...any) *errcode.Error {
		return errcode.Errorf(errcode.InvalidRegularExpression, format, args...)
	}
	if len(pattern) > MaxRegexBytes {
		return nil, invalid("the regular expression has %d bytes, the limit is %d: choose a shorter one, or subscribe to topics by name",
			len(pattern), MaxRegexBytes)
	}
	tree, err := syntax.Parse(pattern, syntax.Perl)
	if err != nil {
		return nil, invalid("the regular expression %q is not valid: %v: correct it (RE2's syntax, github.com/google/re2/wiki/Syntax)", errcode.Short(pattern), err)
	}
	if n := instructions(tree); n > MaxRegexInstructions {
		return nil, invalid("the regular expression %q compiles to more than %d instructions: repeat less, or subscribe to topics by name",
			errcode.Short(pattern), MaxRegexInstructions)
	}
	// The tree's own text, as what stands around the pattern's could change what that
	// means: "a)(b", or "\Qa".
	re, err := regexp.Compile(`\A(?:` + tree.String() + `)\z`)
	if err != nil {
		return nil, invalid("the regular expression %q is not valid: %v", errcode.Short(pattern), err)
	}
	return &Regex{re}, nil
}

// Match reports whether the whole name of a topic matches.
func (r *Regex) Match(topic string) bool { return r.re.MatchString(topic) }

// instructions counts what a tree compiles to, about, without compiling it. It stops
// to count above MaxRegexInstructions.
func instructions(re *syntax.Regexp) int {
	n := 1
	switch re.Op {
	case syntax.OpLiteral:
		n = max(len(re.Rune), 1)
	case syntax.OpCharClass:
		n += len(re.Rune) / 16 // classes of many ranges take memory and time as well
	}
	for _, sub := range re.Sub {
		if n += instructions(sub); n > MaxRegexInstructions {
			return n
		}
	}
	if re.Op == syntax.OpRepeat {
		n *= max(re.Min, re.Max, 1)
	}
	return min(n, MaxRegexInstructions+1)
}
