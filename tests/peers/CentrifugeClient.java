// The official Java SDK `centrifuge-java` as two clients of a real-time server. It speaks Protobuf only.
// usage: java -cp 'JARS/*' CentrifugeClient.java ADDRESS
// Reports JSON lines as report.mjs describes them.

import io.github.centrifugal.centrifuge.Client;
import io.github.centrifugal.centrifuge.DisconnectedEvent;
import io.github.centrifugal.centrifuge.EventListener;
import io.github.centrifugal.centrifuge.HistoryOptions;
import io.github.centrifugal.centrifuge.HistoryResult;
import io.github.centrifugal.centrifuge.LeaveEvent;
import io.github.centrifugal.centrifuge.Options;
import io.github.centrifugal.centrifuge.PresenceResult;
import io.github.centrifugal.centrifuge.PresenceStatsResult;
import io.github.centrifugal.centrifuge.PublicationEvent;
import io.github.centrifugal.centrifuge.PublishResult;
import io.github.centrifugal.centrifuge.RPCResult;
import io.github.centrifugal.centrifuge.ReplyError;
import io.github.centrifugal.centrifuge.ResultCallback;
import io.github.centrifugal.centrifuge.SubscribedEvent;
import io.github.centrifugal.centrifuge.Subscription;
import io.github.centrifugal.centrifuge.SubscriptionEventListener;
import io.github.centrifugal.centrifuge.SubscriptionOptions;
import java.nio.charset.StandardCharsets;
import java.util.List;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;
import java.util.function.Consumer;

public class CentrifugeClient {
    static final String CHANNEL = "chat:lobby";
    static final long PATIENCE_SECONDS = 30;
    static boolean failed = false;

    interface Body {
        void run() throws Exception;
    }

    /** A client with its subscription, and queues of what it waits for. */
    static final class Peer {
        final BlockingQueue<String> publications = new LinkedBlockingQueue<>();
        final BlockingQueue<String> leaves = new LinkedBlockingQueue<>();
        final BlockingQueue<SubscribedEvent> subscribed = new LinkedBlockingQueue<>();
        final BlockingQueue<Integer> disconnected = new LinkedBlockingQueue<>();
        final Client client;
        final Subscription subscription;

        Peer(String address) throws Exception {
            Options options = new Options();
            options.setMinReconnectDelay(50);
            options.setMaxReconnectDelay(200);
            client = new Client("ws://" + address + "/connection/websocket", options, new EventListener() {
                @Override
                public void onDisconnected(Client client, DisconnectedEvent event) {
                    disconnected.add(event.getCode());
                }
            });
            SubscriptionOptions wanted = new SubscriptionOptions();
            wanted.setRecoverable(true);
            wanted.setJoinLeave(true);
            wanted.setMinResubscribeDelay(50);
            wanted.setMaxResubscribeDelay(200);
            subscription = client.newSubscription(CHANNEL, wanted, new SubscriptionEventListener() {
                @Override
                public void onSubscribed(Subscription sub, SubscribedEvent event) {
                    subscribed.add(event);
                }

                @Override
                public void onPublication(Subscription sub, PublicationEvent event) {
                    publications.add(new String(event.getData(), StandardCharsets.UTF_8));
                }

                @Override
                public void onLeave(Subscription sub, LeaveEvent event) {
                    leaves.add(event.getInfo().getClient());
                }
            });
        }
    }

    static void report(String name, String value) {
        System.out.println("{\"" + name + "\":\"" + value + "\"}");
    }

    /** Runs one case and reports how it ended; a failed case does not stop the others. */
    static void check(String name, Body body) {
        try {
            body.run();
            report("case", name);
        } catch (Throwable error) {
            failed = true;
            String text = String.valueOf(error).replace("\\", "\\\\").replace("\"", "'").replace("\n", " ");
            System.out.println("{\"case\":\"" + name + "\",\"error\":\"" + text + "\"}");
        }
    }

