package client_test

import (
	"context"
	"errors"
	"expvar"
	"fmt"
	"log"
	"time"

	"github.com/flotilla-log/flotilla/client"
)

// fill makes a topic of one partition with the values "0" to "n-1", for the
// examples that read.
func fill(ctx context.Context, c *client.Client, topic string, n int) {
	if _, err := c.Admin().CreateTopic(ctx, client.TopicSpec{Name: topic, Partitions: 1}); err != nil {
		log.Fatal(err)
	}
	p, err := c.NewProducer(client.ProducerConfig{Topic: topic})
	if err != nil {
		log.Fatal(err)
	}
	for i := range n {
		if err := p.Send(ctx, client.Record{Value: fmt.Append(nil, i)}, nil); err != nil {
			log.Fatal(err)
		}
	}
	if err := p.Close(ctx); err != nil {
		log.Fatal(err)
	}
}

// Read from the beginning, from an offset, and from the end on.
func ExampleClient_NewConsumer() {
	addr, stop := startServer()
	defer stop()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	c, err := client.New(client.Config{Bootstrap: []string{addr}})
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	fill(ctx, c, "clicks", 10)

	first := func(ctx context.Context, from int64) {
		co, err := c.NewConsumer(client.ConsumerConfig{
			Assignments: []client.Assignment{{Topic: "clicks", Partition: 0, Offset: from}},
			// What is held for the program, at most: the credit that servers have.
			MaxPrefetchedBytes: 4 << 20,
		})
		if err != nil {
			log.Fatal(err)
		}
		defer co.Close()
		for r, err := range co.Records(ctx) {
			if errors.Is(err, context.DeadlineExceeded) {
				fmt.Println("nothing after the end")
				break
			}
			if err != nil {
				log.Fatal(err)
			}
			fmt.Printf("from %d: offset %d holds %s\n", from, r.Offset, r.Value)
			break
		}
	}
	first(ctx, client.Beginning)
	first(ctx, 7)
	soon, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	first(soon, client.End)
	// Output:
	// from -2: offset 0 holds 0
	// from 7: offset 7 holds 7
	// nothing after the end
}

// Pause a partition that cannot be worked on for a while, and replay it.
func ExampleConsumer_Pause() {
	addr, stop := startServer()
	defer stop()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	c, err := client.New(client.Config{Bootstrap: []string{addr}})
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	fill(ctx, c, "jobs", 3)

	co, err := c.NewConsumer(client.ConsumerConfig{
		Assignments: []client.Assignment{{Topic: "jobs", Partition: 0, Offset: client.Beginning}},
	})
	if err != nil {
		log.Fatal(err)
	}
	defer co.Close()
	replayed := false
	for r, err := range co.Records(ctx) {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Printf("job %s\n", r.Value)
		switch {
		case r.Offset == 0:
			// Nothing of the partition comes, and nothing of it is held, until
			// it is resumed.
			if err := co.Pause("jobs", 0); err != nil {
				log.Fatal(err)
			}
			fmt.Println(len(co.Paused()), "paused")
			if err := co.Resume("jobs", 0); err != nil {
				log.Fatal(err)
			}
		case r.Offset == 2 && !replayed:
			replayed = true
			if err := co.Seek("jobs", 0, 1); err != nil {
				log.Fatal(err)
			}
			fmt.Println("again from 1")
		case r.Offset == 2:
			return
		}
	}
	// Output:
	// job 0
	// 1 paused
	// job 1
	// job 2
	// again from 1
	// job 1
	// job 2
}

// Keep the place beside the results, add and remove partitions while reading.
func ExampleConsumer_Assign() {
	addr, stop := startServer()
	defer stop()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	c, err := client.New(client.Config{Bootstrap: []string{addr}})
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	fill(ctx, c, "a", 3)
	fill(ctx, c, "b", 2)

	co, err := c.NewConsumer(client.ConsumerConfig{
		Assignments: []client.Assignment{{Topic: "a", Partition: 0, Offset: client.Beginning}},
	})
	if err != nil {
		log.Fatal(err)
	}
	defer co.Close()
	read := 0
	for r, err := range co.Records(ctx) {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Printf("%s %s\n", r.Topic, r.Value)
		if read++; read == 2 { // enough of a, for now
			fmt.Println("left at", co.Assigned()[0].Offset)
			if err := co.Unassign("a", 0); err != nil {
				log.Fatal(err)
			}
			if err := co.Assign(client.Assignment{Topic: "b", Offset: client.Beginning}); err != nil {
				log.Fatal(err)
			}
		}
		if read == 4 {
			break
		}
	}
	// Output:
	// a 0
	// a 1
	// left at 2
	// b 0
	// b 1
}

// Look up where partitions begin and end.
func ExampleAdmin_Offsets() {
	addr, stop := startServer()
	defer stop()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	c, err := client.New(client.Config{Bootstrap: []string{addr}})
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	fill(ctx, c, "events", 5)

	begin, err := c.Admin().Offsets(ctx, "events", client.Earliest)
	if err != nil {
		log.Fatal(err)
	}
	end, err := c.Admin().Offsets(ctx, "events", client.Latest)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("partition 0 holds the offsets [%d, %d)\n", begin[0], end[0])
	// Output: partition 0 holds the offsets [0, 5)
}

