import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.PrintStream;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Base64;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import java.util.TreeMap;
import java.util.concurrent.Future;
import java.util.concurrent.TimeoutException;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.AlterConfigOp;
import org.apache.kafka.clients.admin.Config;
import org.apache.kafka.clients.admin.ConfigEntry;
import org.apache.kafka.clients.admin.CreateTopicsResult;
import org.apache.kafka.clients.admin.ListConfigResourcesOptions;
import org.apache.kafka.clients.admin.NewPartitions;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.admin.OffsetSpec;
import org.apache.kafka.clients.admin.RecordsToDelete;
import org.apache.kafka.clients.admin.TopicDescription;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.clients.producer.RecordMetadata;
import org.apache.kafka.common.Node;
import org.apache.kafka.common.PartitionInfo;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.TopicPartitionInfo;
import org.apache.kafka.common.Uuid;
import org.apache.kafka.common.config.ConfigResource;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.serialization.StringDeserializer;
import org.apache.kafka.common.serialization.StringSerializer;

/**
 * Uses a Flotilla node through Kafka's own Java client: makes a topic, produces with each
 * compression, reads everything back by assignment and as members of groups, and administers. What it saw goes to standard
 * output, one JSON object a line.
 *
 * <pre>
 * mvn -q compile
 * java -cp 'target/classes:target/libs/*' Example 127.0.0.1:9092 greetings
 * </pre>
 *
 * It leaves the topic behind; a second run needs another name.
 */
public final class Example {
    private static final int PER_CODEC = 6;
    private static final List<String> CODECS = List.of("none", "gzip", "snappy", "lz4", "zstd");

    private final String bootstrap;
    private final String topic;
    private final PrintStream out;
    private final List<TopicPartition> partitions;
    private long middleMs; // the timestamp of a record in the middle
    private int sent;
    private final Map<TopicPartition, OffsetAndMetadata> last = new LinkedHashMap<>();

    Example(String bootstrap, String topic, PrintStream out) {
        this.bootstrap = bootstrap;
        this.topic = topic;
        this.out = out;
        this.partitions = List.of(new TopicPartition(topic, 0), new TopicPartition(topic, 1));
    }

    public static void main(String[] args) throws Exception {
        if (args.length != 2) {
            System.err.println("usage: Example HOST:PORT TOPIC");
            System.exit(2);
        }
        try {
            new Example(args[0], args[1], System.out).run();
        } catch (Exception e) {
            System.err.println("java: " + e);
            System.exit(1);
        }
    }

    void run() throws Exception {
        Map<String, Object> config = Map.of("bootstrap.servers", bootstrap,
            "default.api.timeout.ms", "10000", "request.timeout.ms", "5000");
        try (Admin admin = Admin.create(config)) {
            cluster(admin);
            createTopic(admin);
            describeTopic(admin);
            produce();
            consume();
            groups(admin);
            offsets(admin);
            configs(admin);
            logDirs(admin);
            producers(admin);
            createPartitions(admin);
            deleteRecords(admin);
            deleteTopic(admin);
        }
    }

    private void cluster(Admin admin) throws Exception {
        var cluster = admin.describeCluster();
        List<String> brokers = new ArrayList<>();
        for (Node n : cluster.nodes().get()) {
            brokers.add(n.host() + ":" + n.port());
        }
        say("cluster", "id", cluster.clusterId().get(), "controller", cluster.controller().get().id(), "brokers", brokers);
    }

    private void createTopic(Admin admin) throws Exception {
        NewTopic t = new NewTopic(topic, 2, (short) 1).configs(Map.of("max.message.bytes", "2000000"));
        CreateTopicsResult r = admin.createTopics(Set.of(t));
        say("create-topic", "topic", topic, "topic_id", base64(r.topicId(topic).get()),
            "partitions", r.numPartitions(topic).get(), "replication", r.replicationFactor(topic).get(),
            "max_message_bytes", r.config(topic).get().get("max.message.bytes").value());
    }

    private void describeTopic(Admin admin) throws Exception {
        TopicDescription d = admin.describeTopics(Set.of(topic)).allTopicNames().get().get(topic);
        List<Integer> leaders = new ArrayList<>();
        for (TopicPartitionInfo p : d.partitions()) {
            leaders.add(p.leader().id());
        }
        say("describe-topic", "topic", d.name(), "topic_id", base64(d.topicId()), "leaders", leaders);
    }

