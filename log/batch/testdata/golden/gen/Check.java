import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.stream.Collectors;
import java.util.stream.Stream;
import org.apache.kafka.common.record.internal.MemoryRecords;
import org.apache.kafka.common.record.internal.MutableRecordBatch;
import org.apache.kafka.common.record.internal.Record;

/**
 * Reads each x.bin of a folder with Kafka's own classes, and compares every record with the lines of x.txt, which the
 * writer of the batches left beside it.
 */
public class Check {
    public static void main(String[] args) throws IOException {
        List<Path> files;
        try (Stream<Path> s = Files.list(Path.of(args[0]))) {
            files = s.filter(p -> p.toString().endsWith(".bin")).sorted().collect(Collectors.toList());
        }
        int bad = files.isEmpty() ? 1 : 0;
        for (Path p : files) {
            String want = Files.readString(Path.of(p.toString().replaceAll("bin$", "txt")));
            StringBuilder got = new StringBuilder();
            int records = 0;
            try {
                for (MutableRecordBatch b : MemoryRecords.readableRecords(ByteBuffer.wrap(Files.readAllBytes(p))).batches()) {
                    b.ensureValid();
                    for (Record r : b) {
                        r.ensureValid();
                        got.append(Gen.record(r)).append('\n');
                        records++;
                    }
                }
            } catch (RuntimeException e) {
                got.append(e);
            }
            boolean same = got.toString().equals(want);
            System.out.printf("%-4s %s: %d records%n", same ? "ok" : "BAD", p.getFileName(), records);
            bad += same ? 0 : 1;
        }
        System.exit(bad == 0 ? 0 : 1);
    }
}
