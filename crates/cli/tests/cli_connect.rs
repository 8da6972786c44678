//! `sockeye connect` as a black box.
#![cfg(unix)]

mod cli_support;

use std::fs::File;
use std::process::Stdio;

use cli_support::{
    Certificate, Outcome, Program, answer, echo, read_frame, run, serve, serve_raw, serve_raw_with, serve_test,
    sockeye as program, soon,
};
use rcgen::{BasicConstraints, CertificateParams, IsCa};
use rustix::process::Signal;
use sockeye::{CloseCode, Message, OriginPolicy, Server};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpListener;

/// A short wait for replies, to speed up the tests, which check that nothing is lost.
const WAIT: [&str; 2] = ["--wait", "100ms"];

async fn echo_server() -> String {
    serve(Server::default(), async |ws| drop(echo(ws).await)).await
}

/// Runs `sockeye connect` against a server that closes each connection with this code and reason.
async fn closed_with(code: u16, reason: &'static str) -> Outcome {
    let url = serve(Server::default(), move |mut ws| async move {
        let _ = ws.close(CloseCode(code), reason).await;
    });
    run(&["connect", &url.await, "--wait", "forever"], b"").await
}

#[track_caller]
fn assert_stderr(outcome: &Outcome, part: &str) {
    assert!(outcome.stderr.contains(part), "{:?} has no {part:?}", outcome.stderr);
    assert_eq!(outcome.stderr.lines().count(), 1, "{}", outcome.stderr);
}

#[tokio::test]
async fn no_reply_is_lost_at_the_end_of_input() {
    let url = echo_server().await;
    for _ in 0..50 {
        let outcome = run(&["connect", &url, "--wait", "20ms"], b"a\nb\nc\nd\n").await;
        assert_eq!(
            (outcome.stdout.as_slice(), outcome.code),
            (&b"a\nb\nc\nd\n"[..], Some(0))
        );
        assert_eq!(outcome.stderr, "");
    }
}

#[tokio::test]
async fn lines_in_hexadecimal_are_sent_as_binary_messages() {
    let url = echo_server().await;
    let hex = [
        "connect",
        &url,
        "--binary-in=hex",
        "--binary-out=hex",
        "--wait",
        "100ms",
    ];
    for options in [&hex[..], &[&hex[..], &["--reconnect"]].concat()] {
        let outcome = run(options, b"00 FF 0a\n\nc0ffee\n").await;
        assert_eq!(
            (outcome.stdout.as_slice(), outcome.code),
            (&b"00ff0a\n\nc0ffee\n"[..], Some(0))
        );
        let outcome = run(options, b"00\n0g\n11\n").await;
        assert_eq!(outcome.code, Some(1));
        let error = "line 2 of standard input is not hexadecimal";
        assert!(outcome.stderr.contains(error), "{}", outcome.stderr);
    }
}

/// The server starts to read, and sends the pong, only after the end of the input.
#[tokio::test]
async fn the_end_of_input_waits_for_a_busy_server() {
    let (url, mut connections) = serve_test().await;
    let mut client = Program::start(&["connect", &url, "--wait", "0"]);
    client.say("a\nb\n").await;
    client.stdin = None;
    let mut ws = soon(connections.recv()).await.unwrap();
    assert_eq!(soon(ws.recv()).await.unwrap(), Some("a".into()));
    assert_eq!(soon(ws.recv()).await.unwrap(), Some("b".into()));
    // Queued before the pong that the next `recv` sends.
    soon(ws.feed("first reply")).await.unwrap();
    soon(ws.feed("second reply")).await.unwrap();
    assert_eq!(soon(ws.recv()).await.unwrap(), None);
    assert_eq!(ws.close_info().unwrap().code(), CloseCode::NORMAL);
    assert_eq!(client.line().await, "first reply");
    assert_eq!(client.line().await, "second reply");
    assert_eq!(client.exit_code().await, Some(0));
}

#[tokio::test]
async fn messages_after_the_own_close_frame_are_printed() {
    let address = serve_raw(async |mut tcp| {
        assert_eq!(read_frame(&mut tcp).await, (0x81, b"go".to_vec()));
        let (opcode, ping) = read_frame(&mut tcp).await;
        assert_eq!(opcode, 0x89);
        tcp.write_all(&[&[0x8a, ping.len() as u8], &ping[..]].concat())
            .await
            .unwrap();
        assert_eq!(read_frame(&mut tcp).await, (0x88, vec![3, 0xe8]));
        // A text, and the close frame 1000.
        tcp.write_all(b"\x81\x04late\x88\x02\x03\xe8").await.unwrap();
    });
    let outcome = run(&["connect", &address.await, "-w", "0"], b"go\n").await;
    assert_eq!((outcome.stdout.as_slice(), outcome.code), (&b"late\n"[..], Some(0)));
}

