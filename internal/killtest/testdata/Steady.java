import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.util.Base64;
import java.util.Map;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.serialization.ByteArraySerializer;

/**
 * Says that it is ready, and then produces with the Java client as it comes: idempotent, acks=all,
 * with its own time-outs and retries. Each line of standard input is a value in Base64. For each, in
 * their order, a line says at which offset it is, or what the client gave it up for.
 */
public final class Steady {
    public static void main(String[] args) throws Exception {
        PrintStream out = System.out;
        Map<String, Object> config = Map.of("bootstrap.servers", args[0], "client.id", "steady");
        int partition = Integer.parseInt(args[2]);
        BufferedReader in = new BufferedReader(new InputStreamReader(System.in));
        try (var producer = new KafkaProducer<>(config, new ByteArraySerializer(), new ByteArraySerializer())) {
            producer.partitionsFor(args[1]);
            out.println("ready");
            for (String line = in.readLine(); line != null; line = in.readLine()) {
                byte[] value = Base64.getDecoder().decode(line);
                producer.send(new ProducerRecord<>(args[1], partition, null, value), (at, e) -> {
                    out.println(e == null ? Long.toString(at.offset()) : "given up: " + e);
                    out.flush();
                });
            }
        }
    }
}
