import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.BufferedReader;
import java.io.ByteArrayOutputStream;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.util.LinkedHashMap;
import java.util.Map;

/**
 * Runs the Java example once for each line "HOST:PORT TOPIC" of standard input, all at a time in one
 * virtual machine, since that takes longer to start than the example takes. Each that ends is one
 * JSON object on standard output: its topic, what it printed, and, if it failed, why.
 */
public final class Cases {
    private static final ObjectMapper JSON = new ObjectMapper();

    public static void main(String[] args) throws Exception {
        var in = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        for (String line = in.readLine(); line != null; line = in.readLine()) {
            String[] of = line.split(" ");
            new Thread(() -> run(of[0], of[1])).start();
        }
    }

    private static void run(String bootstrap, String topic) {
        var printed = new ByteArrayOutputStream();
        Map<String, Object> result = new LinkedHashMap<>();
        result.put("topic", topic);
        try {
            new Example(bootstrap, topic, new PrintStream(printed, true, StandardCharsets.UTF_8)).run();
        } catch (Throwable e) {
            result.put("error", e.toString());
        }
        result.put("printed", printed.toString(StandardCharsets.UTF_8));
        try {
            String line = JSON.writeValueAsString(result);
            synchronized (JSON) {
                System.out.println(line);
            }
        } catch (Exception e) {
            throw new IllegalStateException(e);
        }
    }
}