#[tokio::test]
async fn wait_forever_lets_the_server_close() {
    let (url, mut connections) = serve_test().await;
    let mut client = Program::start(&["connect", &url, "--wait", "forever"]);
    client.stdin = None;
    let mut ws = soon(connections.recv()).await.unwrap();
    for number in 0..3 {
        soon(ws.send(number.to_string())).await.unwrap();
        assert_eq!(client.line().await, number.to_string());
    }
    soon(ws.close(CloseCode::GOING_AWAY, "restart")).await.unwrap();
    assert_eq!(client.exit_code().await, Some(0));
}

#[tokio::test]
async fn lines_are_sent_without_line_ends() {
    let (url, mut connections) = serve_test().await;
    let mut client = Program::start(&["connect", &url]);
    client.say("one\ntwo\r\n\n äöü \nlast").await;
    client.stdin = None;
    let mut ws = soon(connections.recv()).await.unwrap();
    for text in ["one", "two", "", " äöü ", "last"] {
        assert_eq!(soon(ws.recv()).await.unwrap(), Some(Message::text(text)));
    }
}

#[tokio::test]
async fn messages_are_written_to_a_pipe_unchanged() {
    let text = "a\u{1b}[31m\r\nb\u{202e}\0";
    for (options, expected) in [
        (&[][..], [text.as_bytes(), b"\n", &[0, 10, 255], b"\n"].concat()),
        (&["--binary-out", "hex"], [text.as_bytes(), b"\n000aff\n"].concat()),
    ] {
        let url = serve(Server::default(), move |mut ws| async move {
            ws.feed(text).await.unwrap();
            ws.feed(&[0, 10, 255]).await.unwrap();
            ws.close(CloseCode::NORMAL, "").await.unwrap();
        });
        let outcome = run(&[&["connect", &url.await, "-w", "forever"], options].concat(), b"").await;
        assert_eq!(outcome.stdout, expected);
    }
}

#[tokio::test]
async fn a_line_that_is_not_utf8_is_not_sent_and_reported() {
    let url = echo_server().await;
    let outcome = run(&["connect", &url], b"good\n\xff\xfe\nnever\n").await;
    assert_eq!(outcome.code, Some(1));
    assert_stderr(&outcome, "line 2 of standard input is not UTF-8");
    assert_eq!(outcome.stdout, b"good\n");
}

