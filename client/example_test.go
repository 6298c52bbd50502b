package client_test

import (
	"context"
	"crypto/rand"
	"fmt"
	"log"
	"log/slog"
	"net"
	"os"
	"time"

	"github.com/flotilla-log/flotilla/client"
	"github.com/flotilla-log/flotilla/internal/node"
	"github.com/flotilla-log/flotilla/internal/vfs"
)

// startServer starts a node of its own for an example, as `flotilla serve`
// would, and returns its address.
func startServer() (addr string, stop func()) {
	dir, err := os.MkdirTemp("", "flotilla-example-")
	if err != nil {
		log.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	n, err := node.Start(context.Background(), node.Options{
		FS: vfs.OS, Dir: dir, NodeID: 1, Listener: l,
		JournalBytes: 16 << 20, JournalFileBytes: 4 << 20,
		Now: time.Now, Rand: rand.Reader, Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		log.Fatal(err)
	}
	return l.Addr().String(), func() {
		_ = n.Close(context.Background())
		_ = os.RemoveAll(dir)
	}
}

// Create a topic, append records to it, and read them back.
func Example() {
	addr, stop := startServer()
	defer stop()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()

	c, err := client.New(client.Config{Bootstrap: []string{addr}})
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Admin().CreateTopic(ctx, client.TopicSpec{Name: "orders", Partitions: 1}); err != nil {
		log.Fatal(err)
	}

	p, err := c.NewProducer(client.ProducerConfig{Topic: "orders"})
	if err != nil {
		log.Fatal(err)
	}
	for _, event := range []string{"placed", "paid", "shipped"} {
		// When SendSync returns, the record is on disk.
		r, err := p.SendSync(ctx, client.Record{Partition: client.AnyPartition, Key: []byte("order-1"), Value: []byte(event)})
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println("appended at offset", r.Offset)
	}
	if err := p.Close(ctx); err != nil {
		log.Fatal(err)
	}

	co, err := c.NewConsumer(client.ConsumerConfig{
		Assignments: []client.Assignment{{Topic: "orders", Partition: 0, Offset: client.Beginning}},
	})
	if err != nil {
		log.Fatal(err)
	}
	defer co.Close()
	for r, err := range co.Records(ctx) {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Printf("%d %s=%s\n", r.Offset, r.Key, r.Value)
		if r.Offset == 2 {
			break
		}
	}
	// Output:
	// appended at offset 0
	// appended at offset 1
	// appended at offset 2
	// 0 order-1=placed
	// 1 order-1=paid
	// 2 order-1=shipped
}

// Append many records without waiting for each, and learn of each what became
// of it.
func ExampleProducer_Send() {
	addr, stop := startServer()
	defer stop()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()

	c, err := client.New(client.Config{Bootstrap: []string{addr}})
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Admin().CreateTopic(ctx, client.TopicSpec{Name: "clicks", Partitions: 3}); err != nil {
		log.Fatal(err)
	}
	p, err := c.NewProducer(client.ProducerConfig{Topic: "clicks"})
	if err != nil {
		log.Fatal(err)
	}
	appended := 0 // callbacks run one at a time
	for i := range 1000 {
		r := client.Record{Partition: client.AnyPartition, Key: fmt.Appendf(nil, "user-%d", i%10), Value: []byte("click")}
		err := p.Send(ctx, r, func(r client.RecordResult) {
			if r.Err != nil {
				log.Print(r.Err)
				return
			}
			appended++
		})
		if err != nil {
			log.Fatal(err)
		}
	}
	if err := p.Close(ctx); err != nil { // waits for the last callback
		log.Fatal(err)
	}
	fmt.Println(appended, "appended")
	// Output: 1000 appended
}

// Look after topics.
func ExampleAdmin() {
	addr, stop := startServer()
	defer stop()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()

	c, err := client.New(client.Config{Bootstrap: []string{addr}})
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	admin := c.Admin()
	spec := client.TopicSpec{Name: "audit", Partitions: 2, Configs: map[string]string{"segment.bytes": "16777216"}}
	if _, err := admin.CreateTopic(ctx, spec); err != nil {
		log.Fatal(err)
	}
	d, err := admin.DescribeTopic(ctx, "audit")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(d.Name, len(d.Partitions), "partitions", d.Configs)
	if err := admin.DeleteTopic(ctx, "audit"); err != nil {
		log.Fatal(err)
	}
	topics, err := admin.ListTopics(ctx)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(len(topics), "topics")
	// Output:
	// audit 2 partitions map[segment.bytes:16777216]
	// 0 topics
}
