package broker

import "testing"

// TestDeletion: what a leader may decide by an end that is not of now, and what
// it may not.
func TestDeletion(t *testing.T) {
	tests := []struct {
		name               string
		before, start, end int64
		want               int64
		step               deleteStep
		current            bool
	}{
		{"in the log", 7, 5, 9, 7, deletePropose, false},
		{"all, by offset", 9, 5, 9, 9, deletePropose, false},
		{"all", -1, 5, 9, 9, deletePropose, false},
		{"at the log start", 5, 5, 9, 0, deleteDone, false},
		{"below the log start", 0, 5, 9, 0, deleteDone, false},
		{"at the end of an empty log", 5, 5, 5, 0, deleteDone, false},
		{"all of an empty log, which may have more by now", -1, 5, 5, 0, deleteEmpty, true},
		{"above the end, which may have moved", 10, 5, 9, 0, deleteAbove, true},
		{"invalid", -2, 5, 9, 0, deleteInvalid, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			to, step := deletion(tt.before, tt.start, tt.end)
			if to != tt.want || step != tt.step || step.needsCurrent() != tt.current {
				t.Errorf("deletion(%d, %d, %d) = %d, step %d, has to be current %t; want %d, %d, %t",
					tt.before, tt.start, tt.end, to, step, step.needsCurrent(), tt.want, tt.step, tt.current)
			}
		})
	}
}
