package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// KafkaVersion is the release that the recorded answers are of.
const kafkaVersion = "4.3.1"

// line is a step as it stands in a file of recorded answers: an answer that is
// equal to an earlier one of the same file is told by that one's step.
type line struct {
	Step   string          `json:"step"`
	As     string          `json:"as,omitempty"`
	Answer json.RawMessage `json:"answer,omitempty"`
}

// save writes the steps of a scenario to its file in dir, a line of JSON each.
func save(dir, scenario string, steps []step) error {
	var b bytes.Buffer
	first := make(map[string]string) // step by answer
	for _, s := range steps {
		answer, err := encode(s.Answer)
		if err != nil {
			return err
		}
		l := line{Step: s.Step, Answer: answer}
		if as, ok := first[string(answer)]; ok {
			l.As, l.Answer = as, nil
		} else {
			first[string(answer)] = s.Step
		}
		text, err := encode(l)
		if err != nil {
			return err
		}
		b.Write(append(text, '\n'))
	}
	if err := os.WriteFile(filepath.Join(dir, scenario+".jsonl"), b.Bytes(), 0o644); err != nil {
		return fmt.Errorf("kafkadiff: %w", err)
	}
	return nil
}

// load reads what save wrote. The answers are as encoding/json decodes them,
// with numbers as they stand in the file.
func load(files fs.FS, scenario string) ([]step, error) {
	b, err := fs.ReadFile(files, scenario+".jsonl")
	if err != nil {
		return nil, fmt.Errorf("kafkadiff: no recorded answers: %w; see make record-kafka", err)
	}
	var steps []step
	answers := make(map[string]any)
	in := bufio.NewScanner(bytes.NewReader(b))
	in.Buffer(nil, len(b)+1)
	for in.Scan() {
		var l line
		if err := json.Unmarshal(in.Bytes(), &l); err != nil {
			return nil, fmt.Errorf("kafkadiff: %s.jsonl, step %d: %w", scenario, len(steps)+1, err)
		}
		answer, ok := answers[l.As]
		if l.As == "" {
			if answer, err = number(l.Answer); err != nil {
				return nil, fmt.Errorf("kafkadiff: %s.jsonl, step %q: %w", scenario, l.Step, err)
			}
		} else if !ok {
			return nil, fmt.Errorf("kafkadiff: %s.jsonl, step %q: no earlier step %q", scenario, l.Step, l.As)
		}
		answers[l.Step] = answer
		steps = append(steps, step{l.Step, answer})
	}
	return steps, in.Err()
}

// number decodes b and keeps its numbers as they are written.
func number(b []byte) (v any, err error) {
	d := json.NewDecoder(bytes.NewReader(b))
	d.UseNumber()
	err = d.Decode(&v)
	return v, err
}

// reread returns steps as load would after save, so that both sides of a
// comparison have the same types.
func reread(steps []step) ([]step, error) {
	out := make([]step, 0, len(steps))
	for _, s := range steps {
		b, err := encode(s.Answer)
		if err != nil {
			return nil, err
		}
		v, err := number(b)
		if err != nil {
			return nil, fmt.Errorf("kafkadiff: step %q: %w", s.Step, err)
		}
		out = append(out, step{s.Step, v})
	}
	return out, nil
}
