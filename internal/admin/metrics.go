package admin

import (
	"cmp"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/flotilla-log/flotilla/broker"
	"github.com/flotilla-log/flotilla/internal/histogram"
)

// Type is the type of a metric.
type Type uint8

const (
	Gauge Type = iota + 1
	Counter
	Histogram
)

// String returns the type's name in docs/metrics.md.
func (t Type) String() string {
	return [...]string{Gauge: "gauge", Counter: "counter", Histogram: "histogram"}[t]
}

// Metric describes one family of series.
type Metric struct {
	Name   string
	Type   Type
	Labels []string
	Help   string
}

// Metrics are all families but those of the Go runtime (go_) and of the process
// (process_), whose names the Prometheus library gives.
var Metrics = []Metric{
	{"flotilla_build_info", Gauge, []string{"version", "commit"}, "1, with the build's version and commit."},
	{"flotilla_ready", Gauge, nil, "1 if /readyz answers 200, else 0."},
	{"flotilla_failed", Gauge, nil, "1 from the first write or sync that failed until the process ends, else 0."},
	{"flotilla_recovery_seconds", Gauge, nil, "How long the last start took to recover."},
	{"flotilla_recovery_rewritten_bytes", Gauge, nil, "Journal bytes that the last start wrote again, because nothing proved them synced."},
	{"flotilla_recovery_torn_tail", Gauge, nil, "1 if the last start cut off a torn tail of the journal, else 0."},

	{"flotilla_damage_set_aside", Gauge, nil, "Sets of damaged data that starts of this node have put aside in its data directory, and that are still there (aside-*)."},

	{"flotilla_journal_files", Gauge, nil, "Files of the journal's ring."},
	{"flotilla_journal_ring_bytes", Gauge, nil, "Size of the ring's files."},
	{"flotilla_journal_live_bytes", Gauge, nil, "Records in the ring that are still needed."},
	{"flotilla_journal_reserved_bytes", Gauge, nil, "Room that is promised and not used yet."},
	{"flotilla_journal_limit_bytes", Gauge, nil, "What live, queued and reserved bytes may reach; it grows with the ring, up to journal.bytes."},
	{"flotilla_journal_waiting", Gauge, nil, "Entries that wait for room in the ring."},
	{"flotilla_journal_commits_total", Counter, nil, "Commits: one write and one sync for all that waited."},
	{"flotilla_journal_records_total", Counter, nil, "Records committed."},
	{"flotilla_journal_written_bytes_total", Counter, nil, "Bytes written."},
	{"flotilla_journal_copied_bytes_total", Counter, nil, "Bytes of records copied forward, because their file was due for reuse."},
	{"flotilla_journal_commit_bytes", Histogram, nil, "Bytes written by one commit."},
	{"flotilla_journal_commit_seconds", Histogram, nil, "How long one commit took."},
	{"flotilla_journal_sync_seconds", Histogram, nil, "How long one sync (fdatasync) of the journal took."},
	{"flotilla_journal_commit_running_seconds", Gauge, nil, "How long the commit under way has been running; 0 if there is none."},

	{"flotilla_memory_used_bytes", Gauge, []string{"for"}, "Memory in use: tails are records not yet in segment files, fetches what Kafka clients' Fetches take for their partitions, recompressed what batches were made to that are not in the log yet."},
	{"flotilla_memory_limit_bytes", Gauge, []string{"for"}, "Its bound, a share of memory.bytes."},
	{"flotilla_memory_waiting", Gauge, []string{"for"}, "Requests or answers that wait for room."},

	{"flotilla_segments", Gauge, nil, "Segment files of partitions."},
	{"flotilla_segment_bytes", Gauge, nil, "Their length, those that wait to be unlinked included, without indexes."},
	{"flotilla_segments_created_total", Counter, nil, "Segment files made."},
	{"flotilla_segments_removed_total", Counter, nil, "Segment files unlinked: retention, deleted records, deleted topics."},
	{"flotilla_segments_removed_bytes_total", Counter, nil, "Bytes of segment files unlinked."},
	{"flotilla_records_removed_total", Counter, []string{"by"},
		"Records that left their logs by a decision of this node, by retention, or a DeleteRecords request to it, by delete_records."},
	{"flotilla_segment_files_open", Gauge, []string{"state"}, "Open files of segments: used, or kept open unused."},
	{"flotilla_flushes_total", Counter, nil, "Writes to segment files."},
	{"flotilla_flushed_bytes_total", Counter, nil, "Bytes written to segment files."},
	{"flotilla_flush_seconds", Histogram, nil, "How long one write to a segment file took."},
	{"flotilla_flush_oldest_seconds", Gauge, nil, "Age of the oldest record that is in no segment file yet; it is in the journal."},
	{"flotilla_flush_full_disk_total", Counter, nil, "Writes to segment files that met a full disk, to be tried again."},
	{"flotilla_orphan_directories", Gauge, nil, "Directories of partitions that no shard knows."},
	{"flotilla_segments_repaired_total", Counter, nil, "Segments that were written anew because something of them was damaged or missing."},
	{"flotilla_repair_pulled_bytes_total", Counter, nil, "Bytes of records that other nodes gave for them."},
	{"flotilla_quarantines_healed_total", Counter, nil, "Partitions in quarantine on this node that have got what the other nodes have."},
	{"flotilla_quarantine_heal_failures_total", Counter, nil, "Tries to heal partitions in quarantine on this node from other nodes that came to nothing; the pauses between them grow up to 5 min."},
	{"flotilla_scrubbed_bytes_total", Counter, nil, "Bytes of segments that were read to look for damage."},
	{"flotilla_scrubs_total", Counter, nil, "Passes over all segments that came to an end."},
	{"flotilla_scrub_age_seconds", Gauge, nil, "Time since the newest of them; -1 if there was none since the start."},

	{"flotilla_checkpoint_seconds", Histogram, []string{"shards"}, "How long one checkpoint of a shard took, those that failed included."},
	{"flotilla_checkpoint_failures_total", Counter, []string{"shards"}, "Checkpoints that failed; the next one covers them."},
	{"flotilla_checkpoint_age_seconds", Gauge, []string{"shards"}, "Time since the newest checkpoint; -1 if there was none since the start."},
	{"flotilla_shard_leading", Gauge, []string{"shard"}, "1 if this node leads and serves the shard, else 0. Shard 0 is the metadata."},
	{"flotilla_leaderships_total", Counter, []string{"change"},
		"Leaderships of shards that changed by this node's doing: `claimed` as the leader's node was gone (elections it stood for), `handed_over` as its own disk stood still, `relieved` as its own disk was nearly full, `balanced` to the node that is to lead."},
	{"flotilla_leaderships_refused", Gauge, nil, "1 while this node takes no leadership, as its disk stands still or is nearly full, or was so in the last 30 s; else 0."},
	{"flotilla_shard_voters", Gauge, []string{"shard"}, "Replicas of the shard that vote, as far as this node knows."},
	{"flotilla_shard_learners", Gauge, []string{"shard"}, "Replicas of the shard that do not vote yet: they take the place of lost ones when they have caught up."},
	{"flotilla_replicas_replaced_total", Counter, nil, "Replicas of lost data directories whose place this node, as their shards' leader, has given to others."},
	{"flotilla_shard_uncheckpointed_entries", Gauge, []string{"shard"}, "Entries applied since the shard's newest checkpoint."},
	{"flotilla_shard_apply_version", Gauge, []string{"shard"}, "Behaviour that the shard's replicas have agreed on."},
	{"flotilla_quarantined_partitions", Gauge, []string{"shard"},
		"Partitions that are out of service on this node, because handling one of their commands panicked."},
	{"flotilla_damaged_ranges", Gauge, []string{"shard"},
		"Ranges of partitions that are damaged on this node and not repaired yet: reads of them fail, and another node leads the shard if it can."},
	{"flotilla_catch_up_seconds", Gauge, []string{"shard"},
		"For how long this node's replica of the shard has been behind its leader's log, and pulls records; 0: it is not."},
	{"flotilla_catch_up_partitions", Gauge, []string{"shard"}, "Partitions that the present round of a catch-up has not finished."},
	{"flotilla_catch_up_limit_bytes_per_second", Gauge, nil, "What all replicas of this node may pull from other nodes together; it rises while one cannot keep up with what is written meanwhile."},
	{"flotilla_catch_up_pulled_bytes_total", Counter, []string{"shard"}, "Bytes of records that catch-ups have pulled from other nodes."},
	{"flotilla_producers", Gauge, []string{"shard"}, "Idempotent producers that the shard remembers."},
	{"flotilla_producers_limit", Gauge, []string{"shard"}, "Its bound, producers.max."},

	{"flotilla_streams", Gauge, nil, "Open streams of clients."},
	{"flotilla_stream_partitions", Gauge, nil, "Partitions that they follow."},
	{"flotilla_stream_partitions_limit", Gauge, nil, "Their bound; above it a Subscribe is answered THROTTLING_QUOTA_EXCEEDED."},
	{"flotilla_stream_held_bytes", Gauge, nil, "Records in memory that are on their way out in streams; a part of flotilla_memory_used_bytes of answers."},

	{"flotilla_fetch_sessions", Gauge, nil, "Fetch sessions of Kafka clients."},
	{"flotilla_fetch_sessions_limit", Gauge, nil, "Their bound, fetch.sessions.max; a client that finds no room goes on without one."},
	{"flotilla_fetch_session_partitions", Gauge, nil, "Partitions in them; at most 1000 for each session that there may be."},
	{"flotilla_fetch_sessions_evicted_total", Counter, nil, "Sessions ended to make room for others."},

	{"flotilla_connections", Gauge, []string{"protocol"}, "Client connections."},
	{"flotilla_connections_limit", Gauge, nil, "Their bound, connections.max."},
	{"flotilla_connections_accepted_total", Counter, []string{"protocol"}, "Connections taken."},
	{"flotilla_connections_refused_total", Counter, []string{"protocol", "reason"}, "Connections not taken: max, max_per_ip."},
	{"flotilla_connections_closed_total", Counter, []string{"protocol", "reason"},
		"Connections that ended: peer, timeout (idle, or a request that came too slowly), handshake, too_large, malformed, error, panic (a bug; the log has its stack), stopping."},
	{"flotilla_requests_in_flight", Gauge, []string{"protocol"}, "Requests that are not answered yet."},
	{"flotilla_request_seconds", Histogram, []string{"protocol", "kind"},
		"From a whole request to its answer; a fetch's wait for records is in it. Its _count are the requests."},
	{"flotilla_errors_total", Counter, []string{"protocol", "kind", "code"}, "Errors answered, for requests and for parts of them, or (kind deliver) pushed in streams, by Kafka's name of the code."},
	{"flotilla_received_bytes_total", Counter, []string{"protocol"}, "Bytes of requests."},
	{"flotilla_sent_bytes_total", Counter, []string{"protocol"}, "Bytes of answers."},

	{"flotilla_feature_level", Gauge, nil, "Feature level that the cluster has finalised."},
	{"flotilla_topics", Gauge, nil, "Topics of the cluster."},
	{"flotilla_partitions", Gauge, nil, "Partitions of the cluster."},
	{"flotilla_partitions_limit", Gauge, nil, "Their bound, partitions.max."},
	{"flotilla_topics_deleting", Gauge, nil, "Deleted topics of which something may be left."},
	{"flotilla_group_coordinators", Gauge, nil, "Partitions of __consumer_offsets whose groups this node coordinates."},
	{"flotilla_groups", Gauge, nil, "Consumer groups that are recorded, of those that this node coordinates."},
	{"flotilla_group_members", Gauge, nil, "Their members."},
	{"flotilla_group_member_bytes", Gauge, nil, "Memory for what members say of themselves."},
	{"flotilla_group_offsets", Gauge, nil, "Offsets that these groups have committed."},
	{"flotilla_group_requests_held", Gauge, nil, "JoinGroup and SyncGroup requests that wait for a rebalance."},
	{"flotilla_group_answers_parked", Gauge, nil, "Answers that wait for what was decided to be on a majority of the replicas, or for a majority's word."},
	{"flotilla_group_decisions_total", Counter, nil, "Decisions of this node's coordinators that were applied; what comes at once is one."},
	{"flotilla_group_records_total", Counter, nil, "Records of those."},
	{"flotilla_group_load_seconds", Gauge, nil, "Longest time that one of the coordinators took to begin."},
	{"flotilla_group_lag", Gauge, []string{"group"}, "Records from what a group has committed, or the log start, to the high watermark, of all its partitions; of groups that this node coordinates. Those beyond metrics.groups.max are (other)."},
	{"flotilla_group_lag_max", Gauge, []string{"group"}, "The same of the partition that is furthest behind."},
	{"flotilla_group_lag_partitions_unknown", Gauge, nil, "Partitions with committed offsets that are not counted, as nobody told their ends."},
	{"flotilla_group_lag_age_seconds", Gauge, nil, "How old the lags are; 0 while there are none."},
	{"flotilla_topic_partitions", Gauge, []string{"topic"}, "Partitions of the topic on this node."},
	{"flotilla_topic_batches_in_total", Counter, []string{"topic"}, "Record batches appended."},
	{"flotilla_topic_records_in_total", Counter, []string{"topic"}, "Records appended."},
	{"flotilla_topic_bytes_in_total", Counter, []string{"topic"}, "Bytes of record batches appended, as sent."},
	{"flotilla_topic_bytes_out_total", Counter, []string{"topic"}, "Bytes of record batches answered to fetches."},

	{"flotilla_disk_free_bytes", Gauge, nil, "Free bytes of the file system that holds the data."},
	{"flotilla_disk_reserve_bytes", Gauge, nil, "Below so many free bytes writes are held; 0 if there is no such bound."},
	{"flotilla_disk_refuses_writes", Gauge, nil, "1 while writes are held because the disk is nearly full, else 0."},
	{"flotilla_disk_low_total", Counter, nil, "How often the disk became nearly full."},
	{"flotilla_disk_refused_total", Counter, nil, "Batches and requests refused because the disk is nearly full."},
}

