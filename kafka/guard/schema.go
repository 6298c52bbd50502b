package guard

// request is one row of the table.
type request struct {
	name     string
	first    int16    // the first version
	flexible int16    // the first version with compact lengths and tags, or never
	bodies   []uint16 // for each version from first on, its struct's index
}

// never is where the flexible versions of a request without any begin.
const never = -1

// structure is a struct as one version encodes it: its fields in order, then,
// in a flexible version, its tagged fields.
type structure struct {
	name   string
	fields []field
	tags   []tagged
	min    uint16  // the fewest bytes that it is encoded in
	memory uintptr // bytes that kmsg's struct takes
}

// kind is how a field is encoded.
type kind uint8

const (
	fixed   kind = iota // size bytes: one number, or several fields in a row
	text                // a string
	blob                // bytes or records
	scalars             // an array of numbers of size bytes each, as in memory
	texts               // an array of strings, of at least size bytes each
	structs             // an array of the struct elem
	nested              // the struct elem
)

// field is a field of a struct, or several of fixed size, named by the first.
type field struct {
	name     string
	kind     kind
	nullable bool
	pointer  bool // text: kmsg has a *string
	size     uint16
	elem     uint16
}

// tagged is a field that kmsg knows by its tag.
type tagged struct {
	tag   uint32
	valid bool // false: only later versions have it
	field field
}
