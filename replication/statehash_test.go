package replication

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestMinority(t *testing.T) {
	t.Parallel()
	say := func(node int32, hash byte) HashReport {
		return HashReport{Shard: 1, Replica: ReplicaID{Node: node, Incarnation: 7}, Index: 10, Hash: [32]byte{hash}}
	}
	other := say(4, 2)
	other.Index = 11
	elsewhere := say(4, 2)
	elsewhere.Shard = 2
	again := say(3, 1)
	again.Replica.Incarnation = 6
	tests := []struct {
		name    string
		voters  int
		reports []HashReport
		want    []int32
		agreed  bool
	}{
		{"none", 3, nil, nil, false},
		{"one alone", 1, []HashReport{say(1, 1)}, nil, true},
		{"one of three", 3, []HashReport{say(1, 1)}, nil, false},
		{"two of three agree", 3, []HashReport{say(1, 1), say(2, 1)}, nil, true},
		{"two of three do not", 3, []HashReport{say(1, 1), say(2, 2)}, nil, false},
		{"all agree", 3, []HashReport{say(1, 1), say(2, 1), say(3, 1)}, nil, true},
		{"one differs", 3, []HashReport{say(3, 2), say(1, 1), say(2, 1)}, []int32{3}, true},
		{"two of five differ, each its own way", 5, []HashReport{say(5, 3), say(1, 1), say(4, 2), say(2, 1), say(3, 1)}, []int32{4, 5}, true},
		{"all differ", 3, []HashReport{say(1, 1), say(2, 2), say(3, 3)}, nil, false},
		{"half and half", 4, []HashReport{say(1, 1), say(2, 1), say(3, 2), say(4, 2)}, nil, false},
		{"said twice counts once", 3, []HashReport{say(1, 1), say(1, 1), say(2, 2)}, nil, false},
		{"another index", 3, []HashReport{say(1, 1), say(2, 1), other}, nil, true},
		{"another shard", 3, []HashReport{say(1, 1), say(2, 1), elsewhere}, nil, true},
		{"a non-voter differs", 3, []HashReport{say(1, 1), say(2, 1), say(3, 1), say(9, 2)}, []int32{9}, true},
		{"another incarnation is another replica", 3, []HashReport{say(3, 2), again, say(1, 1)}, []int32{3}, true},
	}
	for _, tt := range tests {
		minority, agreed := Minority(tt.voters, tt.reports)
		var nodes []int32
		for _, id := range minority {
			nodes = append(nodes, id.Node)
		}
		if d := cmp.Diff(tt.want, nodes); d != "" || agreed != tt.agreed {
			t.Errorf("%s: agreed %t, want %t; minority (-want +got):\n%s", tt.name, agreed, tt.agreed, d)
		}
	}
}
