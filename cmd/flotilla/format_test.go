package main

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/flotilla-log/flotilla/client"
)

// TestFormat holds formats against what kcat's help and source say of them.
func TestFormat(t *testing.T) {
	t.Parallel()
	full := client.Record{
		Topic: "top", Partition: 3, Offset: 42, Timestamp: time.UnixMilli(1234567890123),
		Key: []byte("key"), Value: []byte("a\x00value"),
		Headers: []client.Header{{Key: []byte("x"), Value: []byte("1")}, {Key: []byte("none")}, {Key: []byte("e"), Value: []byte{}}},
	}
	nulls := client.Record{Topic: "top", Timestamp: time.UnixMilli(0)}
	empty := client.Record{Topic: "top", Timestamp: time.UnixMilli(0), Key: []byte{}, Value: []byte{}}
	tests := []struct {
		format string
		record client.Record
		null   string
		want   string
	}{
		{format: `%s\n`, record: full, want: "a\x00value\n"},
		{format: `Topic %t [%p] at offset %o: key %k: %T %s\n`, record: full, want: "Topic top [3] at offset 42: key key: 1234567890123 a\x00value\n"},
		{format: `%S,%K`, record: full, want: "7,3"},
		{format: `%S,%K`, record: nulls, want: "-1,-1"},
		{format: `%S,%K`, record: empty, want: "0,0"},
		{format: `%R`, record: full, want: "\x00\x00\x00\x07"},
		{format: `%R`, record: nulls, want: "\xff\xff\xff\xff"},
		{format: `[%k][%s][%h]`, record: nulls, want: "[][][]"},
		{format: `[%k][%s]`, record: nulls, null: "NULL", want: "[NULL][NULL]"},
		{format: `[%k][%s]`, record: empty, null: "NULL", want: "[][]"},
		{format: `%h`, record: full, want: "x=1,none=NULL,e="},
		{format: `100%%%%\t%%s`, record: full, want: "100%%\t%s"},
		{format: `\n\r\t\\\q`, want: "\n\r\t\\q"},
		{format: `\x41\x4a1\x7`, want: "AJ1\x07"},
		{format: `\0\012\10\065x`, want: "\x00\n\n5x"},
		{format: `end\`, want: `end\`},
		{format: `é%pü`, record: full, want: "é3ü"},
		{format: ``, record: full, want: ""},
	}
	for _, tt := range tests {
		f, err := parseFormat(tt.format)
		if err != nil {
			t.Errorf("parseFormat(%q): %v", tt.format, err)
			continue
		}
		f.null = tt.null
		if got := string(f.append(nil, &tt.record)); got != tt.want {
			t.Errorf("%q prints %q, want %q", tt.format, got, tt.want)
		}
	}
}

func TestFormatRefused(t *testing.T) {
	t.Parallel()
	for _, s := range []string{`%`, `%s%`, `%q`, `%é`, `\x`, `\xg`, `\999`, `\256`} {
		if f, err := parseFormat(s); err == nil {
			t.Errorf("parseFormat(%q) = %v, want an error", s, f)
		}
	}
}

func TestRecordJSON(t *testing.T) {
	t.Parallel()
	s := func(s string) *string { return &s }
	got := toJSON(&client.Record{
		Topic: "t", Partition: 1, Offset: 2, Timestamp: time.UnixMilli(3),
		Key: []byte{0xff}, Value: []byte("<é\n"),
		Headers: []client.Header{{Key: []byte("h"), Value: []byte{0x80}}, {Key: []byte("n")}},
	})
	want := recordJSON{
		Topic: "t", Partition: 1, Offset: 2, Timestamp: 3,
		Key: s("/w=="), KeyEncoding: "base64", Value: s("<é\n"),
		Headers: []headerJSON{{Name: "h", Value: s("gA=="), ValueEncoding: "base64"}, {Name: "n"}},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// FuzzFormat checks that no format string makes the printing panic.
func FuzzFormat(f *testing.F) {
	for _, s := range []string{`%s\n`, `%`, `\x`, `\07%%`, `%T%h%R`} {
		f.Add(s, []byte("k"), []byte(nil))
	}
	f.Fuzz(func(t *testing.T, s string, key, value []byte) {
		parsed, err := parseFormat(s)
		if err != nil {
			return
		}
		r := client.Record{Key: key, Value: value, Headers: []client.Header{{Key: key, Value: value}}}
		parsed.append(nil, &r)
	})
}