// otherTopics is the label of topics without series of their own. No topic can
// have this name.
const otherTopics = "(other)"

// otherGroups is the label of groups without series of their own. A group that has this
// name is counted with them.
const otherGroups = "(other)"

// collector reads the node when it is scraped.
type collector struct {
	src   *Source
	descs map[string]*prometheus.Desc
	types map[string]Type
}

func newCollector(src *Source) *collector {
	c := &collector{src: src, descs: make(map[string]*prometheus.Desc), types: make(map[string]Type)}
	for _, m := range Metrics {
		c.descs[m.Name], c.types[m.Name] = prometheus.NewDesc(m.Name, m.Help, m.Labels, nil), m.Type
	}
	return c
}

// Describe implements prometheus.Collector.
func (c *collector) Describe(out chan<- *prometheus.Desc) {
	for _, d := range c.descs {
		out <- d
	}
}

// scrape is one Collect.
type scrape struct {
	*collector
	out chan<- prometheus.Metric
}

// Collect implements prometheus.Collector.
func (c *collector) Collect(out chan<- prometheus.Metric) {
	s := scrape{c, out}
	s.value("flotilla_build_info", 1, c.src.Version, c.src.Commit)
	s.value("flotilla_ready", truth(c.src.readiness().OK))
	s.value("flotilla_failed", truth(c.src.Failed() != nil))
	s.disk(c.src.Disk())
	for _, l := range c.src.Listeners() {
		s.listener(&l)
	}
	s.value("flotilla_connections_limit", float64(c.src.ConnectionLimit()))
	b := c.src.Broker()
	if b == nil {
		return // the node is starting
	}
	r := c.src.Recovery()
	s.value("flotilla_recovery_seconds", r.Took.Seconds())
	s.value("flotilla_recovery_rewritten_bytes", float64(r.RewrittenBytes))
	s.value("flotilla_recovery_torn_tail", truth(r.TornTail))
	s.value("flotilla_damage_set_aside", float64(r.SetAside))
	for _, m := range c.src.Memory() {
		s.value("flotilla_memory_used_bytes", float64(m.Used), m.For)
		s.value("flotilla_memory_limit_bytes", float64(m.Limit), m.For)
		s.value("flotilla_memory_waiting", float64(m.Waiting), m.For)
	}
	s.streams(c.src.Streams())
	s.sessions(c.src.Sessions())
	stats := b.Stats()
	s.journal(&stats)
	s.store(&stats)
	s.shards(&stats)
	s.topics(&stats)
	s.groups(&stats.Groups)
	s.lags(&stats.Lag)
}

