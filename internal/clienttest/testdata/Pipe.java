import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.Future;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.clients.producer.RecordMetadata;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;

/**
 * Carries records between the test and the Java client, as JSON lines with bytes in base64.
 *
 * <pre>
 * Pipe produce HOST:PORT CODEC TOPIC < records     to partition 0, in their order
 * Pipe consume HOST:PORT TOPIC... > records        partition 0 of each, up to its end
 * </pre>
 */
public final class Pipe {
    private static final ObjectMapper JSON = new ObjectMapper();

    public static void main(String[] args) throws Exception {
        if (args[0].equals("produce")) {
            produce(args[1], args[2], args[3]);
        } else {
            consume(args[1], List.of(args).subList(2, args.length));
        }
    }

    private static void produce(String bootstrap, String codec, String topic) throws Exception {
        Map<String, Object> config = Map.of("bootstrap.servers", bootstrap, "compression.type", codec,
            "linger.ms", "20", "batch.size", "100000", "delivery.timeout.ms", "20000", "request.timeout.ms", "10000");
        var bytes = new ByteArraySerializer();
        var in = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        try (var producer = new KafkaProducer<>(config, bytes, bytes)) {
            List<Future<RecordMetadata>> acks = new ArrayList<>();
            for (String line = in.readLine(); line != null; line = in.readLine()) {
                JsonNode r = JSON.readTree(line);
                var record = new ProducerRecord<>(topic, 0, r.get("key").binaryValue(), r.get("value").binaryValue());
                for (JsonNode h : r.get("headers")) {
                    record.headers().add(h.get("key").textValue(), h.get("value").binaryValue());
                }
                acks.add(producer.send(record));
            }
            for (Future<RecordMetadata> ack : acks) {
                ack.get();
            }
        }
    }

    private static void consume(String bootstrap, List<String> topics) throws Exception {
        List<TopicPartition> partitions = new ArrayList<>();
        for (String topic : topics) {
            partitions.add(new TopicPartition(topic, 0));
        }
        var bytes = new ByteArrayDeserializer();
        try (var consumer = new KafkaConsumer<>(Map.<String, Object>of("bootstrap.servers", bootstrap), bytes, bytes)) {
            consumer.assign(partitions);
            consumer.seekToBeginning(partitions);
            Map<TopicPartition, Long> ends = new HashMap<>(consumer.endOffsets(partitions));
            ends.values().removeIf(end -> end == 0);
            while (!ends.isEmpty()) {
                for (ConsumerRecord<byte[], byte[]> r : consumer.poll(Duration.ofMillis(200))) {
                    print(r);
                }
                ends.entrySet().removeIf(e -> consumer.position(e.getKey()) >= e.getValue());
            }
        }
    }

    private static void print(ConsumerRecord<byte[], byte[]> r) throws Exception {
        Map<String, Object> line = new LinkedHashMap<>();
        line.put("topic", r.topic());
        line.put("offset", r.offset());
        line.put("timestamp", r.timestamp());
        line.put("key", r.key());
        line.put("value", r.value());
        List<Map<String, Object>> headers = new ArrayList<>();
        for (Header h : r.headers()) {
            headers.add(Map.of("key", h.key(), "value", h.value()));
        }
        line.put("headers", headers);
        System.out.println(JSON.writeValueAsString(line));
    }
}
