// OkHttp as a client of an echo server, and Java-WebSocket as a client and as a server.
// usage: java -cp JARS JavaPeers okhttp|java-websocket [URL]     (without a URL: a server on a free port of 127.0.0.1)
// Reports JSON lines as report.mjs describes them. PEER_COMPRESS asks for permessage-deflate; OkHttp always does. PEER_CA
// names a certificate that clients trust; PEER_CERT and PEER_KEY make the server use TLS.

import java.io.InputStream;
import java.net.InetSocketAddress;
import java.net.URI;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.KeyFactory;
import java.security.KeyStore;
import java.security.PrivateKey;
import java.security.cert.Certificate;
import java.security.cert.CertificateFactory;
import java.security.spec.PKCS8EncodedKeySpec;
import java.util.Arrays;
import java.util.Base64;
import java.util.List;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.LinkedBlockingQueue;
import javax.net.ssl.KeyManagerFactory;
import javax.net.ssl.SSLContext;
import javax.net.ssl.TrustManager;
import javax.net.ssl.TrustManagerFactory;
import javax.net.ssl.X509TrustManager;
import okhttp3.OkHttpClient;
import okhttp3.Request;
import okhttp3.Response;
import okio.ByteString;
import org.java_websocket.WebSocket;
import org.java_websocket.client.WebSocketClient;
import org.java_websocket.drafts.Draft;
import org.java_websocket.drafts.Draft_6455;
import org.java_websocket.enums.Opcode;
import org.java_websocket.exceptions.InvalidDataException;
import org.java_websocket.exceptions.InvalidHandshakeException;
import org.java_websocket.extensions.IExtension;
import org.java_websocket.extensions.permessage_deflate.PerMessageDeflateExtension;
import org.java_websocket.framing.Framedata;
import org.java_websocket.framing.PingFrame;
import org.java_websocket.handshake.ClientHandshake;
import org.java_websocket.handshake.ServerHandshake;
import org.java_websocket.protocols.IProtocol;
import org.java_websocket.protocols.Protocol;
import org.java_websocket.server.DefaultSSLWebSocketServerFactory;
import org.java_websocket.server.WebSocketServer;

public class JavaPeers {
    interface Body {
        void run() throws Exception;
    }

    /** What arrived: a kind ("text", "binary", "pong", "close", "error") and its value. */
    record Event(String kind, Object value, int code) {}

    /** A client's connection, of either library. Methods that a library lacks are not called. */
    abstract static class Peer {
        final BlockingQueue<Event> events = new LinkedBlockingQueue<>();

        abstract String subprotocol();

        abstract void text(String text);

        abstract void binary(byte[] bytes);

        abstract void close(int code, String reason);

        void fragment(Opcode kind, byte[] part, boolean last) {
            throw new UnsupportedOperationException();
        }

        void ping(String payload) {
            throw new UnsupportedOperationException();
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

        void expectBinary(byte[] expected) throws Exception {
            if (!Arrays.equals((byte[]) next("binary").value, expected)) {
                throw new AssertionError("the bytes differ");
            }
        }
    }

    static final class OkHttpPeer extends Peer {
        final BlockingQueue<String> opened = new LinkedBlockingQueue<>();
        final okhttp3.WebSocket ws;
        final String subprotocol;

        OkHttpPeer(String url) throws Exception {
            Request request = new Request.Builder().url(url).header("Sec-WebSocket-Protocol", "chat, superchat").build();
            ws = client().newWebSocket(request, new okhttp3.WebSocketListener() {
                @Override
                public void onOpen(okhttp3.WebSocket ws, Response response) {
                    opened.add(String.valueOf(response.header("Sec-WebSocket-Protocol")));
                }

                @Override
                public void onMessage(okhttp3.WebSocket ws, String text) {
                    events.add(new Event("text", text, 0));
                }

                @Override
                public void onMessage(okhttp3.WebSocket ws, ByteString bytes) {
                    events.add(new Event("binary", bytes.toByteArray(), 0));
                }

                @Override
                public void onClosing(okhttp3.WebSocket ws, int code, String reason) {
                    events.add(new Event("close", reason, code));
                    ws.close(code == 1005 ? 1000 : code, null);
                }

                @Override
                public void onFailure(okhttp3.WebSocket ws, Throwable error, Response response) {
                    events.add(new Event("error", String.valueOf(error), 0));
                    opened.add("failed: " + error);
                }
            });
            subprotocol = opened.take();
        }

