//! The examples, run as programs. `cargo test` builds them before the tests; before `cargo test --test examples`, build
//! them with `cargo build --examples`.

mod common;

use std::io::{BufRead as _, BufReader, Read as _};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use common::{text_of, within};
use sockeye::http::StatusCode;
use sockeye::{CloseCode, Incoming, Server};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// A running example. Killed when dropped.
struct Example(Child);

impl Example {
    fn start(name: &str, args: &[&str]) -> Self {
        let mut command = Self::command(name, args);
        Self(command.spawn().unwrap_or_else(|error| panic!("{name}: {error}")))
    }

    fn command(name: &str, args: &[&str]) -> Command {
        let tests = std::env::current_exe().unwrap();
        let directory = tests.parent().and_then(|deps| deps.parent()).unwrap().join("examples");
        let program: PathBuf = directory.join(name).with_extension(std::env::consts::EXE_EXTENSION);
        let mut command = Command::new(program);
        command.args(args).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Starts a program that reads standard input.
    #[cfg(all(unix, feature = "blocking"))]
    fn start_with_input(name: &str, args: &[&str]) -> Self {
        let mut command = Self::command(name, args);
        command.stdin(Stdio::piped());
        Self(command.spawn().unwrap_or_else(|error| panic!("{name}: {error}")))
    }

    /// Starts a server on a free port, and returns its address.
    fn serve(name: &str) -> (Self, String) {
        Self::serve_with(name, &["127.0.0.1:0"])
    }

    fn serve_with(name: &str, args: &[&str]) -> (Self, String) {
        let mut example = Self::start(name, args);
        let mut line = String::new();
        BufReader::new(example.0.stdout.as_mut().unwrap())
            .read_line(&mut line)
            .unwrap();
        let (_, address) = line
            .trim()
            .trim_end_matches('/')
            .split_once("://")
            .expect("its address");
        (example, address.to_owned())
    }

    /// Sends SIGINT, as Ctrl+C does.
    #[cfg(unix)]
    fn interrupt(&self) {
        let status = Command::new("kill").args(["-INT", &self.0.id().to_string()]).status();
        assert!(status.unwrap().success());
    }

    /// Waits for the exit. Returns whether it was successful, and the output.
    async fn finish(mut self) -> (bool, String, String) {
        let status = within(30, async {
            loop {
                match self.0.try_wait().unwrap() {
                    Some(status) => return status,
                    None => tokio::time::sleep(std::time::Duration::from_millis(10)).await,
                }
            }
        });
        let status = status.await;
        let (mut stdout, mut stderr) = (String::new(), String::new());
        self.0.stdout.as_mut().unwrap().read_to_string(&mut stdout).unwrap();
        self.0.stderr.as_mut().unwrap().read_to_string(&mut stderr).unwrap();
        (status.success(), stdout, stderr)
    }
}

impl Drop for Example {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

async fn get(address: &str, path: &str) -> String {
    let mut tcp = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    tcp.write_all(request.as_bytes()).await.unwrap();
    let mut response = String::new();
    within(30, tcp.read_to_string(&mut response)).await.unwrap();
    response
}

#[tokio::test]
async fn echo_server_answers_client_and_health_checks() {
    let (_server, address) = Example::serve("echo_server");
    let client = Example::start("client", &[&format!("ws://{address}/"), "hi there"]);
    let (is_good, stdout, stderr) = client.finish().await;
    assert!(
        is_good && stdout.starts_with("Text(\"hi there\") after "),
        "{stdout}{stderr}"
    );
    let response = get(&address, "/").await;
    assert!(
        response.starts_with("HTTP/1.1 200 OK\r\n") && response.ends_with("\r\n\r\nok\n"),
        "{response}"
    );
    // Without the server, the client prints the cause on one line.
    drop(_server);
    let (is_good, _, stderr) = Example::start("client", &[&format!("ws://{address}/")]).finish().await;
    assert!(
        !is_good && stderr.contains(&format!("cannot connect to {address}: Connection refused")),
        "{stderr}"
    );
}

#[tokio::test]
async fn chat_separates_rooms_and_closes_with_1001_on_ctrl_c() {
    let (chat, address) = Example::serve("chat");
    let join = async |room: &str| {
        let mut ws = sockeye::connect(&format!("ws://{address}/{room}")).await.unwrap();
        // A member receives its own message once it is in the room.
        ws.send("here").await.unwrap();
        assert!(text_of(within(30, ws.recv()).await).ends_with(": here"));
        ws
    };
    let (mut one, mut other) = (join("one").await, join("other").await);
    let mut second = join("one").await;
    assert_eq!(text_of(within(30, one.recv()).await), "3: here");
    second.send("hello").await.unwrap();
    assert_eq!(text_of(within(30, one.recv()).await), "3: hello");
    other.send("nobody but me").await.unwrap();
    assert_eq!(text_of(within(30, other.recv()).await), "2: nobody but me");
    #[cfg(unix)]
    {
        chat.interrupt();
        for mut ws in [one, other] {
            assert_eq!(within(30, ws.recv()).await.unwrap(), None);
            assert_eq!(u16::from(ws.close_info().unwrap().received().unwrap().code), 1001);
        }
        drop(second);
        let (is_good, ..) = chat.finish().await;
        assert!(is_good);
    }
}

#[tokio::test]
async fn feed_subscribes_and_reconnects_until_ctrl_c() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("ws://{}/", listener.local_addr().unwrap());
    let feed = Example::start("feed", &[&url, "ETH-USD"]);
    let server = Server::builder().subprotocols(["v1.feed"]).build();
    let accept = async || -> Incoming {
        let (tcp, _) = within(30, listener.accept()).await.unwrap();
        server.accept(tcp).await.unwrap()
    };
    // First unavailable, then the connection is lost, then the server shuts down, then it works.
    accept().await.reject(StatusCode::SERVICE_UNAVAILABLE).await;
    accept().await.accept().await.unwrap().abort();
    let mut leaving = accept().await.accept().await.unwrap();
    within(30, leaving.close(CloseCode::GOING_AWAY, "")).await.unwrap();
    let mut ws = accept().await.accept().await.unwrap();
    assert_eq!(ws.subprotocol(), Some("v1.feed"));
    assert_eq!(text_of(within(30, ws.recv()).await), "subscribe ETH-USD");
    ws.send("ETH-USD 2000.5").await.unwrap();
    #[cfg(unix)]
    {
        ws.send_ping(b"").await.unwrap();
        while ws.rtt().is_none() {
            let _ = tokio::time::timeout(std::time::Duration::from_millis(20), ws.recv()).await;
        }
        feed.interrupt();
        assert_eq!(within(30, ws.recv()).await.unwrap(), None);
        let (is_good, stdout, stderr) = feed.finish().await;
        assert!(is_good && stdout == "ETH-USD 2000.5\n", "{stdout}{stderr}");
        assert!(
            stderr.contains("status 503 Service Unavailable; trying again in "),
            "{stderr}"
        );
        assert!(
            stderr.contains("closed by the peer: 1001") && stderr.contains("connection lost"),
            "{stderr}"
        );
        assert_eq!(stderr.matches("; trying again in ").count(), 3, "{stderr}");
        assert!(stderr.contains("messages/s"), "{stderr}");
    }
}

#[tokio::test]
async fn reconnecting_client_subscribes_again_and_loses_no_order() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("ws://{}/", listener.local_addr().unwrap());
    let client = Example::start("reconnecting", &[&url, "100"]);
    let server = Server::default();
    let accept = async || -> Incoming {
        let (tcp, _) = within(30, listener.accept()).await.unwrap();
        server.accept(tcp).await.unwrap()
    };
    accept().await.reject(StatusCode::SERVICE_UNAVAILABLE).await;
    let mut orders = std::collections::BTreeSet::new();
    for is_last in [false, false, true] {
        let mut ws = accept().await.accept().await.unwrap();
        assert_eq!(text_of(within(30, ws.recv()).await), "subscribe fills");
        for _ in 0..3 {
            let order = text_of(within(30, ws.recv()).await);
            orders.insert(order.strip_prefix("order ").unwrap().parse::<u32>().unwrap());
        }
        if !is_last {
            ws.abort();
            continue;
        }
        ws.send("filled").await.unwrap();
        #[cfg(unix)]
        {
            client.interrupt();
            while within(30, ws.recv()).await.unwrap().is_some() {}
        }
        #[cfg(not(unix))]
        ws.close(CloseCode::NORMAL, "").await.unwrap();
    }
    let (is_good, stdout, stderr) = client.finish().await;
    assert!(is_good, "{stderr}");
    assert!(
        stderr.contains("status 503 Service Unavailable; connecting in "),
        "{stderr}"
    );
    assert_eq!(
        stderr.matches(" orders may be lost; connecting in ").count(),
        2,
        "{stderr}"
    );
    // Each order arrived at least once.
    assert!(
        orders.iter().copied().eq(1..=orders.len() as u32),
        "{orders:?} {stdout}"
    );
}

