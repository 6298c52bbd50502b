import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HexFormat;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.function.Predicate;
import org.apache.kafka.common.compress.Compression;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.header.internals.RecordHeader;
import org.apache.kafka.common.record.TimestampType;
import org.apache.kafka.common.record.internal.ControlRecordType;
import org.apache.kafka.common.record.internal.EndTransactionMarker;
import org.apache.kafka.common.record.internal.MemoryRecords;
import org.apache.kafka.common.record.internal.MemoryRecordsBuilder;
import org.apache.kafka.common.record.internal.MutableRecordBatch;
import org.apache.kafka.common.record.internal.Record;
import org.apache.kafka.common.record.internal.RecordBatch;
import org.apache.kafka.common.utils.BufferSupplier;

/** Writes the golden batches, and manifest.json that says what Kafka's own classes read from them. */
public class Gen {
    static final long T = 1_700_000_000_000L;
    static final Header[] NONE = {};

    final Path dir;
    final Map<String, String> manifest = new LinkedHashMap<>();

    Gen(Path dir) {
        this.dir = dir;
    }

    public static void main(String[] args) throws IOException {
        Gen g = new Gen(Path.of(args[0]));
        Map<String, Compression> codecs = new LinkedHashMap<>();
        codecs.put("none", Compression.NONE);
        codecs.put("gzip", Compression.gzip().build());
        codecs.put("snappy", Compression.snappy().build());
        codecs.put("lz4", Compression.lz4().build());
        codecs.put("zstd", Compression.zstd().build());
        for (Map.Entry<String, Compression> c : codecs.entrySet()) {
            g.producer(c.getKey(), c.getValue());
            g.stored(c.getKey(), c.getValue());
        }
        g.write("gzip9-mixed", mixed(client(Compression.gzip().level(9).build())).build());
        g.write("lz4hc-mixed", mixed(client(Compression.lz4().level(12).build())).build());
        g.write("zstd19-mixed", mixed(client(Compression.zstd().level(19).build())).build());
        g.write("zstd22-mixed", mixed(client(Compression.zstd().level(22).build())).build());
        g.special();
        g.close();
    }

    /** Batches as a producer sends them. */
    void producer(String codec, Compression c) throws IOException {
        write(codec + "-mixed", mixed(client(c)).build());

        MemoryRecordsBuilder b = client(c);
        b.append(T, bytes("large"), pattern(70_000), NONE);
        b.append(T + 1, null, noise(66_000), NONE);
        write(codec + "-large", b.build());

        b = builder(c, TimestampType.CREATE_TIME, 0, 4711, (short) 3, 2_147_483_640, false, -1);
        for (int i = 0; i < 20; i++) {
            b.append(T + i, bytes("k" + i), bytes("value " + i), NONE);
        }
        write(codec + "-idempotent", b.build());

        b = builder(c, TimestampType.CREATE_TIME, 0, 99, (short) 0, 0, true, -1);
        b.append(T, bytes("k"), bytes("in a transaction"), NONE);
        write(codec + "-transactional", b.build());
    }

    /** Batches as a broker stores them. */
    void stored(String codec, Compression c) throws IOException {
        MemoryRecordsBuilder b = builder(c, TimestampType.LOG_APPEND_TIME, 500, -1, (short) -1, -1, false, 7);
        b.append(T - 60_000, bytes("a"), bytes("1"), NONE);
        b.append(T - 30_000, bytes("b"), bytes("2"), NONE);
        write(codec + "-logappendtime", b.build());

        b = builder(c, TimestampType.CREATE_TIME, 1000, 5, (short) 1, 10, false, 9);
        for (int i = 0; i < 10; i++) {
            b.append(T + i, bytes("k" + i % 3), i % 4 == 1 ? null : bytes("v" + i), NONE);
        }
        MemoryRecords all = b.build();
        write(codec + "-gaps", compact(all, r -> r.offset() % 3 == 1));
        write(codec + "-tailgone", compact(all, r -> r.offset() < 1004));
        write(codec + "-emptied", compact(all, r -> false));
    }

