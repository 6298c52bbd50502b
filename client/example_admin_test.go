package client_test

import (
	"context"
	"fmt"
	"hash/crc32"
	"log"
	"time"

	"github.com/flotilla-log/flotilla/client"
)

// Change a topic: its configs, its partitions, and what it keeps.
func ExampleAdmin_AlterTopic() {
	addr, stop := startServer()
	defer stop()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	c, err := client.New(client.Config{Bootstrap: []string{addr}})
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	fill(ctx, c, "audit", 10)
	admin := c.Admin()

	// All of a change is made, or nothing; configs that it does not name stay.
	configs, err := admin.AlterTopic(ctx, "audit", client.TopicChange{
		Set:    map[string]string{"retention.ms": "86400000"},
		Delete: []string{"segment.ms"}, // back to the default
	})
	if err != nil {
		log.Fatal(err)
	}
	for _, config := range configs {
		if !config.Default {
			fmt.Println(config.Name, config.Value)
		}
	}

	// Three in all. Keys may go to other partitions than before.
	if err := admin.AddPartitions(ctx, "audit", 3, false); err != nil {
		log.Fatal(err)
	}

	// What is below offset 4 of partition 0 goes, for good.
	starts, err := admin.DeleteRecords(ctx, "audit", map[int32]int64{0: 4})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("partition 0 begins at", starts[0])
	d, err := admin.DescribeTopic(ctx, "audit")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("the topic has", len(d.Partitions), "partitions")
	// Output:
	// retention.ms 86400000
	// partition 0 begins at 4
	// the topic has 3 partitions
}

// Look up records by their time, and read from a time on.
func ExampleAdmin_OffsetsForTime() {
	addr, stop := startServer()
	defer stop()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	c, err := client.New(client.Config{Bootstrap: []string{addr}})
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Admin().CreateTopic(ctx, client.TopicSpec{Name: "visits", Partitions: 1}); err != nil {
		log.Fatal(err)
	}
	p, err := c.NewProducer(client.ProducerConfig{Topic: "visits"})
	if err != nil {
		log.Fatal(err)
	}
	noon := time.Now().UTC().Truncate(time.Hour)
	for i := range 6 { // one every ten minutes
		r := client.Record{Timestamp: noon.Add(time.Duration(i) * 10 * time.Minute), Value: fmt.Append(nil, i)}
		if err := p.Send(ctx, r, nil); err != nil {
			log.Fatal(err)
		}
	}
	if err := p.Close(ctx); err != nil {
		log.Fatal(err)
	}

	from := noon.Add(25 * time.Minute)
	found, err := c.Admin().OffsetsForTime(ctx, "visits", from)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("offset", found[0].Offset, "is of minute", found[0].Timestamp.Sub(noon).Minutes())

	co, err := c.NewConsumer(client.ConsumerConfig{
		Assignments: []client.Assignment{{Topic: "visits", Partition: 0, From: from}},
	})
	if err != nil {
		log.Fatal(err)
	}
	defer co.Close()
	for r, err := range co.Records(ctx) {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Printf("visit %s\n", r.Value)
		if r.Offset == 5 {
			break
		}
	}
	// Output:
	// offset 3 is of minute 30
	// visit 3
	// visit 4
	// visit 5
}

// Records of a key keep their order, since they share a partition. Which one is
// for the producer's partitioner to say.
func ExamplePartitioner() {
	addr, stop := startServer()
	defer stop()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	c, err := client.New(client.Config{Bootstrap: []string{addr}})
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Admin().CreateTopic(ctx, client.TopicSpec{Name: "orders", Partitions: 4}); err != nil {
		log.Fatal(err)
	}
	p, err := c.NewProducer(client.ProducerConfig{
		Topic: "orders",
		// Without it: client.KeyHash, which is what Kafka's clients do too.
		Partitioner: func(key []byte, partitions int32) int32 {
			if string(key) == "vip" {
				return 0 // alone in its partition
			}
			return 1 + int32(crc32.ChecksumIEEE(key)%uint32(partitions-1))
		},
	})
	if err != nil {
		log.Fatal(err)
	}
	for _, key := range []string{"vip", "a", "b", "vip"} {
		r, err := p.SendSync(ctx, client.Record{Partition: client.AnyPartition, Key: []byte(key), Value: []byte("order")})
		if err != nil {
			log.Fatal(err)
		}
		fmt.Printf("%s: partition %d, offset %d\n", key, r.Partition, r.Offset)
	}
	if err := p.Close(ctx); err != nil {
		log.Fatal(err)
	}
	// Output:
	// vip: partition 0, offset 0
	// a: partition 1, offset 0
	// b: partition 3, offset 0
	// vip: partition 0, offset 1
}
