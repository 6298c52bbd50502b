package main

import (
	"encoding/base64"
	"unicode/utf8"

	"github.com/flotilla-log/flotilla/client"
)

// base64Encoding marks what is not UTF-8, and so no JSON string.
const base64Encoding = "base64"

// recordJSON is a record in a line of JSON. A key or value that is not UTF-8 is
// in base64, and a field beside it says so.
type recordJSON struct {
	Topic         string       `json:"topic"`
	Partition     int32        `json:"partition"`
	Offset        int64        `json:"offset"`
	Timestamp     int64        `json:"timestamp"` // ms since 1970
	Key           *string      `json:"key"`
	KeyEncoding   string       `json:"key_encoding,omitempty"`
	Value         *string      `json:"value"`
	ValueEncoding string       `json:"value_encoding,omitempty"`
	Headers       []headerJSON `json:"headers"`
}

// headerJSON is a header. A name that is not UTF-8 gets replacement characters.
type headerJSON struct {
	Name          string  `json:"name"`
	Value         *string `json:"value"`
	ValueEncoding string  `json:"value_encoding,omitempty"`
}

func toJSON(r *client.Record) recordJSON {
	j := recordJSON{
		Topic: r.Topic, Partition: r.Partition, Offset: r.Offset, Timestamp: r.Timestamp.UnixMilli(),
		Headers: make([]headerJSON, len(r.Headers)),
	}
	j.Key, j.KeyEncoding = jsonString(r.Key)
	j.Value, j.ValueEncoding = jsonString(r.Value)
	for i, h := range r.Headers {
		j.Headers[i].Name = string(h.Key)
		j.Headers[i].Value, j.Headers[i].ValueEncoding = jsonString(h.Value)
	}
	return j
}

// jsonString returns b as a string, and base64Encoding if it had to be encoded;
// nil for nil.
func jsonString(b []byte) (s *string, encoding string) {
	if b == nil {
		return nil, ""
	}
	text := string(b)
	if !utf8.ValidString(text) {
		text, encoding = base64.StdEncoding.EncodeToString(b), base64Encoding
	}
	return &text, encoding
}
