package server

import (
	"testing"

	"github.com/flotilla-log/flotilla/broker"
	"github.com/flotilla-log/flotilla/internal/errcode"
)

// TestAllAppended: a payload with a batch that failed, and so may still be on
// its way, is not lent to others.
func TestAllAppended(t *testing.T) {
	t.Parallel()
	appended := broker.ProduceResult{BaseOffset: 7}
	timedOut := broker.ProduceResult{Err: errcode.Errorf(errcode.RequestTimedOut, "late"), BaseOffset: -1}
	for _, tt := range []struct {
		results []broker.ProduceResult
		want    bool
	}{
		{[]broker.ProduceResult{appended, appended}, true},
		{[]broker.ProduceResult{appended, timedOut}, false},
		{[]broker.ProduceResult{timedOut}, false},
	} {
		if got := allAppended(tt.results); got != tt.want {
			t.Errorf("%+v: %t, want %t", tt.results, got, tt.want)
		}
	}
}