#[tokio::test]
async fn the_close_code_of_the_server_is_the_exit_status() {
    for (code, exit_code, message) in [
        (1000, 0, ""),
        (1001, 0, ""),
        (1005, 0, ""),
        (1008, 64, "closed by the server: 1008 (policy violation)"),
        (1011, 64, "closed by the server: 1011 (internal error)"),
        (4001, 64, "closed by the server: 4001"),
    ] {
        let outcome = closed_with(code, "").await;
        assert_eq!(outcome.code, Some(exit_code), "{code}");
        match exit_code {
            0 => assert_eq!(outcome.stderr, ""),
            _ => assert_stderr(&outcome, message),
        }
    }
    let outcome = closed_with(4001, "session \u{1b}[31m expired").await;
    assert_stderr(&outcome, r#"4001 "session \u001b[31m expired""#);
}

#[tokio::test]
async fn a_close_of_the_server_ends_the_program_while_input_is_open() {
    let (url, mut connections) = serve_test().await;
    let mut client = Program::start(&["connect", &url]);
    client.say("hello\n").await;
    let mut ws = soon(connections.recv()).await.unwrap();
    assert_eq!(soon(ws.recv()).await.unwrap(), Some("hello".into()));
    soon(ws.close(CloseCode(4000), "enough")).await.unwrap();
    assert_eq!(client.exit_code().await, Some(64));
    assert!(client.stdin.is_some());
}

#[tokio::test]
async fn a_connection_lost_without_a_close_frame_is_56() {
    let url = serve(Server::default(), async |ws| ws.abort()).await;
    let outcome = run(&["connect", &url, "-w", "forever"], b"").await;
    assert_eq!(outcome.code, Some(56));
    assert_stderr(&outcome, "lost without a close frame");
}

/// Responses that refuse the WebSocket, with their exit status and error message.
#[tokio::test]
async fn refusals_and_invalid_responses_have_their_exit_codes() {
    for (bytes, code, message) in [
        (
            &b"HTTP/1.1 404 Not Found\r\nContent-Length: 5\r\n\r\nnope\n"[..],
            22,
            "404 Not Found",
        ),
        (
            b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n",
            22,
            "401 Unauthorized",
        ),
        (
            b"HTTP/1.1 302 Found\r\nLocation: /x\r\nContent-Length: 0\r\n\r\n",
            22,
            "302",
        ),
        (b"", 56, "lost"),
        (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", 65, "no WebSocket server"),
        (
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
              Sec-WebSocket-Accept: AAAAAAAAAAAAAAAAAAAAAAAAAAA=\r\n\r\n",
            65,
            "handshake is invalid: Sec-WebSocket-Accept does not match the key that was sent",
        ),
        (
            b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n\r\n",
            65,
            "handshake is invalid: Upgrade header",
        ),
    ] {
        let outcome = run(&["connect", &answer(bytes).await], b"never read\n").await;
        assert_eq!(outcome.code, Some(code), "{}", outcome.stderr);
        assert_stderr(&outcome, message);
        assert!(outcome.stdout.is_empty());
        // For an HTTP server, the message does not suggest another port or TLS.
        assert_eq!(
            outcome.stderr.contains("wss://"),
            !bytes.starts_with(b"HTTP") && !bytes.is_empty()
        );
    }
}

#[tokio::test]
async fn a_server_that_selects_what_was_not_offered_violates_the_handshake() {
    for (line, fault) in [
        ("Sec-WebSocket-Protocol: chat\r\n", "a subprotocol that was not offered"),
        (
            "Sec-WebSocket-Extensions: permessage-deflate\r\n",
            "an extension that was not offered",
        ),
    ] {
        let outcome = run(&["connect", &serve_raw_with(line, async |_| ()).await], b"").await;
        assert_eq!(outcome.code, Some(65));
        assert_stderr(&outcome, fault);
        assert!(outcome.stderr.contains("handshake is invalid"), "{}", outcome.stderr);
        assert!(!outcome.stderr.contains("wss://"), "{}", outcome.stderr);
    }
}

#[tokio::test]
async fn a_response_beyond_the_limit_is_66() {
    let address = serve_raw_with(TWENTY_KIB_OF_HEADERS.as_str(), async |_| ());
    let outcome = run(&["connect", &address.await], b"").await;
    assert_eq!(outcome.code, Some(66));
    assert_stderr(&outcome, "response is too large");
}

static TWENTY_KIB_OF_HEADERS: std::sync::LazyLock<String> =
    std::sync::LazyLock::new(|| format!("X-Long: {}\r\n", "x".repeat(1000)).repeat(20));

/// The status arrives long before the timeout, and is reported instead of it.
#[tokio::test]
async fn a_refusal_whose_body_never_ends_is_a_refusal() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        let (mut tcp, _) = listener.accept().await.unwrap();
        let head = b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 1000\r\n\r\nthe first of it";
        tcp.write_all(head).await.unwrap();
        // Until the client disconnects.
        let _ = tcp.read_to_end(&mut Vec::new()).await;
    });
    let outcome = run(&["connect", "-v", &url, "--connect-timeout", "2s"], b"").await;
    assert_eq!(outcome.code, Some(22), "{}", outcome.stderr);
    for part in [
        "\nthe first of it\n",
        "* the body was truncated",
        "refused the WebSocket with 500",
    ] {
        assert!(outcome.stderr.contains(part), "{}", outcome.stderr);
    }
}

#[tokio::test]
async fn a_message_beyond_the_limit_is_66_and_says_how_to_raise_it() {
    for (len, code, stdout_len) in [(1024, 0, 1025), (1025, 66, 0)] {
        let (url, mut connections) = serve_test().await;
        let serving = tokio::spawn(async move {
            let mut ws = soon(connections.recv()).await.unwrap();
            soon(ws.send("x".repeat(len))).await.unwrap();
            let _ = soon(ws.close(CloseCode::NORMAL, "")).await;
        });
        let outcome = run(&["connect", &url, "-w", "forever", "--max-message-size", "1KiB"], b"").await;
        assert_eq!(
            (outcome.code, outcome.stdout.len()),
            (Some(code), stdout_len),
            "{}",
            outcome.stderr
        );
        if code != 0 {
            assert_stderr(&outcome, "larger than 1 KiB; --max-message-size");
        }
        serving.await.unwrap();
    }
}

