//go:build clients

package clienttest

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// tools runs Kafka's tools one after the other, as a user would at a prompt.
type tools struct {
	*testing.T
	vm *toolsVM
}

// run runs a command line, and wants it to end with a code and to print lines:
// see printed. A line "in any order" at the beginning sorts them.
func (t *tools) run(command string, code int, want string) {
	t.Helper()
	t.check(command, t.end(command, nil), code, want)
}

// feed is run for a tool that reads stdin, and is to print nothing.
func (t *tools) feed(command, stdin string) {
	t.Helper()
	t.check(command, t.end(command, &stdin), 0, "")
}

// await runs a command line until it prints a line that begins so.
func (t *tools) await(command, want string) {
	t.Helper()
	for {
		end := t.end(command, nil)
		if slices.ContainsFunc(t.printed(end.Out), func(line string) bool { return strings.HasPrefix(line, want) }) {
			return
		}
		if t.Context().Err() != nil {
			t.Fatalf("%s does not print %q: %+v", command, want, end)
		}
	}
}

func (t *tools) end(command string, stdin *string) toolEnd {
	t.Helper()
	begun := time.Now()
	end, err := t.start(command, stdin)()
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%.1f s: %s", time.Since(begun).Seconds(), command)
	return end
}

// start starts a command line, and returns what waits for its end.
func (t *tools) start(command string, stdin *string) func() (toolEnd, error) {
	t.Helper()
	words := strings.Fields(command)
	wait, err := t.vm.start(words[0], stdin, words[1:]...)
	if err != nil {
		t.Fatal(err)
	}
	return func() (toolEnd, error) { return wait(t.Context()) }
}

func (t *tools) check(command string, end toolEnd, code int, want string) {
	t.Helper()
	got, lines := t.printed(end.Out), t.printed(want)
	if len(lines) > 0 && lines[0] == "in any order" {
		lines = lines[1:]
		slices.Sort(got)
		slices.Sort(lines)
	}
	if diff := cmp.Diff(lines, got); diff != "" || end.Code != code {
		t.Errorf("%s: exit code %d, want %d (-want +got):\n%s\n%s", command, end.Code, code, diff, end.Err)
	}
}

// What differs from run to run.
var (
	toolSpaces  = regexp.MustCompile(`[ \t]+`)
	toolTopics  = regexp.MustCompile(`TopicId: \S{22}`)
	toolMembers = regexp.MustCompile(`^(g-\S+) (?:[A-Za-z0-9_-]{22}|console-consumer-[0-9a-f-]{36}) `)
)

// printed returns the lines of a text that are not empty, without what differs
// from run to run, and with one space between columns.
func (t *tools) printed(text string) (lines []string) {
	for line := range strings.Lines(text) {
		line = toolSpaces.ReplaceAllString(strings.TrimSpace(line), " ")
		line = toolMembers.ReplaceAllString(toolTopics.ReplaceAllString(line, "TopicId: ID"), "$1 ID ")
		line = strings.ReplaceAll(line, t.vm.addr, "ADDR")
		if line != "" {
			lines = append(lines, line)
		}
	}
	return lines
}

// TestKafkaTools runs Kafka's own tools as they are, and checks all that they
// print. They are one story, of topics, records and groups.
func TestKafkaTools(t *testing.T) {
	addr := startServer(t)
	tt := &tools{T: t, vm: startTools(t, addr)}
	tt.topics()
	tt.configs()
	tt.records()
	tt.members("classic", 2)
	tt.members("consumer", 4) // its lag, and as many more
	tt.positions()
	tt.elections()
	tt.run("kafka-topics --delete --topic orders", 0, "")
	tt.run("kafka-topics --list --exclude-internal", 0, "")
}

// TestKafkaToolsOfThreeNodes has each node of a cluster asked for what the one does that
// leads the metadata: the tools ask whichever they are connected to for changes of configs.
func TestKafkaToolsOfThreeNodes(t *testing.T) {
	tt := &tools{T: t, vm: startTools(t, "")}
	for i, addr := range startCluster(t) {
		tt.vm.addr = addr
		topic := fmt.Sprint("asked-", i+1)
		tt.run("kafka-topics --create --partitions 2 --replication-factor 3 --topic "+topic, 0, "Created topic "+topic+".")
		tt.run("kafka-configs --alter --entity-type topics --add-config retention.ms=3600000 --entity-name "+topic, 0, "Completed updating config for topic "+topic+".")
		tt.run("kafka-topics --alter --partitions 3 --topic "+topic, 0, "")
		tt.run("kafka-configs --describe --entity-type topics --entity-name "+topic, 0, `
			Dynamic configs for topic `+topic+` are:
			retention.ms=3600000 sensitive=false synonyms={DYNAMIC_TOPIC_CONFIG:retention.ms=3600000}`)
		tt.await("kafka-get-offsets --topic "+topic, topic+":2:0") // of any node, which may be behind
		tt.run(fmt.Sprintf("kafka-configs --describe --entity-type brokers --entity-name %d", i+1), 0, fmt.Sprintf("Dynamic configs for broker %d are:", i+1))
		tt.run("kafka-topics --delete --topic "+topic, 0, "")
	}
}

