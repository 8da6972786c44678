//! How `sockeye connect` ends: each kind of standard input and output, each signal in each phase.
#![cfg(unix)]

mod cli_support;

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::{AsFd, OwnedFd};
use std::process::Stdio;
use std::time::{Duration, Instant};

use cli_support::{Program, echo, patience, read_frame, run, serve, serve_raw, serve_test, sockeye as program, soon};
use rustix::process::Signal;
use sockeye::{CloseCode, Message, Server};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::Command;

const TEXT: u8 = 0x81;
const CLOSE: u8 = 0x88;
const PING: u8 = 0x89;
const PONG: u8 = 0x8a;

/// Starts a server that opens WebSockets and does not read.
async fn serve_mute() -> String {
    serve(Server::default(), async |ws| {
        std::future::pending::<()>().await;
        drop(ws);
    })
    .await
}

/// A pipe without a reader.
fn closed_pipe() -> Stdio {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    writer.into()
}

#[tokio::test]
async fn a_closed_standard_output_is_noticed_while_the_server_is_silent() {
    let (url, mut connections) = serve_test().await;
    let mut client = Program::start(&["connect", &url, "-w", "forever"]);
    let mut ws = soon(connections.recv()).await.unwrap();
    soon(ws.send("the only one")).await.unwrap();
    assert_eq!(client.line().await, "the only one");
    drop(client.stop_reading());
    // The input is still open, and the server sends nothing.
    assert_eq!(soon(ws.recv()).await.unwrap(), None);
    assert_eq!(ws.close_info().unwrap().code(), CloseCode::GOING_AWAY);
    assert_eq!(client.exit_code().await, Some(0));
    assert_eq!(client.stderr().await, "");
}

#[tokio::test]
async fn a_closed_standard_output_does_not_wait_for_a_server_that_does_not_close() {
    let mut fastest = Duration::MAX;
    // Several times, because the machine may be busy.
    for _ in 0..5 {
        let url = serve_raw(async |mut tcp| {
            tcp.write_all(b"\x81\x01a").await.unwrap();
            std::future::pending().await
        });
        let mut client = Program::start(&["connect", &url.await, "-w", "forever"]);
        assert_eq!(client.line().await, "a");
        let begin = Instant::now();
        drop(client.stop_reading());
        assert_eq!(client.exit_code().await, Some(0));
        fastest = fastest.min(begin.elapsed());
    }
    // Other ends wait for up to a second.
    assert!(fastest.as_millis() < 800, "{fastest:?}");
}

#[tokio::test]
async fn a_closed_standard_output_ends_the_program_in_every_phase() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let silent = listener.local_addr().unwrap().to_string();
    let mute = serve_mute().await;
    for url in [&silent, &mute] {
        let mut client = Program::spawn(program(&["connect", url, "-w", "forever"]).stdout(closed_pipe()));
        assert_eq!(client.exit_code().await, Some(0), "{url}");
        assert_eq!(client.stderr().await, "");
    }
    // A socket pair instead of a pipe.
    let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
    let stdout = Stdio::from(OwnedFd::from(theirs));
    let mut client = Program::spawn(program(&["connect", &mute, "-w", "forever"]).stdout(stdout));
    drop(ours);
    assert_eq!(client.exit_code().await, Some(0));
}

#[tokio::test]
async fn other_kinds_of_standard_output_work() {
    let url = serve(Server::default(), async |mut ws| {
        let _ = ws.send("hello").await;
        let _ = ws.close(CloseCode::NORMAL, "").await;
    })
    .await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("out");
    let open = |path: &str| File::options().write(true).open(path).unwrap();
    for (stdout, code) in [
        (Stdio::from(File::create(&path).unwrap()), 0),
        (Stdio::null(), 0),
        (open("/dev/full").into(), 1),
    ] {
        let mut client = Program::spawn(program(&["connect", &url, "-w", "forever"]).stdout(stdout));
        assert_eq!(client.exit_code().await, Some(code));
    }
    assert_eq!(std::fs::read(&path).unwrap(), b"hello\n");
}

