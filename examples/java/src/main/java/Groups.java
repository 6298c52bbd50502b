import java.time.Duration;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.TreeSet;
import java.util.concurrent.TimeoutException;
import java.util.function.BooleanSupplier;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.ConsumerGroupDescription;
import org.apache.kafka.clients.admin.GroupListing;
import org.apache.kafka.clients.admin.MemberDescription;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.StringDeserializer;

/** The part of the example that is about consumer groups. */
final class Groups {
    /** Prints what a step saw; names and values alternate. */
    interface Say {
        void say(String step, Object... fields) throws Exception;

        void record(String step, ConsumerRecord<String, String> r) throws Exception;
    }

    private final String bootstrap;
    private final String topic;
    private final Admin admin;
    private final Say out;
    private final int sent;
    private final long deadline = System.nanoTime() + Duration.ofSeconds(20).toNanos();

    Groups(String bootstrap, String topic, Admin admin, int sent, Say out) {
        this.bootstrap = bootstrap;
        this.topic = topic;
        this.admin = admin;
        this.sent = sent;
        this.out = out;
    }

    /** A member of a group that begins at the beginning of the topic. */
    private KafkaConsumer<String, String> join(String group, Map<String, Object> more) {
        Map<String, Object> config = new HashMap<>(Map.of("bootstrap.servers", bootstrap, "group.id", group,
            "auto.offset.reset", "earliest", "enable.auto.commit", "false",
            "default.api.timeout.ms", "10000", "request.timeout.ms", "5000"));
        config.putAll(more);
        var member = new KafkaConsumer<>(config, new StringDeserializer(), new StringDeserializer());
        member.subscribe(List.of(topic));
        return member;
    }

    /** Polls all members, so that they take part, until something has come about. */
    private void until(BooleanSupplier done, List<KafkaConsumer<String, String>> members, String step) throws Exception {
        while (!done.getAsBoolean()) {
            if (System.nanoTime() - deadline > 0) {
                throw new TimeoutException("members of a group wait in vain, in step " + step);
            }
            for (var member : members) {
                for (ConsumerRecord<String, String> r : member.poll(Duration.ofMillis(100))) {
                    out.record(step, r);
                    consumed++;
                }
            }
        }
    }

    private int consumed;

    private void consume(KafkaConsumer<String, String> member, String step) throws Exception {
        consumed = 0;
        until(() -> consumed >= sent, List.of(member), step);
        member.commitSync();
    }

    private static List<Integer> partitions(Set<TopicPartition> of) {
        Set<Integer> sorted = new TreeSet<>();
        of.forEach(p -> sorted.add(p.partition()));
        return new ArrayList<>(sorted);
    }

    /** Has members come and go, and looks at their group. */
    void classic() throws Exception {
        String group = topic + "-group";
        // Members hear of each other with their heartbeats.
        Map<String, Object> config = Map.of("group.protocol", "classic", "heartbeat.interval.ms", "200");
        try (var first = join(group, config)) {
            consume(first, "group-consumed");
            committed(group, "committed");
            try (var second = join(group, config)) {
                until(() -> first.assignment().size() == 1 && second.assignment().size() == 1, List.of(first, second), "group-shared");
                out.say("group-shared", "members", List.of(partitions(first.assignment()), partitions(second.assignment())));
                List<String> groups = new ArrayList<>();
                String state = "";
                for (GroupListing g : admin.listGroups().all().get()) {
                    groups.add(g.groupId());
                    if (g.groupId().equals(group)) {
                        state = g.groupState().map(Object::toString).orElse("");
                    }
                }
                out.say("groups", "groups", groups, "state", state);
                ConsumerGroupDescription d = admin.describeConsumerGroups(Set.of(group)).describedGroups().get(group).get();
                out.say("described-group", "group", d.groupId(), "state", d.groupState().toString(), "protocol", d.partitionAssignor(),
                    "members", members(d));
            }
            until(() -> first.assignment().size() == 2, List.of(first), "group-left");
            out.say("group-left", "members", List.of(partitions(first.assignment())));
        }
    }

    private static List<List<Integer>> members(ConsumerGroupDescription d) {
        List<List<Integer>> members = new ArrayList<>();
        for (MemberDescription m : d.members()) {
            members.add(partitions(m.assignment().topicPartitions()));
        }
        return members;
    }

    private void committed(String group, String step) throws Exception {
        var offsets = admin.listConsumerGroupOffsets(group).partitionsToOffsetAndMetadata().get();
        for (var o : offsets.entrySet()) {
            if (o.getValue() != null) {
                out.say(step, "partition", o.getKey().partition(), "offset", o.getValue().offset());
            }
        }
    }

    /** Has a member of a group whose partitions the server assigns (KIP-848). */
    void serverAssigned() throws Exception {
        String group = topic + "-group-assigned";
        try (var member = join(group, Map.of("group.protocol", "consumer"))) {
            consume(member, "assigned-consumed");
            ConsumerGroupDescription d = admin.describeConsumerGroups(Set.of(group)).describedGroups().get(group).get();
            out.say("described-assigned", "group", d.groupId(), "state", d.groupState().toString(), "assignor", d.partitionAssignor(),
                "members", members(d));
        }
    }

    /** Makes a group of offsets alone, and deletes one of them, and it. */
    void delete() throws Exception {
        String group = topic + "-group-scratch";
        TopicPartition kept = new TopicPartition(topic, 0);
        TopicPartition dropped = new TopicPartition(topic, 1);
        admin.alterConsumerGroupOffsets(group, Map.of(kept, new OffsetAndMetadata(1), dropped, new OffsetAndMetadata(1))).all().get();
        admin.deleteConsumerGroupOffsets(group, Set.of(dropped)).all().get();
        committed(group, "offsets-left");
        admin.deleteConsumerGroups(Set.of(group)).all().get();
        boolean exists = admin.listGroups().all().get().stream().anyMatch(g -> g.groupId().equals(group));
        out.say("delete-group", "group", group, "exists", exists);
    }
}
