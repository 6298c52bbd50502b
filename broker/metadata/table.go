package metadata

import (
	"iter"
	"slices"
)

// chunkRows is the most rows of a chunk. A change copies one chunk and the list
// of chunks, so it costs about the square root of the table.
const chunkRows = 256

// table is an immutable sorted map: put and remove return a changed copy that
// shares all but one chunk with the original.
//
// Invariant: no chunk is empty; keys ascend within and across chunks.
type table[K, V any] struct {
	compare func(a, b K) int
	chunks  [][]row[K, V]
	rows    int
}

type row[K, V any] struct {
	key   K
	value V
}

// find returns the chunk where k is or belongs, and its place there.
func (t table[K, V]) find(k K) (chunk, at int, ok bool) {
	chunk, _ = slices.BinarySearchFunc(t.chunks, k, func(c []row[K, V], k K) int {
		return t.compare(c[len(c)-1].key, k)
	})
	if chunk == len(t.chunks) {
		return chunk, 0, false
	}
	at, ok = slices.BinarySearchFunc(t.chunks[chunk], k, func(r row[K, V], k K) int {
		return t.compare(r.key, k)
	})
	return chunk, at, ok
}

func (t table[K, V]) get(k K) (v V, ok bool) {
	chunk, at, ok := t.find(k)
	if !ok {
		return v, false
	}
	return t.chunks[chunk][at].value, true
}

// put returns t with k mapped to v.
func (t table[K, V]) put(k K, v V) table[K, V] {
	chunk, at, ok := t.find(k)
	switch {
	case len(t.chunks) == 0:
		return t.replace(0, 0, 1, []row[K, V]{{k, v}})
	case chunk == len(t.chunks): // above all keys
		chunk--
		at = len(t.chunks[chunk])
	}
	rows := t.chunks[chunk]
	if ok {
		rows = slices.Clone(rows)
		rows[at].value = v
		return t.replace(chunk, 1, 0, rows)
	}
	grown := make([]row[K, V], 0, len(rows)+1)
	grown = append(append(append(grown, rows[:at]...), row[K, V]{k, v}), rows[at:]...)
	if len(grown) <= chunkRows {
		return t.replace(chunk, 1, 1, grown)
	}
	half := len(grown) / 2
	return t.replace(chunk, 1, 1, slices.Clip(grown[:half]), grown[half:])
}

// remove returns t without k.
func (t table[K, V]) remove(k K) table[K, V] {
	chunk, at, ok := t.find(k)
	if !ok {
		return t
	}
	rows := t.chunks[chunk]
	if len(rows) == 1 {
		return t.replace(chunk, 1, -1)
	}
	return t.replace(chunk, 1, -1, slices.Delete(slices.Clone(rows), at, at+1))
}

// replace returns t with n chunks from the given one on replaced by others, and
// rows more rows.
func (t table[K, V]) replace(chunk, n, rows int, by ...[]row[K, V]) table[K, V] {
	chunks := make([][]row[K, V], 0, len(t.chunks)-n+len(by))
	chunks = append(append(append(chunks, t.chunks[:chunk]...), by...), t.chunks[chunk+n:]...)
	return table[K, V]{compare: t.compare, chunks: chunks, rows: t.rows + rows}
}

// values walks the values in the order of their keys.
func (t table[K, V]) values() iter.Seq[V] {
	return func(yield func(V) bool) {
		for _, c := range t.chunks {
			for i := range c {
				if !yield(c[i].value) {
					return
				}
			}
		}
	}
}

// since walks, in the order of their keys, the values of t that old does not
// have under the same key. It looks at the rows of the chunks that the two do not
// share, and no others.
func since[K any, V comparable](t, old table[K, V]) iter.Seq[V] {
	return func(yield func(V) bool) {
		shared := make(map[*row[K, V]]bool, len(old.chunks))
		for _, c := range old.chunks {
			shared[&c[0]] = true
		}
		for _, c := range t.chunks {
			if shared[&c[0]] {
				continue // chunks are never changed, so it is the same one
			}
			for i := range c {
				if v, ok := old.get(c[i].key); ok && v == c[i].value {
					continue
				}
				if !yield(c[i].value) {
					return
				}
			}
		}
	}
}