func (t *tools) topics() {
	t.run("kafka-topics --create --topic orders --partitions 2 --config retention.ms=3600000", 0, "Created topic orders.")
	t.run("kafka-topics --create --topic orders", 1, "Error while executing topic command : Topic 'orders' already exists.")
	t.run("kafka-topics --create --topic orders --if-not-exists", 0, "")
	t.run("kafka-topics --alter --topic orders --partitions 3", 0, "")
	t.run("kafka-topics --alter --topic orders --partitions 2", 1,
		"Error while executing topic command : The topic orders currently has 3 partition(s); 2 would not be an increase.")
	t.run("kafka-topics --list", 0, "orders")
	t.run("kafka-topics --describe --topic orders", 0, `
		Topic: orders TopicId: ID PartitionCount: 3 ReplicationFactor: 1 Configs: retention.ms=3600000
		Topic: orders Partition: 0 Leader: 1 Replicas: 1 Isr: 1 Elr: LastKnownElr:
		Topic: orders Partition: 1 Leader: 1 Replicas: 1 Isr: 1 Elr: LastKnownElr:
		Topic: orders Partition: 2 Leader: 1 Replicas: 1 Isr: 1 Elr: LastKnownElr:`)
	t.run("kafka-topics --describe --under-replicated-partitions", 0, "")
	t.run("kafka-topics --describe --unavailable-partitions", 0, "")
	t.run("kafka-topics --describe --topic nosuch", 1, "Error while executing topic command : Topic 'nosuch' does not exist as expected")
}

func (t *tools) configs() {
	t.run("kafka-configs --alter --entity-type topics --entity-name orders --add-config max.message.bytes=100000,retention.bytes=9000000", 0,
		"Completed updating config for topic orders.")
	t.run("kafka-configs --describe --entity-type topics --entity-name orders", 0, `
		in any order
		Dynamic configs for topic orders are:
		max.message.bytes=100000 sensitive=false synonyms={DYNAMIC_TOPIC_CONFIG:max.message.bytes=100000, DEFAULT_CONFIG:message.max.bytes=1048588}
		retention.bytes=9000000 sensitive=false synonyms={DYNAMIC_TOPIC_CONFIG:retention.bytes=9000000, DEFAULT_CONFIG:log.retention.bytes=-1}
		retention.ms=3600000 sensitive=false synonyms={DYNAMIC_TOPIC_CONFIG:retention.ms=3600000}`)
	t.run("kafka-configs --alter --entity-type topics --entity-name orders --delete-config max.message.bytes,retention.bytes", 0,
		"Completed updating config for topic orders.")
	t.run("kafka-topics --describe --topics-with-overrides", 0,
		"Topic: orders TopicId: ID PartitionCount: 3 ReplicationFactor: 1 Configs: retention.ms=3600000")
	t.run("kafka-configs --alter --entity-type topics --entity-name orders --add-config retention.ms=soon", 1, "")
	t.run("kafka-configs --describe --entity-type brokers --entity-name 1", 0, "Dynamic configs for broker 1 are:")
	t.run("kafka-configs --describe --entity-type brokers --entity-default", 0, "Default configs for brokers in the cluster are:")
	all := t.end("kafka-configs --describe --entity-type brokers --entity-name 1 --all", nil)
	if want := "offsets.topic.num.partitions=50 sensitive=false synonyms={DEFAULT_CONFIG:offsets.topic.num.partitions=50}"; !slices.Contains(t.printed(all.Out), want) {
		t.Errorf("the configs of node 1 lack %s:\n%s", want, all.Out)
	}
	refused := t.end("kafka-configs --alter --entity-type brokers --entity-name 1 --add-config log.retention.ms=1", nil)
	if want := "a node takes its settings from flags, environment and file when it starts"; refused.Code != 1 || !strings.Contains(refused.Err, want) {
		t.Errorf("a config of a node: %+v, want a refusal that says %q", refused, want)
	}
}

