package client_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"time"

	"github.com/flotilla-log/flotilla/client"
)

// Take part in a consumer group: consume, process, commit.
func ExampleClient_JoinGroup() {
	addr, stop := startServer()
	defer stop()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	c, err := client.New(client.Config{Bootstrap: []string{addr}})
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	fill(ctx, c, "orders", 5)

	g, err := c.JoinGroup(client.GroupConfig{
		Group: "billing", Topics: []string{"orders"},
		Assigned: func(parts []client.TopicPartition) { fmt.Println("assigned", parts) },
		Revoked:  func(parts []client.TopicPartition) { fmt.Println("revoked", parts) },
		Lost:     func(parts []client.TopicPartition) { fmt.Println("lost", parts) },
	})
	if err != nil {
		log.Fatal(err)
	}
	for r, err := range g.Records(ctx) {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Printf("billed %s\n", r.Value)
		if r.Offset == 4 {
			break
		}
	}
	// The loop was left in the middle of the last record: it counts as worked off
	// only because of this.
	if err := g.Commit(ctx); err != nil {
		log.Fatal(err)
	}
	if err := g.Close(ctx); err != nil {
		log.Fatal(err)
	}

	// An operator's view.
	d, err := c.Groups().Describe(ctx, "billing")
	if err != nil {
		log.Fatal(err)
	}
	lags, err := c.Groups().Lag(ctx, d)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(d.State, lags[0].Topic, "committed", lags[0].Offset, "lag", lags[0].Lag)
	// Output:
	// assigned [{orders 0}]
	// billed 0
	// billed 1
	// billed 2
	// billed 3
	// billed 4
	// revoked [{orders 0}]
	// Empty orders committed 5 lag 0
}

// At least once: what was worked on when the program crashed comes again.
func ExampleDelivery_atLeastOnce() {
	addr, stop := startServer()
	defer stop()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	ops, err := client.New(client.Config{Bootstrap: []string{addr}})
	if err != nil {
		log.Fatal(err)
	}
	defer ops.Close()
	fill(ctx, ops, "orders", 5)

	// run works on orders until the record that it crashes at, if any.
	run := func(crashAt int64) {
		c, err := client.New(client.Config{Bootstrap: []string{addr}})
		if err != nil {
			log.Fatal(err)
		}
		defer c.Close()
		g, err := c.JoinGroup(client.GroupConfig{
			Group: "billing", Topics: []string{"orders"}, InstanceID: "billing-1",
			Delivery: client.AtLeastOnce, CommitInterval: -1, // the program says when
		})
		if err != nil {
			log.Fatal(err)
		}
		defer g.Close(ctx)
		for r, err := range g.Records(ctx) {
			if err != nil {
				log.Fatal(err)
			}
			fmt.Printf("billed %s\n", r.Value)
			if r.Offset == crashAt {
				fmt.Println("crashed before the commit")
				return
			}
			if err := g.Commit(ctx); err != nil { // on a majority, when it returns
				log.Fatal(err)
			}
			if r.Offset == 4 {
				return
			}
		}
	}
	run(2)
	run(-1)
	// Output:
	// billed 0
	// billed 1
	// billed 2
	// crashed before the commit
	// billed 2
	// billed 3
	// billed 4
}

// At most once: what was worked on when the program crashed, and what had come with
// it, does not come again.
func ExampleDelivery_atMostOnce() {
	addr, stop := startServer()
	defer stop()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	ops, err := client.New(client.Config{Bootstrap: []string{addr}})
	if err != nil {
		log.Fatal(err)
	}
	defer ops.Close()
	fill(ctx, ops, "pings", 5)

	run := func(crashAt int64) {
		c, err := client.New(client.Config{Bootstrap: []string{addr}})
		if err != nil {
			log.Fatal(err)
		}
		defer c.Close()
		g, err := c.JoinGroup(client.GroupConfig{
			Group: "monitor", Topics: []string{"pings"}, InstanceID: "monitor-1", Delivery: client.AtMostOnce,
		})
		if err != nil {
			log.Fatal(err)
		}
		defer g.Close(ctx)
		soon, cancel := context.WithTimeout(ctx, 2*time.Second)
		defer cancel()
		for r, err := range g.Records(soon) {
			if errors.Is(err, context.DeadlineExceeded) {
				fmt.Println("nothing more comes")
				return
			}
			if err != nil {
				log.Fatal(err)
			}
			if r.Offset == crashAt {
				fmt.Printf("crashed before %s was worked off\n", r.Value)
				return
			}
			fmt.Printf("seen %s\n", r.Value)
		}
	}
	run(2)
	run(-1)
	// Output:
	// seen 0
	// seen 1
	// crashed before 2 was worked off
	// nothing more comes
}

// Move a group to other offsets, and delete it.
func ExampleGroups() {
	addr, stop := startServer()
	defer stop()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	c, err := client.New(client.Config{Bootstrap: []string{addr}})
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	fill(ctx, c, "orders", 5)

	// A group without members is moved by whoever wants to; one that does not exist
	// is made.
	at := map[client.TopicPartition]int64{{Topic: "orders", Partition: 0}: 3}
	if err := c.Groups().SetOffsets(ctx, "audit", at); err != nil {
		log.Fatal(err)
	}
	offsets, err := c.Groups().Offsets(ctx, "audit")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("audit goes on at", offsets[0].Offset)

	g, err := c.JoinGroup(client.GroupConfig{Group: "audit", Topics: []string{"orders"}})
	if err != nil {
		log.Fatal(err)
	}
	for r, err := range g.Records(ctx) {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Printf("the first record is %s\n", r.Value)
		break
	}
	err = c.Groups().Delete(ctx, "audit")
	code, _ := client.CodeOf(err)
	fmt.Println(code.Name())
	if err := g.Close(ctx); err != nil {
		log.Fatal(err)
	}
	if err := c.Groups().Delete(ctx, "audit"); err != nil {
		log.Fatal(err)
	}
	groups, err := c.Groups().List(ctx)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(len(groups), "groups")
	// Output:
	// audit goes on at 3
	// the first record is 3
	// NON_EMPTY_GROUP
	// 0 groups
}
