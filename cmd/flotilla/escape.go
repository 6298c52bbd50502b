package main

import (
	"fmt"
	"strconv"
	"strings"
)

// unescape replaces \n, \r, \t, \xHH, \NNN (decimal; octal if the first digit
// is 0) and, for any other c, \c by c, as kcat does in its format strings and
// delimiters. A backslash at the end stands for itself.
func unescape(s string) (string, error) {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] != '\\' || i+1 == len(s) {
			b.WriteByte(s[i])
			continue
		}
		i++
		switch c := s[i]; {
		case c == 'n':
			b.WriteByte('\n')
		case c == 'r':
			b.WriteByte('\r')
		case c == 't':
			b.WriteByte('\t')
		case c == 'x' || '0' <= c && c <= '9':
			n, value, err := escapedByte(s[i:])
			if err != nil {
				return "", err
			}
			b.WriteByte(value)
			i += n - 1
		default:
			b.WriteByte(c)
		}
	}
	return b.String(), nil
}

// escapedByte decodes what follows a backslash, x and two digits at most or
// three digits at most, and returns how long it is.
func escapedByte(s string) (n int, value byte, err error) {
	start, digits, most, base := 0, "0123456789", 3, 10
	switch s[0] {
	case 'x':
		start, digits, most, base = 1, "0123456789abcdefABCDEF", 3, 16
	case '0':
		digits, base = "01234567", 8
	}
	for n = start; n < min(most, len(s)) && strings.IndexByte(digits, s[n]) >= 0; {
		n++
	}
	v, err := strconv.ParseUint(s[start:n], base, 8)
	if err != nil {
		return 0, 0, fmt.Errorf(`\%s is no byte`, s[:max(n, 1)])
	}
	return n, byte(v), nil
}
