package replication

import (
	"cmp"
	"crypto/sha256"
	"slices"
)

// HashReport is what one replica says of its state: the digest of it at one
// index of its shard. A replica of which a part is in quarantine (R5) makes none.
type HashReport struct {
	Shard   ShardID
	Replica ReplicaID
	Index   uint64
	Hash    [sha256.Size]byte
}

// Minority compares what the replicas of a shard with so many voters reported
// for one index (R4). It returns those whose state is not the one that more than
// half of the voters have, by id; they must stop. agreed is false if no state
// has a majority: too few have reported yet, or nobody knows who is right.
//
// Reports of the same replica count once; that of another index or shard than
// the first one's is passed over.
func Minority(voters int, reports []HashReport) (minority []ReplicaID, agreed bool) {
	byHash := make(map[[sha256.Size]byte][]ReplicaID)
	seen := make(map[ReplicaID]bool)
	for _, r := range reports {
		if r.Shard != reports[0].Shard || r.Index != reports[0].Index || seen[r.Replica] {
			continue
		}
		seen[r.Replica] = true
		byHash[r.Hash] = append(byHash[r.Hash], r.Replica)
	}
	for _, ids := range byHash {
		agreed = agreed || 2*len(ids) > voters
		if 2*len(ids) <= voters {
			minority = append(minority, ids...)
		}
	}
	if !agreed {
		return nil, false
	}
	slices.SortFunc(minority, func(a, b ReplicaID) int {
		return cmp.Or(cmp.Compare(a.Node, b.Node), cmp.Compare(a.Incarnation, b.Incarnation))
	})
	return minority, true
}
