import java.util.ArrayList;
import java.util.Collections;
import java.util.LinkedHashMap;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Random;
import java.util.Set;
import java.util.TreeMap;
import java.util.TreeSet;
import org.apache.kafka.common.Uuid;
import org.apache.kafka.coordinator.group.api.assignor.ConsumerGroupPartitionAssignor;
import org.apache.kafka.coordinator.group.api.assignor.SubscribedTopicDescriber;
import org.apache.kafka.coordinator.group.api.assignor.SubscriptionType;
import org.apache.kafka.coordinator.group.assignor.RangeAssignor;
import org.apache.kafka.coordinator.group.assignor.UniformAssignor;
import org.apache.kafka.coordinator.group.modern.Assignment;
import org.apache.kafka.coordinator.group.modern.GroupSpecImpl;
import org.apache.kafka.coordinator.group.modern.MemberSubscriptionAndAssignmentImpl;

/**
 * Writes groups, a line of JSON each, and what Kafka's own assignors give their
 * members. A group follows from the one before: somebody joined, left, or
 * subscribes to other topics; a topic grew, came, or went. Each member has what
 * Kafka's uniform assignor gave it then ("current"). KAFKA has the jars of Kafka
 * 4.3.1, which make kafka-jars fetches:
 *
 *   java -cp 'KAFKA/*' Gen.java > groups.jsonl
 */
public class Gen {
    static final Random RNG = new Random(848);

    /** A member; its topics and its partitions by the topics' numbers. */
    static class Member {
        String id;
        String instance = "";
        TreeSet<Integer> subscribed = new TreeSet<>();
        TreeMap<Integer, TreeSet<Integer>> current = new TreeMap<>();
    }

    /** Partitions of each topic; 0: the topic is not there. */
    static List<Integer> topics;
    static List<Member> members;
    static int nextMember;

    public static void main(String[] args) {
        for (int history = 0; history < 60; history++) {
            boolean homogeneous = history % 3 == 0;
            topics = new ArrayList<>();
            members = new ArrayList<>();
            for (int t = 1 + RNG.nextInt(6); t > 0; t--) {
                topics.add(1 + RNG.nextInt(9));
            }
            for (int m = 1 + RNG.nextInt(7); m > 0; m--) {
                join(homogeneous);
            }
            for (int step = 0; step < 8; step++) {
                write();
                change(homogeneous);
            }
        }
    }

    static void join(boolean homogeneous) {
        Member m = new Member();
        m.id = "m" + (RNG.nextInt(9000) + 1000) + "-" + nextMember++;
        if (RNG.nextInt(4) == 0) {
            m.instance = "i" + RNG.nextInt(1000) + "-" + nextMember;
        }
        subscribe(m, homogeneous);
        members.add(m);
    }

    static void subscribe(Member m, boolean homogeneous) {
        m.subscribed.clear();
        for (int t = 0; t < topics.size(); t++) {
            if (topics.get(t) > 0 && (homogeneous || RNG.nextInt(5) > 1)) {
                m.subscribed.add(t);
            }
        }
    }

    static void change(boolean homogeneous) {
        switch (RNG.nextInt(6)) {
            case 0, 1 -> join(homogeneous);
            case 2 -> members.remove(RNG.nextInt(members.size()));
            case 3 -> {
                if (homogeneous) {
                    join(true);
                    join(true);
                } else {
                    subscribe(members.get(RNG.nextInt(members.size())), false);
                }
            }
            case 4 -> {
                int t = RNG.nextInt(topics.size());
                topics.set(t, topics.get(t) == 0 ? 0 : topics.get(t) + 1 + RNG.nextInt(3));
            }
            default -> {
                int t = RNG.nextInt(topics.size());
                if (topics.stream().filter(n -> n > 0).count() > 1) {
                    topics.set(t, 0);
                    members.forEach(m -> m.subscribed.remove(t));
                }
                topics.add(1 + RNG.nextInt(5));
                members.forEach(m -> {
                    if (homogeneous || RNG.nextBoolean()) {
                        m.subscribed.add(topics.size() - 1);
                    }
                });
            }
        }
        if (members.isEmpty()) {
            join(homogeneous);
        }
    }

