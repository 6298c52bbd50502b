import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.nio.ByteBuffer;
import java.util.Arrays;
import java.util.HexFormat;
import java.util.List;
import org.apache.kafka.clients.consumer.internals.ConsumerProtocol;
import org.apache.kafka.common.Uuid;
import org.apache.kafka.common.message.ConsumerProtocolAssignment;
import org.apache.kafka.common.message.ConsumerProtocolSubscription;
import org.apache.kafka.common.protocol.ApiMessage;
import org.apache.kafka.common.protocol.Message;
import org.apache.kafka.common.protocol.MessageUtil;
import org.apache.kafka.coordinator.common.runtime.CoordinatorRecord;
import org.apache.kafka.coordinator.group.GroupCoordinatorRecordSerde;
import org.apache.kafka.coordinator.group.generated.*;
import org.apache.kafka.server.common.ApiMessageAndVersion;

/**
 * Writes the records of records.tsv as Kafka's own classes encode them, a name,
 * the key and the value in hex a line. With the argument "check" it reads such
 * lines instead, and says which of them Kafka does not read, or writes otherwise;
 * with "types" it lists the types of keys. KAFKA has the jars of Kafka 4.3.1, which
 * make kafka-jars fetches:
 *
 *   java -cp 'KAFKA/*' Gen.java > records.tsv
 *   java -cp 'KAFKA/*' Gen.java types > types.tsv
 */
public class Gen {
    static final Uuid A = new Uuid(0x0102030405060708L, 0x090a0b0c0d0e0f10L);
    static final Uuid B = new Uuid(0x1112131415161718L, 0x191a1b1c1d1e1f20L);
    static final GroupCoordinatorRecordSerde SERDE = new GroupCoordinatorRecordSerde();

    public static void main(String[] args) throws IOException {
        if (args.length > 0 && args[0].equals("check")) {
            check();
            return;
        }
        if (args.length > 0 && args[0].equals("types")) {
            for (CoordinatorRecordType t : CoordinatorRecordType.values()) {
                System.out.println(t.id() + "\t" + t.toString());
            }
            return;
        }
        offsets();
        groups();
        consumers();
        protocol();
    }

    static void offsets() {
        var legacy = new LegacyOffsetCommitKey().setGroup("billing").setTopic("orders").setPartition(7);
        put("legacy-offset", legacy, new LegacyOffsetCommitValue().setOffset(42).setMetadata("m").setCommitTimestamp(1700000000000L), 0);
        put("legacy-offset-gone", legacy, null, 0);
        var key = new OffsetCommitKey().setGroup("billing").setTopic("orders").setPartition(7);
        for (int v = 0; v <= 4; v++) {
            var value = new OffsetCommitValue().setOffset(1L << 40).setLeaderEpoch(5).setMetadata("a note")
                .setCommitTimestamp(1700000000000L);
            if (v == 1) {
                value.setExpireTimestamp(1700000099000L);
            }
            put("offset-v" + v, key, value, v);
        }
        put("offset-with-id", key, new OffsetCommitValue().setOffset(3).setMetadata("").setCommitTimestamp(1).setTopicId(A), 4);
        put("offset-gone", key, null, 0);
    }

    static void groups() {
        var key = new GroupMetadataKey().setGroup("billing");
        for (int v = 0; v <= 4; v++) {
            var m = new GroupMetadataValue.MemberMetadata().setMemberId("c-1").setClientId("c").setClientHost("/10.0.0.1")
                .setRebalanceTimeout(60000).setSessionTimeout(45000).setSubscription(new byte[] {0, 1, 2}).setAssignment(new byte[] {3});
            var n = new GroupMetadataValue.MemberMetadata().setMemberId("d-1").setClientId("").setClientHost("h")
                .setRebalanceTimeout(1).setSessionTimeout(2).setSubscription(new byte[0]).setAssignment(new byte[0]);
            if (v >= 3) {
                m.setGroupInstanceId("static-1");
            }
            put("group-v" + v, key, new GroupMetadataValue().setProtocolType("consumer").setGeneration(9).setProtocol("range")
                .setLeader("c-1").setCurrentStateTimestamp(1700000000000L).setMembers(List.of(m, n)), v);
        }
        put("group-empty", key, new GroupMetadataValue().setProtocolType("consumer").setGeneration(10).setProtocol(null)
            .setLeader(null).setCurrentStateTimestamp(1700000000001L), 3);
        put("group-gone", key, null, 0);
    }