#[cfg(feature = "tls")]
#[tokio::test]
async fn client_certificate_is_required_and_shown() {
    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
    let folder = std::env::temp_dir().join(format!("sockeye-client-certificate-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let file = |name: &str, content: String| {
        let path = folder.join(name);
        std::fs::write(&path, content).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let mut params = CertificateParams::new([]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let signed = |name: &str| {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new([name.to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &authority).unwrap();
        let files = [
            file(&format!("{name}.pem"), certificate.pem()),
            file(&format!("{name}.key"), key.serialize_pem()),
        ];
        (files, certificate.der().len())
    };
    let (server_files, _) = signed("localhost");
    let (client_files, size) = signed("me");
    let ca = file("ca.pem", authority.pem());
    let [chain, key] = &server_files;
    let mut server = Example::start("client_certificate", &["serve", "127.0.0.1:0", chain, key, &ca]);
    let mut line = String::new();
    let mut stdout = BufReader::new(server.0.stdout.as_mut().unwrap());
    stdout.read_line(&mut line).unwrap();
    let port = line.trim().trim_end_matches('/').rsplit(':').next().unwrap();
    let url = format!("wss://localhost:{port}/");
    let [chain, key] = &client_files;
    let client = Example::start("client_certificate", &["connect", &url, chain, key, &ca]);
    let (is_good, stdout, stderr) = client.finish().await;
    let expected = format!("you are the owner of a certificate of {size} bytes\n");
    assert!(is_good && stdout == expected, "{stdout}{stderr}");
    // Without a certificate.
    let tls = sockeye::ClientTls::new().without_roots().trust_pem(authority.pem());
    let client = sockeye::Client::builder().tls(tls).build().unwrap();
    assert!(within(30, client.connect(&url)).await.is_err());
    drop(server);
    std::fs::remove_dir_all(&folder).unwrap();
}

#[cfg(all(unix, feature = "blocking"))]
#[tokio::test]
async fn blocking_client_sends_lines_and_prints_messages() {
    use std::io::Write as _;
    let (_server, address) = Example::serve("echo_server");
    let mut client = Example::start_with_input("blocking", &[&format!("ws://{address}/")]);
    let mut input = client.0.stdin.take().unwrap();
    input.write_all(b"one\ntwo\n").unwrap();
    // The end of the input closes the connection.
    drop(input);
    let (is_good, stdout, stderr) = client.finish().await;
    assert!(is_good && stdout == "one\ntwo\n", "{stdout}{stderr}");
    let refused = Example::start_with_input("blocking", &["ws://127.0.0.1:1/"]);
    let (is_good, _, stderr) = refused.finish().await;
    assert!(!is_good && stderr.contains("cannot connect to 127.0.0.1:1"), "{stderr}");
}

#[tokio::test]
async fn core_driven_by_hand_echoes() {
    let (_server, address) = Example::serve("core");
    let mut ws = sockeye::connect(&format!("ws://{address}/")).await.unwrap();
    for text in ["small", &"large ".repeat(10_000)] {
        ws.send(text).await.unwrap();
        assert_eq!(text_of(within(30, ws.recv()).await), text);
    }
    within(30, ws.ping()).await.unwrap();
    within(30, ws.close(CloseCode::NORMAL, "")).await.unwrap();
}

#[tokio::test]
async fn large_file_crosses_in_constant_memory() {
    let (is_good, plain, stderr) = Example::start("large_file", &["48"]).finish().await;
    assert!(
        is_good && plain.starts_with("received 50331648 bytes, "),
        "{plain}{stderr}"
    );
    let (is_good, compressed, stderr) = Example::start("large_file", &["48", "--deflate"]).finish().await;
    assert!(is_good, "{compressed}{stderr}");
    assert_eq!(plain.lines().next(), compressed.lines().next());
    for output in [plain, compressed] {
        let peak = output.split_once("peak memory ").unwrap().1;
        if cfg!(target_os = "linux") {
            let kib: u64 = peak.trim().strip_suffix(" kB").unwrap().parse().unwrap();
            assert!(kib < 32 * 1024, "{output}");
        }
    }
}

#[cfg(feature = "test-util")]
#[tokio::test]
async fn test_of_an_application_passes() {
    let (is_good, stdout, stderr) = Example::start("testing", &[]).finish().await;
    assert!(is_good && stdout == "all rules hold\n", "{stdout}{stderr}");
}

/// The symbol and the tick of a price.
fn price(message: sockeye::Message) -> (String, u64) {
    let text = message.as_text().unwrap();
    let field = |name: &str| {
        let (_, rest) = text.split_once(&format!("\"{name}\":")).unwrap();
        rest[..rest.find([',', '}']).unwrap()].trim_matches('"').to_owned()
    };
    (field("symbol"), field("tick").parse().unwrap())
}

/// The slow client reads nothing until the market has moved on by far more than the kernel buffers for it. Then it gets
/// what was on the way, and after that only the latest price of each symbol.
#[tokio::test]
async fn trading_gives_slow_readers_only_the_latest_price() {
    use std::collections::HashMap;
    const SYMBOLS: usize = 50;
    let (_trading, address) = Example::serve_with("trading", &["127.0.0.1:0", "1"]);
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let tcp = socket.connect(address.parse().unwrap()).await.unwrap();
    let request = sockeye::Client::default().request(format!("ws://{address}/"));
    let (mut slow, _) = request.connect_over(tcp).await.unwrap();
    let mut fast = sockeye::connect(&format!("ws://{address}/")).await.unwrap();

    let mut ticks = HashMap::new();
    let (mut received, mut newest) = (0_usize, 0);
    within(60, async {
        // At least 6 MB, more than a socket buffers.
        while received < 120_000 {
            let (symbol, tick) = price(fast.recv().await.unwrap().unwrap());
            let before = ticks.insert(symbol, tick);
            assert!(before.is_none_or(|before| before < tick), "{before:?} {tick}");
            (received, newest) = (received + 1, newest.max(tick));
        }
    })
    .await;
    assert_eq!(ticks.len(), SYMBOLS);
    assert_eq!(
        fast.recv()
            .await
            .unwrap()
            .map(price)
            .map(|(_, tick)| tick >= newest - 1),
        Some(true)
    );

    let mut prices = HashMap::<_, Vec<u64>>::new();
    let mut count = 0_usize;
    within(60, async {
        while prices
            .values()
            .filter_map(|ticks| ticks.last())
            .filter(|tick| **tick >= newest)
            .count()
            < SYMBOLS
        {
            let (symbol, tick) = price(slow.recv().await.unwrap().unwrap());
            prices.entry(symbol).or_default().push(tick);
            count += 1;
        }
    })
    .await;
    assert!(count < received / 2, "{count} of {received} prices");
    assert!(prices.values().all(|ticks| ticks.is_sorted()));

    // A client chooses its symbols.
    fast.send("S3, S4").await.unwrap();
    within(30, async {
        let mut others = 0;
        let mut chosen = 0;
        while chosen < 100 {
            match &*price(fast.recv().await.unwrap().unwrap()).0 {
                "S3" | "S4" => chosen += 1,
                // Sent before the choice arrived.
                _ => (others, chosen) = (others + 1, 0),
            }
        }
        assert!(others < received);
    })
    .await;
}

#[tokio::test]
async fn game_updates_late_joiners_30_times_a_second_and_shows_latency() {
    let (_game, address) = Example::serve("game");
    let join = async || {
        let mut ws = sockeye::connect(&format!("ws://{address}/")).await.unwrap();
        let welcome = within(30, ws.recv()).await.unwrap().unwrap();
        let welcome = welcome.as_bytes();
        assert_eq!((welcome[0], welcome.len()), (0, 7));
        let number = u16::from_be_bytes([welcome[1], welcome[2]]);
        (ws, number, u32::from_be_bytes(welcome[3..].try_into().unwrap()))
    };
    /// The number of an update, and number, x, y and latency of each player.
    async fn update(ws: &mut sockeye::WebSocket) -> (u32, Vec<[i16; 4]>) {
        let message = within(30, ws.recv()).await.unwrap().unwrap();
        let bytes = message.as_bytes();
        assert_eq!((bytes[0], (bytes.len() - 5) % 8), (1, 0));
        let players = bytes[5..]
            .chunks(8)
            .map(|player| std::array::from_fn(|at| i16::from_be_bytes([player[2 * at], player[2 * at + 1]])));
        (u32::from_be_bytes(bytes[1..5].try_into().unwrap()), players.collect())
    }

    let (mut first, number, _) = join().await;
    assert_eq!(number, 0);
    first.send(vec![2]).await.unwrap();
    let (start, players) = update(&mut first).await;
    assert_eq!(players[0][3], -1);
    let started = std::time::Instant::now();
    let mut last = start;
    let mut has_latency = false;
    // The latency is known at the second tick of the player's clock, one second later.
    while !has_latency || last < start + 45 {
        let (number, players) = update(&mut first).await;
        assert!(number > last, "{number} after {last}");
        has_latency |= players[0][3] >= 0;
        assert!(started.elapsed() < std::time::Duration::from_secs(30), "{players:?}");
        last = number;
    }
    // Updates are skipped on a busy machine, but never more frequent.
    let rate = f64::from(last - start) / started.elapsed().as_secs_f64();
    assert!(rate < 33.0, "{rate} updates per second");

    let (mut second, number, joined_at) = join().await;
    assert!(number == 1 && joined_at >= last);
    second.send(vec![3]).await.unwrap();
    let moved = loop {
        let (_, players) = update(&mut second).await;
        if players.len() == 2 && players[1][2] > 3 {
            break players;
        }
    };
    assert!(moved[0][1] > 20 && moved[0][2] == 0 && moved[1][1] == 0, "{moved:?}");
    within(30, second.close(CloseCode::NORMAL, "")).await.unwrap();
    while update(&mut first).await.1.len() > 1 {}
}

#[cfg(feature = "axum")]
#[tokio::test]
async fn axum_chat_has_rooms_names_and_limits() {
    let (chat, address) = Example::serve("axum_chat");
    let join = async |path: &str| {
        let url = format!("ws://{address}/rooms/{path}");
        within(30, sockeye::connect(&url)).await
    };
    let mut ann = join("tea/ann").await.unwrap();
    assert_eq!(text_of(within(30, ann.recv()).await), "ann is here");
    let mut bob = join("tea/bob").await.unwrap();
    let mut eve = join("coffee/eve").await.unwrap();
    assert_eq!(text_of(within(30, ann.recv()).await), "bob is here");
    bob.send("hello").await.unwrap();
    assert_eq!(text_of(within(30, ann.recv()).await), "bob: hello");
    assert_eq!(text_of(within(30, eve.recv()).await), "eve is here");
    assert!(get(&address, "/").await.ends_with("\r\n\r\ncoffee: 1\ntea: 2\n"));

    let error = join("tea/ann").await.unwrap_err();
    assert_eq!(error.response().unwrap().status(), StatusCode::CONFLICT);
    bob.send("x".repeat(5000)).await.unwrap();
    assert_eq!(text_of(within(30, ann.recv()).await), "bob has left");
    #[cfg(unix)]
    {
        chat.interrupt();
        for ws in [&mut ann, &mut eve] {
            while within(30, ws.recv()).await.unwrap().is_some() {}
            assert_eq!(ws.close_info().unwrap().received().unwrap().code, CloseCode::GOING_AWAY);
        }
        let (is_good, _, stderr) = chat.finish().await;
        assert!(is_good && stderr.contains("message too big"), "{stderr}");
    }
}

#[cfg(feature = "axum")]
#[tokio::test]
async fn axum_serves_a_websocket_beside_a_page() {
    use sockeye::{Client, ErrorKind};
    let (server, address) = Example::serve("axum");
    let response = get(&address, "/").await;
    assert!(response.contains("a WebSocket is at /ws"), "{response}");
    let client = Client::builder().subprotocols(["v2.echo", "v1.echo"]).build().unwrap();
    let mut ws = client.connect(&format!("ws://{address}/ws")).await.unwrap();
    assert_eq!(ws.subprotocol(), Some("v1.echo"));
    ws.send("hello").await.unwrap();
    assert_eq!(text_of(within(30, ws.recv()).await), "hello");
    let foreign = client
        .request(format!("ws://{address}/ws"))
        .origin("https://evil.example");
    let error = foreign.await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Rejected);
    assert_eq!(error.response().unwrap().status(), StatusCode::FORBIDDEN);
    #[cfg(unix)]
    {
        server.interrupt();
        assert_eq!(within(30, ws.recv()).await.unwrap(), None);
        assert_eq!(ws.close_info().unwrap().received().unwrap().code, CloseCode::GOING_AWAY);
        let (is_good, _, stderr) = server.finish().await;
        assert!(is_good && stderr.contains("https://evil.example"), "{stderr}");
    }
}

#[cfg(feature = "futures-io")]
#[tokio::test]
async fn smol_talks_to_itself_and_to_tokio() {
    let (_smol, on_smol) = Example::serve_with("smol", &["serve", "127.0.0.1:0"]);
    let (_tokio, on_tokio) = Example::serve("echo_server");
    for address in [&on_smol, &on_tokio] {
        let client = Example::start("smol", &[&format!("ws://{address}/"), "hi there"]);
        let (is_good, stdout, stderr) = client.finish().await;
        assert!(
            is_good && stdout.starts_with("Some(Text(\"hi there\")) after "),
            "{stdout}{stderr}"
        );
    }
    let mut ws = sockeye::connect(&format!("ws://{on_smol}/")).await.unwrap();
    ws.send("hello").await.unwrap();
    assert_eq!(text_of(within(30, ws.recv()).await), "hello");
}
