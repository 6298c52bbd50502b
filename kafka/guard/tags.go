package guard

// tagsField stands for a struct's tagged fields in an error.
const tagsField = "(tags)"

// tags walks a struct's tagged fields.
func (w *walker) tags(s *structure) bool {
	n, ok := w.uvarint()
	switch {
	case !ok:
		return w.in(s, tagsField)
	case int64(n) > int64(w.left()/2): // a tag and a size
		w.refuse(ErrMalformed, "%d tagged fields, the bytes left hold at most %d", int64(n), int64(w.left()/2))
		return w.in(s, tagsField)
	case int64(n) > w.limits.Tags:
		w.refuse(ErrTooLarge, "%d tagged fields, %d are allowed", int64(n), w.limits.Tags)
		return w.in(s, tagsField)
	}
	unknown := 0
	for range n {
		if !w.tag(s, &unknown) {
			return w.in(s, tagsField)
		}
	}
	return true
}

// tag walks one tagged field. unknown counts those that are in no definition.
func (w *walker) tag(s *structure, unknown *int) bool {
	tag, ok := w.uvarint()
	if !ok {
		return false
	}
	size, ok := w.uvarint()
	switch {
	case !ok:
		return false
	case int64(size) > w.limits.TagBytes:
		return w.refuse(ErrTooLarge, "a tagged field of %d bytes, %d are allowed", int64(size), w.limits.TagBytes)
	case int64(size) > int64(w.left()):
		return w.refuse(ErrMalformed, short, int64(size), int64(w.left()))
	}
	for i := range s.tags {
		if t := &s.tags[i]; t.tag == tag {
			if !t.valid {
				return w.refuse(ErrMalformed, "tag %d is of a later version (there are %d tagged fields before it)", int64(tag), int64(*unknown))
			}
			return w.known(s, &t.field, int(size))
		}
	}
	w.at += int(size)
	*unknown++
	return w.allocate(tagBytes(*unknown))
}

// known walks the size bytes of a tagged field that must be f.
func (w *walker) known(s *structure, f *field, size int) bool {
	end := w.end
	w.end = w.at + size
	if !w.one(f) {
		return w.in(s, f.name)
	}
	if w.at != w.end {
		w.refuse(ErrMalformed, "%d bytes are left of the tagged field's %d", int64(w.left()), int64(size))
		return w.in(s, f.name)
	}
	w.end = end
	return true
}
