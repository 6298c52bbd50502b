// Command kafkadiff plays scenarios, sequences of requests of Kafka's protocol,
// good ones and bad ones in every version, against a server, and compares the
// answers with Apache Kafka's, field by field.
//
//	kafkadiff record -jars DIR [-out DIR]           plays them against a fresh Kafka and writes the answers down
//	kafkadiff compare -jars DIR -binary FILE        plays them against a fresh Kafka and a fresh Flotilla, and compares
//
// Kafka is started by bench/peers/kafka.sh, as it is for measuring.
//
// Answers are written with names for what differs between any two runs: ids,
// addresses, times, epochs, see names. Everything else is compared as it is, so
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
	"syscall"
	"time"
)

const usage = `usage:
  kafkadiff record -jars DIR [-script FILE] [-out DIR]
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
		flags.Parse(os.Args[2:])
		err = record(ctx, *script, *jars, *out)
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

// record plays every scenario against a fresh Kafka.
func record(ctx context.Context, script, jars, out string) error {
	return withKafka(ctx, script, jars, func(kafka string) error {
		for _, sc := range scenarios {
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
			return report(func(sc scenario) ([]step, error) {
				steps, err := run(kafka, sc, time.Now())
				if err != nil {
					return nil, fmt.Errorf("kafka: %w", err)
				}
				return steps, nil
			}, ours)
		})
	})
}

// report compares the server at addr with what want returns, and tells what is
// not as listed.
func report(want func(scenario) ([]step, error), addr string) error {
	var fields []field
	for _, sc := range scenarios {
		found, steps, err := differ(sc, want, addr)
		if err != nil {
			return err
		}
		fmt.Printf("%-26s %4d steps, %d fields differ\n", sc.name, steps, len(found))
		fields = append(fields, found...)
	}
	unlisted, gone := judge(listed, fields)
	for _, f := range unlisted {
		fmt.Println("not listed:", f)
	}
	for _, d := range gone {
		fmt.Printf("listed, but no longer so: %s: %s\n", d.step, d.path)
	}
	if len(unlisted)+len(gone) > 0 {
		return fmt.Errorf("kafkadiff: %d fields differ and are not listed, %d listed differences no longer occur", len(unlisted), len(gone))
	}
	fmt.Printf("%d fields differ, all as listed\n", len(fields))
	return nil
}

// differ plays one scenario against addr and returns the fields that are not as
// want says, and the number of steps compared.
func differ(sc scenario, want func(scenario) ([]step, error), addr string) ([]field, int, error) {
	theirs, err := want(sc)
	if err != nil {
		return nil, 0, err
	}
	if theirs, err = reread(theirs); err != nil {
		return nil, 0, err
	}
	ours, err := run(addr, sc, time.Now())
	if err != nil {
		return nil, 0, fmt.Errorf("flotilla: %w", err)
	}
	if ours, err = reread(ours); err != nil {
		return nil, 0, err
	}
	return compare(sc.name, theirs, ours), len(theirs), nil
}