func (s scrape) value(name string, v float64, labels ...string) {
	t := prometheus.GaugeValue
	if s.types[name] == Counter {
		t = prometheus.CounterValue
	}
	s.out <- prometheus.MustNewConstMetric(s.descs[name], t, v, labels...)
}

// histogram writes a Snapshot; unit is what one of its numbers is in the
// metric's unit.
func (s scrape) histogram(name string, h histogram.Snapshot, unit float64, labels ...string) {
	buckets := make(map[float64]uint64, len(h.Bounds))
	total := uint64(0)
	for i, bound := range h.Bounds {
		total += h.Counts[i]
		buckets[float64(bound)*unit] = total
	}
	s.out <- prometheus.MustNewConstHistogram(s.descs[name], h.Count(), float64(h.Sum)*unit, buckets, labels...)
}

// seconds is a nanosecond in seconds.
const seconds = 1e-9

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

func (s scrape) disk(d Disk) {
	if d.Err == nil {
		s.value("flotilla_disk_free_bytes", float64(d.FreeBytes))
	}
	s.value("flotilla_disk_reserve_bytes", float64(d.ReserveBytes))
	s.value("flotilla_disk_refuses_writes", truth(d.Refuses != ""))
	s.value("flotilla_disk_low_total", float64(d.Entered))
	s.value("flotilla_disk_refused_total", float64(d.Refused))
}

