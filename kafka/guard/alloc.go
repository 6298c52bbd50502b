package guard

// What Go's allocator takes for what kmsg asks for. These are upper bounds,
// made for Go 1.26: the tests measure them, and fail when another version needs
// more.
const (
	// stringBytes is the size of a string without its bytes.
	stringBytes = 16

	// exactBytes is the size up to which an object takes the next multiple of 16.
	exactBytes = 256

	// largeBytes is the size above which an object takes whole pages.
	largeBytes = 32<<10 - 8
	pageBytes  = 8 << 10

	// firstTagBytes is what the map of unknown tags takes for up to groupTags of
	// them. With one more it becomes a table, which takes tableBytes besides, and
	// nextTagBytes for each from there, with all the smaller tables that it has
	// outgrown.
	firstTagBytes = 48 + 288
	groupTags     = 8
	tableBytes    = 512
	nextTagBytes  = 192
)

// rounded returns how many bytes an allocation of n takes at most.
func rounded(n int64) int64 {
	switch {
	case n <= exactBytes:
		return (n + 15) &^ 15
	case n <= largeBytes:
		return n + n/5 + 16 // the classes lie at most a sixth apart, or 1.5 KiB
	}
	return (n + 8 + pageBytes - 1) &^ (pageBytes - 1)
}

// tagBytes returns what the nth unknown tag of a struct takes.
func tagBytes(n int) int64 {
	switch {
	case n == 1:
		return firstTagBytes
	case n <= groupTags:
		return 0
	case n == groupTags+1:
		return tableBytes + nextTagBytes
	}
	return nextTagBytes
}