    /** Sends keyed records with headers, with an idempotent producer for each compression. */
    private void produce() throws Exception {
        long start = System.currentTimeMillis();
        middleMs = start + CODECS.size() * PER_CODEC / 2;
        for (String codec : CODECS) {
            Map<String, Object> config = Map.of("bootstrap.servers", bootstrap, "compression.type", codec,
                "max.block.ms", "10000", "delivery.timeout.ms", "10000", "request.timeout.ms", "5000", "linger.ms", "5");
            try (var producer = new KafkaProducer<>(config, new StringSerializer(), new StringSerializer())) {
                List<Future<RecordMetadata>> acks = new ArrayList<>();
                for (int i = 0; i < PER_CODEC; i++) {
                    String value = (codec + " record " + i + ". ").repeat(40);
                    var record = new ProducerRecord<>(topic, null, start + sent++, codec + "-" + i, value);
                    record.headers().add("codec", utf8(codec)).add("n", utf8(Integer.toString(i)));
                    acks.add(producer.send(record));
                }
                for (int i = 0; i < PER_CODEC; i++) {
                    RecordMetadata m = acks.get(i).get();
                    say("produced", "codec", codec, "key", codec + "-" + i, "partition", m.partition(), "offset", m.offset());
                }
            }
        }
    }

    /** Reads the topic from its beginning, by assignment. */
    private void consume() throws Exception {
        Map<String, Object> config = Map.of("bootstrap.servers", bootstrap,
            "default.api.timeout.ms", "10000", "request.timeout.ms", "5000", "auto.offset.reset", "none");
        try (var consumer = new KafkaConsumer<>(config, new StringDeserializer(), new StringDeserializer())) {
            List<Integer> leaders = new ArrayList<>();
            List<String> brokers = new ArrayList<>();
            for (PartitionInfo p : consumer.partitionsFor(topic)) {
                leaders.add(p.leader().id());
                String broker = p.leader().host() + ":" + p.leader().port();
                if (!brokers.contains(broker)) {
                    brokers.add(broker);
                }
            }
            say("metadata", "topic", topic, "leaders", leaders, "brokers", brokers);

            consumer.assign(partitions);
            consumer.seekToBeginning(partitions);
            read(consumer, sent, true);

            // A position with the epoch of the record before is checked against the leader's epochs
            // before anything is read: with a wrong answer this position would be given up.
            for (TopicPartition p : partitions) {
                consumer.seek(p, last.get(p));
            }
            read(consumer, partitions.size(), false);
            for (TopicPartition p : partitions) {
                say("epoch-end", "partition", p.partition(), "epoch", last.get(p).leaderEpoch().get(), "end", consumer.position(p));
            }
        }
    }

    /** Reads so many records, which are there, and tells of each if that is asked for. */
    private void read(KafkaConsumer<String, String> consumer, int want, boolean tell) throws Exception {
        long deadline = System.nanoTime() + Duration.ofSeconds(10).toNanos();
        int n = 0;
        while (n < want) {
            if (System.nanoTime() - deadline > 0) {
                throw new TimeoutException(n + " records consumed, want " + want);
            }
            for (ConsumerRecord<String, String> r : consumer.poll(Duration.ofMillis(200))) {
                n++;
                last.put(new TopicPartition(r.topic(), r.partition()), new OffsetAndMetadata(r.offset(), r.leaderEpoch(), ""));
                if (!tell) {
                    continue;
                }
                sayRecord("consumed", r);
            }
        }
    }

    private void groups(Admin admin) throws Exception {
        var groups = new Groups(bootstrap, topic, admin, sent, new Groups.Say() {
            @Override
            public void say(String step, Object... fields) throws Exception {
                Example.this.say(step, fields);
            }

            @Override
            public void record(String step, ConsumerRecord<String, String> r) throws Exception {
                sayRecord(step, r);
            }
        });
        groups.classic();
        groups.delete();
        groups.serverAssigned();
    }

    private void offsets(Admin admin) throws Exception {
        for (TopicPartition p : partitions) {
            long earliest = admin.listOffsets(Map.of(p, OffsetSpec.earliest())).partitionResult(p).get().offset();
            long latest = admin.listOffsets(Map.of(p, OffsetSpec.latest())).partitionResult(p).get().offset();
            long at = admin.listOffsets(Map.of(p, OffsetSpec.forTimestamp(middleMs))).partitionResult(p).get().offset();
            say("offsets", "partition", p.partition(), "earliest", earliest, "latest", latest, "at_ms", middleMs, "at", at);
        }
    }