func (s scrape) listener(l *broker.MeterStats) {
	s.value("flotilla_connections", float64(l.Connections), l.Protocol)
	s.value("flotilla_connections_accepted_total", float64(l.Accepted), l.Protocol)
	for reason, n := range l.Refused {
		s.value("flotilla_connections_refused_total", float64(n), l.Protocol, reason)
	}
	for reason, n := range l.Ended {
		s.value("flotilla_connections_closed_total", float64(n), l.Protocol, reason)
	}
	s.value("flotilla_requests_in_flight", float64(l.InFlight), l.Protocol)
	s.value("flotilla_received_bytes_total", float64(l.BytesIn), l.Protocol)
	s.value("flotilla_sent_bytes_total", float64(l.BytesOut), l.Protocol)
	for _, k := range l.Kinds {
		if k.Times != nil {
			s.histogram("flotilla_request_seconds", *k.Times, seconds, l.Protocol, k.Name)
		}
		for code, n := range k.Errors {
			s.value("flotilla_errors_total", float64(n), l.Protocol, k.Name, code)
		}
	}
}

func (s scrape) streams(st Streams) {
	s.value("flotilla_streams", float64(st.Open))
	s.value("flotilla_stream_partitions", float64(st.Partitions))
	s.value("flotilla_stream_partitions_limit", float64(st.PartitionLimit))
	s.value("flotilla_stream_held_bytes", float64(st.HeldBytes))
}

