// Command kafkadiff plays scenarios, sequences of requests of Kafka's protocol,
// good ones and bad ones in every version, against a server, and compares the
// answers with Apache Kafka's, field by field.
//
//	kafkadiff record -jars DIR [-out DIR] [-run RE] plays them against a fresh Kafka and writes the answers down
//	kafkadiff compare -jars DIR -binary FILE        plays them against a fresh Kafka and a fresh Flotilla, and compares
//
// Kafka is started by bench/peers/kafka.sh, as it is for measuring, but for what
// kafkaSettings says of groups.
//
// Answers are written with names for what differs between any two runs: ids,
// addresses, times, epochs, see names. An epoch of a group that the server assigns is
// written by its distance from the group's first: that is 2 in Kafka 4.3.1, and 1 in
// Flotilla. Everything else is compared as it is, so
// that recording again on an unchanged Kafka changes nothing. What is recorded
// lies in testdata, and the package's test compares a Flotilla node in its own
// process with that, so that the comparison needs no Java.
//
// Every difference that stays is in the list named listed, which docs/kafka.md
// shows with its reason. A difference that is not listed fails the comparison,
// and so does a listed one that no longer occurs.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"syscall"
	"time"
)

const usage = `usage:
  kafkadiff record -jars DIR [-script FILE] [-out DIR] [-run RE]
  kafkadiff compare -jars DIR [-script FILE] -binary FILE
`

func main() {
	if len(os.Args) < 2 {
		fmt.Fprint(os.Stderr, usage)
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	flags := flag.NewFlagSet("kafkadiff "+os.Args[1], flag.ExitOnError)
	jars := flags.String("jars", "", "folder with the jars of Apache Kafka "+kafkaVersion)
	script := flags.String("script", filepath.Join("bench", "peers", "kafka.sh"), "what starts Kafka")
	var err error
	switch os.Args[1] {
	case "record":
		out := flags.String("out", filepath.Join("internal", "kafkadiff", "testdata"), "folder to write the answers to")
		only := flags.String("run", "", "regular expression: only scenarios whose names match")
		flags.Parse(os.Args[2:])
		var re *regexp.Regexp
		if re, err = regexp.Compile(*only); err == nil {
			err = record(ctx, *script, *jars, *out, re)
		}
	case "compare":
		binary := flags.String("binary", filepath.Join("bin", "flotilla"), "the server to compare")
		flags.Parse(os.Args[2:])
		err = compareLive(ctx, *script, *jars, *binary)
	default:
		fmt.Fprint(os.Stderr, usage)
		os.Exit(2)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		stop()
		os.Exit(1)
	}
}

// record plays the scenarios whose names match against a fresh Kafka.
func record(ctx context.Context, script, jars, out string, only *regexp.Regexp) error {
	return withKafka(ctx, script, jars, func(kafka string) error {
		for _, sc := range scenarios {
			if !only.MatchString(sc.name) {
				continue
			}
			steps, err := run(kafka, sc, time.Now())
			if err != nil {
				return err
			}
			if err := save(out, sc.name, steps); err != nil {
				return err
			}
			fmt.Printf("%-26s %4d steps\n", sc.name, len(steps))
		}
		return nil
	})
}

// compareLive plays every scenario against a fresh Kafka and a fresh Flotilla.
func compareLive(ctx context.Context, script, jars, binary string) error {
	return withKafka(ctx, script, jars, func(kafka string) error {
		return withFlotilla(ctx, binary, func(ours string) error {
			return report(func(sc scenario) ([]step, error) { return run(kafka, sc, time.Now()) }, ours)
		})
	})
}

// report compares the server at addr with what want returns, and tells what is
// not as listed.
func report(want func(scenario) ([]step, error), addr string) error {
	var fields []field
	var steps []played
	for _, sc := range scenarios {
		c, err := differ(sc, want, addr)
		if err != nil {
			return err
		}
		fmt.Printf("%-26s %4d steps, %d fields differ\n", sc.name, len(c.kafka), len(c.fields))
		fields, steps = append(fields, c.fields...), append(steps, c.steps()...)
	}
	wrong := judge(listed, steps, fields)
	for _, w := range wrong {
		fmt.Println(w)
	}
	if len(wrong) > 0 {
		return fmt.Errorf("kafkadiff: what differs is not as listed: see the %d lines above, and listed.go", len(wrong))
	}
	fmt.Printf("%d steps, %d fields differ, all as listed\n", len(steps), len(fields))
	return nil
}

// comparison is a scenario played against two servers.
type comparison struct {
	scenario    string
	kafka, ours []step
	fields      []field // that differ
}

// steps are the steps of both sides.
func (c *comparison) steps() []played {
	out := make([]played, 0, len(c.kafka))
	known := make(map[string]bool)
	for _, side := range [][]step{c.kafka, c.ours} {
		for _, s := range side {
			if !known[s.Step] {
				known[s.Step] = true
				out = append(out, parts(c.scenario, s.Step))
			}
		}
	}
	return out
}

// differ plays one scenario against addr and compares the answers with those that
// want returns.
func differ(sc scenario, want func(scenario) ([]step, error), addr string) (*comparison, error) {
	theirs, err := want(sc)
	if err != nil {
		return nil, err
	}
	if theirs, err = reread(theirs); err != nil {
		return nil, err
	}
	ours, err := run(addr, sc, time.Now())
	if err != nil {
		return nil, err
	}
	if ours, err = reread(ours); err != nil {
		return nil, err
	}
	return &comparison{sc.name, theirs, ours, compare(sc.name, theirs, ours)}, nil
}
