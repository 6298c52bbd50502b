import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.time.Duration;
import java.util.Collection;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import java.util.TreeSet;
import java.util.concurrent.Future;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.admin.OffsetSpec;
import org.apache.kafka.clients.admin.TopicDescription;
import org.apache.kafka.clients.consumer.ConsumerRebalanceListener;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.ConsumerRecords;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.clients.producer.RecordMetadata;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.TopicPartitionInfo;
import org.apache.kafka.common.errors.WakeupException;
import org.apache.kafka.common.serialization.StringDeserializer;
import org.apache.kafka.common.serialization.StringSerializer;

/**
 * Orders, and services that each hear of all of them, with Kafka's own Java client.
 *
 * <pre>
 * mvn -q compile
 * alias orders="java -cp 'target/classes:target/libs/*' Orders 127.0.0.1:9092"
 * orders create
 * orders work order-service
 * orders work billing
 * orders place 1 20
 * orders rewind billing
 * </pre>
 *
 * place sends what happens to the orders 1 to 20: order.placed, order.paid and order.shipped, with
 * the order's id as the key, so that what happens to one order lies in one partition, in its order.
 *
 * <p>work handles events as a member of a group, until it is interrupted. Each group gets every
 * event; members of one group, in as many terminals as there are partitions, share them. With
 * -Dgroup.protocol=consumer the server assigns the partitions (KIP-848), not one of the members.
 * rewind lets a group whose members have all left begin again. What happened goes to standard output,
 * one JSON object a line.
 */
public final class Orders {
    private static final String TOPIC = "orders";
    private static final List<String> EVENTS = List.of("order.placed", "order.paid", "order.shipped");
    private static final ObjectMapper JSON = new ObjectMapper();

    private final String bootstrap;

    private Orders(String bootstrap) {
        this.bootstrap = bootstrap;
    }

    public static void main(String[] args) {
        String command = args.length < 2 ? "" : args[1] + " " + (args.length - 2);
        try {
            switch (command) {
                case "create 0" -> new Orders(args[0]).create();
                case "place 2" -> new Orders(args[0]).place(Integer.parseInt(args[2]), Integer.parseInt(args[3]));
                case "work 1" -> new Orders(args[0]).work(args[2]);
                case "rewind 1" -> new Orders(args[0]).rewind(args[2]);
                default -> throw new IllegalArgumentException("usage: Orders HOST:PORT create|place FIRST LAST|work GROUP|rewind GROUP");
            }
        } catch (Exception e) {
            System.err.println("orders: " + e);
            Runtime.getRuntime().halt(1);
        }
    }

    private Admin admin() {
        return Admin.create(Map.of("bootstrap.servers", bootstrap));
    }

    private void create() throws Exception {
        try (Admin admin = admin()) {
            admin.createTopics(Set.of(new NewTopic(TOPIC, Optional.of(6), Optional.empty()))).all().get();
        }
        say("created", "topic", TOPIC);
    }

    private void place(int first, int last) throws Exception {
        // Idempotent, unless told otherwise: what is sent again after an error is in the topic once.
        Map<String, Object> config = Map.of("bootstrap.servers", bootstrap);
        try (var producer = new KafkaProducer<>(config, new StringSerializer(), new StringSerializer())) {
            for (String event : EVENTS) {
                Map<String, Future<RecordMetadata>> acks = new LinkedHashMap<>();
                for (int n = first; n <= last; n++) {
                    String order = "order-" + n;
                    String value = JSON.writeValueAsString(Map.of("event", event, "order", order));
                    acks.put(order, producer.send(new ProducerRecord<>(TOPIC, order, value)));
                }
                for (var ack : acks.entrySet()) {
                    ack.getValue().get();
                    say("placed", "order", ack.getKey(), "event", event);
                }
            }
        }
    }

    private void work(String group) throws Exception {
        Map<String, Object> config = Map.of("bootstrap.servers", bootstrap, "group.id", group,
            "group.protocol", System.getProperty("group.protocol", "classic"),
            "auto.offset.reset", "earliest", // of a group that has committed nothing yet
            "enable.auto.commit", "false");
        var consumer = new KafkaConsumer<>(config, new StringDeserializer(), new StringDeserializer());
        Thread worker = Thread.currentThread();
        Runtime.getRuntime().addShutdownHook(new Thread(() -> {
            consumer.wakeup();
            try {
                worker.join();
            } catch (InterruptedException e) {
                Thread.currentThread().interrupt();
            }
        }));
        try (consumer) { // closing it leaves the group: the others get the partitions
            consumer.subscribe(List.of(TOPIC), new Owned());
            while (true) {
                ConsumerRecords<String, String> records = consumer.poll(Duration.ofSeconds(1));
                for (ConsumerRecord<String, String> r : records) {
                    handle(r);
                }
                // If the process is killed before this, whoever has the partition next gets the events
                // again. That is at least once.
                if (!records.isEmpty()) {
                    commit(consumer);
                }
            }
        } catch (WakeupException e) {
            // interrupted, with everything handled and committed
        }
    }

    /** Commits what was polled, also if the program is interrupted meanwhile. */
    private static void commit(KafkaConsumer<String, String> consumer) {
        try {
            consumer.commitSync();
        } catch (WakeupException e) {
            consumer.commitSync();
            throw e;
        }
    }

    private static void handle(ConsumerRecord<String, String> r) throws Exception {
        JsonNode e = JSON.readTree(r.value());
        say("handled", "event", e.get("event").asText(), "order", e.get("order").asText(), "key", r.key(),
            "partition", r.partition(), "offset", r.offset());
    }

    /** What a member has. It is told while it polls, and never while it handles events. */
    private static final class Owned implements ConsumerRebalanceListener {
        private final Set<Integer> partitions = new TreeSet<>();

        @Override
        public void onPartitionsAssigned(Collection<TopicPartition> assigned) {
            assigned.forEach(p -> partitions.add(p.partition()));
            say("assigned", "partitions", partitions);
        }

        @Override
        public void onPartitionsRevoked(Collection<TopicPartition> revoked) {
            revoked.forEach(p -> partitions.remove(p.partition()));
            say("assigned", "partitions", partitions);
        }
    }

    private void rewind(String group) throws Exception {
        try (Admin admin = admin()) {
            TopicDescription t = admin.describeTopics(Set.of(TOPIC)).allTopicNames().get().get(TOPIC);
            Map<TopicPartition, OffsetSpec> all = new HashMap<>();
            for (TopicPartitionInfo p : t.partitions()) {
                all.put(new TopicPartition(TOPIC, p.partition()), OffsetSpec.earliest());
            }
            Map<TopicPartition, OffsetAndMetadata> starts = new HashMap<>();
            admin.listOffsets(all).all().get().forEach((p, o) -> starts.put(p, new OffsetAndMetadata(o.offset())));
            admin.alterConsumerGroupOffsets(group, starts).all().get();
        }
        say("rewound", "group", group);
    }

    /** Prints what happened; names and values alternate. */
    private static void say(String step, Object... fields) {
        Map<String, Object> line = new LinkedHashMap<>();
        line.put("step", step);
        for (int i = 0; i < fields.length; i += 2) {
            line.put((String) fields[i], fields[i + 1]);
        }
        try {
            System.out.println(JSON.writeValueAsString(line));
        } catch (com.fasterxml.jackson.core.JsonProcessingException e) {
            throw new IllegalStateException(e);
        }
    }
}