        static OkHttpClient client() throws Exception {
            OkHttpClient.Builder client = new OkHttpClient.Builder();
            if (System.getenv("PEER_CA") != null) {
                X509TrustManager trust = (X509TrustManager) trustManagers()[0];
                client.sslSocketFactory(clientTls().getSocketFactory(), trust);
            }
            return client.build();
        }

        @Override
        String subprotocol() {
            return subprotocol;
        }

        @Override
        void text(String text) {
            equal(ws.send(text), true);
        }

        @Override
        void binary(byte[] bytes) {
            equal(ws.send(ByteString.of(bytes)), true);
        }

        @Override
        void close(int code, String reason) {
            ws.close(code, reason);
        }
    }

    static Draft draft(IProtocol... protocols) {
        List<IExtension> none = List.of();
        List<IExtension> extensions = System.getenv("PEER_COMPRESS") == null ? none : List.of(new PerMessageDeflateExtension());
        return new Draft_6455(extensions, List.of(protocols), 64 << 20);
    }

    static final class JavaWebSocketPeer extends Peer {
        final WebSocketClient ws;

        JavaWebSocketPeer(String url) throws Exception {
            ws = new WebSocketClient(URI.create(url), draft(new Protocol("chat"), new Protocol("superchat"))) {
                @Override
                public void onOpen(ServerHandshake handshake) {}

                @Override
                public void onMessage(String text) {
                    events.add(new Event("text", text, 0));
                }

                @Override
                public void onMessage(ByteBuffer bytes) {
                    events.add(new Event("binary", bytesIn(bytes), 0));
                }

                @Override
                public void onWebsocketPong(WebSocket ws, Framedata frame) {
                    events.add(new Event("pong", StandardCharsets.UTF_8.decode(frame.getPayloadData()).toString(), 0));
                }

                @Override
                public void onClose(int code, String reason, boolean remote) {
                    events.add(new Event("close", reason, code));
                }

                @Override
                public void onError(Exception error) {
                    error.printStackTrace();
                }
            };
            if (System.getenv("PEER_CA") != null) {
                ws.setSocketFactory(clientTls().getSocketFactory());
            }
            equal(ws.connectBlocking(), true);
        }

        @Override
        String subprotocol() {
            return ws.getProtocol().getProvidedProtocol();
        }

        @Override
        void text(String text) {
            ws.send(text);
        }

        @Override
        void binary(byte[] bytes) {
            ws.send(bytes);
        }

        @Override
        void fragment(Opcode kind, byte[] part, boolean last) {
            ws.sendFragmentedFrame(kind, ByteBuffer.wrap(part), last);
        }

        @Override
        void ping(String payload) {
            PingFrame frame = new PingFrame();
            frame.setPayload(utf8(payload));
            ws.sendFrame(frame);
        }

        @Override
        void close(int code, String reason) {
            ws.close(code, reason);
        }
    }

    /** A server of Java-WebSocket with the paths of ws_server.mjs. /refuse answers with its own status and body. */
    static final class Server extends WebSocketServer {
        Server() throws Exception {
            super(new InetSocketAddress("127.0.0.1", 0), 1, List.of(draft(new Protocol("chat"), new Protocol(""))));
            setReuseAddr(true);
            if (System.getenv("PEER_CERT") != null) {
                setWebSocketFactory(new DefaultSSLWebSocketServerFactory(serverTls()));
            }
        }

