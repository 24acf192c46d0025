import com.sun.net.httpserver.HttpServer;
import java.net.InetSocketAddress;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.util.concurrent.Executors;

/** The JDK's own HTTP server. Arguments: the port. */
public class JdkEndpoint {
    public static void main(String[] arguments) throws Exception {
        var record = Files.newOutputStream(
                Path.of(System.getenv("INTEROP_RECORD")),
                StandardOpenOption.CREATE, StandardOpenOption.APPEND);
        var address = new InetSocketAddress("127.0.0.1", Integer.parseInt(arguments[0]));
        var server = HttpServer.create(address, 0);
        server.setExecutor(Executors.newFixedThreadPool(8));
        server.createContext("/", exchange -> {
            var key = exchange.getRequestHeaders().getFirst("Idempotency-Key");
            record.write((key + "\n").getBytes());
            if (!exchange.getRequestURI().getPath().equals("/unread")) {
                exchange.getRequestBody().readAllBytes();
            }
            exchange.sendResponseHeaders(200, 2);
            exchange.getResponseBody().write("ok".getBytes());
            exchange.close();
        });
        server.start();
    }
}
