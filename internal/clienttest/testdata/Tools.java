import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.BufferedReader;
import java.io.ByteArrayInputStream;
import java.io.ByteArrayOutputStream;
import java.io.InputStreamReader;
import java.io.OutputStream;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import org.apache.kafka.common.utils.Exit;

/**
 * Runs Kafka's tools by their main classes, many in one virtual machine and many at a time, since
 * that takes longer to start than a tool runs. Each line of standard input is one run: its id, the
 * class, the arguments and the standard input; each that ends is one line of standard output: its
 * id, the exit code, and what it printed. A tool that reads its standard input is run alone.
 */
public final class Tools {
    private static final ObjectMapper JSON = new ObjectMapper();

    /** Where the threads of a run print to; those that a tool starts inherit it. */
    private static final InheritableThreadLocal<Run> RUN = new InheritableThreadLocal<>();

    private static final class Run {
        final ByteArrayOutputStream out = new ByteArrayOutputStream();
        final ByteArrayOutputStream err = new ByteArrayOutputStream();

        /** The exit code, null before the tool exits: a later one, and what is printed then, do not count. */
        volatile Integer code;

        /** What the tool has asked to do at the machine's end, which is the run's here. */
        final List<Runnable> hooks = new ArrayList<>();

        void exit(int code) {
            if (this.code == null) {
                this.code = code;
            }
        }
    }

    /** Ends a tool that has exited. Some catch it, and say so. */
    private static final class Left extends RuntimeException {
        private static final long serialVersionUID = 1;

        Left() {
            super("exit", null, false, false);
        }
    }

    public static void main(String[] args) throws Exception {
        PrintStream answers = System.out;
        // Before a tool is loaded: some keep what these are then.
        System.setOut(new PrintStream(new Divided(false), true, StandardCharsets.UTF_8));
        System.setErr(new PrintStream(new Divided(true), true, StandardCharsets.UTF_8));
        Exit.Procedure leave = (code, message) -> {
            if (message != null) {
                System.err.println(message);
            }
            RUN.get().exit(code);
            throw new Left();
        };
        Exit.setExitProcedure(leave);
        Exit.setHaltProcedure(leave);
        Exit.setShutdownHookAdder((name, hook) -> RUN.get().hooks.add(hook));
        var in = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        for (String line = in.readLine(); line != null; line = in.readLine()) {
            JsonNode request = JSON.readTree(line);
            if (request.hasNonNull("stdin")) {
                System.setIn(new ByteArrayInputStream(request.get("stdin").asText().getBytes(StandardCharsets.UTF_8)));
            }
            new Thread(() -> run(request, answers)).start();
        }
    }

    private static void run(JsonNode request, PrintStream answers) {
        Run run = new Run();
        RUN.set(run);
        try {
            String[] args = JSON.treeToValue(request.get("args"), String[].class);
            Class.forName(request.get("class").asText()).getMethod("main", String[].class).invoke(null, (Object) args);
            run.exit(0);
        } catch (Throwable e) {
            if (!(e.getCause() instanceof Left)) {
                e.printStackTrace();
            }
            run.exit(1);
        }
        run.hooks.forEach(Runnable::run);
        Map<String, Object> result = new LinkedHashMap<>();
        result.put("id", request.get("id").asInt());
        result.put("code", run.code);
        result.put("out", run.out.toString(StandardCharsets.UTF_8));
        result.put("err", run.err.toString(StandardCharsets.UTF_8));
        try {
            String line = JSON.writeValueAsString(result);
            synchronized (JSON) {
                answers.println(line);
                answers.flush();
            }
        } catch (Exception e) {
            throw new IllegalStateException(e);
        }
    }

    /** Gives each run what its threads print. */
    private static final class Divided extends OutputStream {
        private final boolean err;

        Divided(boolean err) {
            this.err = err;
        }

        @Override
        public void write(int b) {
            write(new byte[] {(byte) b}, 0, 1);
        }

        @Override
        public void write(byte[] bytes, int from, int length) {
            Run run = RUN.get();
            if (run != null && run.code == null) {
                (err ? run.err : run.out).write(bytes, from, length);
            }
        }
    }
}
