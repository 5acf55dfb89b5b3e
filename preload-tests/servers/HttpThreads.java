import com.sun.net.httpserver.HttpExchange;
import com.sun.net.httpserver.HttpServer;
import java.io.IOException;
import java.net.InetSocketAddress;
import java.security.MessageDigest;
import java.util.HexFormat;
import java.util.Random;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicLong;

/*
 * A server for preload-tests/servers/run: the JDK's HttpServer with a pool of 64 threads. Answers a GET with as many bytes as
 * the path says, computed from it by way of garbage, null checks that fail and a lock, and a POST with the digest of what
 * came; on SIGTERM says whether each answer was counted under the lock. The port is the argument.
 */
public class HttpThreads {
    static final AtomicLong answered = new AtomicLong();
    static long counted;
    static Object nothing;

    static byte[] body(int n) {
        byte[][] parts = new byte[n / 1000 + 1][];
        Random random = new Random(n);
        for (int i = 0; i < parts.length; i++) {
            parts[i] = new byte[Math.min(1000, n - 1000 * i)];
            random.nextBytes(parts[i]);
        }
        byte[] all = new byte[n];
        for (int i = 0; i < parts.length; i++)
            System.arraycopy(parts[i], 0, all, 1000 * i, parts[i].length);
        try {
            nothing.hashCode(); // a fault, once it is compiled
        } catch (NullPointerException e) {
            all[n - 1] = 7;
        }
        return all;
    }

    static void answer(HttpExchange x) throws IOException {
        String path = x.getRequestURI().getPath().substring(1);
        byte[] got = x.getRequestBody().readAllBytes(), out = "nothing".getBytes();
        int status = 404;
        try {
            if (x.getRequestMethod().equals("POST"))
                out = HexFormat.of().formatHex(MessageDigest.getInstance("SHA-256").digest(got)).getBytes();
            else
                out = body(Integer.parseInt(path));
            status = 200;
        } catch (NumberFormatException e) {
            // no number, nothing
        } catch (java.security.NoSuchAlgorithmException e) {
            throw new IOException(e);
        }
        answered.incrementAndGet();
        synchronized (HttpThreads.class) {
            counted++;
        }
        x.sendResponseHeaders(status, out.length);
        x.getResponseBody().write(out);
        x.close();
    }

    public static void main(String[] args) throws Exception {
        HttpServer server = HttpServer.create(new InetSocketAddress("127.0.0.1", Integer.parseInt(args[0])), 512);
        ExecutorService pool = Executors.newFixedThreadPool(64);
        server.setExecutor(pool);
        server.createContext("/", HttpThreads::answer);
        Runtime.getRuntime().addShutdownHook(new Thread(() -> {
            server.stop(1);
            pool.shutdown();
            try {
                pool.awaitTermination(20, TimeUnit.SECONDS);
            } catch (InterruptedException e) {
                System.out.println("interrupted");
            }
            synchronized (HttpThreads.class) {
                System.out.println(counted == answered.get() && counted > 0 ? "all counted" : "not counted: " + counted);
            }
        }));
        server.start();
    }
}