    static void consumers() {
        put("epoch", new ConsumerGroupMetadataKey().setGroupId("g"), new ConsumerGroupMetadataValue().setEpoch(3), 0);
        put("epoch-hash", new ConsumerGroupMetadataKey().setGroupId("g"), new ConsumerGroupMetadataValue().setEpoch(3).setMetadataHash(-77), 0);
        put("epoch-gone", new ConsumerGroupMetadataKey().setGroupId("g"), null, 0);
        put("partition-metadata", new ConsumerGroupPartitionMetadataKey().setGroupId("g"), new ConsumerGroupPartitionMetadataValue()
            .setTopics(List.of(
                new ConsumerGroupPartitionMetadataValue.TopicMetadata().setTopicId(A).setTopicName("orders").setNumPartitions(2)
                    .setPartitionMetadata(List.of(new ConsumerGroupPartitionMetadataValue.PartitionMetadata().setPartition(1).setRacks(List.of("r1", "r2")))),
                new ConsumerGroupPartitionMetadataValue.TopicMetadata().setTopicId(B).setTopicName("bills").setNumPartitions(1))), 0);
        put("partition-metadata-gone", new ConsumerGroupPartitionMetadataKey().setGroupId("g"), null, 0);
        var member = new ConsumerGroupMemberMetadataKey().setGroupId("g").setMemberId("m1");
        put("member", member, new ConsumerGroupMemberMetadataValue().setInstanceId("i").setRackId("rack").setClientId("c").setClientHost("/h")
            .setSubscribedTopicNames(List.of("bills", "orders")).setSubscribedTopicRegex("o.*").setRebalanceTimeoutMs(300000).setServerAssignor("uniform"), 0);
        put("member-nulls", member, new ConsumerGroupMemberMetadataValue().setInstanceId(null).setRackId(null).setClientId("").setClientHost("")
            .setSubscribedTopicNames(List.of()).setSubscribedTopicRegex(null).setServerAssignor(null), 0);
        put("member-classic", member, new ConsumerGroupMemberMetadataValue().setInstanceId(null).setRackId(null).setClientId("c").setClientHost("/h")
            .setSubscribedTopicNames(List.of("orders")).setSubscribedTopicRegex(null).setRebalanceTimeoutMs(5).setServerAssignor(null)
            .setClassicMemberMetadata(new ConsumerGroupMemberMetadataValue.ClassicMemberMetadata().setSessionTimeoutMs(45000)
                .setSupportedProtocols(List.of(
                    new ConsumerGroupMemberMetadataValue.ClassicProtocol().setName("range").setMetadata(new byte[] {9, 8}),
                    new ConsumerGroupMemberMetadataValue.ClassicProtocol().setName("sticky").setMetadata(new byte[0])))), 0);
        put("member-gone", member, null, 0);
        put("target-epoch", new ConsumerGroupTargetAssignmentMetadataKey().setGroupId("g"), new ConsumerGroupTargetAssignmentMetadataValue().setAssignmentEpoch(4), 0);
        put("target-epoch-time", new ConsumerGroupTargetAssignmentMetadataKey().setGroupId("g"),
            new ConsumerGroupTargetAssignmentMetadataValue().setAssignmentEpoch(4).setAssignmentTimestamp(1700000000000L), 0);
        put("target-epoch-gone", new ConsumerGroupTargetAssignmentMetadataKey().setGroupId("g"), null, 0);
        var target = new ConsumerGroupTargetAssignmentMemberKey().setGroupId("g").setMemberId("m1");
        put("target", target, new ConsumerGroupTargetAssignmentMemberValue().setTopicPartitions(List.of(
            new ConsumerGroupTargetAssignmentMemberValue.TopicPartition().setTopicId(A).setPartitions(List.of(0, 2)),
            new ConsumerGroupTargetAssignmentMemberValue.TopicPartition().setTopicId(B).setPartitions(List.of(200)))), 0);
        put("target-nothing", target, new ConsumerGroupTargetAssignmentMemberValue(), 0);
        put("target-gone", target, null, 0);
        var current = new ConsumerGroupCurrentMemberAssignmentKey().setGroupId("g").setMemberId("m1");
        put("current", current, new ConsumerGroupCurrentMemberAssignmentValue().setMemberEpoch(5).setPreviousMemberEpoch(4).setState((byte) 1)
            .setAssignedPartitions(List.of(new ConsumerGroupCurrentMemberAssignmentValue.TopicPartitions().setTopicId(A)
                .setPartitions(List.of(0, 2)).setAssignmentEpochs(List.of(3, 5))))
            .setPartitionsPendingRevocation(List.of(new ConsumerGroupCurrentMemberAssignmentValue.TopicPartitions().setTopicId(B)
                .setPartitions(List.of(1)))), 0);
        put("current-gone", current, null, 0);
        var regex = new ConsumerGroupRegularExpressionKey().setGroupId("g").setRegularExpression("o.*");
        put("regex", regex, new ConsumerGroupRegularExpressionValue().setTopics(List.of("orders", "others")).setVersion(12).setTimestamp(1700000000000L), 0);
        put("regex-gone", regex, null, 0);
        put("unknown", new ShareGroupMetadataKey().setGroupId("g"), new ShareGroupMetadataValue().setEpoch(1), 0);
    }