#[tokio::test]
async fn an_invalid_frame_is_65() {
    let address = serve_raw(async |mut tcp| {
        // A frame with a reserved opcode.
        tcp.write_all(&[0x83, 0]).await.unwrap();
        while read_frame(&mut tcp).await.0 != 0x88 {}
    });
    let address = address.await;
    let outcome = run(&["connect", &address, "-w", "forever"], b"").await;
    assert_eq!(outcome.code, Some(65));
    assert_stderr(&outcome, "reserved opcode");
}

#[tokio::test]
async fn connection_errors_have_their_exit_codes() {
    // A port that is bound but not listening: connections are refused, and no other program can use the port.
    let silent = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    silent
        .bind(&"127.0.0.1:0".parse::<std::net::SocketAddr>().unwrap().into())
        .unwrap();
    let refused = silent.local_addr().unwrap().as_socket().unwrap().to_string();
    let named_once = format!("cannot connect to {refused}: Connection refused");
    for (url, code, message) in [
        ("ws://localhost/#x", 3, "fragment"),
        ("ftp://localhost/", 3, "ws://"),
        ("ws://user:secret@/", 3, "cannot connect to \"ws://***@/\""),
        (
            "ws://no-such-host.invalid/",
            6,
            "cannot connect to no-such-host.invalid:80: the host name cannot be resolved",
        ),
        (
            "[fe80::1%nosuchif]:9001",
            6,
            "check that this machine has a network interface of that name",
        ),
        (&refused, 7, &named_once),
        (&refused, 7, "check that the server is running"),
    ] {
        let outcome = run(&["connect", url], b"").await;
        assert_eq!(outcome.code, Some(code), "{url} {}", outcome.stderr);
        assert_stderr(&outcome, message);
    }
}

#[tokio::test]
async fn a_silent_server_is_28() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = listener.local_addr().unwrap().to_string();
    for url in [&url, &url.replace("ws://", "wss://")] {
        let outcome = run(&["connect", url, "--connect-timeout", "50ms"], b"").await;
        assert_eq!(outcome.code, Some(28));
        assert_stderr(&outcome, "not open within 50ms");
        assert!(outcome.stderr.contains("--connect-timeout"), "{}", outcome.stderr);
    }
}

/// `localhost` may resolve to an IPv6 address first, on which no server listens.
#[tokio::test]
async fn every_address_of_a_host_is_tried() {
    let url = echo_server().await.replace("127.0.0.1", "localhost");
    let outcome = run(&["connect", "-n", "1", &url], b"hi\n").await;
    assert_eq!(
        (outcome.stdout.as_slice(), outcome.code),
        (&b"hi\n"[..], Some(0)),
        "{}",
        outcome.stderr
    );
}

#[tokio::test]
async fn quiet_suppresses_error_messages() {
    let outcome = run(&["connect", "-q", "ws://no-such-host.invalid/"], b"").await;
    assert_eq!((outcome.code, outcome.stderr.as_str()), (Some(6), ""));
}

#[tokio::test]
async fn verbose_shows_the_handshake_and_a_refusal_with_its_body() {
    let url = echo_server().await;
    let outcome = run(&["connect", "-v", &url, WAIT[0], WAIT[1]], b"").await;
    for part in ["< HTTP/1.1 101", "sec-websocket-accept: ", "* closed: 1000"] {
        assert!(outcome.stderr.contains(part), "{}", outcome.stderr);
    }
    let refusal = b"HTTP/1.1 403 Forbidden\r\nX-Why: no\r\nContent-Length: 15\r\n\r\nask\n\x1b[31mnicely";
    let outcome = run(&["connect", "-v", &answer(refusal).await], b"").await;
    for part in [
        "< HTTP/1.1 403 Forbidden\n",
        "< x-why: no\n",
        "\nask\n",
        "\n\\u001b[31mnicely\n",
    ] {
        assert!(outcome.stderr.contains(part), "{}", outcome.stderr);
    }
    assert!(!outcome.stderr.contains('\u{1b}'));
    assert!(!outcome.stderr.contains("-v shows"), "{}", outcome.stderr);
}

