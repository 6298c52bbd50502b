// Command orders has orders, and services that each hear of all of them, with
// franz-go.
//
//	go run ./examples/franz-go/orders 127.0.0.1:9092 create
//	go run ./examples/franz-go/orders 127.0.0.1:9092 work order-service
//	go run ./examples/franz-go/orders 127.0.0.1:9092 work billing
//	go run ./examples/franz-go/orders 127.0.0.1:9092 place 1 20
//	go run ./examples/franz-go/orders 127.0.0.1:9092 rewind billing
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
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
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
	if len(args) < 2 {
		args = []string{"", ""}
	}
	switch addr, command, args := args[0], args[1], args[2:]; {
	case command == "create" && len(args) == 0:
		return create(ctx, addr)
	case command == "place" && len(args) == 2:
		return place(ctx, addr, args[0], args[1])
	case command == "work" && len(args) == 1:
		return work(ctx, addr, args[0])
	case command == "rewind" && len(args) == 1:
		return rewind(ctx, addr, args[0])
	}
	return errors.New("usage: orders HOST:PORT create|place FIRST LAST|work GROUP|rewind GROUP")
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

func create(ctx context.Context, addr string) error {
	cl, err := kgo.NewClient(kgo.SeedBrokers(addr))
	if err != nil {
		return err
	}
	defer cl.Close()
	if _, err := kadm.NewClient(cl).CreateTopic(ctx, 6, -1, nil, topic); err != nil {
		return err
	}
	say("created", map[string]any{"topic": topic})
	return nil
}

func place(ctx context.Context, addr, first, last string) error {
	from, err := strconv.Atoi(first)
	if err != nil {
		return err
	}
	to, err := strconv.Atoi(last)
	if err != nil {
		return err
	}
	// Producers of franz-go are idempotent: what is sent again after an error is in
	// the topic once.
	cl, err := kgo.NewClient(kgo.SeedBrokers(addr), kgo.DefaultProduceTopic(topic), kgo.AlwaysRetryEOF())
	if err != nil {
		return err
	}
	defer cl.Close()
	for _, event := range events {
		var records []*kgo.Record
		for n := from; n <= to; n++ {
			order := fmt.Sprintf("order-%d", n)
			value, err := json.Marshal(orderEvent{event, order})
			if err != nil {
				return err
			}
			records = append(records, &kgo.Record{Key: []byte(order), Value: value})
		}
		if err := cl.ProduceSync(ctx, records...).FirstErr(); err != nil {
			return err
		}
		for _, r := range records {
			say("placed", map[string]any{"order": string(r.Key), "event": event})
		}
	}
	return nil
}

func work(ctx context.Context, addr, group string) error {
	owned := make(map[int32]bool)
	changed := func(partitions map[string][]int32, owns bool) {
		for _, p := range partitions[topic] {
			if owned[p] = owns; !owns {
				delete(owned, p)
			}
		}
		say("assigned", map[string]any{"partitions": slices.AppendSeq([]int32{}, maps.Keys(owned))})
	}
	cl, err := kgo.NewClient(
		kgo.SeedBrokers(addr), kgo.ConsumerGroup(group), kgo.ConsumeTopics(topic),
		// A group that has committed nothing yet begins at the first event.
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		// Partitions come and go while this program waits for events, not while it
		// handles some.
		kgo.BlockRebalanceOnPoll(), kgo.DisableAutoCommit(),
		kgo.OnPartitionsAssigned(func(_ context.Context, _ *kgo.Client, p map[string][]int32) { changed(p, true) }),
		kgo.OnPartitionsRevoked(func(_ context.Context, _ *kgo.Client, p map[string][]int32) { changed(p, false) }),
		kgo.OnPartitionsLost(func(_ context.Context, _ *kgo.Client, p map[string][]int32) { changed(p, false) }),
	)
	if err != nil {
		return err
	}
	defer cl.CloseAllowingRebalance() // leaves the group: the others get the partitions
	for {
		fetches := cl.PollFetches(ctx)
		if ctx.Err() != nil {
			return nil // interrupted, with everything handled and committed
		}
		fetches.EachError(func(_ string, partition int32, err error) {
			fmt.Fprintf(os.Stderr, "orders: partition %d: %v\n", partition, err) // it is tried again
		})
		for _, r := range fetches.Records() {
			if err := handle(r); err != nil {
				return err
			}
		}
		// If the process is killed before this, whoever has the partition next gets the
		// events again. That is at least once.
		if err := commit(cl, fetches.Records()); err != nil {
			return err
		}
		cl.AllowRebalance()
	}
}

func handle(r *kgo.Record) error {
	var e orderEvent
	if err := json.Unmarshal(r.Value, &e); err != nil {
		return fmt.Errorf("partition %d, offset %d: %w", r.Partition, r.Offset, err)
	}
	say("handled", map[string]any{
		"event": e.Event, "order": e.Order, "key": string(r.Key), "partition": r.Partition, "offset": r.Offset,
	})
	return nil
}

// commit commits what was handled. It goes on when the program is interrupted.
func commit(cl *kgo.Client, records []*kgo.Record) error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	return cl.CommitRecords(ctx, records...)
}

func rewind(ctx context.Context, addr, group string) error {
	cl, err := kgo.NewClient(kgo.SeedBrokers(addr))
	if err != nil {
		return err
	}
	defer cl.Close()
	admin := kadm.NewClient(cl)
	starts, err := admin.ListStartOffsets(ctx, topic)
	if err != nil {
		return err
	}
	if err := starts.Error(); err != nil {
		return err
	}
	if err := admin.CommitAllOffsets(ctx, group, starts.Offsets()); err != nil {
		return err
	}
	say("rewound", map[string]any{"group": group})
	return nil
}
