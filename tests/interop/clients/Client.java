import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpRequest.BodyPublishers;
import java.net.http.HttpResponse.BodyHandlers;
import java.nio.file.Path;

/** The JDK's own client. Arguments: METHOD URL [TYPE FILE]. */
public class Client {
    public static void main(String[] arguments) throws Exception {
        var file = arguments.length > 3 ? Path.of(arguments[3]) : null;
        var body = file == null ? BodyPublishers.noBody() : BodyPublishers.ofFile(file);
        var request = HttpRequest.newBuilder(URI.create(arguments[1])).method(arguments[0], body);
        if (arguments.length > 2 && !arguments[2].isEmpty()) {
            request.header("Content-Type", arguments[2]);
        }
        var response = HttpClient.newHttpClient().send(request.build(), BodyHandlers.ofString());
        System.out.println(response.statusCode());
    }
}
