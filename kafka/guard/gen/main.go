// Command gen makes the tables that kafka/guard walks requests by, from Kafka's
// own message definitions, in two steps.
//
// The first needs the definitions, which lie in the published jar
// org.apache.kafka:kafka-clients under common/message, and is run when another
// version of Kafka is wanted:
//
//	mvn dependency:copy -Dartifact=org.apache.kafka:kafka-clients:4.4.0 -DoutputDirectory=/tmp/kafka
//	unzip -d /tmp/kafka /tmp/kafka/kafka-clients-4.4.0.jar 'common/message/*.json'
//	go run ./gen -kafka 4.4.0 -definitions /tmp/kafka/common/message
//
// It writes messages.txt, a summary of what the requests consist of. The second
// makes tables.go of messages.txt, and needs this module alone; go generate
// runs it, and a test runs it again:
//
//	go run ./gen
//
// With -check, nothing is written; it fails if the definitions do not give the
// summary that lies there.
//
// Both are run from kafka/guard.
package main

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"log"
	"os"
	"path/filepath"
)

const (
	summaryFile = "messages.txt"
	tablesFile  = "tables.go"
)

func main() {
	log.SetFlags(0)
	log.SetPrefix("gen: ")
	definitions := flag.String("definitions", "", "the `folder` of Kafka's message definitions, to make the summary of first")
	version := flag.String("kafka", "", "the `version` of Kafka that they are of")
	check := flag.Bool("check", false, "only compare the definitions with the summary")
	flag.Parse()
	if err := run(".", *definitions, *version, *check); err != nil {
		log.Fatal(err)
	}
}

// run makes what is to be made in dir.
func run(dir, definitions, version string, check bool) error {
	if (definitions == "") != (version == "") || check && definitions == "" {
		return errors.New("-definitions and -kafka go together, and -check wants both")
	}
	if definitions != "" {
		msgs, err := readDefinitions(definitions)
		if err != nil {
			return err
		}
		summary, name := summarise(version, msgs), filepath.Join(dir, summaryFile)
		if check {
			return compare(name, summary)
		}
		if err := os.WriteFile(name, summary, 0o644); err != nil {
			return err
		}
	}
	code, err := generate(dir)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, tablesFile), code, 0o644)
}

func compare(name string, want []byte) error {
	got, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	if !bytes.Equal(got, want) {
		return fmt.Errorf("%s is not the summary of these definitions: run without -check", name)
	}
	return nil
}

// generate returns the tables for the summary in dir.
func generate(dir string) ([]byte, error) {
	text, err := os.ReadFile(filepath.Join(dir, summaryFile))
	if err != nil {
		return nil, err
	}
	version, msgs, err := parseSummary(text)
	if err != nil {
		return nil, err
	}
	return compile(version, msgs)
}
