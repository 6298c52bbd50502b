package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/flotilla-log/flotilla/internal/peer"
)

// kafkaSettings are what is not Kafka's default: a group's first rebalance is not
// delayed, on the node neither (nodeSettings), and what the server assigns it works
// out with the heartbeat that calls for it, not in the background and once a second.
const kafkaSettings = "group.initial.rebalance.delay.ms=0\n" +
	"group.consumer.assignment.interval.ms=0\n" +
	"group.consumer.assignor.offload.enable=false"

// nodeSettings are the node's: the same delay, and Kafka's time between heartbeats,
// however few members there are.
var nodeSettings = map[string]string{
	"node.id": "1", "group.initial.rebalance.delay": "0s", "group.consumer.heartbeat.interval.min": "5s",
}

// withKafka calls f with the address of a fresh Kafka, which is gone afterwards,
// and its files too. If a scenario cannot be played against it, the error tells
// what Kafka said. When ctx is done, Kafka is stopped, and f's connections to it
// end.
func withKafka(ctx context.Context, script, jars string, f func(addr string) error) error {
	version, err := peer.KafkaVersion(jars)
	if err != nil {
		return err
	}
	if version != kafkaVersion {
		return fmt.Errorf("kafkadiff: the jars in %s are of Kafka %s, want %s; make kafka-jars KAFKA=DIR fetches them into an empty directory", jars, version, kafkaVersion)
	}
	return withServer(ctx, 2, func(dir string, port int) *peer.Server {
		k := peer.Kafka(script, jars, filepath.Join(dir, "data"), port)
		k.Args = append([]string{"env", "KAFKA_SETTINGS=" + kafkaSettings}, k.Args...)
		return k
	}, f)
}

// withFlotilla is withKafka for the binary.
func withFlotilla(ctx context.Context, binary string, f func(addr string) error) error {
	return withServer(ctx, 1, func(dir string, port int) *peer.Server {
		var flags []string
		for key, value := range nodeSettings {
			flags = append(flags, "--"+key, value)
		}
		return peer.Flotilla(binary, filepath.Join(dir, "data"), port, flags...)
	}, f)
}

func withServer(ctx context.Context, ports int, server func(dir string, port int) *peer.Server, f func(addr string) error) error {
	dir, err := os.MkdirTemp("", "kafkadiff-")
	if err != nil {
		return fmt.Errorf("kafkadiff: %w", err)
	}
	defer os.RemoveAll(dir)
	free, err := peer.FreePorts(ports)
	if err != nil {
		return err
	}
	s := server(dir, free[0])
	if err := s.Start(ctx, dir); err != nil {
		return err
	}
	defer s.Stop()
	defer context.AfterFunc(ctx, func() { s.Stop() })()
	err = f(s.Addr)
	var u unplayable
	if errors.As(err, &u) && u.addr == s.Addr {
		return fmt.Errorf("%s: %w; it said:\n%s", s.Name, err, s.Said())
	}
	return err
}