func (s scrape) sessions(fs FetchSessions) {
	s.value("flotilla_fetch_sessions", float64(fs.Open))
	s.value("flotilla_fetch_sessions_limit", float64(fs.Limit))
	s.value("flotilla_fetch_session_partitions", float64(fs.Partitions))
	s.value("flotilla_fetch_sessions_evicted_total", float64(fs.Evicted))
}

func (s scrape) journal(stats *broker.Stats) {
	j := &stats.Journal
	s.value("flotilla_journal_files", float64(j.Files))
	s.value("flotilla_journal_ring_bytes", float64(j.RingBytes))
	s.value("flotilla_journal_live_bytes", float64(j.LiveBytes))
	s.value("flotilla_journal_reserved_bytes", float64(j.ReservedBytes))
	s.value("flotilla_journal_limit_bytes", float64(j.LimitBytes))
	s.value("flotilla_journal_waiting", float64(j.Waiting))
	s.value("flotilla_journal_commits_total", float64(j.Commits))
	s.value("flotilla_journal_records_total", float64(j.Records))
	s.value("flotilla_journal_written_bytes_total", float64(j.WrittenBytes))
	s.value("flotilla_journal_copied_bytes_total", float64(j.CopiedBytes))
	s.histogram("flotilla_journal_commit_bytes", j.CommitSizes, 1)
	s.histogram("flotilla_journal_commit_seconds", j.CommitTimes, seconds)
	s.histogram("flotilla_journal_sync_seconds", j.SyncTimes, seconds)
	running := time.Duration(0)
	if !j.CommitStarted.IsZero() {
		running = s.src.Now().Sub(j.CommitStarted)
	}
	s.value("flotilla_journal_commit_running_seconds", running.Seconds())
}