// Count what a client does. Expvar serves its variables as JSON under
// /debug/vars; any other library of metrics will do.
func ExampleHooks() {
	addr, stop := startServer()
	defer stop()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	metrics := expvar.NewMap("flotilla_client") // safe for concurrent use
	c, err := client.New(client.Config{
		Bootstrap: []string{addr},
		Hooks: client.Hooks{
			Connected: func(e client.ConnectEvent) {
				if e.Err != nil {
					metrics.Add("connects_failed", 1)
				} else {
					metrics.Add("connects", 1)
				}
			},
			Answered: func(e client.RequestEvent) {
				metrics.Add("requests", 1)
				metrics.AddFloat("request_seconds", e.Duration.Seconds())
			},
			Batch: func(e client.BatchEvent) {
				switch e.Stage {
				case client.BatchAcked:
					metrics.Add("records_acked", int64(e.Records))
				case client.BatchRetried:
					metrics.Add("batches_retried", 1)
				case client.BatchFailed:
					metrics.Add("records_failed", int64(e.Records))
				}
			},
			Consumed: func(e client.ConsumeEvent) {
				metrics.Add("records_consumed", int64(e.Records))
			},
			Throttled: func(e client.ThrottleEvent) {
				metrics.AddFloat("throttled_seconds", e.Duration.Seconds())
			},
		},
	})
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	fill(ctx, c, "measured", 100)
	co, err := c.NewConsumer(client.ConsumerConfig{
		Assignments: []client.Assignment{{Topic: "measured", Offset: client.Beginning}},
	})
	if err != nil {
		log.Fatal(err)
	}
	defer co.Close()
	for r, err := range co.Records(ctx) {
		if err != nil {
			log.Fatal(err)
		}
		if r.Offset == 99 {
			break
		}
	}
	for _, name := range []string{"connects", "records_acked", "records_consumed", "connects_failed"} {
		fmt.Println(name, metrics.Get(name))
	}
	// Output:
	// connects 1
	// records_acked 100
	// records_consumed 100
	// connects_failed <nil>
}

// Tell what went wrong. What can be tried again was tried already, until
// DeliveryTimeout or RequestTimeout.
func ExampleCodeOf() {
	addr, stop := startServer()
	defer stop()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	c, err := client.New(client.Config{Bootstrap: []string{addr}})
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	fill(ctx, c, "small", 3)

	_, err = c.Admin().CreateTopic(ctx, client.TopicSpec{Name: "small"})
	code, _ := client.CodeOf(err)
	fmt.Println(code.Name())

	p, err := c.NewProducer(client.ProducerConfig{Topic: "small"})
	if err != nil {
		log.Fatal(err)
	}
	_, err = p.SendSync(ctx, client.Record{Value: make([]byte, 2<<20)})
	code, _ = client.CodeOf(err)
	// Only this error means that the record may be there all the same.
	fmt.Println(code.Name(), "unknown outcome:", errors.Is(err, client.ErrUnknownOutcome))
	if err := p.Close(ctx); err != nil {
		log.Fatal(err)
	}

	co, err := c.NewConsumer(client.ConsumerConfig{
		Assignments: []client.Assignment{{Topic: "small", Offset: 99}},
	})
	if err != nil {
		log.Fatal(err)
	}
	defer co.Close()
	for _, err := range co.Records(ctx) {
		var pe *client.PartitionError
		if errors.As(err, &pe) { // this partition has stopped, the others go on
			code, _ = client.CodeOf(err)
			fmt.Printf("%s[%d] at %d: %s\n", pe.Topic, pe.Partition, pe.Offset, code.Name())
			break
		}
	}
	// Output:
	// TOPIC_ALREADY_EXISTS
	// MESSAGE_TOO_LARGE unknown outcome: false
	// small[0] at 99: OFFSET_OUT_OF_RANGE
}

// Stop in good order: stop reading, send what is left, then close.
func ExampleProducer_Close() {
	addr, stop := startServer()
	defer stop()
	c, err := client.New(client.Config{Bootstrap: []string{addr}})
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close() // last: producers and consumers use its connections

	// In a program: signal.NotifyContext(context.Background(), os.Interrupt).
	ctx, interrupt := context.WithCancel(context.Background())
	defer interrupt()
	fill(ctx, c, "in", 3)
	if _, err := c.Admin().CreateTopic(ctx, client.TopicSpec{Name: "out", Partitions: 1}); err != nil {
		log.Fatal(err)
	}
	co, err := c.NewConsumer(client.ConsumerConfig{
		Assignments: []client.Assignment{{Topic: "in", Offset: client.Beginning}},
	})
	if err != nil {
		log.Fatal(err)
	}
	p, err := c.NewProducer(client.ProducerConfig{Topic: "out"})
	if err != nil {
		log.Fatal(err)
	}
	sent := 0
	for r, err := range co.Records(ctx) {
		if ctx.Err() != nil {
			break
		}
		if err != nil {
			log.Fatal(err)
		}
		if err := p.Send(ctx, client.Record{Key: r.Key, Value: r.Value}, func(client.RecordResult) { sent++ }); err != nil {
			break
		}
		if r.Offset == 2 {
			interrupt() // somebody presses Ctrl-C
		}
	}
	co.Close()
	grace, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := p.Close(grace); err != nil { // waits for the last callback
		log.Print(err)
	}
	fmt.Println(sent, "records copied; the next run begins at", co.Assigned()[0].Offset)
	// Output: 3 records copied; the next run begins at 3
}