    void special() throws IOException {
        MemoryRecordsBuilder b = client(Compression.NONE);
        b.append(RecordBatch.NO_TIMESTAMP, bytes("k"), bytes("no timestamp"), NONE);
        write("none-notimestamp", b.build());

        b = client(Compression.NONE);
        b.append(T, bytes("first"), bytes("late"), NONE);
        b.append(T - 3_600_000, bytes("second"), bytes("an hour before"), NONE);
        b.append(0, bytes("third"), bytes("the epoch"), NONE);
        write("none-backwards", b.build());

        ByteBuffer marker = ByteBuffer.allocate(256);
        MemoryRecords.writeEndTransactionalMarker(marker, 77, T, 3, 99, (short) 0,
            new EndTransactionMarker(ControlRecordType.COMMIT, 12));
        marker.flip();
        write("none-control", MemoryRecords.readableRecords(marker));

        ByteBuffer multi = ByteBuffer.allocate(1 << 20);
        for (Compression c : List.of(Compression.NONE, Compression.gzip().build(), Compression.snappy().build(),
                Compression.lz4().build(), Compression.zstd().build())) {
            b = builder(c, TimestampType.CREATE_TIME, 100L * multi.position(), -1, (short) -1, -1, false, 2);
            multi.put(mixed(b).build().buffer());
        }
        multi.flip();
        write("multi", MemoryRecords.readableRecords(multi));
    }

    static MemoryRecordsBuilder mixed(MemoryRecordsBuilder b) {
        b.append(T, bytes("key"), bytes("value"), NONE);
        b.append(T, null, bytes("null key"), NONE);
        b.append(T + 5, bytes("null value"), (byte[]) null, NONE);
        b.append(T + 5, (byte[]) null, (byte[]) null, NONE);
        b.append(T - 5, new byte[0], new byte[0], NONE);
        b.append(T + 1000, bytes("headers"), bytes("v"), new Header[] {
            new RecordHeader("trace", bytes("abc")),
            new RecordHeader("null", (byte[]) null),
            new RecordHeader("", new byte[0]),
            new RecordHeader("trace", bytes("twice")),
            new RecordHeader("schl\u00fcssel", new byte[] {0, (byte) 0xff}),
        });
        b.append(T + 2000, bytes("long"), pattern(300), NONE);
        for (int i = 0; i < 40; i++) {
            b.append(T + i, bytes("user-" + i), bytes("{\"id\":" + i + ",\"name\":\"somebody\",\"tags\":[]}"), NONE);
        }
        return b;
    }

    static MemoryRecordsBuilder client(Compression c) {
        return builder(c, TimestampType.CREATE_TIME, 0, -1, (short) -1, -1, false, -1);
    }

    static MemoryRecordsBuilder builder(Compression c, TimestampType type, long baseOffset, long producerId,
            short producerEpoch, int sequence, boolean transactional, int leaderEpoch) {
        return new MemoryRecordsBuilder(ByteBuffer.allocate(1 << 20), RecordBatch.MAGIC_VALUE_V2, c, type, baseOffset,
            type == TimestampType.LOG_APPEND_TIME ? T : RecordBatch.NO_TIMESTAMP, producerId, producerEpoch, sequence,
            transactional, false, leaderEpoch, 1 << 20);
    }

    /** Lets Kafka's cleaner have the batches; tombstones give them a delete horizon. */
    static MemoryRecords compact(MemoryRecords in, Predicate<Record> retain) {
        ByteBuffer out = ByteBuffer.allocate(1 << 20);
        in.filterTo(new MemoryRecords.RecordFilter(T + 10_000, 86_400_000) {
            @Override
            protected BatchRetentionResult checkBatchRetention(RecordBatch b) {
                return new BatchRetentionResult(BatchRetention.RETAIN_EMPTY, false);
            }

            @Override
            protected boolean shouldRetainRecord(RecordBatch b, Record r) {
                return retain.test(r);
            }
        }, out, BufferSupplier.NO_CACHING);
        out.flip();
        return MemoryRecords.readableRecords(out);
    }