func (s scrape) store(stats *broker.Stats) {
	st := &stats.Store
	s.value("flotilla_segments", float64(st.Segments))
	s.value("flotilla_segment_bytes", float64(st.SegmentBytes))
	s.value("flotilla_segments_removed_bytes_total", float64(st.UnlinkedBytes))
	s.value("flotilla_records_removed_total", float64(stats.RemovedByRetention), "retention")
	s.value("flotilla_records_removed_total", float64(stats.RemovedByRequest), "delete_records")
	s.value("flotilla_replicas_replaced_total", float64(stats.ReplicasReplaced))
	s.value("flotilla_segments_created_total", float64(st.SegmentsMade))
	s.value("flotilla_segments_removed_total", float64(st.SegmentsUnlinked))
	s.value("flotilla_segment_files_open", float64(st.OpenFiles-st.OpenFilesUnused), "used")
	s.value("flotilla_segment_files_open", float64(st.OpenFilesUnused), "unused")
	s.value("flotilla_flushes_total", float64(st.Flushes))
	s.value("flotilla_flushed_bytes_total", float64(st.FlushedBytes))
	s.histogram("flotilla_flush_seconds", st.FlushTimes, seconds)
	s.value("flotilla_flush_oldest_seconds", st.OldestUnflushed.Seconds())
	s.value("flotilla_flush_full_disk_total", float64(st.FullDisk))
	s.value("flotilla_orphan_directories", float64(st.OrphanDirectories))
	s.value("flotilla_segments_repaired_total", float64(stats.Repaired))
	s.value("flotilla_repair_pulled_bytes_total", float64(stats.RepairPulledBytes))
	s.value("flotilla_quarantines_healed_total", float64(stats.Healed))
	s.value("flotilla_quarantine_heal_failures_total", float64(stats.HealFailures))
	s.value("flotilla_scrubbed_bytes_total", float64(stats.ScrubbedBytes))
	s.value("flotilla_scrubs_total", float64(stats.ScrubPasses))
	age := -1.0
	if !stats.LastScrub.IsZero() {
		age = s.src.Now().Sub(stats.LastScrub).Seconds()
	}
	s.value("flotilla_scrub_age_seconds", age)
}

