package client

// Partitioner picks the partition of a record that has none. partitions is at
// least 1, and the result must be in [0, partitions). Records without a key do
// not come here: they stay with one partition for a batch and then move on to
// another (KIP-480).
type Partitioner func(key []byte, partitions int32) int32

// KeyHash is the default Partitioner, the same as Apache Kafka's: the murmur2
// hash of the key, without its sign, modulo the number of partitions. Producers
// of both protocols put a key into the same partition.
func KeyHash(key []byte, partitions int32) int32 {
	return int32(murmur2(key)&0x7fffffff) % partitions
}

// murmur2 is Austin Appleby's MurmurHash2 with Kafka's seed.
func murmur2(b []byte) uint32 {
	const m, r = 0x5bd1e995, 24
	h := uint32(0x9747b28c) ^ uint32(len(b))
	for ; len(b) >= 4; b = b[4:] {
		k := uint32(b[0]) | uint32(b[1])<<8 | uint32(b[2])<<16 | uint32(b[3])<<24
		k *= m
		k ^= k >> r
		k *= m
		h *= m
		h ^= k
	}
	switch len(b) {
	case 3:
		h ^= uint32(b[2]) << 16
		fallthrough
	case 2:
		h ^= uint32(b[1]) << 8
		fallthrough
	case 1:
		h ^= uint32(b[0])
		h *= m
	}
	h ^= h >> 13
	h *= m
	h ^= h >> 15
	return h
}