    static Uuid id(int topic) {
        return new Uuid(1, topic);
    }

    static void write() {
        Map<String, TreeMap<Integer, TreeSet<Integer>>> uniform = assign(new UniformAssignor());
        Map<String, TreeMap<Integer, TreeSet<Integer>>> range = assign(new RangeAssignor());
        StringBuilder b = new StringBuilder("{\"topics\":" + topics.toString().replace(" ", "") + ",\"members\":[");
        for (Member m : members) {
            b.append(b.charAt(b.length() - 1) == '[' ? "" : ",");
            b.append("{\"id\":\"" + m.id + "\",\"instance\":\"" + m.instance + "\",\"subscribed\":" + m.subscribed.toString().replace(" ", ""));
            b.append(",\"current\":" + json(m.current) + ",\"uniform\":" + json(uniform.get(m.id)) + ",\"range\":" + json(range.get(m.id)) + "}");
        }
        System.out.println(b.append("]}"));
        for (Member m : members) {
            m.current = uniform.get(m.id);
        }
    }

    static String json(TreeMap<Integer, TreeSet<Integer>> assignment) {
        StringBuilder b = new StringBuilder("{");
        assignment.forEach((t, ps) -> b.append((b.length() > 1 ? "," : "") + "\"" + t + "\":" + ps.toString().replace(" ", "")));
        return b.append("}").toString();
    }

    static Map<String, TreeMap<Integer, TreeSet<Integer>>> assign(ConsumerGroupPartitionAssignor assignor) {
        Map<String, MemberSubscriptionAndAssignmentImpl> spec = new LinkedHashMap<>();
        Map<Uuid, Map<Integer, String>> inverted = new LinkedHashMap<>();
        Set<Set<Integer>> subscriptions = new LinkedHashSet<>();
        for (Member m : members) {
            Set<Uuid> subscribed = new LinkedHashSet<>();
            m.subscribed.forEach(t -> subscribed.add(id(t)));
            subscriptions.add(m.subscribed);
            Map<Uuid, Set<Integer>> current = new LinkedHashMap<>();
            m.current.forEach((t, ps) -> {
                current.put(id(t), Collections.unmodifiableSet(ps));
                ps.forEach(p -> inverted.computeIfAbsent(id(t), x -> new LinkedHashMap<>()).put(p, m.id));
            });
            spec.put(m.id, new MemberSubscriptionAndAssignmentImpl(Optional.empty(),
                m.instance.isEmpty() ? Optional.empty() : Optional.of(m.instance), subscribed, new Assignment(current)));
        }
        var type = subscriptions.size() == 1 ? SubscriptionType.HOMOGENEOUS : SubscriptionType.HETEROGENEOUS;
        Map<String, TreeMap<Integer, TreeSet<Integer>>> out = new LinkedHashMap<>();
        assignor.assign(new GroupSpecImpl(spec, type, inverted), new SubscribedTopicDescriber() {
            @Override
            public int numPartitions(Uuid topic) {
                int n = topics.get((int) topic.getLeastSignificantBits());
                return n == 0 ? -1 : n;
            }

            @Override
            public Set<String> racksForPartition(Uuid topic, int partition) {
                return Collections.emptySet();
            }
        }).members().forEach((member, assignment) -> {
            TreeMap<Integer, TreeSet<Integer>> parts = new TreeMap<>();
            assignment.partitions().forEach((topic, ps) -> {
                if (!ps.isEmpty()) {
                    parts.put((int) topic.getLeastSignificantBits(), new TreeSet<>(ps));
                }
            });
            out.put(member, parts);
        });
        members.forEach(m -> out.putIfAbsent(m.id, new TreeMap<>()));
        return out;
    }
}
