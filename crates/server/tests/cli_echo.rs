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

/// Sends a text and checks that it comes back.
#[track_caller]
fn check_echo(ws: &mut sockeye::WebSocket, text: &str) -> impl Future<Output = ()> {
    soon(async move {
        ws.send(text).await.unwrap();
        assert_eq!(ws.recv().await.unwrap(), Some(Message::text(text)));
    })
}

#[tokio::test]
async fn text_and_binary_come_back_on_any_path_and_for_any_origin() {
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
async fn the_server_chooses_the_subprotocol_it_likes_best() {
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
    // No browser, no page.
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
    // Who does not trust it is told that, and speaks no further.
    assert!(soon(connect(&url)).await.unwrap_err().is_tls());
}

#[tokio::test]
async fn signals_close_every_connection_with_1001_and_end_well() {
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
async fn an_unfinished_handshake_does_not_hold_up_the_end() {
    let (mut server, url) = Program::echo(&[]).await;
    let mut silent = soon(TcpStream::connect(address(&url))).await.unwrap();
    // Accepted, once a connection that came later has been served.
    check_echo(&mut soon(connect(&url)).await.unwrap(), "x").await;
    server.signal(Signal::TERM);
    assert_eq!(server.exit_code().await, Some(0));
    assert_eq!(soon(silent.read(&mut [0])).await.unwrap(), 0);
}

#[tokio::test]
async fn a_second_signal_ends_at_once() {
    let (mut server, url) = Program::echo(&[]).await;
    // This peer never answers the close frame, for it is not asked to receive any more.
    let mut ws = soon(connect(&url)).await.unwrap();
    check_echo(&mut ws, "x").await;
    server.signal(Signal::TERM);
    // The first is seen when nobody accepts any more.
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
    // The port is not for a second program, shared or not.
    for threads in ["1", "2"] {
        let left = run(&["echo", "--listen", address(&url), "--threads", threads], b"").await;
        assert_eq!(left.code, Some(1));
        assert!(left.stderr.contains("choose another port"), "{}", left.stderr);
    }
}

#[tokio::test]
async fn without_descriptors_it_goes_on_serving_and_takes_new_connections_when_there_are_some() {
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
        // Those that the server cannot take wait in the kernel's queue.
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
async fn full_and_closed_streams_do_not_end_it() {
    let streams = [(full_device as fn() -> Stdio, "full"), (closed_pipe, "closed")];
    for (stream, name) in streams {
        // Its port cannot be read when standard output is gone.
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
    // What cannot be said is told by the exit status all the same.
    let mut command = program(&["echo", "--listen", "1.2.3.4:0"]);
    assert_eq!(
        Program::spawn(command.stdout(full_device()).stderr(full_device()))
            .exit_code()
            .await,
        Some(1)
    );
}

/// A log that nobody reads fills its pipe after 64 KiB.
#[tokio::test]
async fn a_log_that_nobody_reads_stops_nothing() {
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
async fn mistakes_on_the_command_line_say_what_to_do() {
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
        let left = run(arguments, b"").await;
        assert_eq!(left.code, Some(code), "{arguments:?} {}", left.stderr);
        assert!(left.stderr.contains(advice), "{arguments:?} {}", left.stderr);
        assert!(left.stdout.is_empty());
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
        (&["connect", "--help"], "never pauses for so long is never closed"),
        (&["connect", "--help"], "<>FIFO"),
        (&["connect", "--help"], "receive only"),
    ] {
        let left = run(arguments, b"").await;
        assert_eq!(left.code, Some(0));
        // Without the line ends, which depend on the width.
        let text: Vec<_> = String::from_utf8_lossy(&left.stdout)
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

/// A pipe whose reader is gone.
fn closed_pipe() -> Stdio {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    Stdio::from(writer)
}
