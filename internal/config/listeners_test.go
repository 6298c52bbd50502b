package config

import (
	"slices"
	"strings"
	"testing"
)

func TestListeners(t *testing.T) {
	t.Parallel()
	tests := []struct {
		listen, advertise string
		want              []Listener
		err               string
	}{
		{listen: "127.0.0.1:9092", want: []Listener{{"client", "127.0.0.1:9092", ""}}},
		{listen: "client=:0", advertise: "h:1", want: []Listener{{"client", ":0", "h:1"}}},
		{
			listen: "10.0.0.1:9092, outside=[::]:9094", advertise: "outside=kafka.example.com:443",
			want: []Listener{{"client", "10.0.0.1:9092", ""}, {"outside", "[::]:9094", "kafka.example.com:443"}},
		},
		{listen: "", err: "give HOST:PORT"},
		{listen: "9092", err: "give HOST:PORT"},
		{listen: "a:1,b:2", err: "two listeners are called client; give NAME=HOST:PORT"},
		{listen: "a:1,x=b:2,x=c:3", err: "two listeners are called x"},
		{listen: "x=a:1", err: "the first listener has no name"},
		{listen: "a:1,X=b:2", err: "a-z, 0-9"},
		{listen: "a:1,=b:2", err: "a-z, 0-9"},
		{listen: "a:1" + strings.Repeat(",x=b:2", 1) + manyListeners(16), err: "more than 16"},
		{listen: "a:1", advertise: "h", err: "give the HOST:PORT that clients connect to"},
		{listen: "a:1", advertise: "h:0", err: "give the HOST:PORT that clients connect to"},
		{listen: "a:1", advertise: ":9092", err: "give the HOST:PORT that clients connect to"},
		{listen: "a:1", advertise: "x=h:1", err: "listen has no listener called x"},
		{listen: "a:1", advertise: "h:1,i:2", err: "the listener client has two addresses"},
	}
	for _, tt := range tests {
		got, err := Listeners(tt.listen, tt.advertise)
		if tt.err == "" && (err != nil || !slices.Equal(got, tt.want)) {
			t.Errorf("Listeners(%q, %q) = %v, %v", tt.listen, tt.advertise, got, err)
		}
		if tt.err != "" && (err == nil || !strings.Contains(err.Error(), tt.err)) {
			t.Errorf("Listeners(%q, %q) = %v, %v, want %q", tt.listen, tt.advertise, got, err, tt.err)
		}
	}
}

func manyListeners(n int) (s string) {
	for i := range n {
		s += ",l" + string('a'+rune(i)) + "=h:1"
	}
	return s
}