    void write(String name, MemoryRecords records) throws IOException {
        ByteBuffer buf = records.buffer().duplicate();
        byte[] raw = new byte[buf.remaining()];
        buf.get(raw);
        Files.write(dir.resolve(name + ".bin"), raw);

        List<String> batches = new ArrayList<>();
        for (MutableRecordBatch b : records.batches()) {
            batches.add(batch(b));
        }
        manifest.put(name, "[\n" + String.join(",\n", batches) + "]");
    }

    void close() throws IOException {
        List<String> files = new ArrayList<>();
        manifest.forEach((name, batches) -> files.add("\"" + name + "\": " + batches));
        Files.writeString(dir.resolve("manifest.json"), "{\n" + String.join(",\n", files) + "\n}\n");
    }

    static String batch(RecordBatch b) {
        List<String> records = new ArrayList<>();
        for (Record r : b) {
            records.add("  " + record(r));
        }
        return " {\"size\": " + b.sizeInBytes() + ", \"base_offset\": " + b.baseOffset() + ", \"last_offset\": "
            + b.lastOffset() + ", \"leader_epoch\": " + b.partitionLeaderEpoch() + ", \"codec\": \""
            + b.compressionType().name + "\", \"log_append_time\": "
            + (b.timestampType() == TimestampType.LOG_APPEND_TIME) + ", \"transactional\": " + b.isTransactional()
            + ", \"control\": " + b.isControlBatch() + ", \"delete_horizon\": " + b.deleteHorizonMs().orElse(-1)
            + ", \"max_timestamp\": " + b.maxTimestamp() + ", \"producer_id\": " + b.producerId()
            + ", \"producer_epoch\": " + b.producerEpoch() + ", \"base_sequence\": " + b.baseSequence()
            + ", \"last_sequence\": " + b.lastSequence() + ", \"crc\": " + b.checksum() + ", \"records\": [\n"
            + String.join(",\n", records) + "]}";
    }

    static String record(Record r) {
        List<String> headers = new ArrayList<>();
        for (Header h : r.headers()) {
            headers.add("[" + value(ByteBuffer.wrap(bytes(h.key()))) + ", "
                + value(h.value() == null ? null : ByteBuffer.wrap(h.value())) + "]");
        }
        return "{\"offset\": " + r.offset() + ", \"timestamp\": " + r.timestamp() + ", \"key\": " + value(r.key())
            + ", \"value\": " + value(r.value()) + ", \"headers\": [" + String.join(", ", headers) + "]}";
    }

    /** Bytes as hex, long ones as the function that makes them. */
    static String value(ByteBuffer v) {
        if (v == null) {
            return "null";
        }
        byte[] b = new byte[v.remaining()];
        v.duplicate().get(b);
        if (b.length > 200 && Arrays.equals(b, pattern(b.length))) {
            return "\"pattern " + b.length + "\"";
        }
        if (b.length > 200 && Arrays.equals(b, noise(b.length))) {
            return "\"noise " + b.length + "\"";
        }
        return "\"" + HexFormat.of().formatHex(b) + "\"";
    }

    static byte[] pattern(int n) {
        byte[] b = new byte[n];
        for (int i = 0; i < n; i++) {
            b[i] = (byte) (i * 31 + i / 251);
        }
        return b;
    }

    static byte[] noise(int n) {
        byte[] b = new byte[n];
        int x = 1;
        for (int i = 0; i < n; i++) {
            x = x * 1103515245 + 12345;
            b[i] = (byte) (x >>> 16);
        }
        return b;
    }

    static byte[] bytes(String s) {
        return s.getBytes(StandardCharsets.UTF_8);
    }
}