func (s scrape) shards(stats *broker.Stats) {
	for _, c := range stats.Checkpoints {
		s.histogram("flotilla_checkpoint_seconds", c.Times, seconds, c.Shards)
		s.value("flotilla_checkpoint_failures_total", float64(c.Failed), c.Shards)
		age := -1.0
		if !c.Last.IsZero() {
			age = s.src.Now().Sub(c.Last).Seconds()
		}
		s.value("flotilla_checkpoint_age_seconds", age, c.Shards)
	}
	s.value("flotilla_leaderships_total", float64(stats.Leaderships.Claimed), "claimed")
	s.value("flotilla_leaderships_total", float64(stats.Leaderships.HandedOver), "handed_over")
	s.value("flotilla_leaderships_total", float64(stats.Leaderships.Relieved), "relieved")
	s.value("flotilla_leaderships_total", float64(stats.Leaderships.Balanced), "balanced")
	s.value("flotilla_leaderships_refused", truth(stats.Leaderships.Unfit))
	s.value("flotilla_catch_up_limit_bytes_per_second", float64(stats.CatchUpRate))
	for _, sh := range stats.Shards {
		id := strconv.Itoa(int(sh.ID))
		s.value("flotilla_shard_leading", truth(sh.Leading), id)
		s.value("flotilla_shard_voters", float64(sh.Voters), id)
		s.value("flotilla_shard_learners", float64(sh.Learners), id)
		s.value("flotilla_shard_uncheckpointed_entries", float64(sh.Applied-min(sh.Applied, sh.Checkpointed)), id)
		if sh.ID != 0 {
			s.value("flotilla_shard_apply_version", float64(sh.ApplyVersion), id)
			s.value("flotilla_quarantined_partitions", float64(sh.Quarantined), id)
			s.value("flotilla_damaged_ranges", float64(sh.Damaged), id)
			behind := 0.0
			if !sh.CatchingUpSince.IsZero() {
				behind = s.src.Now().Sub(sh.CatchingUpSince).Seconds()
			}
			s.value("flotilla_catch_up_seconds", behind, id)
			s.value("flotilla_catch_up_partitions", float64(sh.CatchUpPartitions), id)
			s.value("flotilla_catch_up_pulled_bytes_total", float64(sh.CatchUpPulledBytes), id)
			s.value("flotilla_producers", float64(sh.Producers), id)
			s.value("flotilla_producers_limit", float64(sh.ProducerLimit), id)
		}
	}
}

func (s scrape) groups(g *broker.GroupStats) {
	s.value("flotilla_group_coordinators", float64(g.Coordinators))
	s.value("flotilla_groups", float64(g.Groups))
	s.value("flotilla_group_members", float64(g.Members))
	s.value("flotilla_group_member_bytes", float64(g.MemberBytes))
	s.value("flotilla_group_offsets", float64(g.Offsets))
	s.value("flotilla_group_requests_held", float64(g.Held))
	s.value("flotilla_group_answers_parked", float64(g.Parked))
	s.value("flotilla_group_decisions_total", float64(g.Decisions))
	s.value("flotilla_group_records_total", float64(g.Records))
	s.value("flotilla_group_load_seconds", g.Load.Seconds())
}

func (s scrape) lags(l *broker.LagStats) {
	// A group's name is whatever its members say, and a label is UTF-8: names that become
	// one label become one series.
	series := make(map[string]broker.GroupLag, len(l.Groups))
	for _, g := range l.Groups {
		label := strings.ToValidUTF8(cmp.Or(g.Group, otherGroups), "\uFFFD")
		is := series[label]
		series[label] = broker.GroupLag{Records: is.Records + g.Records, Largest: max(is.Largest, g.Largest)}
	}
	for label, g := range series {
		s.value("flotilla_group_lag", float64(g.Records), label)
		s.value("flotilla_group_lag_max", float64(g.Largest), label)
	}
	s.value("flotilla_group_lag_partitions_unknown", float64(l.Unknown))
	age := 0.0
	if !l.At.IsZero() {
		age = s.src.Now().Sub(l.At).Seconds()
	}
	s.value("flotilla_group_lag_age_seconds", age)
}

func (s scrape) topics(stats *broker.Stats) {
	s.value("flotilla_feature_level", float64(stats.FeatureLevel))
	s.value("flotilla_topics", float64(stats.TopicCount))
	s.value("flotilla_partitions", float64(stats.PartitionCount))
	s.value("flotilla_partitions_limit", float64(stats.Limits.Partitions))
	s.value("flotilla_topics_deleting", float64(stats.TombstoneCount))
	for _, t := range stats.Topics {
		name := t.Name
		if name == "" {
			name = otherTopics
		}
		s.value("flotilla_topic_partitions", float64(t.Partitions), name)
		s.value("flotilla_topic_batches_in_total", float64(t.BatchesIn), name)
		s.value("flotilla_topic_records_in_total", float64(t.RecordsIn), name)
		s.value("flotilla_topic_bytes_in_total", float64(t.BytesIn), name)
		s.value("flotilla_topic_bytes_out_total", float64(t.BytesOut), name)
	}
}
