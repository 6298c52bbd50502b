package main

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"strconv"
	"strings"
)

// A summary holds what the walker needs of Kafka's definitions, a line for each
// request and each field, indented by depth:
//
//	request 0 ProduceRequest versions 3-13 flexible 9+
//		TransactionalId string 3+ nullable 3+
//		TopicData []TopicProduceData 0+
//			Name string 0-12
//
// Its first lines name the version of Kafka and the SHA-256 of the lines below.
const preamble = "# The requests of Apache Kafka %s, from the definitions in its kafka-clients jar.\n" +
	"# Written by gen; do not edit.\n" +
	"# SHA-256 of the lines below: %x\n"

// summarise returns the summary of msgs.
func summarise(kafkaVersion string, msgs []message) []byte {
	var b bytes.Buffer
	for _, m := range msgs {
		fmt.Fprintf(&b, "request %d %s versions %s flexible %s\n", m.Key, m.Name, m.Valid, m.Flexible)
		summariseFields(&b, m.Fields, 1)
	}
	return append(fmt.Appendf(nil, preamble, kafkaVersion, sha256.Sum256(b.Bytes())), b.Bytes()...)
}

func summariseFields(b *bytes.Buffer, fields []node, depth int) {
	for _, f := range fields {
		fmt.Fprintf(b, "%s%s %s %s", strings.Repeat("\t", depth), f.Name, f.Type, f.Versions)
		if !f.Nullable.empty() {
			fmt.Fprintf(b, " nullable %s", f.Nullable)
		}
		if !f.Tagged.empty() {
			fmt.Fprintf(b, " tagged %s as %d", f.Tagged, f.Tag)
		}
		b.WriteByte('\n')
		summariseFields(b, f.Fields, depth+1)
	}
}

// parseSummary returns the version of Kafka and the requests of a summary. It
// fails if the text is not the one that the SHA-256 in it was made of.
func parseSummary(text []byte) (kafkaVersion string, msgs []message, err error) {
	head, body, ok := bytes.Cut(text, []byte("\nrequest "))
	if !ok {
		return "", nil, fmt.Errorf("summary: holds no request")
	}
	body = append([]byte("request "), body...)
	if _, err := fmt.Sscanf(string(head), "# The requests of Apache Kafka %s", &kafkaVersion); err != nil {
		return "", nil, fmt.Errorf("summary: first line: %w", err)
	}
	kafkaVersion = strings.TrimSuffix(kafkaVersion, ",")
	if want := fmt.Sprintf(preamble, kafkaVersion, sha256.Sum256(body)); string(head)+"\n" != want {
		return "", nil, fmt.Errorf("summary: changed by hand: its lines have the SHA-256 %x, which is not the one it names", sha256.Sum256(body))
	}
	var open []*[]node // where a line of each depth belongs
	for i, line := range strings.Split(strings.TrimSuffix(string(body), "\n"), "\n") {
		words := strings.Fields(line)
		depth := len(line) - len(strings.TrimLeft(line, "\t"))
		if depth > len(open) || len(words) < 3 {
			return "", nil, fmt.Errorf("summary: line %d below the head: %q", i+1, line)
		}
		if depth == 0 {
			var m message
			m, err = parseRequest(words)
			msgs = append(msgs, m)
			open = []*[]node{&msgs[len(msgs)-1].Fields}
		} else {
			var f node
			f, err = parseField(words)
			in := open[depth-1]
			*in = append(*in, f)
			open = append(open[:depth], &(*in)[len(*in)-1].Fields)
		}
		if err != nil {
			return "", nil, fmt.Errorf("summary: %q: %w", line, err)
		}
	}
	return kafkaVersion, msgs, nil
}

func parseRequest(words []string) (m message, err error) {
	if len(words) != 7 {
		return m, fmt.Errorf("%d words, want 7", len(words))
	}
	key, err := strconv.ParseInt(words[1], 10, 16)
	if err != nil {
		return m, err
	}
	m.Key, m.Name = int16(key), words[2]
	if err := m.Valid.UnmarshalText([]byte(words[4])); err != nil {
		return m, err
	}
	return m, m.Flexible.UnmarshalText([]byte(words[6]))
}

func parseField(words []string) (f node, err error) {
	f.Name, f.Type = words[0], words[1]
	if err := f.Versions.UnmarshalText([]byte(words[2])); err != nil {
		return f, err
	}
	for rest := words[3:]; len(rest) > 0; {
		switch {
		case rest[0] == "nullable" && len(rest) >= 2:
			err = f.Nullable.UnmarshalText([]byte(rest[1]))
			rest = rest[2:]
		case rest[0] == "tagged" && len(rest) >= 4:
			if err = f.Tagged.UnmarshalText([]byte(rest[1])); err == nil {
				var tag uint64
				tag, err = strconv.ParseUint(rest[3], 10, 32)
				f.Tag = uint32(tag)
			}
			rest = rest[4:]
		default:
			err = fmt.Errorf("unknown word %q", rest[0])
		}
		if err != nil {
			return f, err
		}
	}
	return f, nil
}
