package server

import (
	"strings"
	"testing"
	"unicode/utf8"
)

// TestShorten: what is left of a text is no more than fits, and valid.
func TestShorten(t *testing.T) {
	t.Parallel()
	for _, s := range []string{"", "short", strings.Repeat("x", 300), strings.Repeat("é", 300), "x" + strings.Repeat("é", 300), "\xff\xfe", strings.Repeat("\xff", 1000)} {
		got := shorten(s)
		if !utf8.ValidString(got) || len(got) > 3*256 {
			t.Errorf("%.20q... of %d bytes becomes %d bytes", s, len(s), len(got))
		}
		if utf8.ValidString(s) && (len(s) <= 256 && got != s || len(s) > 256 && (len(got) < 250 || !strings.HasPrefix(s, got))) {
			t.Errorf("%.20q... of %d bytes becomes %q", s, len(s), got)
		}
	}
}
