package kafka_test

import (
	"context"
	"sync"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// TestFranzGo has a client of franz-go's, which picks versions by ApiVersions,
// ask for many things at once.
func TestFranzGo(t *testing.T) {
	t.Parallel()
	n := startCore(t, nil)
	cl, err := kgo.NewClient(kgo.SeedBrokers(n.addr), kgo.ClientID("franz"), kgo.SoftwareNameAndVersion("flotilla-test", "1.0"))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := cl.Ping(ctx); err != nil {
		t.Fatal(err)
	}
	var group sync.WaitGroup
	for i := range 20 {
		group.Go(func() {
			for range 20 {
				name := "topic-" + string('a'+rune(i))
				req := kmsg.NewPtrMetadataRequest()
				req.AllowAutoTopicCreation = true
				req.Topics = []kmsg.MetadataRequestTopic{{Topic: &name}}
				resp, err := req.RequestWith(ctx, cl)
				if err != nil {
					t.Error(err)
					return
				}
				if len(resp.Topics) != 1 || *resp.Topics[0].Topic != name || resp.Topics[0].ErrorCode != 0 || resp.Topics[0].Partitions[0].Leader != 7 {
					t.Errorf("%s: %+v", name, resp.Topics)
				}
			}
		})
	}
	group.Wait()
	resp, err := kmsg.NewPtrDescribeClusterRequest().RequestWith(ctx, cl)
	if err != nil || resp.ClusterID != n.ClusterID() {
		t.Errorf("%+v, %v", resp, err)
	}
}