#[tokio::test]
async fn compression_is_offered_on_request_and_does_not_change_messages() {
    let (_server, url) = Program::echo(&["--compression=takeover"]).await;
    let line = "the same again and again, ".repeat(20) + "\n";
    let text = line.repeat(3);
    for (mode, is_agreed) in [("off", false), ("no-takeover", true), ("takeover", true)] {
        let mode = format!("--compression={mode}");
        let outcome = run(&["connect", "-v", &mode, &url, WAIT[0], WAIT[1]], text.as_bytes()).await;
        assert_eq!(outcome.code, Some(0), "{mode}: {outcome:?}");
        assert_eq!(outcome.stdout, text.as_bytes(), "{mode}");
        let is_told = outcome.stderr.contains("permessage-deflate");
        assert_eq!(is_told, is_agreed, "{mode}: {}", outcome.stderr);
    }
}

#[tokio::test]
async fn headers_origin_and_subprotocols_are_sent() {
    let origin = "https://a.example".parse().unwrap();
    let server = Server::builder()
        .origins(OriginPolicy::List(vec![origin]))
        .subprotocols(["two"])
        .build();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = listener.local_addr().unwrap().to_string();
    let serving = tokio::spawn(async move {
        let (tcp, _) = listener.accept().await.unwrap();
        let pending = server.accept(tcp).await.unwrap();
        let headers = pending.request().headers();
        let values = ["authorization", "x-empty", "origin"].map(|name| Some(headers.get(name)?.as_bytes().to_vec()));
        let ws = pending.accept().await.unwrap();
        (values, ws.subprotocol().map(str::to_owned))
    });
    // `-H` takes one value, so the URL may follow it.
    let arguments = [
        ["connect", "-H", "Authorization: Bearer a:b", "--header", "X-Empty:"],
        [
            "--origin",
            "https://a.example",
            "--subprotocol",
            "one",
            "--subprotocol=two",
        ],
    ];
    run(&[&arguments.concat()[..], &[&url]].concat(), b"").await;
    let (values, subprotocol) = soon(serving).await.unwrap();
    let expected = ["Bearer a:b", "", "https://a.example"].map(|value| Some(value.as_bytes().to_vec()));
    assert_eq!(values, expected);
    assert_eq!(subprotocol.as_deref(), Some("two"));
}

#[tokio::test]
async fn invalid_flags_are_2() {
    for (arguments, message) in [
        (&[][..], "<URL>"),
        (&[":1", "-H", "no colon"], "`Name: value`"),
        (
            &[":1", "-H", "X-Good: x", "-H", "Upgrade: x"],
            "the header `Upgrade` cannot be sent",
        ),
        (&[":1", "-H", "X: a\r\nY: b"], "the header `X` cannot be sent"),
        (&[":1", "--subprotocol", "a b"], "one name"),
        (&[":1", "--subprotocol", "a", "--subprotocol", "a"], "already offered"),
        (&[":1", "--origin", "example.com"], "scheme://host"),
        (&[":1", "--wait", "long"], "a time such as"),
        (&[":1", "--max-message-size", "0"], "at least 1 byte"),
        (&[":1", "-k", "--cacert", "x.pem"], "cannot be used with"),
        (&[":1", "-q", "-v"], "cannot be used with"),
    ] {
        let outcome = run(&[&["connect"], arguments].concat(), b"").await;
        assert_eq!(outcome.code, Some(2), "{arguments:?}");
        assert!(outcome.stderr.contains(message), "{arguments:?} {}", outcome.stderr);
    }
}

#[tokio::test]
async fn certificates_are_checked_unless_told_otherwise() {
    let certificate = Certificate::new();
    let server = Server::builder().tls_config(certificate.server_config()).build();
    let url = serve(server, async |ws| drop(echo(ws).await)).await;
    let url = url.replace("ws://", "wss://");
    let cacert = certificate.cert();
    for options in [&["-k"][..], &["--insecure"], &["--cacert", &cacert]] {
        let outcome = run(&[&["connect", &url, WAIT[0], WAIT[1]], options].concat(), b"hi\n").await;
        assert_eq!(
            (outcome.stdout.as_slice(), outcome.code),
            (&b"hi\n"[..], Some(0)),
            "{}",
            outcome.stderr
        );
    }
    let other = Certificate::new();
    for options in [&[][..], &["--cacert", &other.cert()]] {
        let outcome = run(&[&["connect", &url], options].concat(), b"hi\n").await;
        assert_eq!(outcome.code, Some(60), "{}", outcome.stderr);
        assert_stderr(&outcome, "--cacert");
    }
    // TLS where plain text is expected, and vice versa.
    let outcome = run(&["connect", &url.replace("wss://", "ws://")], b"").await;
    assert_eq!(outcome.code, Some(65));
    assert_stderr(&outcome, "wss://");
    let url = echo_server().await.replace("ws://", "wss://");
    let outcome = run(&["connect", &url], b"").await;
    assert_eq!(outcome.code, Some(35));
    assert_stderr(&outcome, "use ws instead of wss");
}

