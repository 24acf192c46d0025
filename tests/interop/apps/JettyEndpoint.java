import java.io.IOException;
import java.net.InetSocketAddress;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import javax.servlet.http.HttpServletRequest;
import javax.servlet.http.HttpServletResponse;
import org.eclipse.jetty.server.Request;
import org.eclipse.jetty.server.Server;
import org.eclipse.jetty.server.handler.AbstractHandler;

/** An embedded Jetty. Arguments: the port. */
public class JettyEndpoint {
    public static void main(String[] arguments) throws Exception {
        var record = Files.newOutputStream(
                Path.of(System.getenv("INTEROP_RECORD")),
                StandardOpenOption.CREATE, StandardOpenOption.APPEND);
        var address = new InetSocketAddress("127.0.0.1", Integer.parseInt(arguments[0]));
        var server = new Server(address);
        server.setHandler(new AbstractHandler() {
            @Override
            public void handle(String target, Request base, HttpServletRequest request,
                    HttpServletResponse response) throws IOException {
                record.write((request.getHeader("Idempotency-Key") + "\n").getBytes());
                if (!target.equals("/unread")) {
                    request.getInputStream().readAllBytes();
                }
                response.setContentType("text/plain");
                response.getOutputStream().print("ok");
                base.setHandled(true);
            }
        });
        server.start();
        server.join();
    }
}
