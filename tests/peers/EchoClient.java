// Java's java.net.http.WebSocket as a client of an echo server.
// usage: java EchoClient.java URL     (PEER_CA names a certificate to trust for wss://)
// Reports JSON lines as report.mjs describes them.

import java.io.InputStream;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.WebSocket;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.KeyStore;
import java.security.cert.CertificateFactory;
import java.util.Arrays;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.CompletionStage;
import java.util.concurrent.LinkedBlockingQueue;
import javax.net.ssl.SSLContext;
import javax.net.ssl.TrustManager;
import javax.net.ssl.TrustManagerFactory;

public class EchoClient {
    interface Body {
        void run() throws Exception;
    }

    /** What arrived: a kind ("text", "binary", "pong", "close", "error") and its value. */
    record Event(String kind, Object value, int code) {}

    static final class Inbox implements WebSocket.Listener {
        final BlockingQueue<Event> events = new LinkedBlockingQueue<>();
        final StringBuilder text = new StringBuilder();
        final java.io.ByteArrayOutputStream binary = new java.io.ByteArrayOutputStream();

        @Override
        public CompletionStage<?> onText(WebSocket ws, CharSequence data, boolean last) {
            text.append(data);
            if (last) {
                events.add(new Event("text", text.toString(), 0));
                text.setLength(0);
            }
            ws.request(1);
            return null;
        }

        @Override
        public CompletionStage<?> onBinary(WebSocket ws, ByteBuffer data, boolean last) {
            byte[] bytes = new byte[data.remaining()];
            data.get(bytes);
            binary.writeBytes(bytes);
            if (last) {
                events.add(new Event("binary", binary.toByteArray(), 0));
                binary.reset();
            }
            ws.request(1);
            return null;
        }

        @Override
        public CompletionStage<?> onPong(WebSocket ws, ByteBuffer data) {
            events.add(new Event("pong", StandardCharsets.UTF_8.decode(data).toString(), 0));
            ws.request(1);
            return null;
        }

        @Override
        public CompletionStage<?> onClose(WebSocket ws, int code, String reason) {
            events.add(new Event("close", reason, code));
            return null;
        }

        @Override
        public void onError(WebSocket ws, Throwable error) {
            events.add(new Event("error", String.valueOf(error), 0));
        }

        Event next(String kind) throws Exception {
            Event event = events.take();
            if (!event.kind.equals(kind)) {
                throw new AssertionError("expected " + kind + ", got " + event.kind + " " + event.code + " " + event.value);
            }
            return event;
        }

        void expectText(String expected) throws Exception {
            equal(next("text").value, expected);
        }
    }

    record Connection(WebSocket ws, Inbox inbox) {}

    static String url;
    static int failures;

    static Connection open() throws Exception {
        Inbox inbox = new Inbox();
        HttpClient.Builder client = HttpClient.newBuilder();
        if (System.getenv("PEER_CA") != null) {
            SSLContext tls = SSLContext.getInstance("TLS");
            tls.init(null, trustManagers(), null);
            client.sslContext(tls);
        }
        WebSocket ws = client.build().newWebSocketBuilder()
                .subprotocols("chat", "superchat").buildAsync(URI.create(url), inbox).join();
        return new Connection(ws, inbox);
    }

    /** Trusts only the certificate in the file PEER_CA. */
    static TrustManager[] trustManagers() throws Exception {
        try (InputStream file = Files.newInputStream(Path.of(System.getenv("PEER_CA")))) {
            KeyStore store = KeyStore.getInstance(KeyStore.getDefaultType());
            store.load(null, null);
            store.setCertificateEntry("peer", CertificateFactory.getInstance("X.509").generateCertificate(file));
            TrustManagerFactory factory = TrustManagerFactory.getInstance(TrustManagerFactory.getDefaultAlgorithm());
            factory.init(store);
            return factory.getTrustManagers();
        }
    }