/// Reads frames up to the first one with this opcode, and returns the opcodes before it.
async fn read_up_to(tcp: &mut TcpStream, opcode: u8) -> Vec<u8> {
    let mut before = Vec::new();
    loop {
        match read_frame(tcp).await.0 {
            found if found == opcode => return before,
            other => before.push(other),
        }
    }
}

/// The end of an empty input sends no frame, and messages are still received.
#[tokio::test]
async fn an_empty_input_receives_until_the_server_closes() {
    let folder = tempfile::tempdir().unwrap();
    let empty = folder.path().join("empty");
    File::create(&empty).unwrap();
    let closed = "exec \"$0\" connect \"$1\" <&-";
    for (name, stdin) in [
        ("/dev/null", Some(Stdio::null())),
        ("an empty file", Some(File::open(&empty).unwrap().into())),
        ("a pipe without a writer", Some(std::io::pipe().unwrap().0.into())),
        ("closed", None),
    ] {
        let address = serve_raw(async |mut tcp| {
            tcp.write_all(b"\x81\x05first").await.unwrap();
            // Enough messages that the client has certainly reached the end of its input.
            for _ in 0..200 {
                tcp.write_all(&[PING, 0]).await.unwrap();
                let before = read_up_to(&mut tcp, PONG).await;
                assert!(before.is_empty(), "sent at the end of input: {before:?}");
            }
            tcp.write_all(b"\x81\x06second\x88\x02\x03\xe8").await.unwrap();
            assert!(read_up_to(&mut tcp, CLOSE).await.is_empty());
        });
        let address = address.await;
        let mut command = match stdin {
            Some(stdin) => {
                let mut command = program(&["connect", &address]);
                command.stdin(stdin);
                command
            }
            None => {
                let mut command = Command::new("sh");
                command.args(["-c", closed, env!("CARGO_BIN_EXE_sockeye"), &address]);
                command.stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
                command
            }
        };
        let mut client = Program::spawn(&mut command);
        assert_eq!(client.line().await, "first", "{name}");
        assert_eq!(client.line().await, "second", "{name}");
        assert_eq!(client.exit_code().await, Some(0), "{name}");
        assert_eq!(client.stderr().await, "", "{name}");
    }
}

#[tokio::test]
async fn other_kinds_of_standard_input_are_sent_or_reported() {
    let url = serve(Server::default(), async |ws| drop(echo(ws).await)).await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("in");
    std::fs::write(&path, "a\nb").unwrap();
    for (stdin, code, stdout, stderr) in [
        (File::open(&path).unwrap(), 0, "a\nb\n", ""),
        (
            File::open(folder.path()).unwrap(),
            1,
            "",
            "cannot read standard input: Is a directory",
        ),
        (
            File::options().write(true).open("/dev/null").unwrap(),
            1,
            "",
            "cannot read standard input: Bad file descriptor",
        ),
    ] {
        let mut command = program(&["connect", &url]);
        let output = soon(command.stdin(stdin).output()).await.unwrap();
        assert_eq!(output.status.code(), Some(code), "{output:?}");
        assert_eq!(String::from_utf8_lossy(&output.stdout), stdout);
        assert!(String::from_utf8_lossy(&output.stderr).contains(stderr), "{output:?}");
    }
}

/// `connect URL <>FIFO`, as in the help, does not end when the first writer closes the FIFO.
#[tokio::test]
async fn a_fifo_that_is_kept_open_accepts_several_writers() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("fifo");
    rustix::fs::mkfifoat(rustix::fs::CWD, &path, rustix::fs::Mode::RWXU).unwrap();
    let (url, mut connections) = serve_test().await;
    let both_ways = File::options().read(true).write(true).open(&path).unwrap();
    let client = Program::spawn(program(&["connect", &url]).stdin(both_ways));
    let mut ws = soon(connections.recv()).await.unwrap();
    for line in ["one", "two"] {
        std::fs::write(&path, format!("{line}\n")).unwrap();
        assert_eq!(soon(ws.recv()).await.unwrap(), Some(Message::text(line)));
    }
    drop(client);
}