/// The message does not suggest that the port does not use TLS.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn missing_ca_certificates_are_reported_with_advice() {
    let url = secure_echo_server(&Certificate::new()).await;
    let mut command = program(&["connect", &url]);
    command
        .env("SSL_CERT_FILE", "/nonexistent")
        .env("SSL_CERT_DIR", "/nonexistent");
    let output = soon(command.output()).await.unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(35), "{stderr}");
    for part in [
        "no trusted CA certificates",
        "ca-certificates",
        "--cacert",
        "SSL_CERT_FILE",
    ] {
        assert!(stderr.contains(part), "{stderr}");
    }
    assert!(!stderr.contains("check that this port"), "{stderr}");
}

#[tokio::test]
async fn a_server_that_closes_during_the_tls_handshake_may_not_speak_tls() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("wss://{}/", listener.local_addr().unwrap());
    let serving = tokio::spawn(async move {
        let (mut tcp, _) = listener.accept().await.unwrap();
        // Unread input would turn the close into a reset.
        assert_ne!(tcp.read(&mut [0; 16 << 10]).await.unwrap(), 0);
    });
    let outcome = run(&["connect", &url], b"").await;
    assert_eq!(outcome.code, Some(35), "{}", outcome.stderr);
    assert_stderr(&outcome, "check that this port speaks TLS");
    soon(serving).await.unwrap();
}

/// Starts a server with this certificate, and returns its `wss://` URL.
async fn secure_echo_server(certificate: &Certificate) -> String {
    let server = Server::builder().tls_config(certificate.server_config()).build();
    let url = serve(server, async |ws| drop(echo(ws).await)).await;
    url.replace("ws://", "wss://")
}

/// Makes the certificate a self-signed CA certificate, like `openssl req -x509`.
fn be_an_authority(params: &mut CertificateParams) {
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
}

#[tokio::test]
async fn cacert_trusts_a_self_signed_certificate() {
    let names = ["localhost", "127.0.0.1"];
    let certificate = Certificate::with(&names, be_an_authority);
    let url = secure_echo_server(&certificate).await;
    let outcome = run(
        &["connect", &url, "--cacert", &certificate.cert(), WAIT[0], WAIT[1]],
        b"hi\n",
    )
    .await;
    assert_eq!(
        (outcome.stdout.as_slice(), outcome.code),
        (&b"hi\n"[..], Some(0)),
        "{}",
        outcome.stderr
    );
    // Another certificate with the same names is not trusted.
    let other = Certificate::with(&names, be_an_authority);
    for options in [&[][..], &["--cacert", &other.cert()]] {
        let outcome = run(&[&["connect", &url], options].concat(), b"").await;
        assert_eq!(outcome.code, Some(60));
        assert_stderr(&outcome, "it is self-signed; --cacert");
    }
}

#[tokio::test]
async fn cacert_still_checks_names_and_validity() {
    let elsewhere = Certificate::with(&["a.example", "10.0.0.1"], be_an_authority);
    let expired = Certificate::with(&["127.0.0.1"], |params| {
        be_an_authority(params);
        params.not_after = rcgen::date_time_ymd(2020, 1, 1);
    });
    let early = Certificate::with(&["127.0.0.1"], |params| {
        params.not_before = rcgen::date_time_ymd(4000, 1, 1)
    });
    let plain = Certificate::with(&["b.example"], |_| {});
    for (certificate, message) in [
        (elsewhere, "it is valid for a.example, 10.0.0.1, not for 127.0.0.1;"),
        (expired, " days ago; renew it"),
        (early, "not valid yet"),
        (plain, "it is valid for b.example, not for 127.0.0.1;"),
    ] {
        let url = secure_echo_server(&certificate).await;
        let outcome = run(&["connect", &url, "--cacert", &certificate.cert()], b"").await;
        assert_eq!(outcome.code, Some(60), "{message}");
        assert_stderr(&outcome, message);
        assert!(
            !outcome.stderr.contains("--cacert"),
            "it would not help: {}",
            outcome.stderr
        );
    }
}