    private void configs(Admin admin) throws Exception {
        describeConfigs(admin, "configs");
        var resource = new ConfigResource(ConfigResource.Type.TOPIC, topic);
        var op = new AlterConfigOp(new ConfigEntry("retention.ms", "3600000"), AlterConfigOp.OpType.SET);
        admin.incrementalAlterConfigs(Map.of(resource, List.of(op))).all().get();
        describeConfigs(admin, "configs-altered");

        List<String> names = new ArrayList<>();
        for (ConfigResource r : admin.listConfigResources(Set.of(ConfigResource.Type.TOPIC), new ListConfigResourcesOptions()).all().get()) {
            names.add(r.name());
        }
        say("config-resources", "topics", names);
    }

    private void describeConfigs(Admin admin, String step) throws Exception {
        var resource = new ConfigResource(ConfigResource.Type.TOPIC, topic);
        Config c = admin.describeConfigs(Set.of(resource)).all().get().get(resource);
        Map<String, String> configs = new TreeMap<>();
        Map<String, String> sources = new TreeMap<>();
        for (String name : List.of("max.message.bytes", "retention.ms", "retention.bytes")) {
            configs.put(name, c.get(name).value());
            sources.put(name, c.get(name).source().name());
        }
        say(step, "configs", configs, "sources", sources);
    }

    private void logDirs(Admin admin) throws Exception {
        long bytes = 0;
        int broker = admin.describeCluster().nodes().get().iterator().next().id();
        for (var dir : admin.describeLogDirs(Set.of(broker)).allDescriptions().get().get(broker).values()) {
            for (TopicPartition p : partitions) {
                var replica = dir.replicaInfos().get(p);
                bytes += replica == null ? 0 : replica.size();
            }
        }
        say("log-dirs", "bytes", bytes);
    }

    private void producers(Admin admin) throws Exception {
        for (TopicPartition p : partitions) {
            List<Long> ids = new ArrayList<>();
            admin.describeProducers(Set.of(p)).partitionResult(p).get().activeProducers().forEach(s -> ids.add(s.producerId()));
            say("producers", "partition", p.partition(), "ids", ids);
        }
    }

    private void createPartitions(Admin admin) throws Exception {
        admin.createPartitions(Map.of(topic, NewPartitions.increaseTo(3))).all().get();
        TopicDescription d = admin.describeTopics(Set.of(topic)).allTopicNames().get().get(topic);
        say("create-partitions", "partitions", d.partitions().size());
    }

    private void deleteRecords(Admin admin) throws Exception {
        TopicPartition p = partitions.get(0);
        var deleted = admin.deleteRecords(Map.of(p, RecordsToDelete.beforeOffset(1))).lowWatermarks().get(p).get();
        say("delete-records", "partition", p.partition(), "low_watermark", deleted.lowWatermark());
    }

    private void deleteTopic(Admin admin) throws Exception {
        String scratch = topic + "-scratch";
        admin.createTopics(Set.of(new NewTopic(scratch, Optional.of(1), Optional.empty()))).all().get();
        admin.deleteTopics(Set.of(scratch)).all().get();
        say("delete-topic", "topic", scratch, "exists", admin.listTopics().names().get().contains(scratch));
    }

    private void sayRecord(String step, ConsumerRecord<String, String> r) throws Exception {
        Map<String, String> headers = new LinkedHashMap<>();
        for (Header h : r.headers()) {
            headers.put(h.key(), new String(h.value(), StandardCharsets.UTF_8));
        }
        say(step, "partition", r.partition(), "offset", r.offset(), "timestamp", r.timestamp(),
            "key", r.key(), "value", r.value(), "headers", headers);
    }

    private static byte[] utf8(String s) {
        return s.getBytes(StandardCharsets.UTF_8);
    }

    /** Writes a topic id as Kafka's other clients do. */
    private static String base64(Uuid id) {
        byte[] raw = ByteBuffer.allocate(16)
            .putLong(id.getMostSignificantBits()).putLong(id.getLeastSignificantBits()).array();
        return Base64.getEncoder().encodeToString(raw);
    }

    /** Prints what a step saw; names and values alternate. */
    private void say(String step, Object... fields) throws Exception {
        Map<String, Object> line = new LinkedHashMap<>();
        line.put("step", step);
        for (int i = 0; i < fields.length; i += 2) {
            line.put((String) fields[i], fields[i + 1]);
        }
        out.println(JSON.writeValueAsString(line));
    }

    private static final ObjectMapper JSON = new ObjectMapper();
}
