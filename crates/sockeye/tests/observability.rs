//! Histograms of connections, and what is reported to `tracing` and `metrics`.

mod common;

use std::pin::pin;
use std::time::Duration;

use common::{BOTH, Local, open_client, open_server, pair, poll_once};
use sockeye::{Client, CloseCode, ConnectionStats, Overflow, Server, WebSocket};

fn server() -> Server {
    Server::builder().latency_histograms().build()
}

async fn open_measured(local: Local) -> (WebSocket, common::Peer) {
    match local {
        Local::Server => open_server(&server()).await,
        Local::Client => open_client(&Client::builder().latency_histograms().build().unwrap()).await,
    }
}

const STALL: Duration = Duration::from_secs(3);

#[tokio::test(start_paused = true)]
async fn queue_wait_lasts_until_the_transport_has_taken_the_message() {
    for local in BOTH {
        let (mut ws, peer) = open_measured(local).await;
        ws.send("at once").await.unwrap();
        assert_eq!(ws.stats().queue_wait.count(), 1);
        assert_eq!(ws.stats().queue_wait.max(), Duration::ZERO);
        peer.change_rules(|rules| rules.room = 0);
        for _ in 0..10 {
            ws.feed("waits").await.unwrap();
        }
        assert!(poll_once(pin!(ws.flush())).await.is_pending());
        tokio::time::advance(STALL).await;
        assert_eq!(ws.stats().queue_wait.count(), 1, "nothing is written yet");
        peer.change_rules(|rules| rules.room = usize::MAX);
        ws.flush().await.unwrap();
        let stats = ws.stats().queue_wait;
        // One message of the burst is measured.
        assert_eq!((stats.count(), stats.max()), (2, STALL), "{local:?}: {stats:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn queue_wait_is_measured_with_every_way_to_send() {
    let (ws, peer) = open_measured(Local::Server).await;
    peer.change_rules(|rules| rules.room = 0);
    let (sender, mut receiver) = ws.split();
    sender.try_send("try_send").unwrap();
    assert!(poll_once(pin!(receiver.recv())).await.is_pending());
    tokio::time::advance(STALL).await;
    peer.change_rules(|rules| rules.room = usize::MAX);
    assert!(poll_once(pin!(receiver.recv())).await.is_pending());
    assert_eq!(receiver.stats().await.queue_wait.max(), STALL);

    // A message that an outbox defers waits from when it was accepted.
    peer.change_rules(|rules| rules.room = 0);
    let outbox = sender.clone().with_overflow(Overflow::DropOldest);
    outbox.send("x".repeat(100_000)).await.unwrap();
    outbox.send("deferred").await.unwrap();
    assert!(poll_once(pin!(receiver.recv())).await.is_pending());
    tokio::time::advance(2 * STALL).await;
    peer.change_rules(|rules| rules.room = usize::MAX);
    assert!(poll_once(pin!(receiver.recv())).await.is_pending());
    let waits = receiver.stats().await.queue_wait;
    assert_eq!(waits.max(), 2 * STALL);
    assert_eq!(waits.count(), 3, "{waits:?}");
}

#[tokio::test(start_paused = true)]
async fn dropped_queue_is_not_measured_and_measurements_remain_after_the_end() {
    let (mut ws, peer) = open_measured(Local::Server).await;
    ws.send("written").await.unwrap();
    peer.change_rules(|rules| rules.room = 0);
    ws.feed("never written").await.unwrap();
    assert!(ws.recv().await.unwrap_err().is_timeout());
    assert_eq!(ws.stats().queue_wait.count(), 1);
}

#[tokio::test]
async fn round_trips_are_measured_once_each() {
    let (mut client, mut server) = pair(&Client::builder().latency_histograms().build().unwrap(), &server()).await;
    let answering = tokio::spawn(async move {
        while server.recv().await.unwrap().is_some() {}
        server.stats()
    });
    for _ in 0..3 {
        client.ping().await.unwrap();
    }
    let rtt = client.rtt().unwrap();
    let stats = client.stats().round_trip;
    assert_eq!(stats.count(), 3);
    assert!(stats.max() >= rtt && stats.quantile(1.0) == Some(stats.max()));
    client.close(CloseCode::NORMAL, "").await.unwrap();
    assert_eq!(client.stats().round_trip, stats, "kept after the end");
    assert_eq!(
        answering.await.unwrap().round_trip.count(),
        0,
        "the server sent no ping"
    );
}

#[tokio::test]
async fn nothing_is_measured_by_default() {
    let (mut client, mut server) = pair(&Client::default(), &Server::default()).await;
    let answering = tokio::spawn(async move { server.recv().await });
    client.send("message").await.unwrap();
    let _ = client.ping().await;
    let ConnectionStats {
        round_trip, queue_wait, ..
    } = client.stats();
    assert_eq!((round_trip.count(), queue_wait.count()), (0, 0));
    answering.await.unwrap().unwrap();
}

#[cfg(feature = "metrics")]
mod metrics {
    use std::collections::BTreeMap;
    use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
    use std::sync::{Arc, Mutex};

    use ::metrics::{Counter, Gauge, HistogramFn, Key, KeyName, Metadata, Recorder, SharedString, Unit};
    use sockeye::{Keepalive, Limits, Timeouts};

    use super::*;

    /// Keeps all values by name and labels.
    #[derive(Default)]
    struct Values {
        counters: Mutex<BTreeMap<String, Arc<AtomicU64>>>,
        gauges: Mutex<BTreeMap<String, Arc<AtomicU64>>>,
        histograms: Mutex<BTreeMap<String, Arc<Times>>>,
        described: Mutex<BTreeMap<String, String>>,
    }

    #[derive(Default)]
    struct Times(Mutex<Vec<f64>>);

    impl HistogramFn for Times {
        fn record(&self, value: f64) {
            self.0.lock().unwrap().push(value);
        }
    }

    fn name_of(key: &Key) -> String {
        let labels = key.labels().map(|label| format!(",{}={}", label.key(), label.value()));
        format!("{}{}", key.name(), labels.collect::<String>())
    }

    fn entry<T: Default>(map: &Mutex<BTreeMap<String, Arc<T>>>, key: &Key) -> Arc<T> {
        map.lock().unwrap().entry(name_of(key)).or_default().clone()
    }

    impl Recorder for Values {
        fn describe_counter(&self, name: KeyName, _: Option<Unit>, text: SharedString) {
            self.described
                .lock()
                .unwrap()
                .insert(name.as_str().to_owned(), text.into_owned());
        }

        fn describe_gauge(&self, name: KeyName, _: Option<Unit>, text: SharedString) {
            self.describe_counter(name, None, text);
        }

        fn describe_histogram(&self, name: KeyName, _: Option<Unit>, text: SharedString) {
            self.describe_counter(name, None, text);
        }

        fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
            Counter::from_arc(entry(&self.counters, key))
        }

        fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
            Gauge::from_arc(entry(&self.gauges, key))
        }

        fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> ::metrics::Histogram {
            ::metrics::Histogram::from_arc(entry(&self.histograms, key))
        }
    }

    impl Values {
        fn counter(&self, name: &str) -> u64 {
            let counters = self.counters.lock().unwrap();
            counters.get(name).map_or(0, |value| value.load(Relaxed))
        }

        fn open(&self, role: &str) -> f64 {
            let gauges = self.gauges.lock().unwrap();
            let value = gauges.get(&format!("sockeye_ws_connections_open,role={role}"));
            value.map_or(0.0, |value| f64::from_bits(value.load(Relaxed)))
        }

        fn times(&self, name: &str) -> Vec<f64> {
            let histograms = self.histograms.lock().unwrap();
            histograms
                .get(name)
                .map_or(vec![], |times| times.0.lock().unwrap().clone())
        }
    }

    /// Runs a test with its own recorder, on this thread.
    fn record(test: impl AsyncFnOnce(&Values)) {
        let values = Values::default();
        ::metrics::with_local_recorder(&values, || {
            let mut runtime = tokio::runtime::Builder::new_current_thread();
            let runtime = runtime.enable_all().start_paused(true).build().unwrap();
            runtime.block_on(test(&values));
        });
    }

    #[test]
    fn every_metric_is_described_and_in_the_guide() {
        record(async |values| {
            sockeye::describe_metrics();
            let described = values.described.lock().unwrap().clone();
            let guide = include_str!("../../../docs/guide/observability.md");
            let in_guide = guide.lines().filter_map(|line| line.strip_prefix("| `sockeye_ws_"));
            assert_eq!(described.len(), in_guide.count());
            for (name, text) in described {
                let row = guide.lines().find(|line| line.starts_with(&format!("| `{name}{{")));
                let row = row.unwrap_or_else(|| panic!("{name} is missing in the guide"));
                assert!(row.contains(&text), "{name}: {text}");
            }
        });
    }

    #[test]
    fn connections_messages_and_bytes_are_counted() {
        record(async |values| {
            let (mut client, mut server) = pair(&Client::default(), &Server::default()).await;
            assert_eq!((values.open("client"), values.open("server")), (1.0, 1.0));
            for _ in 0..3 {
                client.send("12345").await.unwrap();
                server.recv().await.unwrap();
            }
            // A connection that waits has reported everything.
            assert!(poll_once(pin!(server.recv())).await.is_pending());
            let sent = values.counter("sockeye_ws_messages_total,role=client,direction=sent");
            let received = values.counter("sockeye_ws_messages_total,role=server,direction=received");
            assert_eq!((sent, received), (3, 3));
            // Header, masking key and payload.
            let sent = values.counter("sockeye_ws_bytes_total,role=client,direction=sent");
            let received = values.counter("sockeye_ws_bytes_total,role=server,direction=received");
            assert_eq!((sent, received), (3 * 11, 3 * 11));
            let (closed, received) = tokio::join!(client.close(CloseCode::NORMAL, ""), server.recv());
            closed.unwrap();
            assert!(received.unwrap().is_none());
            drop((client, server));
            tokio::task::yield_now().await;
            tokio::time::sleep(Duration::from_secs(2)).await;
            assert_eq!((values.open("client"), values.open("server")), (0.0, 0.0));
            for role in ["client", "server"] {
                assert_eq!(values.counter(&format!("sockeye_ws_connections_total,role={role}")), 1);
            }
            assert_eq!(values.counter("sockeye_ws_closes_total,role=client,cause=local"), 1);
            assert_eq!(values.counter("sockeye_ws_closes_total,role=server,cause=peer"), 1);
            assert_eq!(
                values.counter("sockeye_ws_messages_total,role=client,direction=sent"),
                3
            );
        });
    }

    #[test]
    fn causes_of_closing_are_counted() {
        record(async |values| {
            let count = |cause: &str| values.counter(&format!("sockeye_ws_closes_total,role=server,cause={cause}"));

            let (ws, _peer) = open_server(&Server::default()).await;
            drop(ws);
            assert_eq!(count("dropped"), 1);

            let (ws, _peer) = open_server(&Server::default()).await;
            ws.abort();
            assert_eq!(count("dropped"), 2);

            let (mut ws, peer) = open_server(&Server::default()).await;
            peer.send_bytes([0xff; 10]);
            assert!(ws.recv().await.unwrap_err().is_protocol());
            drop(ws);
            tokio::time::sleep(Duration::from_secs(60)).await;
            assert_eq!(count("protocol_error"), 1);

            let keepalive = Keepalive::default()
                .interval(Duration::from_secs(1))
                .timeout(Duration::from_secs(1));
            let (mut ws, _peer) = open_server(&Server::builder().keepalive(keepalive).build()).await;
            assert!(ws.recv().await.unwrap_err().is_timeout());
            assert_eq!(count("keepalive_timeout"), 1);

            let (mut ws, _peer) = open_server(&Server::default()).await;
            assert!(ws.close(CloseCode::NORMAL, "").await.unwrap_err().is_timeout());
            assert_eq!(count("close_timeout"), 1);

            let limits = Limits::default().write_buffer_max(10);
            let (mut ws, peer) = open_server(&Server::builder().limits(limits).build()).await;
            peer.change_rules(|rules| rules.room = 0);
            assert!(ws.send("never taken").await.unwrap_err().is_timeout());
            assert_eq!(count("write_timeout"), 1);

            assert_eq!(values.open("server"), 0.0);
        });
    }

    #[test]
    fn failed_handshakes_are_counted_by_kind() {
        record(async |values| {
            let count = |role: &str, kind: &str| {
                values.counter(&format!("sockeye_ws_handshake_failures_total,role={role},kind={kind}"))
            };
            let timeouts = Timeouts::default().handshake(Duration::from_secs(1));
            let (near, _far) = tokio::io::duplex(1024);
            let server = Server::builder().timeouts(timeouts).build();
            assert!(server.accept(near).await.unwrap_err().is_timeout());
            assert_eq!(count("server", "timeout"), 1);

            let (near, far) = tokio::io::duplex(1024);
            let rejecting = async {
                let incoming = Server::default().accept(far).await.unwrap();
                incoming.reject(sockeye::http::StatusCode::NOT_FOUND).await;
            };
            let client = Client::default();
            let connecting = client.request("ws://localhost/").connect_over(near);
            let (connected, ()) = tokio::join!(connecting, rejecting);
            assert!(connected.is_err());
            assert_eq!(count("client", "rejected"), 1);
            assert!(client.connect("no URL").await.is_err());
            assert_eq!(count("client", "invalid_input"), 1);
            assert_eq!(
                count("server", "rejected"),
                0,
                "the decision of the application is no failure"
            );
        });
    }

    #[test]
    fn round_trips_and_queue_waits_are_recorded() {
        record(async |values| {
            let (mut client, mut server) = pair(&Client::default(), &server()).await;
            {
                let (pinged, received) = (client.ping(), server.recv());
                tokio::select! {
                    rtt = pinged => drop(rtt.unwrap()),
                    _ = received => unreachable!("no message was sent"),
                }
            }
            assert_eq!(values.times("sockeye_ws_round_trip_seconds,role=client").len(), 1);
            server.send("measured").await.unwrap();
            client.send("not measured").await.unwrap();
            assert_eq!(values.times("sockeye_ws_queue_wait_seconds,role=server").len(), 1);
            assert_eq!(values.times("sockeye_ws_queue_wait_seconds,role=client").len(), 0);
        });
    }
}