#[tokio::test]
async fn ctrl_c_closes_with_1001() {
    for (signal, code) in [(Signal::INT, 130), (Signal::TERM, 143)] {
        let (url, mut connections) = serve_test().await;
        let mut client = Program::start(&["connect", &url]);
        client.say("hello\n").await;
        let mut ws = soon(connections.recv()).await.unwrap();
        assert_eq!(soon(ws.recv()).await.unwrap(), Some("hello".into()));
        client.signal(signal);
        assert_eq!(soon(ws.recv()).await.unwrap(), None);
        assert_eq!(ws.close_info().unwrap().code(), CloseCode::GOING_AWAY);
        assert_eq!(client.exit_code().await, Some(code));
        assert_eq!(client.stderr().await, "");
    }
}

#[tokio::test]
async fn ctrl_c_ends_the_program_while_connecting_and_while_closing() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut client = Program::start(&["connect", &listener.local_addr().unwrap().to_string()]);
    let _tcp = soon(listener.accept()).await.unwrap();
    client.signal(Signal::INT);
    assert_eq!(client.exit_code().await, Some(130));

    let (url, mut connections) = serve_test().await;
    let mut client = Program::start(&["connect", &url]);
    let _silent = soon(connections.recv()).await.unwrap();
    client.signal(Signal::INT);
    assert_eq!(client.exit_code().await, Some(130));
}

#[tokio::test]
async fn nothing_is_read_from_standard_input_before_the_connection_is_open() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = listener.local_addr().unwrap().to_string();
    let (reader, mut writer) = std::io::pipe().unwrap();
    std::io::Write::write_all(&mut writer, b"line\n").unwrap();
    let mut rest = reader.try_clone().unwrap();
    let mut client = Program::spawn(program(&["connect", &url]).stdin(Stdio::from(reader)));
    let (tcp, _) = soon(listener.accept()).await.unwrap();
    drop((tcp, writer));
    assert_eq!(client.exit_code().await, Some(56));
    let mut unread = String::new();
    std::io::Read::read_to_string(&mut rest, &mut unread).unwrap();
    assert_eq!(unread, "line\n");
}

#[tokio::test]
async fn a_reader_that_exits_ends_the_program_without_an_error() {
    let url = serve(Server::default(), async |mut ws| while ws.send("tick").await.is_ok() {});
    let mut client = Program::start(&["connect", &url.await, "-w", "forever"]);
    assert_eq!(client.line().await, "tick");
    drop(client.stop_reading());
    assert_eq!(client.exit_code().await, Some(0));
    assert_eq!(client.stderr().await, "");
}

#[tokio::test]
async fn a_full_disk_is_reported() {
    let url = echo_server().await;
    let full = || File::options().write(true).open("/dev/full").unwrap();
    let mut client = Program::spawn(program(&["connect", &url]).stdout(full()));
    client.say("hello\n").await;
    assert_eq!(client.exit_code().await, Some(1));
    assert!(
        client
            .stderr()
            .await
            .contains("cannot write to standard output: No space left")
    );
    // Standard error is full too.
    let mut client = Program::spawn(program(&["connect", &url]).stdout(full()).stderr(full()));
    client.say("hello\n").await;
    assert_eq!(client.exit_code().await, Some(1));
}

/// A pipe holds 64 KiB. The program queues more than that, and continues to process frames.
#[tokio::test]
async fn pings_are_answered_while_nobody_reads_standard_output() {
    const MESSAGES: usize = 64;
    let message = "x".repeat(16 << 10);
    let (url, mut connections) = serve_test().await;
    let mut client = Program::start(&["connect", &url, "-w", "forever"]);
    let ws = soon(connections.recv()).await.unwrap();
    let (sender, mut receiver) = ws.split();
    for _ in 0..MESSAGES {
        soon(sender.send(message.as_str())).await.unwrap();
    }
    soon(sender.send_ping(b"there?")).await.unwrap();
    // The pong is detected by the round-trip time.
    client.say("after\n").await;
    assert_eq!(soon(receiver.recv()).await.unwrap(), Some("after".into()));
    soon(async {
        while receiver.rtt().is_none() {
            client.say("again\n").await;
            receiver.recv().await.unwrap();
        }
    })
    .await;
    for _ in 0..MESSAGES {
        assert_eq!(client.line().await, message);
    }
}

