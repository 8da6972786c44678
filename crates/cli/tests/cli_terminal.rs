//! `sockeye connect` on a terminal: input, output, and the state of the terminal afterwards.
#![cfg(target_os = "linux")]

mod cli_support;

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::process::Stdio;
use std::task::Poll;

use cli_support::{Program, serve_test, sockeye as program, sockeye_with_terminal, soon};
use rustix::process::{Signal, WaitId, WaitIdOptions, waitid};
use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::termios::{Action, LocalModes, Winsize, tcflow, tcgetattr, tcsetwinsize};
use sockeye::{CloseCode, Message, Server, WebSocket};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::process::Command;
use tokio::sync::mpsc;

/// A pseudoterminal with a program.
struct Terminal {
    /// The end of the user.
    keyboard: File,
    screen: mpsc::UnboundedReceiver<Vec<u8>>,
    seen: String,
    /// The end of the program.
    device: OwnedFd,
    program: Program,
}

impl Terminal {
    /// Starts the program on a terminal of 40 columns.
    fn start(term: &str, arguments: &[&str]) -> Self {
        Self::start_with(term, program(arguments), false)
    }

    /// Starts the program on a terminal of 40 columns, optionally with a pipe as standard output.
    fn start_with(term: &str, mut command: Command, has_pipe: bool) -> Self {
        let keyboard = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&keyboard).unwrap();
        unlockpt(&keyboard).unwrap();
        let device = ioctl_tiocgptpeer(&keyboard, OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        let size = Winsize {
            ws_row: 24,
            ws_col: 40,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        tcsetwinsize(&device, size).unwrap();
        let duplicate = || Stdio::from(device.as_fd().try_clone_to_owned().unwrap());
        command.env("TERM", term);
        command.stdin(duplicate()).stderr(duplicate());
        if !has_pipe {
            command.stdout(duplicate());
        }
        let program = Program::spawn(&mut command);
        let keyboard = File::from(keyboard);
        let mut reader = keyboard.try_clone().unwrap();
        let (sender, screen) = mpsc::unbounded_channel();
        // The thread ends when the terminal is closed.
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(len @ 1..) = reader.read(&mut buffer)
                && sender.send(buffer[..len].to_vec()).is_ok()
            {}
        });
        Self {
            keyboard,
            screen,
            seen: String::new(),
            device,
            program,
        }
    }

    /// Starts `connect` with a server, and waits for the prompt.
    async fn connect(options: &[&str]) -> (Self, WebSocket) {
        let (url, mut connections) = serve_test().await;
        let mut terminal = Self::start("xterm", &[&["connect", &url], options].concat());
        let ws = soon(connections.recv()).await.unwrap();
        terminal.shows("> ").await;
        (terminal, ws)
    }

    /// Starts `connect` with keys that send signals, and with a server that has not answered the handshake yet.
    async fn dial() -> (Self, TcpStream) {
        // A small receive buffer, so that the peer accepts little while it does not read.
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(4096).unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let listener: TcpListener = socket.listen(1).unwrap();
        let url = format!("ws://{}/", listener.local_addr().unwrap());
        let terminal = Self::start_with("xterm", sockeye_with_terminal(&["connect", &url]), false);
        let (tcp, _) = soon(listener.accept()).await.unwrap();
        (terminal, tcp)
    }

    /// Types a text, in a thread, because writing more than the buffer of the terminal blocks.
    fn keys(&self, keys: &str) {
        let (mut keyboard, keys) = (self.keyboard.try_clone().unwrap(), keys.to_owned());
        std::thread::spawn(move || keyboard.write_all(keys.as_bytes()));
    }

    /// Waits until this text is shown. Returns all output up to it since the last call.
    #[track_caller]
    fn shows(&mut self, text: &str) -> impl Future<Output = String> {
        soon(async move {
            loop {
                if let Some(idx) = self.seen.find(text) {
                    return self.seen.drain(..idx + text.len()).collect();
                }
                let bytes = self.screen.recv().await.expect("the terminal is there");
                self.seen += &String::from_utf8_lossy(&bytes);
            }
        })
    }

    /// Whether the terminal is in the mode that shells expect: line editing and echo by the kernel.
    fn is_as_before(&self) -> bool {
        let modes = tcgetattr(&self.device).unwrap().local_modes;
        modes.contains(LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG)
    }
}

#[tokio::test]
async fn a_long_pasted_line_is_sent_completely() {
    let (terminal, mut ws) = Terminal::connect(&[]).await;
    // The line editing of the kernel would truncate it to 4,095 bytes.
    for len in [4_095, 4_096, 6_000, 100_000] {
        let line = "0123456789".repeat(len / 10 + 1)[..len].to_owned();
        terminal.keys(&format!("{line}\r"));
        assert_eq!(soon(ws.recv()).await.unwrap(), Some(Message::text(line)), "{len}");
    }
    let lines: Vec<_> = (0..1_000).map(|number| format!("line {number}")).collect();
    terminal.keys(&format!("{}\r", lines.join("\r")));
    for line in lines {
        assert_eq!(soon(ws.recv()).await.unwrap(), Some(Message::text(line)));
    }
}