#[tokio::test]
async fn count_ends_the_program_after_that_many_messages() {
    let url = serve(Server::default(), async |mut ws| {
        while let Ok(Some(_)) = ws.recv().await {
            for number in 0..100 {
                let _ = ws.send(number.to_string()).await;
            }
        }
    })
    .await;
    for (count, stdout) in [("1", "0\n"), ("3", "0\n1\n2\n")] {
        let outcome = run(&["connect", &url, "-n", count], b"go\n").await;
        assert_eq!(
            (outcome.stdout.as_slice(), outcome.code),
            (stdout.as_bytes(), Some(0)),
            "{}",
            outcome.stderr
        );
        assert_eq!(outcome.stderr, "");
    }
}

#[tokio::test]
async fn count_does_not_wait_for_a_server_that_does_not_close() {
    let address = serve_raw(async |mut tcp| {
        tcp.write_all(b"\x81\x03one\x81\x03two").await.unwrap();
        let _ = tcp.read_to_end(&mut Vec::new()).await;
    });
    let started_at = Instant::now();
    let outcome = run(&["connect", &address.await, "-n", "1"], b"").await;
    assert_eq!(
        (outcome.stdout.as_slice(), outcome.code),
        (&b"one\n"[..], Some(0)),
        "{}",
        outcome.stderr
    );
    assert_eq!(outcome.stderr, "");
    assert!(started_at.elapsed() < at_once());
}

/// Another program that uses the same pipe may leave it nonblocking.
#[tokio::test]
async fn nonblocking_pipes_lose_nothing() {
    let url = serve(Server::default(), async |ws| drop(echo(ws).await)).await;
    let (reader, mut feed) = std::io::pipe().unwrap();
    let (mut result, writer) = std::io::pipe().unwrap();
    for pipe in [reader.as_fd(), writer.as_fd()] {
        rustix::io::ioctl_fionbio(pipe, true).unwrap();
    }
    let mut command = program(&["connect", &url, "-w", "100ms"]);
    let mut child = command.stdin(reader).stdout(writer).spawn().unwrap();
    // Close our copies of the program's ends.
    drop(command);
    let lines: String = (0..50_000).map(|number| format!("line {number}\n")).collect();
    let input = lines.clone();
    // The pipe is empty when the program starts to read, and too small when it writes.
    let feeding = tokio::task::spawn_blocking(move || feed.write_all(input.as_bytes()).unwrap());
    let reading = tokio::task::spawn_blocking(move || {
        let mut text = String::new();
        result.read_to_string(&mut text).unwrap();
        text
    });
    soon(feeding).await.unwrap();
    let text = soon(reading).await.unwrap();
    assert!(text == lines, "{} of {} bytes", text.len(), lines.len());
    assert_eq!(soon(child.wait()).await.unwrap().code(), Some(0));
}

#[tokio::test]
async fn fewer_messages_than_count_asks_for_are_52() {
    let url = serve(Server::default(), async |mut ws| {
        let _ = ws.recv().await;
        let _ = ws.send("the only one").await;
        let _ = ws.close(CloseCode::NORMAL, "").await;
    })
    .await;
    let outcome = run(&["connect", &url, "--count", "2"], b"go\n").await;
    assert_eq!(
        (outcome.stdout.as_slice(), outcome.code),
        (&b"the only one\n"[..], Some(52))
    );
    assert!(outcome.stderr.contains("after 1 of 2 messages"), "{}", outcome.stderr);
    // A server that does not respond.
    let outcome = run(
        &["connect", &serve_mute_but_reading().await, "-n", "1", "-w", "10ms"],
        b"go\n",
    )
    .await;
    assert_eq!(outcome.code, Some(52), "{}", outcome.stderr);
}

/// Starts a server that reads and sends no messages.
async fn serve_mute_but_reading() -> String {
    serve(
        Server::default(),
        async |mut ws| while let Ok(Some(_)) = ws.recv().await {},
    )
    .await
}

