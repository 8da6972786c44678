//! `sockeye echo` as a black box.
#![cfg(unix)]

mod cli_support;

use std::fs::File;
use std::process::Stdio;

use cli_support::{Certificate, Program, run, sockeye as program, soon};
use rustix::process::{Resource, Rlimit, Signal};
use sockeye::{Client, CloseCode, Message, Origin, connect};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

/// Sends a text, and checks that it is echoed.
#[track_caller]
fn check_echo(ws: &mut sockeye::WebSocket, text: &str) -> impl Future<Output = ()> {
    soon(async move {
        ws.send(text).await.unwrap();
        assert_eq!(ws.recv().await.unwrap(), Some(Message::text(text)));
    })
}

#[tokio::test]
async fn text_and_binary_are_echoed_on_any_path_and_for_any_origin() {
    let (_server, url) = Program::echo(&[]).await;
    let client = Client::builder().origin(Origin::parse("https://elsewhere.example").unwrap());
    let mut ws = soon(client.build().unwrap().connect(&format!("{url}any/path?x=1")))
        .await
        .unwrap();
    check_echo(&mut ws, "hello").await;
    check_echo(&mut ws, "").await;
    for len in [0, 1, 125, 126, 65_535, 65_536, 1 << 20] {
        soon(ws.send(vec![7; len])).await.unwrap();
        assert_eq!(soon(ws.recv()).await.unwrap(), Some(Message::binary(vec![7; len])));
    }
    soon(ws.close(CloseCode::NORMAL, "")).await.unwrap();
}

#[tokio::test]
async fn the_server_selects_its_preferred_subprotocol() {
    let (_server, url) = Program::echo(&["--subprotocol", "chat", "--subprotocol", "superchat"]).await;
    for (offered, chosen) in [
        (&["superchat", "chat"][..], Some("chat")),
        (&["superchat"], Some("superchat")),
        (&["other"], None),
        (&[], None),
    ] {
        let client = Client::builder().subprotocols(offered.iter().copied());
        let ws = soon(client.build().unwrap().connect(&url)).await.unwrap();
        assert_eq!(ws.subprotocol(), chosen, "{offered:?}");
    }
}

#[tokio::test]
async fn allowed_origins_keep_the_others_out() {
    let (_server, url) = Program::echo(&["--allow-origin", "https://a.example"]).await;
    let from = |origin| {
        let client = Client::builder()
            .origin(Origin::parse(origin).unwrap())
            .build()
            .unwrap();
        let url = url.clone();
        async move { soon(client.connect(&url)).await }
    };
    from("https://a.example").await.unwrap();
    let error = from("https://a.example.evil.example").await.unwrap_err();
    assert_eq!(error.response().unwrap().status().as_u16(), 403);
    // A client without an Origin header is not a web page.
    soon(connect(&url)).await.unwrap();

    let (_server, url) = Program::echo(&["--allow-origin", "*"]).await;
    let client = Client::builder().origin(Origin::parse("https://anyone.example").unwrap());
    soon(client.build().unwrap().connect(&url)).await.unwrap();
}

#[tokio::test]
async fn a_message_beyond_the_limit_closes_with_1009() {
    let (_server, url) = Program::echo(&["--max-message-size", "1KiB"]).await;
    let mut ws = soon(connect(&url)).await.unwrap();
    check_echo(&mut ws, &"x".repeat(1024)).await;
    soon(ws.send("x".repeat(1025))).await.unwrap();
    assert_eq!(soon(ws.recv()).await.ok().flatten(), None);
    assert_eq!(ws.close_info().unwrap().code(), CloseCode::MESSAGE_TOO_BIG);
}

#[tokio::test]
async fn tls_with_a_certificate_from_files() {
    let certificate = Certificate::new();
    let files = ["--tls-cert", &certificate.cert(), "--tls-key", &certificate.key()];
    let (_server, url) = Program::echo(&files).await;
    assert!(url.starts_with("wss://127.0.0.1:"), "{url}");
    let client = Client::builder()
        .tls_config(certificate.client_config())
        .build()
        .unwrap();
    let mut ws = soon(client.connect(&url)).await.unwrap();
    check_echo(&mut ws, "secret").await;
    // A client that does not trust the certificate fails.
    assert!(soon(connect(&url)).await.unwrap_err().is_tls());
}