#[tokio::test]
async fn lines_typed_before_the_connection_is_open_are_sent_completely() {
    let (mut terminal, tcp) = Terminal::dial().await;
    let line = "0123456789".repeat(600);
    terminal.keys(&format!("{line}\rhalf"));
    terminal.shows("half").await;
    let mut ws = accept(tcp).await;
    assert_eq!(soon(ws.recv()).await.unwrap(), Some(Message::text(line)));
    terminal.shows("connected to ").await;
    terminal.shows("\r\x1b[K> half").await;
    terminal.keys(" a line\r");
    assert_eq!(soon(ws.recv()).await.unwrap(), Some("half a line".into()));
}

#[tokio::test]
async fn the_terminal_is_restored_if_connecting_fails() {
    for (name, code) in [
        ("Ctrl-C", 130),
        ("Ctrl-C behind a paste", 130),
        ("TERM", 143),
        ("lost", 56),
    ] {
        let (mut terminal, tcp) = Terminal::dial().await;
        assert!(!terminal.is_as_before(), "{name}");
        match name {
            "Ctrl-C" => terminal.keys("\x03"),
            "Ctrl-C behind a paste" => terminal.keys(&format!("{}\x03", "a line\r".repeat(20_000))),
            "TERM" => terminal.program.signal(Signal::TERM),
            _ => {
                drop(tcp);
                let shown = terminal.shows("sockeye: ").await;
                assert!(!shown.contains("> "), "no prompt without a connection: {shown:?}");
            }
        }
        assert_eq!(terminal.program.exit_code().await, Some(code), "{name}");
        assert!(terminal.is_as_before(), "{name}");
    }
}

/// The kernel only detects Ctrl-C in input that fits its buffer.
#[tokio::test]
async fn ctrl_c_is_detected_after_a_large_paste_that_cannot_be_sent() {
    // Input after Ctrl-D is not sent, but must be read too.
    for end in ["", "\x04"] {
        let (mut terminal, tcp) = Terminal::dial().await;
        let _ws = accept(tcp).await;
        terminal.shows("> ").await;
        let line = "0123456789".repeat(1_000) + "\r";
        terminal.keys(&[&line.repeat(400), end, &line.repeat(10), "\x03"].concat());
        assert_eq!(terminal.program.exit_code().await, Some(130), "{end:?}");
        assert!(terminal.is_as_before(), "{end:?}");
    }
}

async fn accept(tcp: TcpStream) -> WebSocket {
    let pending = soon(Server::default().accept(tcp)).await.unwrap();
    soon(pending.accept()).await.unwrap()
}

#[tokio::test]
async fn messages_are_printed_above_the_line_being_typed() {
    let (mut terminal, mut ws) = Terminal::connect(&[]).await;
    terminal.keys("half a li");
    terminal.shows("\r\x1b[K> half a li").await;
    soon(ws.send("news\n\x1b[31m")).await.unwrap();
    let shown = terminal.shows("\r\x1b[K> half a li").await;
    assert!(
        shown.contains("\r\x1b[K< news\\n\\u001b[31m\r\n\r\x1b[K> "),
        "{shown:?}"
    );
    terminal.keys("ne\r");
    terminal.shows("\r\x1b[K> half a line\r\n").await;
    assert_eq!(soon(ws.recv()).await.unwrap(), Some("half a line".into()));
}

/// `sockeye connect ... | program`: the typed line is shown, and the program receives only messages.
#[tokio::test]
async fn a_pipe_receives_unchanged_messages_while_lines_are_typed() {
    let (url, mut connections) = serve_test().await;
    let mut terminal = Terminal::start_with("xterm", program(&["connect", &url]), true);
    let mut ws = soon(connections.recv()).await.unwrap();
    terminal.shows("> ").await;
    terminal.keys("hello\r");
    terminal.shows("\r\x1b[K> hello\r\n").await;
    assert_eq!(soon(ws.recv()).await.unwrap(), Some("hello".into()));
    soon(ws.send("a\x1b[31m")).await.unwrap();
    assert_eq!(terminal.program.line().await, "a\x1b[31m");
}

#[tokio::test]
async fn editing_keys_are_not_sent() {
    let (terminal, mut ws) = Terminal::connect(&[]).await;
    for (keys, line) in [
        ("ac\x1b[Db\r", "abc"),
        ("\x1b[A\r", "abc"),
        ("日本\x7f\r", "日"),
        ("gone\x15kept\r", "kept"),
        ("a\x1b[5~b\x1b[1;5Cc\r", "abc"),
    ] {
        terminal.keys(keys);
        assert_eq!(soon(ws.recv()).await.unwrap(), Some(Message::text(line)), "{keys:?}");
    }
}