        @Override
        public void onStart() {
            report("{\"listening\":" + getPort() + "}");
        }

        @Override
        public org.java_websocket.handshake.ServerHandshakeBuilder onWebsocketHandshakeReceivedAsServer(
                WebSocket ws, Draft draft, ClientHandshake request) throws InvalidDataException {
            if (request.getResourceDescriptor().equals("/refuse")) {
                throw new InvalidHandshakeException("not here, thank you");
            }
            return super.onWebsocketHandshakeReceivedAsServer(ws, draft, request);
        }

        @Override
        public void onOpen(WebSocket ws, ClientHandshake handshake) {}

        @Override
        public void onMessage(WebSocket ws, String text) {
            switch (ws.getResourceDescriptor()) {
                case "/echo" -> ws.send(text);
                case "/fragments" -> fragments(ws, Opcode.TEXT, utf8(text));
                case "/close" -> ws.close(3005, "that is all");
                case "/ping" -> {
                    PingFrame frame = new PingFrame();
                    frame.setPayload(utf8(text));
                    ws.sendFrame(frame);
                }
                default -> throw new AssertionError(ws.getResourceDescriptor());
            }
        }

        @Override
        public void onMessage(WebSocket ws, ByteBuffer bytes) {
            if (ws.getResourceDescriptor().equals("/fragments")) {
                fragments(ws, Opcode.BINARY, bytes);
            } else {
                ws.send(bytes);
            }
        }

        void fragments(WebSocket ws, Opcode kind, ByteBuffer message) {
            byte[] bytes = bytesIn(message);
            int third = bytes.length / 3;
            ws.sendFragmentedFrame(kind, ByteBuffer.wrap(Arrays.copyOfRange(bytes, 0, third)), false);
            PingFrame frame = new PingFrame();
            frame.setPayload(utf8("between"));
            ws.sendFrame(frame);
            ws.sendFragmentedFrame(kind, ByteBuffer.wrap(Arrays.copyOfRange(bytes, third, 2 * third)), false);
            ws.sendFragmentedFrame(kind, ByteBuffer.wrap(Arrays.copyOfRange(bytes, 2 * third, bytes.length)), true);
        }

        @Override
        public void onWebsocketPong(WebSocket ws, Framedata frame) {
            if (ws.getResourceDescriptor().equals("/ping")) {
                ws.send("pong " + StandardCharsets.UTF_8.decode(frame.getPayloadData()));
            }
        }

        @Override
        public void onClose(WebSocket ws, int code, String reason, boolean remote) {
            // -1: the handshake failed.
            if (code >= 0 && code != 1002) {
                report("{\"closed\":{\"code\":" + code + ",\"reason\":\"" + reason + "\"}}");
            }
        }

        @Override
        public void onError(WebSocket ws, Exception error) {
            error.printStackTrace();
        }
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

    static SSLContext clientTls() throws Exception {
        SSLContext tls = SSLContext.getInstance("TLS");
        tls.init(null, trustManagers(), null);
        return tls;
    }

    /** With the certificate in the file PEER_CERT and its EC key in PEER_KEY. */
    static SSLContext serverTls() throws Exception {
        Certificate certificate;
        try (InputStream file = Files.newInputStream(Path.of(System.getenv("PEER_CERT")))) {
            certificate = CertificateFactory.getInstance("X.509").generateCertificate(file);
        }
        String pem = Files.readString(Path.of(System.getenv("PEER_KEY")));
        byte[] der = Base64.getMimeDecoder().decode(pem.replaceAll("-----[A-Z ]+-----", ""));
        PrivateKey key = KeyFactory.getInstance("EC").generatePrivate(new PKCS8EncodedKeySpec(der));
        KeyStore store = KeyStore.getInstance(KeyStore.getDefaultType());
        store.load(null, null);
        store.setKeyEntry("peer", key, new char[0], new Certificate[] {certificate});
        KeyManagerFactory keys = KeyManagerFactory.getInstance(KeyManagerFactory.getDefaultAlgorithm());
        keys.init(store, new char[0]);
        SSLContext tls = SSLContext.getInstance("TLS");
        tls.init(keys.getKeyManagers(), null, null);
        return tls;
    }

