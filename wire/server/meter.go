package server

import (
	"context"
	"errors"
	"io"
	"net"
	"os"

	"github.com/flotilla-log/flotilla/broker"
	"github.com/flotilla-log/flotilla/wire/frame"
	"github.com/flotilla-log/flotilla/wire/intake"
)

// meterKinds are the kinds of requests, as metrics name them; what is none of
// them is counted under the first.
var meterKinds = []struct {
	kind frame.Kind
	name string
}{
	{0, "unknown"},
	{frame.KindPing, "ping"},
	{frame.KindMetadata, "metadata"},
	{frame.KindCreateTopic, "create_topic"},
	{frame.KindDeleteTopic, "delete_topic"},
	{frame.KindDescribeTopic, "describe_topic"},
	{frame.KindInitProducer, "init_producer"},
	{frame.KindProduce, "produce"},
	{frame.KindFetch, "fetch"},
	{frame.KindListOffsets, "list_offsets"},
	{frame.KindAddPartitions, "add_partitions"},
	{frame.KindAlterTopic, "alter_topic"},
	{frame.KindDescribeFeatures, "describe_features"},
	{frame.KindUpgradeFeatures, "upgrade_features"},
	{frame.KindDeleteRecords, "delete_records"},
	{frame.KindSubscribe, "subscribe"},
	{frame.KindCredit, "credit"},
	{frame.KindUnsubscribe, "unsubscribe"},
	{frame.KindChangeStream, "change_stream"},
	{frame.KindDescribeCluster, "describe_cluster"},
	{frame.KindTransferShard, "transfer_shard"},
	{frame.KindFindCoordinator, "find_coordinator"},
	{frame.KindGroupHeartbeat, "group_heartbeat"},
	{frame.KindCommitOffsets, "commit_offsets"},
	{frame.KindFetchOffsets, "fetch_offsets"},
	{frame.KindDeleteOffsets, "delete_offsets"},
	{frame.KindListGroups, "list_groups"},
	{frame.KindDescribeGroup, "describe_group"},
	{frame.KindDeleteGroup, "delete_group"},
}

// meterPlace is where a kind stands in meterKinds.
var meterPlace = func() (place [256]uint8) {
	for i, k := range meterKinds {
		place[k.kind] = uint8(i)
	}
	return place
}()

func newMeter() *broker.Meter {
	names := make([]string, len(meterKinds))
	for i, k := range meterKinds {
		names[i] = k.name
	}
	return broker.NewMeter("native", names, "deliver")
}

// deliverPlace is the meter's kind of what streams deliver.
var deliverPlace = len(meterKinds)

// ending says why a connection ended whose reading ended with err.
func ending(err error) broker.Ending {
	switch {
	case errors.Is(err, intake.ErrPanic):
		return broker.EndedByPanic
	case errors.Is(err, os.ErrDeadlineExceeded):
		return broker.EndedByTimeout
	case errors.Is(err, frame.ErrTooLarge):
		return broker.EndedTooLarge
	case errors.Is(err, frame.ErrMalformed):
		return broker.EndedMalformed
	case err == nil, errors.Is(err, io.EOF), errors.Is(err, frame.ErrTruncated), errors.Is(err, net.ErrClosed), errors.Is(err, context.Canceled):
		return broker.EndedByPeer
	}
	return broker.EndedByError
}