    static <T> T next(BlockingQueue<T> queue, String what) throws Exception {
        T value = queue.poll(PATIENCE_SECONDS, TimeUnit.SECONDS);
        if (value == null) throw new Exception("no " + what + " in time");
        return value;
    }

    /** The result of a call with a callback. */
    static <T> T result(Consumer<ResultCallback<T>> call) throws Exception {
        CompletableFuture<T> future = new CompletableFuture<>();
        call.accept((error, value) -> {
            if (error != null) future.completeExceptionally(error);
            else future.complete(value);
        });
        return future.get(PATIENCE_SECONDS, TimeUnit.SECONDS);
    }

    static void equal(Object got, Object expected) throws Exception {
        if (!got.equals(expected)) throw new Exception("got " + got + ", expected " + expected);
    }

    static void expectPublication(List<Peer> peers, String data) throws Exception {
        for (Peer peer : peers) equal(next(peer.publications, "publication"), data);
    }

    static byte[] bytes(String text) {
        return text.getBytes(StandardCharsets.UTF_8);
    }

    public static void main(String[] arguments) throws Exception {
        Peer ada = new Peer(arguments[0]);
        Peer bob = new Peer(arguments[0]);
        List<Peer> both = List.of(ada, bob);

        check("connect and subscribe", () -> {
            for (Peer peer : both) {
                peer.client.connect();
                peer.subscription.subscribe();
                next(peer.subscribed, "subscription");
            }
        });

        check("publish", () -> {
            String data = "{\"text\":\"Gr\u00fc\u00dfe, \u4e16\u754c\",\"list\":[1,null,true]}";
            CentrifugeClient.<PublishResult>result(done -> ada.subscription.publish(bytes(data), done));
            expectPublication(both, data);
        });

        check("history", () -> {
            CentrifugeClient.<PublishResult>result(done -> bob.client.publish(CHANNEL, bytes("2"), done));
            HistoryOptions newest = new HistoryOptions.Builder().withLimit(1).withReverse(true).build();
            HistoryResult page = result(done -> ada.subscription.history(newest, done));
            equal(page.getPublications().size(), 1);
            equal(new String(page.getPublications().get(0).getData(), StandardCharsets.UTF_8), "2");
            equal(page.getOffset(), 2L);
            expectPublication(both, "2");
        });

        check("presence", () -> {
            PresenceResult presence = result(done -> ada.subscription.presence(done));
            equal(presence.getClients().size(), 2);
            PresenceStatsResult stats = result(done -> bob.subscription.presenceStats(done));
            equal(stats.getNumClients(), 2);
        });

        check("call without a handler", () -> {
            try {
                CentrifugeClient.<RPCResult>result(done -> ada.client.rpc("no such method", bytes("{}"), done));
            } catch (java.util.concurrent.ExecutionException error) {
                equal(((ReplyError) error.getCause()).getCode(), 108);
                return;
            }
            throw new Exception("the call succeeded");
        });

        check("leave", () -> {
            bob.subscription.unsubscribe();
            next(ada.leaves, "leave");
            PresenceStatsResult stats = result(done -> ada.subscription.presenceStats(done));
            equal(stats.getNumClients(), 1);
            bob.subscription.subscribe();
            next(bob.subscribed, "subscription");
        });

        check("resubscribe after a restart", () -> {
            report("waiting", "restart");
            for (Peer peer : both) next(peer.subscribed, "subscription");
            String data = "\"after the restart\"";
            CentrifugeClient.<PublishResult>result(done -> ada.subscription.publish(bytes(data), done));
            expectPublication(both, data);
        });

        check("disconnect", () -> {
            for (Peer peer : both) {
                peer.client.disconnect();
                equal(next(peer.disconnected, "disconnect"), 0);
                peer.client.close(1000);
            }
        });

        // The threads of the SDK's HTTP client would keep the program alive.
        System.exit(failed ? 1 : 0);
    }
}
