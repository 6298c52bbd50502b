package config

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

var sizeUnits = []struct {
	name  string
	bytes int64
}{{"TiB", 1 << 40}, {"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}}

// FormatSize writes a number of bytes in the largest unit that divides it.
func FormatSize(n int64) string {
	for _, u := range sizeUnits {
		if n >= u.bytes && n%u.bytes == 0 {
			return strconv.FormatInt(n/u.bytes, 10) + u.name
		}
	}
	return strconv.FormatInt(n, 10)
}

// ParseSize reads what FormatSize writes, and plain bytes.
func ParseSize(s string) (int64, error) {
	number, factor := s, int64(1)
	for _, u := range sizeUnits {
		if rest, ok := strings.CutSuffix(s, u.name); ok {
			number, factor = rest, u.bytes
		}
	}
	n, err := strconv.ParseInt(strings.TrimSpace(number), 10, 64)
	if err != nil || n < 0 || n > (1<<62)/factor {
		return 0, fmt.Errorf("%q is not a size; give bytes, or a number with KiB, MiB, GiB or TiB", s)
	}
	return n * factor, nil
}

// formatDuration leaves out the zeros that time.Duration writes.
func formatDuration(d time.Duration) string {
	s := d.String()
	for _, zero := range []string{"m0s", "h0m"} {
		if rest, ok := strings.CutSuffix(s, zero); ok {
			s = rest + zero[:1]
		}
	}
	return s
}

// format writes a number as the setting's kind does.
func (s *Setting) format(n int64) string {
	switch s.Kind {
	case Size:
		return FormatSize(n)
	case Duration:
		return formatDuration(time.Duration(n))
	case Bool:
		return strconv.FormatBool(n != 0)
	}
	return strconv.FormatInt(n, 10)
}

// Parse reads a value of the setting, and returns its canonical text and its
// number. The error says what to give instead, and names neither the setting
// nor where the value was found.
func (s *Setting) Parse(text string) (canonical string, number int64, err error) {
	switch s.Kind {
	case Text:
		if i := strings.IndexFunc(text, func(r rune) bool { return r < ' ' || r == 0x7f }); i >= 0 {
			return "", 0, fmt.Errorf("%q has a control character", text)
		}
		return text, 0, nil
	case Choice:
		if !slices.Contains(s.Choices, text) {
			return "", 0, fmt.Errorf("%q: give %s", text, alternatives(s.Choices))
		}
		return text, 0, nil
	case Bool:
		switch text {
		case "true":
			return text, 1, nil
		case "false":
			return text, 0, nil
		}
		return "", 0, fmt.Errorf("%q: give true or false", text)
	case Size:
		number, err = ParseSize(text)
	case Duration:
		d, bad := time.ParseDuration(text)
		if number = int64(d); bad != nil {
			err = fmt.Errorf("%q is not a duration; give one such as 10s or 1m30s", text)
		}
	case Int:
		if number, err = strconv.ParseInt(text, 10, 64); err != nil {
			err = fmt.Errorf("%q is not a whole number", text)
		}
	}
	if err != nil {
		return "", 0, err
	}
	if number < s.Min || number > s.Max || s.Multiple > 1 && number%s.Multiple != 0 {
		return "", 0, fmt.Errorf("%s is out of range; give %s", s.format(number), s.Range())
	}
	return s.format(number), number, nil
}