#[tokio::test]
async fn a_server_without_replies_is_waited_for_and_reported() {
    let url = serve_mute_but_reading().await;
    let started_at = Instant::now();
    let outcome = run(&["connect", &url], b"go\n").await;
    assert_eq!((outcome.stdout.as_slice(), outcome.code), (&b""[..], Some(0)));
    assert!(
        outcome
            .stderr
            .contains("no message arrived within 5 s after the end of the input; --wait"),
        "{}",
        outcome.stderr
    );
    assert!(started_at.elapsed() >= Duration::from_secs(5));
    for options in [["-q", "-w", "0"], ["-w", "0", "-v"]] {
        let outcome = run(&[&["connect", &url], &options[..]].concat(), b"go\n").await;
        assert_eq!(outcome.code, Some(0));
        assert!(!outcome.stderr.contains("no message"), "{}", outcome.stderr);
    }
}

/// If there is a reply for each message, the program does not wait long for the pong.
#[tokio::test]
async fn a_server_that_answers_no_pings_is_closed_normally() {
    let address = serve_raw(async |mut tcp| {
        assert_eq!(read_frame(&mut tcp).await, (TEXT, b"go".to_vec()));
        tcp.write_all(b"\x81\x05reply").await.unwrap();
        assert_eq!(read_up_to(&mut tcp, CLOSE).await, [PING]);
        tcp.write_all(b"\x88\x02\x03\xe8").await.unwrap();
    });
    let outcome = run(&["connect", &address.await], b"go\n").await;
    assert_eq!(
        (outcome.stdout.as_slice(), outcome.code),
        (&b"reply\n"[..], Some(0)),
        "{}",
        outcome.stderr
    );
    assert_eq!(outcome.stderr, "");
}

#[tokio::test]
async fn a_ping_interval_of_zero_sends_no_pings() {
    for interval in ["0", "off"] {
        let address = serve_raw(async |mut tcp| {
            tcp.write_all(&[PING, 0]).await.unwrap();
            assert!(read_up_to(&mut tcp, PONG).await.is_empty());
            tcp.write_all(b"\x88\x02\x03\xe8").await.unwrap();
            assert!(read_up_to(&mut tcp, CLOSE).await.is_empty());
        });
        let outcome = run(&["connect", &address.await, "--ping-interval", interval], b"").await;
        assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
    }
}

#[tokio::test]
async fn escaping_can_be_configured() {
    let url = serve(Server::default(), async |mut ws| {
        let _ = ws.feed("a\u{1b}[31m\nb").await;
        let _ = ws.feed(&[0, 10, 255]).await;
        let _ = ws.close(CloseCode::NORMAL, "").await;
    })
    .await;
    let (raw, escaped) = (&b"a\x1b[31m\nb\n\0\n\xff\n"[..], &b"a\\u001b[31m\\nb\n000aff\n"[..]);
    for (options, stdout) in [
        (&[][..], raw),
        (&["--escape", "auto"], raw),
        (&["--escape", "never"], raw),
        (&["--escape", "always"], escaped),
        (&["--escape=never", "--binary-out=hex"], b"a\x1b[31m\nb\n000aff\n"),
    ] {
        let outcome = run(&[&["connect", &url], options].concat(), b"").await;
        assert_eq!(outcome.stdout, stdout, "{options:?}");
    }
}

/// Shorter than the timeout of the closing handshake, so that waiting for it fails the test.
fn at_once() -> Duration {
    patience() * 4 / 30
}