/// For each kind of end, while a line is being typed.
#[tokio::test]
async fn the_terminal_is_restored_at_the_end() {
    for (name, code) in [
        ("Ctrl-D", 0),
        ("the server closes", 0),
        ("the server is lost", 56),
        ("INT", 130),
        ("TERM", 143),
        ("HUP", 129),
        ("QUIT", 131),
    ] {
        let (mut terminal, mut ws) = Terminal::connect(&["-w", "0"]).await;
        assert!(!terminal.is_as_before(), "{name}");
        match name {
            "Ctrl-D" => terminal.keys("\x04"),
            _ => {
                terminal.keys("half a li");
                terminal.shows("half a li").await;
            }
        }
        match name {
            "the server closes" => soon(ws.close(CloseCode::NORMAL, "")).await.unwrap(),
            "the server is lost" => ws.abort(),
            _ => {
                match name {
                    "INT" => terminal.program.signal(Signal::INT),
                    "TERM" => terminal.program.signal(Signal::TERM),
                    "HUP" => terminal.program.signal(Signal::HUP),
                    "QUIT" => terminal.program.signal(Signal::QUIT),
                    _ => {}
                }
                assert_eq!(soon(ws.recv()).await.unwrap(), None, "{name}");
                drop(ws);
            }
        }
        assert_eq!(terminal.program.exit_code().await, Some(code), "{name}");
        assert!(terminal.is_as_before(), "{name}");
    }
}

#[tokio::test]
async fn a_stopped_program_restores_the_terminal_and_resumes_editing() {
    let (mut terminal, mut ws) = Terminal::connect(&[]).await;
    terminal.keys("half");
    terminal.shows("\r\x1b[K> half").await;
    let pid = rustix::process::Pid::from_raw(terminal.program.child.id().unwrap().cast_signed()).unwrap();
    terminal.program.signal(Signal::TSTP);
    let stopped = tokio::task::spawn_blocking(move || waitid(WaitId::Pid(pid), WaitIdOptions::STOPPED));
    assert!(soon(stopped).await.unwrap().unwrap().unwrap().stopped());
    assert!(terminal.is_as_before());
    terminal.seen.clear();
    terminal.program.signal(Signal::CONT);
    terminal.shows("\r\x1b[K> half").await;
    assert!(!terminal.is_as_before());
    terminal.keys(" a line\r");
    assert_eq!(soon(ws.recv()).await.unwrap(), Some("half a line".into()));
}

/// A stopped terminal (Ctrl-S) blocks all writes, including those of the thread that prints messages.
#[tokio::test]
async fn ctrl_z_stops_the_program_while_output_is_stopped() {
    for has_message in [false, true] {
        let (mut terminal, mut ws) = Terminal::connect(&[]).await;
        terminal.keys("half");
        terminal.shows("\r\x1b[K> half").await;
        tcflow(&terminal.device, Action::OOff).unwrap();
        if has_message {
            soon(ws.send("news")).await.unwrap();
            // The pong shows that the program has received the message, and is printing it or blocked.
            soon(ws.send_ping(b"")).await.unwrap();
            soon(std::future::poll_fn(|cx| {
                assert!(std::pin::pin!(ws.recv()).poll(cx).is_pending());
                ws.rtt().map_or(Poll::Pending, |_| Poll::Ready(()))
            }))
            .await;
        }
        let pid = rustix::process::Pid::from_raw(terminal.program.child.id().unwrap().cast_signed()).unwrap();
        terminal.program.signal(Signal::TSTP);
        let stopped = tokio::task::spawn_blocking(move || waitid(WaitId::Pid(pid), WaitIdOptions::STOPPED));
        assert!(
            soon(stopped).await.unwrap().unwrap().unwrap().stopped(),
            "{has_message}"
        );
        assert!(terminal.is_as_before(), "{has_message}");
        terminal.program.signal(Signal::CONT);
        tcflow(&terminal.device, Action::OOn).unwrap();
        if has_message {
            terminal.shows("< news\r\n\r\x1b[K> half").await;
        }
        terminal.keys(" a line\r");
        assert_eq!(soon(ws.recv()).await.unwrap(), Some("half a line".into()));
    }
}

#[tokio::test]
async fn a_dumb_terminal_is_not_changed() {
    for term in ["dumb", ""] {
        let (url, mut connections) = serve_test().await;
        let mut terminal = Terminal::start(term, &["connect", &url]);
        let mut ws = soon(connections.recv()).await.unwrap();
        terminal.keys("hello\n");
        assert_eq!(soon(ws.recv()).await.unwrap(), Some("hello".into()));
        soon(ws.send("reply")).await.unwrap();
        let shown = terminal.shows("reply\r\n").await;
        assert!(!shown.contains('\x1b') && !shown.contains("< "), "{shown:?}");
        assert!(terminal.is_as_before());
    }
}

#[tokio::test]
async fn an_error_message_is_printed_below_the_typed_line() {
    let (mut terminal, mut ws) = Terminal::connect(&[]).await;
    terminal.keys("half");
    terminal.shows("\r\x1b[K> half").await;
    soon(ws.close(CloseCode(4000), "enough")).await.unwrap();
    let shown = terminal
        .shows("sockeye: closed by the server: 4000 \"enough\"\r\n")
        .await;
    assert!(shown.contains("\r\x1b[Ksockeye: closed"), "{shown:?}");
    assert_eq!(terminal.program.exit_code().await, Some(64));
}
