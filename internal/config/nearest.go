package config

import "strings"

// Nearest returns the name that got was probably meant to be, "" if none is
// near.
func Nearest(got string, names []string) string {
	got = plain(got)
	best, bestDistance := "", 1+max(1, len(got)/3)
	for _, name := range names {
		p := plain(name)
		d := distance(got, p)
		if strings.HasPrefix(p, got) && got != "" {
			d = min(d, 1)
		}
		if d < bestDistance {
			best, bestDistance = name, d
		}
	}
	return best
}

// plain takes away what people mix up: case, and the characters between words.
func plain(s string) string {
	return strings.NewReplacer("-", "", "_", "", ".", "").Replace(strings.ToLower(s))
}

// distance is how many letters have to be added, removed or replaced, or
// swapped with their neighbour, to turn a into b.
func distance(a, b string) int {
	before, row := make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		next := make([]int, len(b)+1)
		next[0] = i + 1
		for j := range len(b) {
			replace := row[j]
			if a[i] != b[j] {
				replace++
			}
			next[j+1] = min(replace, row[j+1]+1, next[j]+1)
			if i > 0 && j > 0 && a[i] == b[j-1] && a[i-1] == b[j] {
				next[j+1] = min(next[j+1], before[j-1]+1)
			}
		}
		before, row = row, next
	}
	return row[len(b)]
}