#[cfg(feature = "tracing")]
mod tracing {
    use std::io::{self, Write};
    use std::sync::{Arc, LazyLock, Mutex};

    use ::tracing::Instrument as _;
    use tracing_subscriber::fmt::format::FmtSpan;

    use super::*;

    /// What the subscriber has written.
    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<u8>>>);

    impl Write for Log {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Log {
        fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
        }

        #[track_caller]
        fn line(&self, content: &str) -> String {
            let text = self.text();
            let line = text.lines().find(|line| line.contains(content));
            line.unwrap_or_else(|| panic!("{content:?} is missing in\n{text}"))
                .to_owned()
        }
    }

    /// Keeps a second subscriber alive. While there is only one, a thread without a subscriber that uses a span or
    /// event first turns it off for all threads.
    static SECOND: LazyLock<::tracing::Dispatch> =
        LazyLock::new(|| ::tracing::Dispatch::new(tracing_subscriber::registry()));

    fn subscribe() -> (Log, ::tracing::subscriber::DefaultGuard) {
        LazyLock::force(&SECOND);
        let log = Log::default();
        let writer = log.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_max_level(::tracing::Level::TRACE)
            .with_ansi(false)
            .with_span_events(FmtSpan::CLOSE)
            .with_writer(move || writer.clone())
            .finish();
        (log, ::tracing::subscriber::set_default(subscriber))
    }

    #[tokio::test]
    async fn connection_has_a_span_and_its_end_an_event() {
        let (log, _guard) = subscribe();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let url = format!("ws://user:password@{address}/chat?token=secret");
        let client = Client::default();
        let accepting = async {
            let (tcp, _) = listener.accept().await.unwrap();
            Server::default().accept(tcp).await?.accept().await
        };
        let (connected, accepted) = tokio::join!(client.connect(&url), accepting);
        let (mut client, mut server) = (connected.unwrap(), accepted.unwrap());
        let peer = client.local_addr().unwrap();
        client.send("hi").await.unwrap();
        let span = server.span();
        async {
            server.recv().await.unwrap();
            ::tracing::info!("an event of the application");
        }
        .instrument(span)
        .await;
        let line = log.line("an event of the application");
        assert!(line.contains("connection{id="), "{line}");
        let (closed, received) = tokio::join!(client.close(CloseCode::NORMAL, ""), server.recv());
        closed.unwrap();
        assert!(received.unwrap().is_none());
        drop((client, server));
        while log.text().matches("the connection is closed").count() < 2 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let line = log.line("cause=\"peer\"");
        for field in [
            "role=\"server\"",
            &format!("peer={peer}"),
            "path=\"/chat\"",
            "close_cause=\"peer\"",
            "close_code=1000",
            "received_messages=1",
            "sent_messages=0",
        ] {
            assert!(line.contains(field), "{field} is missing in {line}");
        }
        let line = log.line("cause=\"local\"");
        assert!(
            line.contains("role=\"client\"") && line.contains("path=\"/chat\""),
            "{line}"
        );
        let text = log.text();
        for secret in ["secret", "password", "token", "user:"] {
            assert!(!text.contains(secret), "{secret} in\n{text}");
        }
    }

    #[tokio::test]
    async fn failed_handshake_is_an_event_in_its_span() {
        let (log, _guard) = subscribe();
        let (near, far) = tokio::io::duplex(4096);
        let rejecting = async {
            let incoming = Server::default().accept(far).await.unwrap();
            incoming.reject(sockeye::http::StatusCode::FORBIDDEN).await;
        };
        let client = Client::default();
        let connecting = client.request("ws://localhost/path?key=secret").connect_over(near);
        let (connected, ()) = tokio::join!(connecting, rejecting);
        connected.unwrap_err();
        let line = log.line("the opening handshake failed");
        for field in ["handshake{role=\"client\"", "path=\"/path\"", "kind=Rejected", "403"] {
            assert!(line.contains(field), "{field} is missing in {line}");
        }
        // The span of the server has the path of the request.
        let line = log.line("handshake{role=\"server\"");
        assert!(line.contains("path=\"/path\""), "{line}");
        assert!(!log.text().contains("secret"));
    }

    #[tokio::test(start_paused = true)]
    async fn lost_connection_names_its_cause() {
        let (log, _guard) = subscribe();
        let (mut ws, _peer) = open_server(&Server::default()).await;
        assert!(ws.recv().await.unwrap_err().is_timeout());
        let line = log.line("the connection is closed");
        assert!(line.contains("cause=\"keepalive_timeout\""), "{line}");
        assert!(ws.span().is_disabled());
    }
}