    public static void main(String[] args) throws Exception {
        url = args[0];
        Connection peer = open();
        WebSocket ws = peer.ws;
        Inbox inbox = peer.inbox;

        check("subprotocol", () -> equal(ws.getSubprotocol(), "chat"));

        for (String each : System.getenv().getOrDefault("PEER_SIZES", "0,125").split(",")) {
            int size = Integer.parseInt(each);
            check("text " + size, () -> {
                ws.sendText(textOf(size), true).join();
                inbox.expectText(textOf(size));
            });
            check("binary " + size, () -> {
                ws.sendBinary(ByteBuffer.wrap(bytesOf(size)), true).join();
                if (!Arrays.equals((byte[]) inbox.next("binary").value, bytesOf(size))) {
                    throw new AssertionError("the bytes differ");
                }
            });
        }

        check("unicode", () -> {
            ws.sendText("Gr\u00fc\u00dfe, \u4e16\u754c \ud83d\udc1f", true).join();
            inbox.expectText("Gr\u00fc\u00dfe, \u4e16\u754c \ud83d\udc1f");
        });

        check("burst in order", () -> {
            for (int at = 0; at < 200; at++) {
                ws.sendText("message " + at, true).join();
            }
            for (int at = 0; at < 200; at++) {
                inbox.expectText("message " + at);
            }
        });

        check("ping", () -> {
            ws.sendPing(utf8("are you there")).join();
            equal(inbox.next("pong").value, "are you there");
        });

        check("fragmented text", () -> {
            ws.sendText("first ", false).join();
            ws.sendText("", false).join();
            ws.sendText("zw\u00f6lf", true).join();
            inbox.expectText("first zw\u00f6lf");
        });

        check("fragmented binary", () -> {
            byte[] bytes = bytesOf(3000);
            for (int at = 0; at < 3000; at += 100) {
                ws.sendBinary(ByteBuffer.wrap(bytes, at, 100), at + 100 == 3000).join();
            }
            if (!Arrays.equals((byte[]) inbox.next("binary").value, bytes)) {
                throw new AssertionError("the bytes differ");
            }
        });

        check("ping between fragments", () -> {
            ws.sendText("first ", false).join();
            ws.sendPing(utf8("between")).join();
            equal(inbox.next("pong").value, "between");
            ws.sendText("second", true).join();
            inbox.expectText("first second");
        });

        check("close with code and reason", () -> {
            ws.sendClose(3001, "done here").join();
            // The server returns the code; returning the reason is optional.
            equal(inbox.next("close").code, 3001);
        });

        check("too big", () -> {
            Connection other = open();
            // The server may close before it has read everything, and then the send itself may fail.
            other.ws.sendText(textOf(Integer.parseInt(System.getenv("PEER_TOO_BIG"))), true);
            equal(other.inbox.next("close").code, 1009);
        });

        check("shutdown", () -> {
            Connection other = open();
            other.ws.sendText("still here", true).join();
            other.inbox.expectText("still here");
            report("{\"waiting\":\"shutdown\"}");
            equal(other.inbox.next("close").code, 1001);
        });

        System.exit(failures == 0 ? 0 : 1);
    }

    static void check(String name, Body body) {
        String only = System.getenv("PEER_ONLY");
        if (only != null && !only.equals(name)) {
            return;
        }
        try {
            body.run();
            report("{\"case\":\"" + name + "\"}");
        } catch (Throwable error) {
            failures++;
            String cause = String.valueOf(error).replaceAll("[^ -~]|[\"\\\\]", "?");
            report("{\"case\":\"" + name + "\",\"error\":\"" + cause + "\"}");
        }
    }

    static void report(String line) {
        System.out.println(line);
        System.out.flush();
    }

    static void equal(Object got, Object expected) {
        if (!got.equals(expected)) {
            String shown = String.valueOf(got);
            throw new AssertionError("got " + shown.substring(0, Math.min(200, shown.length())));
        }
    }

    static ByteBuffer utf8(String text) {
        return StandardCharsets.UTF_8.encode(text);
    }

    static String textOf(int size) {
        StringBuilder text = new StringBuilder();
        for (int count = 0; text.length() < size; count++) {
            text.append(Integer.toString(count, 36)).append(' ');
        }
        return text.substring(0, size);
    }

    static byte[] bytesOf(int size) {
        byte[] bytes = new byte[size];
        for (int at = 0; at < size; at++) {
            bytes[at] = (byte) (at * 7 + (at >> 8));
        }
        return bytes;
    }
}