/// Starts a client and brings it into a phase in which it stays. Also returns a guard for the peer.
async fn client_in(phase: &str) -> (Program, Box<dyn Send>) {
    match phase {
        "handshake" | "TLS handshake" => {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let scheme = if phase == "handshake" { "ws" } else { "wss" };
            let client = Program::start(&["connect", &format!("{scheme}://{}", listener.local_addr().unwrap())]);
            let (tcp, _) = soon(listener.accept()).await.unwrap();
            return (client, Box::new(tcp));
        }
        "closing" => {
            let (closing, is_closing) = tokio::sync::oneshot::channel();
            let address = serve_raw(async |mut tcp| {
                tcp.write_all(b"\x81\x01x").await.unwrap();
                assert_eq!(read_frame(&mut tcp).await.0, TEXT);
                let (opcode, payload) = read_frame(&mut tcp).await;
                assert_eq!(opcode, PING);
                let pong = [&[PONG, payload.len() as u8], &payload[..]].concat();
                tcp.write_all(&pong).await.unwrap();
                read_up_to(&mut tcp, CLOSE).await;
                let _ = closing.send(());
                let _ = tcp.read_to_end(&mut Vec::new()).await;
            });
            let mut client = Program::start(&["connect", &address.await, "-w", "0"]);
            client.say("go\n").await;
            client.stdin = None;
            soon(is_closing).await.unwrap();
            return (client, Box::new(()));
        }
        _ => {}
    }
    let (url, mut connections) = serve_test().await;
    let options = match phase {
        "writing" => &["-w", "forever"][..],
        "awaiting the pong" => &["-w", "0", "--ping-interval", "off"],
        "awaiting replies" => &["-w", "1h"],
        _ => &[],
    };
    let mut client = Program::start(&[&["connect", &url], options].concat());
    let mut ws = soon(connections.recv()).await.unwrap();
    match phase {
        "idle" => (client, Box::new(ws)),
        "sending" => {
            let mut stdin = client.stdin.take().unwrap();
            let lines = [b'\n'; 1 << 16];
            soon(stdin.write_all(&lines)).await.unwrap();
            let feeding = tokio::spawn(async move { while stdin.write_all(&lines).await.is_ok() {} });
            (client, Box::new((ws, feeding)))
        }
        "writing" => {
            soon(ws.send("x".repeat(4 << 20))).await.unwrap();
            let stdout = client.stop_reading();
            (client, Box::new((ws, stdout)))
        }
        "awaiting the pong" | "awaiting replies" => {
            client.say("go\n").await;
            client.stdin = None;
            if phase == "awaiting replies" {
                assert_eq!(soon(ws.recv()).await.unwrap(), Some("go".into()));
            }
            (client, Box::new(ws))
        }
        _ => panic!("{phase}"),
    }
}

#[tokio::test]
async fn signals_end_the_program_quickly_in_every_phase() {
    for phase in [
        "handshake",
        "TLS handshake",
        "idle",
        "sending",
        "writing",
        "awaiting the pong",
        "awaiting replies",
        "closing",
    ] {
        for (signal, code) in [(Signal::INT, 130), (Signal::TERM, 143)] {
            let (mut client, _peer) = client_in(phase).await;
            let signalled_at = Instant::now();
            client.signal(signal);
            assert_eq!(client.exit_code().await, Some(code), "{phase}");
            assert!(
                signalled_at.elapsed() < at_once(),
                "{phase} took {:?}",
                signalled_at.elapsed()
            );
            assert_eq!(client.stderr().await, "", "{phase}");
        }
    }
}

/// After the first signal the program waits for the server, which does not answer; the second ends the wait.
#[tokio::test]
async fn a_second_signal_waits_for_nothing() {
    let (steps, mut done) = tokio::sync::mpsc::unbounded_channel();
    let address = serve_raw(async move |mut tcp| {
        for opcode in [TEXT, CLOSE] {
            read_up_to(&mut tcp, opcode).await;
            let _ = steps.send(opcode);
        }
        let _ = tcp.read_to_end(&mut Vec::new()).await;
    });
    let mut client = Program::start(&["connect", &address.await]);
    client.say("go\n").await;
    assert_eq!(soon(done.recv()).await, Some(TEXT));
    client.signal(Signal::INT);
    assert_eq!(soon(done.recv()).await, Some(CLOSE));
    client.signal(Signal::TERM);
    assert_eq!(client.exit_code().await, Some(130));
}
