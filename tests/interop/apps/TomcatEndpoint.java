import jakarta.servlet.http.HttpServlet;
import jakarta.servlet.http.HttpServletRequest;
import jakarta.servlet.http.HttpServletResponse;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import org.apache.catalina.startup.Tomcat;

/** An embedded Tomcat. Arguments: the port, a folder for its work. */
public class TomcatEndpoint {
    public static void main(String[] arguments) throws Exception {
        var record = Files.newOutputStream(
                Path.of(System.getenv("INTEROP_RECORD")),
                StandardOpenOption.CREATE, StandardOpenOption.APPEND);
        var tomcat = new Tomcat();
        tomcat.setBaseDir(arguments[1]);
        tomcat.setPort(Integer.parseInt(arguments[0]));
        tomcat.getConnector().setProperty("address", "127.0.0.1");
        var context = tomcat.addContext("", arguments[1]);
        Tomcat.addServlet(context, "endpoint", new HttpServlet() {
            @Override
            protected void service(HttpServletRequest request, HttpServletResponse response)
                    throws IOException {
                record.write((request.getHeader("Idempotency-Key") + "\n").getBytes());
                if (!request.getRequestURI().equals("/unread")) {
                    request.getInputStream().readAllBytes();
                }
                response.setContentType("text/plain");
                response.getOutputStream().print("ok");
            }
        });
        context.addServletMappingDecoded("/*", "endpoint");
        tomcat.start();
        tomcat.getServer().await();
    }
}
