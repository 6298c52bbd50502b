// Command orders has orders, and services that each hear of all of them, with the
// native client.
//
//	go run ./examples/native/orders 127.0.0.1:9092 create
//	go run ./examples/native/orders 127.0.0.1:9092 work order-service
//	go run ./examples/native/orders 127.0.0.1:9092 work billing
//	go run ./examples/native/orders 127.0.0.1:9092 place 1 20
//	go run ./examples/native/orders 127.0.0.1:9092 rewind billing
//
// place sends what happens to the orders 1 to 20: order.placed, order.paid and
// order.shipped, with the order's id as the key, so that what happens to one
// order lies in one partition, in its order.
//
// work handles events as a member of a group, until it is interrupted. Each group
// gets every event; members of one group, in as many terminals as there are
// partitions, share them. rewind lets a group whose members have all left begin
// again. What happened goes to standard output, one JSON object a line.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"syscall"

	"github.com/flotilla-log/flotilla/client"
)

const topic = "orders"

var events = []string{"order.placed", "order.paid", "order.shipped"}

// orderEvent is the value of a record.
type orderEvent struct {
	Event string `json:"event"`
	Order string `json:"order"`
}

func main() {
	ctx, cancel := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer cancel()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "orders:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	command, err := parse(args)
	if err != nil {
		return err
	}
	c, err := client.New(client.Config{Bootstrap: args[:1]})
	if err != nil {
		return err
	}
	return errors.Join(command(ctx, c), c.Close())
}

// parse returns what is to be done, after the address.
func parse(args []string) (func(context.Context, *client.Client) error, error) {
	if len(args) < 2 {
		args = []string{"", ""}
	}
	switch command, args := args[1], args[2:]; {
	case command == "create" && len(args) == 0:
		return create, nil
	case command == "place" && len(args) == 2:
		first, err := strconv.Atoi(args[0])
		if err != nil {
			return nil, err
		}
		last, err := strconv.Atoi(args[1])
		return func(ctx context.Context, c *client.Client) error { return place(ctx, c, first, last) }, err
	case command == "work" && len(args) == 1:
		return func(ctx context.Context, c *client.Client) error { return work(ctx, c, args[0]) }, nil
	case command == "rewind" && len(args) == 1:
		return func(ctx context.Context, c *client.Client) error { return rewind(ctx, c, args[0]) }, nil
	}
	return nil, errors.New("usage: orders HOST:PORT create|place FIRST LAST|work GROUP|rewind GROUP")
}

// say prints what happened.
func say(step string, fields map[string]any) {
	fields["step"] = step
	line, err := json.Marshal(fields)
	if err != nil {
		panic(err) // strings and numbers always encode
	}
	fmt.Println(string(line))
}

func create(ctx context.Context, c *client.Client) error {
	if _, err := c.Admin().CreateTopic(ctx, client.TopicSpec{Name: topic, Partitions: 6}); err != nil {
		return err
	}
	say("created", map[string]any{"topic": topic})
	return nil
}

func place(ctx context.Context, c *client.Client, first, last int) (err error) {
	// Idempotent, unless told otherwise: what is sent again after an error is in the
	// topic once.
	p, err := c.NewProducer(client.ProducerConfig{Topic: topic})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.Close(ctx)) }()
	for _, event := range events {
		for n := first; n <= last; n++ {
			e := orderEvent{event, fmt.Sprintf("order-%d", n)}
			value, err := json.Marshal(e)
			if err != nil {
				return err
			}
			r := client.Record{Partition: client.AnyPartition, Key: []byte(e.Order), Value: value}
			if err := p.Send(ctx, r, func(res client.RecordResult) { placed(e, res.Err) }); err != nil {
				return err
			}
		}
		// Also while some are under way, those of a partition are kept in order.
	}
	return p.Flush(ctx)
}

// placed is told what became of an event.
func placed(e orderEvent, err error) {
	if err != nil {
		fmt.Fprintf(os.Stderr, "orders: %s of %s: %v\n", e.Event, e.Order, err)
		return
	}
	say("placed", map[string]any{"order": e.Order, "event": e.Event})
}

func work(ctx context.Context, c *client.Client, group string) (err error) {
	owned := make(map[int32]bool)
	changed := func(partitions []client.TopicPartition, owns bool) {
		for _, p := range partitions {
			if owned[p.Partition] = owns; !owns {
				delete(owned, p.Partition)
			}
		}
		say("assigned", map[string]any{"partitions": slices.AppendSeq([]int32{}, maps.Keys(owned))})
	}
	g, err := c.JoinGroup(client.GroupConfig{
		Group: group, Topics: []string{topic},
		Start:    client.Beginning, // of a group that has committed nothing yet
		Assigned: func(p []client.TopicPartition) { changed(p, true) },
		Revoked:  func(p []client.TopicPartition) { changed(p, false) },
		Lost:     func(p []client.TopicPartition) { changed(p, false) },
	})
	if err != nil {
		return err
	}
	// Leaving commits what was handled, and gives the partitions to the others.
	defer func() { err = errors.Join(err, g.Close(context.Background())) }()
	// An event counts as handled when the next one is asked for. If the process is
	// killed before that was committed, whoever has the partition next gets it again.
	for r, err := range g.Records(ctx) {
		switch {
		case ctx.Err() != nil:
			return nil // interrupted
		case err != nil:
			return err
		}
		if err := handle(r); err != nil {
			return err
		}
	}
	return nil
}

func handle(r client.Record) error {
	var e orderEvent
	if err := json.Unmarshal(r.Value, &e); err != nil {
		return fmt.Errorf("partition %d, offset %d: %w", r.Partition, r.Offset, err)
	}
	say("handled", map[string]any{
		"event": e.Event, "order": e.Order, "key": string(r.Key), "partition": r.Partition, "offset": r.Offset,
	})
	return nil
}

func rewind(ctx context.Context, c *client.Client, group string) error {
	starts, err := c.Admin().Offsets(ctx, topic, client.Earliest)
	if err != nil {
		return err
	}
	offsets := make(map[client.TopicPartition]int64)
	for p, start := range starts {
		offsets[client.TopicPartition{Topic: topic, Partition: int32(p)}] = start
	}
	if err := c.Groups().SetOffsets(ctx, group, offsets); err != nil {
		return err
	}
	say("rewound", map[string]any{"group": group})
	return nil
}