    /** Subscriptions and assignments stand in the value column; their key is empty. */
    static void protocol() {
        for (short v = 0; v <= 3; v++) {
            var s = new ConsumerProtocolSubscription().setTopics(List.of("bills", "orders")).setUserData(ByteBuffer.wrap(new byte[] {1, 2}));
            s.ownedPartitions().add(new ConsumerProtocolSubscription.TopicPartition().setTopic("orders").setPartitions(List.of(3, 4)));
            s.setGenerationId(6).setRackId("r");
            line("subscription-v" + v, new byte[0], bytes(MessageUtil.toVersionPrefixedByteBuffer(v, s)));
            var a = new ConsumerProtocolAssignment();
            a.assignedPartitions().add(new ConsumerProtocolAssignment.TopicPartition().setTopic("orders").setPartitions(List.of(3, 4)));
            a.setUserData(ByteBuffer.wrap(new byte[] {5}));
            line("assignment-v" + v, new byte[0], bytes(MessageUtil.toVersionPrefixedByteBuffer(v, a)));
        }
        line("subscription-nulls", new byte[0], bytes(MessageUtil.toVersionPrefixedByteBuffer((short) 3, new ConsumerProtocolSubscription())));
        line("assignment-nulls", new byte[0], bytes(MessageUtil.toVersionPrefixedByteBuffer((short) 3, new ConsumerProtocolAssignment())));
    }

    static void put(String name, ApiMessage key, ApiMessage value, int version) {
        CoordinatorRecord r = value == null ? CoordinatorRecord.tombstone(key)
            : CoordinatorRecord.record(key, new ApiMessageAndVersion(value, (short) version));
        line(name, SERDE.serializeKey(r), SERDE.serializeValue(r));
    }

    static void line(String name, byte[] key, byte[] value) {
        HexFormat h = HexFormat.of();
        System.out.println(name + "\t" + h.formatHex(key) + "\t" + (value == null ? "-" : h.formatHex(value)));
    }

    static byte[] bytes(ByteBuffer b) {
        byte[] out = new byte[b.remaining()];
        b.get(out);
        return out;
    }

    static void check() throws IOException {
        HexFormat h = HexFormat.of();
        int n = 0, bad = 0;
        var in = new BufferedReader(new InputStreamReader(System.in));
        for (String s = in.readLine(); s != null; s = in.readLine()) {
            String[] f = s.split("\t");
            byte[] key = h.parseHex(f[1]);
            if (key.length == 0) {
                continue;
            }
            byte[] value = f[2].equals("-") ? null : h.parseHex(f[2]);
            n++;
            try {
                CoordinatorRecord r = SERDE.deserialize(ByteBuffer.wrap(key), value == null ? null : ByteBuffer.wrap(value));
                if (!Arrays.equals(key, SERDE.serializeKey(r)) || !Arrays.equals(value, SERDE.serializeValue(r))) {
                    bad++;
                    System.out.println(f[0] + ": Kafka writes it otherwise: " + r);
                }
            } catch (RuntimeException e) {
                bad++;
                System.out.println(f[0] + ": " + e);
            }
        }
        System.out.println(n + " records, " + bad + " that Kafka reads or writes otherwise");
    }
}