#[tokio::test]
async fn signals_close_all_connections_with_1001_and_exit_with_0() {
    for (signal, threads) in [(Signal::TERM, "1"), (Signal::INT, "1"), (Signal::TERM, "2")] {
        let (mut server, url) = Program::echo(&["--threads", threads]).await;
        let mut connections = Vec::new();
        for _ in 0..8 {
            let mut ws = soon(connect(&url)).await.unwrap();
            check_echo(&mut ws, "before").await;
            connections.push(ws);
        }
        server.signal(signal);
        for mut ws in connections {
            assert_eq!(soon(ws.recv()).await.unwrap(), None);
            assert_eq!(ws.close_info().unwrap().code(), CloseCode::GOING_AWAY);
        }
        assert_eq!(server.exit_code().await, Some(0));
        assert_eq!(server.stderr().await, "");
    }
}

#[tokio::test]
async fn a_connection_that_never_stops_sending_is_closed_too() {
    let (mut server, url) = Program::echo(&[]).await;
    let (sender, mut receiver) = soon(connect(&url)).await.unwrap().split();
    let flooding = tokio::spawn(async move { while sender.send(vec![1; 4096]).await.is_ok() {} });
    for _ in 0..100 {
        soon(receiver.recv()).await.unwrap();
    }
    server.signal(Signal::TERM);
    soon(async { while let Ok(Some(_)) = receiver.recv().await {} }).await;
    assert_eq!(receiver.close_info().unwrap().code(), CloseCode::GOING_AWAY);
    assert_eq!(server.exit_code().await, Some(0));
    soon(flooding).await.unwrap();
}

#[tokio::test]
async fn an_unfinished_handshake_does_not_delay_the_shutdown() {
    let (mut server, url) = Program::echo(&[]).await;
    let mut silent = soon(TcpStream::connect(address(&url))).await.unwrap();
    // Connections are accepted in order, so the first one is accepted when this one is served.
    check_echo(&mut soon(connect(&url)).await.unwrap(), "x").await;
    server.signal(Signal::TERM);
    assert_eq!(server.exit_code().await, Some(0));
    assert_eq!(soon(silent.read(&mut [0])).await.unwrap(), 0);
}

#[tokio::test]
async fn a_second_signal_ends_at_once() {
    let (mut server, url) = Program::echo(&[]).await;
    // The peer never answers the close frame, because it does not receive.
    let mut ws = soon(connect(&url)).await.unwrap();
    check_echo(&mut ws, "x").await;
    server.signal(Signal::TERM);
    // The first signal was handled when connections are refused.
    soon(async { while TcpStream::connect(address(&url)).await.is_ok() {} }).await;
    server.signal(Signal::INT);
    assert_eq!(server.exit_code().await, Some(130));
    assert!(server.stderr().await.contains("second signal"));
}

#[tokio::test]
async fn several_threads_share_the_port() {
    let (_server, url) = Program::echo(&["--threads", "2"]).await;
    for number in 0..32 {
        let mut ws = soon(connect(&url)).await.unwrap();
        check_echo(&mut ws, &number.to_string()).await;
    }
    // A second program cannot listen on the port, with one thread or several.
    for threads in ["1", "2"] {
        let outcome = run(&["echo", "--listen", address(&url), "--threads", threads], b"").await;
        assert_eq!(outcome.code, Some(1));
        assert!(outcome.stderr.contains("choose another port"), "{}", outcome.stderr);
    }
}

#[tokio::test]
async fn without_descriptors_open_connections_are_served_and_accepting_resumes_later() {
    const DESCRIPTORS_MAX: u64 = 40;
    let (mut server, url) = Program::echo(&[]).await;
    let pid = rustix::process::Pid::from_raw(server.child.id().unwrap().cast_signed());
    let limit = Rlimit {
        current: Some(DESCRIPTORS_MAX),
        maximum: Some(DESCRIPTORS_MAX),
    };
    rustix::process::prlimit(pid, Resource::Nofile, limit).unwrap();

    let mut first = soon(connect(&url)).await.unwrap();
    let mut others = Vec::new();
    for _ in 0..DESCRIPTORS_MAX + 10 {
        // Connections that are not accepted stay in the backlog.
        others.push(soon(TcpStream::connect(address(&url))).await.unwrap());
    }
    let mut log = tokio::io::BufReader::new(server.child.stderr.take().unwrap());
    let mut line = String::new();
    soon(tokio::io::AsyncBufReadExt::read_line(&mut log, &mut line))
        .await
        .unwrap();
    assert!(line.contains("cannot accept connections"), "{line}");
    check_echo(&mut first, "still here").await;

    drop(others);
    let mut late = soon(connect(&url)).await.unwrap();
    check_echo(&mut late, "welcome").await;
    server.signal(Signal::TERM);
    drop((first, late));
    assert_eq!(server.exit_code().await, Some(0));
}