/// More than the program queues: TCP flow control stops the server, and nothing is lost.
#[tokio::test]
async fn a_paused_reader_stops_the_server_and_loses_nothing() {
    const MESSAGES: usize = 40;
    let message = "y".repeat(1 << 20);
    let (url, mut connections) = serve_test().await;
    let mut client = Program::start(&["connect", &url, "-w", "forever"]);
    let mut ws = soon(connections.recv()).await.unwrap();
    let sending = tokio::spawn({
        let message = message.clone();
        async move {
            for _ in 0..MESSAGES {
                ws.send(message.as_str()).await.unwrap();
            }
            ws.close(CloseCode::NORMAL, "").await.unwrap();
        }
    });
    for _ in 0..MESSAGES {
        assert!(client.line().await == message);
    }
    soon(sending).await.unwrap();
    client.stdin = None;
    assert_eq!(client.exit_code().await, Some(0));
}

/// So many lines that quadratic cost would be visible: a million once took 80 s.
#[tokio::test]
async fn very_many_lines_are_echoed_completely_and_in_order() {
    const LINES: usize = 200_000;
    let (_server, url) = Program::echo(&[]).await;
    let input: String = (0..LINES).map(|number| format!("line {number}\n")).collect();
    let outcome = run(&["connect", &url, "-n", &LINES.to_string()], input.as_bytes()).await;
    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
    assert_eq!(outcome.stderr, "");
    let came = outcome.stdout.iter().filter(|byte| **byte == b'\n').count();
    assert_eq!(came, LINES);
    // Not `assert_eq`, which would print both values.
    assert!(outcome.stdout == input.as_bytes(), "a line is not where it was");
}

/// The first connection is refused, the second one is lost after a message, the third one is closed normally.
#[tokio::test]
async fn a_lost_connection_is_opened_again_if_asked_for() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("ws://{}/", listener.local_addr().unwrap());
    let serving = tokio::spawn(async move {
        let server = Server::default();
        let (tcp, _) = listener.accept().await.unwrap();
        let unavailable = sockeye::http::StatusCode::SERVICE_UNAVAILABLE;
        server.accept(tcp).await.unwrap().reject(unavailable).await;
        for is_last in [false, true] {
            let (tcp, _) = listener.accept().await.unwrap();
            let mut ws = server.accept(tcp).await.unwrap().accept().await.unwrap();
            let line = ws.recv().await.unwrap().unwrap();
            ws.send(line).await.unwrap();
            match is_last {
                false => ws.abort(),
                true => ws.close(CloseCode::NORMAL, "").await.unwrap(),
            }
        }
    });
    let mut command = program(&["connect", "--reconnect=100ms", &url]);
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let mut stdout = BufReader::new(child.stdout.take().unwrap()).lines();
    for line in ["one", "two"] {
        stdin.write_all(format!("{line}\n").as_bytes()).await.unwrap();
        assert_eq!(soon(stdout.next_line()).await.unwrap().as_deref(), Some(line));
    }
    let output = soon(child.wait_with_output()).await.unwrap();
    soon(serving).await.unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{stderr}");
    let lines: Vec<_> = stderr.lines().collect();
    assert_eq!(lines.len(), 4, "{stderr}");
    assert!(
        lines[0].contains("503 Service Unavailable") && lines[0].contains("; next attempt in "),
        "{stderr}"
    );
    assert_eq!(lines[1], format!("sockeye: connected to {url}"));
    assert!(lines[2].contains("; connecting again in "), "{stderr}");
    assert_eq!(lines[3], lines[1]);
}

#[tokio::test]
async fn errors_that_do_not_pass_end_a_reconnecting_client() {
    let denied = answer(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n").await;
    let outcome = run(&["connect", "--reconnect", &denied], b"").await;
    assert_eq!(outcome.code, Some(22), "{}", outcome.stderr);
    let url = serve(Server::default(), async |mut ws| {
        let _ = ws.close(CloseCode(4001), "kicked").await;
    })
    .await;
    let outcome = run(&["connect", "--reconnect", &url], b"").await;
    assert_eq!(outcome.code, Some(64), "{}", outcome.stderr);
    assert!(outcome.stderr.contains("4001"), "{}", outcome.stderr);
    let (_server, url) = Program::echo(&[]).await;
    let outcome = run(&["connect", "--reconnect", "-n", "2", &url], b"a\nb\n").await;
    assert_eq!(
        (outcome.code, &outcome.stdout[..]),
        (Some(0), &b"a\nb\n"[..]),
        "{}",
        outcome.stderr
    );
    let outcome = run(&["connect", "--reconnect", "-q", &url], b"a\n").await;
    assert_eq!(
        (outcome.code, &outcome.stdout[..], &*outcome.stderr),
        (Some(0), &b"a\n"[..], "")
    );
}
