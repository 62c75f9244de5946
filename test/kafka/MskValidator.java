import java.io.IOException;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.util.List;
import java.util.Map;
import java.util.Set;
import javax.security.auth.callback.Callback;
import javax.security.auth.callback.UnsupportedCallbackException;
import javax.security.auth.login.AppConfigurationEntry;
import org.apache.kafka.common.security.auth.AuthenticateCallbackHandler;
import org.apache.kafka.common.security.oauthbearer.OAuthBearerExtensionsValidatorCallback;
import org.apache.kafka.common.security.oauthbearer.OAuthBearerToken;
import org.apache.kafka.common.security.oauthbearer.OAuthBearerValidatorCallback;

/** What Amazon MSK does in a broker: asks somebody else who has signed the token.  Here that is the test (KDA_MSK_CHECK: its URL). */
public class MskValidator implements AuthenticateCallbackHandler {
    private final HttpClient client = HttpClient.newHttpClient();

    @Override
    public void configure(Map<String, ?> configs, String mechanism, List<AppConfigurationEntry> entries) {
    }

    @Override
    public void close() {
    }

    @Override
    public void handle(Callback[] callbacks) throws IOException, UnsupportedCallbackException {
        for (Callback callback : callbacks)
            if (callback instanceof OAuthBearerValidatorCallback)
                check((OAuthBearerValidatorCallback) callback);
            else if (!(callback instanceof OAuthBearerExtensionsValidatorCallback))
                throw new UnsupportedCallbackException(callback);
    }

    private void check(OAuthBearerValidatorCallback callback) throws IOException {
        try {
            HttpResponse<String> answer = client.send(HttpRequest.newBuilder(URI.create(System.getenv("KDA_MSK_CHECK")))
                .POST(HttpRequest.BodyPublishers.ofString(callback.tokenValue())).build(), HttpResponse.BodyHandlers.ofString());
            if (answer.statusCode() == 200)
                callback.token(new Token(callback.tokenValue(), answer.body()));
            else
                callback.error("invalid_token", null, null);
        } catch (InterruptedException e) {
            throw new IOException(e);
        }
    }

    private record Token(String value, String principalName) implements OAuthBearerToken {
        @Override
        public Set<String> scope() {
            return Set.of();
        }

        @Override
        public long lifetimeMs() {
            return System.currentTimeMillis() + 900_000;
        }

        @Override
        public Long startTimeMs() {
            return null;
        }
    }
}
