package clienttest

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
)

// line is what a program saw in one step. Each program prints the fields that
// its client shows, and leaves out the others.
type line struct {
	Step string `json:"step"`

	Topic      string   `json:"topic"`
	TopicID    string   `json:"topic_id"` // in base64, as Kafka's tools print it
	ID         string   `json:"id"`       // of the cluster
	Controller *int32   `json:"controller"`
	Brokers    []string `json:"brokers"` // as HOST:PORT
	Leaders    []int32  `json:"leaders"` // of each partition in turn

	Partitions      int    `json:"partitions"`
	Replication     *int   `json:"replication"`
	MaxMessageBytes string `json:"max_message_bytes"`

	Partition int32             `json:"partition"`
	Offset    *int64            `json:"offset"`
	Timestamp *int64            `json:"timestamp"` // in ms; nil: the client has shown none
	Codec     string            `json:"codec"`
	Key       string            `json:"key"`
	Value     string            `json:"value"`
	Headers   map[string]string `json:"headers"`

	Earliest     *int64 `json:"earliest"`
	Latest       *int64 `json:"latest"`
	AtMS         *int64 `json:"at_ms"` // with At
	At           *int64 `json:"at"`    // the first offset not older than AtMS
	Epoch        *int32 `json:"epoch"`
	End          *int64 `json:"end"`
	LowWatermark *int64 `json:"low_watermark"`

	Configs map[string]string `json:"configs"`
	Sources map[string]string `json:"sources"` // of configs, by kmsg's names
	Topics  []string          `json:"topics"`
	Bytes   int64             `json:"bytes"`
	IDs     []int64           `json:"ids"` // of producers
	Exists  *bool             `json:"exists"`

	Group    string    `json:"group"`
	Groups   []string  `json:"groups"`
	State    string    `json:"state"`
	Protocol string    `json:"protocol"`
	Assignor string    `json:"assignor"`
	Members  [][]int32 `json:"members"` // the partitions of each

	ProduceMin *int16 `json:"produce_min"`
	ProduceMax *int16 `json:"produce_max"`
	FetchMax   *int16 `json:"fetch_max"`
}

// output is all that a program printed, by step.
type output map[string][]line

// parseOutput reads what a program printed. A field that line does not have is
// an error: a misspelt one would never be checked.
func parseOutput(printed []byte) (output, error) {
	out := make(output)
	for lines := bufio.NewScanner(bytes.NewReader(printed)); lines.Scan(); {
		d := json.NewDecoder(bytes.NewReader(lines.Bytes()))
		d.DisallowUnknownFields()
		var l line
		if err := d.Decode(&l); err != nil {
			return out, fmt.Errorf("the line %q: %w", lines.Text(), err)
		}
		if err := l.complete(); err != nil {
			return out, fmt.Errorf("the line %q: %w", lines.Text(), err)
		}
		out[l.Step] = append(out[l.Step], l)
	}
	return out, nil
}

// complete returns an error for a line without a field that its step must have.
func (l line) complete() error {
	var missing bool
	switch l.Step {
	case "produced", "consumed", "group-consumed", "assigned-consumed", "committed", "offsets-left":
		missing = l.Offset == nil
	case "epoch-end":
		missing = l.Epoch == nil || l.End == nil
	case "api-versions":
		missing = l.ProduceMin == nil || l.ProduceMax == nil || l.FetchMax == nil
	}
	if missing {
		return fmt.Errorf("a field of step %q is missing", l.Step)
	}
	return nil
}

// one returns the only line of a step.
func (o output) one(step string) (line, error) {
	if n := len(o[step]); n != 1 {
		return line{}, fmt.Errorf("%d lines of step %q, want one", n, step)
	}
	return o[step][0], nil
}