func (t *tools) records() {
	t.feed("kafka-console-producer --topic orders --reader-property parse.key=true --reader-property key.separator=:", "a:1\nb:2\nc:3\nd:4\ne:5\nn:6\n")
	t.run("kafka-get-offsets --topic orders", 0, "orders:0:1\norders:1:2\norders:2:3")
	t.run("kafka-get-offsets --topic orders --time -2", 0, "orders:0:0\norders:1:0\norders:2:0")
	t.run("kafka-get-offsets --topic-partitions orders:1-2 --time latest", 0, "orders:1:2")
	t.run("kafka-get-offsets --topic orders --time 0", 0, "orders:0:0\norders:1:0\norders:2:0")
	// The records of a batch were made at the same time, or nearly: its first one, or a later one.
	newest := t.end("kafka-get-offsets --topic orders --time max-timestamp", nil)
	if !regexp.MustCompile(`^orders:0:0\norders:1:[01]\norders:2:[0-2]\n$`).MatchString(newest.Out) || newest.Code != 0 {
		t.Errorf("the newest records: %+v", newest)
	}
	const asTable = " --formatter-property print.key=true --formatter-property print.partition=true --formatter-property print.offset=true"
	t.run("kafka-console-consumer --topic orders --partition 2 --offset 1 --max-messages 2"+asTable, 0, "Partition:2 Offset:1 d 4\nPartition:2 Offset:2 e 5")
	for _, protocol := range []string{"classic", "consumer"} {
		group := "g-" + protocol
		t.run("kafka-console-consumer --include or.*rs --from-beginning --max-messages 6 --group "+group+" --command-property group.protocol="+protocol+asTable, 0, `
			in any order
			Partition:0 Offset:0 n 6
			Partition:1 Offset:0 a 1
			Partition:1 Offset:1 c 3
			Partition:2 Offset:0 b 2
			Partition:2 Offset:1 d 4
			Partition:2 Offset:2 e 5`)
		t.run("kafka-consumer-groups --describe --group "+group, 0, `
			GROUP TOPIC PARTITION CURRENT-OFFSET LOG-END-OFFSET LAG CONSUMER-ID HOST CLIENT-ID
			`+group+` orders 0 1 1 0 - - -
			`+group+` orders 1 2 2 0 - - -
			`+group+` orders 2 3 3 0 - - -`)
	}
	t.run("kafka-consumer-groups --list --state", 0, "in any order\nGROUP STATE\ng-classic Empty\ng-consumer Empty")
	t.run("kafka-consumer-groups --list --type consumer", 0, "GROUP TYPE\ng-consumer Consumer")
	t.run("kafka-consumer-groups --list --state stable", 0, "GROUP STATE")
}

// members looks at a group while it has a member, which ends when it has read n
// records: what the group lags, and two that are produced at the end.
func (t *tools) members(protocol string, n int) {
	group := "g-" + protocol
	wait := t.start(fmt.Sprintf("kafka-console-consumer --topic orders --max-messages %d --group %s --command-property group.protocol=%s", n, group, protocol), nil)
	t.await("kafka-consumer-groups --describe --members --group "+group, group+" ID /127.0.0.1 console-consumer 3")
	strategy := map[string]string{"classic": "range", "consumer": "uniform"}[protocol]
	t.run("kafka-consumer-groups --describe --state --group "+group, 0, `
		GROUP COORDINATOR (ID) ASSIGNMENT-STRATEGY STATE #MEMBERS
		`+group+` ADDR (1) `+strategy+` Stable 1`)
	verbose := t.end("kafka-consumer-groups --describe --members --verbose --group "+group, nil)
	if lines := t.printed(verbose.Out); len(lines) != 2 || !strings.Contains(lines[1], "orders:0,1,2") {
		t.Errorf("the members of %s are %q, want one with orders:0,1,2", group, lines)
	}
	t.run("kafka-consumer-groups --reset-offsets --to-earliest --topic orders --execute --group "+group, 0,
		"Error: Assignments can only be reset if the group '"+group+"' is inactive, but the current state is Stable.\nGROUP TOPIC PARTITION NEW-OFFSET")
	t.run("kafka-consumer-groups --delete --group "+group, 0, `
		Error: Deletion of some consumer groups failed:
		* Group '`+group+`' could not be deleted due to: org.apache.kafka.common.errors.GroupNotEmptyException: The group is not empty.`)
	t.feed("kafka-console-producer --topic orders", "x\ny\n")
	end, err := wait()
	if err != nil {
		t.Fatal(err)
	}
	t.check("kafka-console-consumer in "+group, end, 0, "in any order\n"+strings.Repeat("x\ny\n", n/2))
}