#[tokio::test]
async fn full_and_closed_standard_streams_do_not_end_the_server() {
    let streams = [(full_device as fn() -> Stdio, "full"), (closed_pipe, "closed")];
    for (stream, name) in streams {
        // Find a free port first: the next server cannot print its port.
        let (mut server, url) = Program::echo(&["--log-level", "trace"]).await;
        drop(server.stop_reading());
        drop(server.child.stderr.take());
        check_echo(&mut soon(connect(&url)).await.unwrap(), name).await;
        server.signal(Signal::TERM);
        assert_eq!(server.exit_code().await, Some(0));

        let mut command = program(&["echo", "--listen", address(&url), "--log-level", "trace"]);
        let mut server = Program::spawn(command.stdout(stream()).stderr(stream()));
        let mut ws = soon(async {
            loop {
                if let Ok(ws) = connect(&url).await {
                    return ws;
                }
            }
        })
        .await;
        check_echo(&mut ws, name).await;
        server.signal(Signal::TERM);
        assert_eq!(soon(ws.recv()).await.unwrap(), None);
        assert_eq!(server.exit_code().await, Some(0), "{name}");
    }
    // If the error message cannot be written, the exit status still reports the error.
    let mut command = program(&["echo", "--listen", "1.2.3.4:0"]);
    assert_eq!(
        Program::spawn(command.stdout(full_device()).stderr(full_device()))
            .exit_code()
            .await,
        Some(1)
    );
}

/// An unread log fills its pipe after 64 KiB.
#[tokio::test]
async fn an_unread_log_does_not_block_the_server() {
    let (mut server, url) = Program::echo(&["--log-level", "trace"]).await;
    for number in 0..500 {
        // Each failed handshake is logged.
        drop(soon(TcpStream::connect(address(&url))).await.unwrap());
        check_echo(&mut soon(connect(&url)).await.unwrap(), &number.to_string()).await;
    }
    server.signal(Signal::TERM);
    assert_eq!(server.exit_code().await, Some(0));
}

#[tokio::test]
async fn errors_on_the_command_line_contain_advice() {
    for (arguments, code, advice) in [
        (&["echo", "--max-message-size", "big"][..], 2, "16MiB"),
        (&["echo", "--tls-cert", "x.pem"], 2, "--tls-key"),
        (&["echo", "--allow-origin", "example.com"], 2, "scheme://host"),
        (&["echo", "--max-message-size", "0"], 2, "at least 1 byte"),
        (&["echo", "--subprotocol", "a b"], 2, "one name"),
        (&["echo", "--threads", "0"], 2, "from 1 to 255"),
        (&["echo", "--threads", "256"], 2, "from 1 to 255"),
        (&["echo", "--listen", "1.2.3.4:0"], 1, "of this machine"),
        (&["echo", "--listen", "nonsense"], 2, "ADDRESS:PORT"),
        (&["serve", "--listen", "127.0.0.1"], 2, "ADDRESS:PORT"),
        (
            &["echo", "--tls-cert", "/nowhere", "--tls-key", "/nowhere"],
            1,
            "/nowhere",
        ),
        (&[], 2, "Usage"),
    ] {
        let outcome = run(arguments, b"").await;
        assert_eq!(outcome.code, Some(code), "{arguments:?} {}", outcome.stderr);
        assert!(outcome.stderr.contains(advice), "{arguments:?} {}", outcome.stderr);
        assert!(outcome.stdout.is_empty());
    }
}

#[tokio::test]
async fn help_and_version_are_on_standard_output() {
    for (arguments, part) in [
        (&["--version"][..], concat!("sockeye ", env!("CARGO_PKG_VERSION"))),
        (&["--help"], "Exit status:"),
        (&["-h"], "Examples:"),
        (&["echo", "--help"], "--max-message-size"),
        (&["connect", "--help"], "Exit status:"),
        (&["connect", "--help"], "never pauses for this time is never closed"),
        (&["connect", "--help"], "<>FIFO"),
        (&["connect", "--help"], "receive only"),
    ] {
        let outcome = run(arguments, b"").await;
        assert_eq!(outcome.code, Some(0));
        // Without line ends, which depend on the terminal width.
        let text: Vec<_> = String::from_utf8_lossy(&outcome.stdout)
            .split_whitespace()
            .map(str::to_owned)
            .collect();
        assert!(text.join(" ").contains(part), "{arguments:?}");
    }
}

fn address(url: &str) -> &str {
    url.trim_start_matches("ws://").trim_end_matches('/')
}

fn full_device() -> Stdio {
    Stdio::from(File::options().write(true).open("/dev/full").unwrap())
}

/// A pipe without a reader.
fn closed_pipe() -> Stdio {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    Stdio::from(writer)
}