    static int failures;

    public static void main(String[] args) throws Exception {
        if (args.length == 1) {
            new Server().start();
            // Runs until standard input closes.
            System.in.readAllBytes();
            System.exit(0);
        }
        String url = args[1];
        boolean isOkHttp = args[0].equals("okhttp");
        interface Open {
            Peer open() throws Exception;
        }
        Open open = () -> isOkHttp ? new OkHttpPeer(url) : new JavaWebSocketPeer(url);
        Peer peer = open.open();

        check("subprotocol", () -> equal(peer.subprotocol(), "chat"));
        for (String each : System.getenv().getOrDefault("PEER_SIZES", "0,125").split(",")) {
            int size = Integer.parseInt(each);
            check("text " + size, () -> {
                peer.text(textOf(size));
                peer.expectText(textOf(size));
            });
            check("binary " + size, () -> {
                peer.binary(bytesOf(size));
                peer.expectBinary(bytesOf(size));
            });
        }
        check("unicode", () -> {
            peer.text("Gr\u00fc\u00dfe, \u4e16\u754c \ud83d\udc1f");
            peer.expectText("Gr\u00fc\u00dfe, \u4e16\u754c \ud83d\udc1f");
        });
        check("burst in order", () -> {
            for (int at = 0; at < 200; at++) {
                peer.text("message " + at);
            }
            for (int at = 0; at < 200; at++) {
                peer.expectText("message " + at);
            }
        });
        if (!isOkHttp) {
            check("ping", () -> {
                peer.ping("are you there");
                equal(peer.next("pong").value, "are you there");
            });
            check("fragmented text", () -> {
                // The split is in the middle of a character.
                byte[] bytes = bytesIn(utf8("\u00fcber den Flu\u00df"));
                peer.fragment(Opcode.TEXT, Arrays.copyOf(bytes, 1), false);
                peer.fragment(Opcode.TEXT, new byte[0], false);
                peer.fragment(Opcode.TEXT, Arrays.copyOfRange(bytes, 1, bytes.length), true);
                peer.expectText("\u00fcber den Flu\u00df");
            });
            check("fragmented binary", () -> {
                byte[] bytes = bytesOf(3000);
                for (int at = 0; at < 3000; at += 100) {
                    peer.fragment(Opcode.BINARY, Arrays.copyOfRange(bytes, at, at + 100), at + 100 == 3000);
                }
                peer.expectBinary(bytes);
            });
            check("ping between fragments", () -> {
                peer.fragment(Opcode.TEXT, bytesIn(utf8("first ")), false);
                peer.ping("between");
                equal(peer.next("pong").value, "between");
                peer.fragment(Opcode.TEXT, bytesIn(utf8("second")), true);
                peer.expectText("first second");
            });
        }
        check("close with code and reason", () -> {
            peer.close(3001, "done here");
            // The server returns the code; returning the reason is optional.
            equal(peer.next("close").code, 3001);
        });
        check("too big", () -> {
            Peer other = open.open();
            other.text(textOf(Integer.parseInt(System.getenv("PEER_TOO_BIG"))));
            equal(other.next("close").code, 1009);
        });
        check("shutdown", () -> {
            Peer other = open.open();
            other.text("still here");
            other.expectText("still here");
            report("{\"waiting\":\"shutdown\"}");
            equal(other.next("close").code, 1001);
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

    static synchronized void report(String line) {
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

    static byte[] bytesIn(ByteBuffer buffer) {
        byte[] bytes = new byte[buffer.remaining()];
        buffer.get(bytes);
        return bytes;
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