// positions sets a group's offsets, in each way that there is, and deletes them,
// and the group.
func (t *tools) positions() {
	t.run("kafka-topics --create --topic moves --partitions 2", 0, "Created topic moves.")
	t.feed("kafka-console-producer --topic moves --reader-property parse.key=true --reader-property key.separator=:", "a:1\nb:2\nc:3\nd:4\ne:5\nf:6\n")
	const reset = "kafka-consumer-groups --reset-offsets --group g-classic "
	for _, to := range []struct {
		how    string
		want   [2]int // by partition; -1: it is not set
		effect [2]int // what is committed then; -1: nothing
	}{
		{"--topic moves --to-earliest --dry-run", [2]int{0, 0}, [2]int{-1, -1}},
		{"--topic moves --to-earliest", [2]int{0, 0}, [2]int{-1, -1}}, // a dry run too
		{"--topic moves --to-latest --execute", [2]int{4, 2}, [2]int{4, 2}},
		{"--topic moves:0,1 --shift-by -1 --execute", [2]int{3, 1}, [2]int{3, 1}},
		{"--topic moves --to-datetime 2020-01-01T00:00:00.000 --execute", [2]int{0, 0}, [2]int{0, 0}},
		{"--topic moves:1 --to-offset 7 --execute", [2]int{-1, 2}, [2]int{0, 2}}, // there are two
		{"--topic moves --by-duration P1D --execute", [2]int{0, 0}, [2]int{0, 0}},
		{"--topic moves:0 --to-offset 1 --execute", [2]int{1, -1}, [2]int{1, 0}},
		{"--from-file " + t.plan("moves,0,3\nmoves,1,2\n") + " --execute", [2]int{3, 2}, [2]int{3, 2}},
	} {
		want := "in any order\nGROUP TOPIC PARTITION NEW-OFFSET\n"
		for partition, offset := range to.want {
			if offset >= 0 {
				want += fmt.Sprintf("g-classic moves %d %d\n", partition, offset)
			}
		}
		t.run(reset+to.how, 0, want)
		t.committed("g-classic", "moves", to.effect)
	}
	t.run(reset+"--topic moves --to-current --export --dry-run", 0, "in any order\nmoves,0,3\nmoves,1,2")
	t.run("kafka-consumer-groups --delete-offsets --topic moves:0 --group g-classic", 0, `
		Request succeeded for deleting offsets from group g-classic.
		TOPIC PARTITION STATUS
		moves 0 Successful`)
	t.committed("g-classic", "moves", [2]int{-1, 2})
	for _, group := range []string{"g-classic", "g-consumer"} {
		t.run("kafka-consumer-groups --delete --group "+group, 0, "Deletion of requested consumer groups ('"+group+"') was successful.")
	}
	t.run("kafka-consumer-groups --list", 0, "")
	gone := t.end("kafka-consumer-groups --describe --group g-classic", nil)
	if want := "GroupIdNotFoundException"; !strings.Contains(gone.Out, want) {
		t.Errorf("a group that is deleted: %+v, want %s", gone, want)
	}
	t.run("kafka-topics --delete --topic moves", 0, "")
}

// plan writes a file of positions as --export prints them.
func (t *tools) plan(text string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "plan.csv")
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

// committed wants a group's offsets of a topic as kafka-consumer-groups describes
// them.
func (t *tools) committed(group, topic string, want [2]int) {
	t.Helper()
	end := t.end("kafka-consumer-groups --describe --group "+group, nil)
	got := [2]int{-1, -1}
	for _, line := range t.printed(end.Out) {
		var partition, offset int
		if n, _ := fmt.Sscanf(line, group+" "+topic+" %d %d", &partition, &offset); n == 2 && partition < len(got) {
			got[partition] = offset
		}
	}
	if got != want {
		t.Errorf("group %s is at %v of topic %s, want %v:\n%s", group, got, topic, want, end.Out)
	}
}

// elections: on one node every partition is led by the one that is to lead it.
func (t *tools) elections() {
	t.run("kafka-leader-election --election-type preferred --topic orders --partition 0", 0, "Valid replica already elected for partitions orders-0")
	t.run("kafka-leader-election --election-type preferred --all-topic-partitions", 0, "")
	refused := t.end("kafka-leader-election --election-type unclean --topic orders --partition 1", nil)
	if want := "there are no unclean elections"; refused.Code != 1 || !strings.Contains(refused.Out+refused.Err, want) {
		t.Errorf("an unclean election: %+v, want a refusal that says %q", refused, want)
	}
}
