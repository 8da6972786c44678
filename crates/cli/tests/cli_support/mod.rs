//! Helpers that run the program as a black box, and peers for it in this process.

#![allow(dead_code, reason = "each test file uses its part")]

use std::future::Future;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Pid, Signal};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use sockeye::{Error, Server, WebSocket};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::sync::mpsc;
use tokio::time::timeout;

/// The timeout of every wait: 30 s, multiplied by `SOCKEYE_TEST_PATIENCE` for slow machines.
pub(crate) fn patience() -> Duration {
    let scale = std::env::var("SOCKEYE_TEST_PATIENCE").ok();
    let scale = scale.and_then(|text| text.parse().ok()).unwrap_or(1.0);
    Duration::from_secs(30).mul_f64(scale)
}

/// Awaits a future, and fails the test after [`patience`].
#[track_caller]
pub(crate) fn soon<F: Future>(future: F) -> impl Future<Output = F::Output> {
    let place = std::panic::Location::caller();
    async move {
        match timeout(patience(), future).await {
            Ok(output) => output,
            Err(_) => panic!("took too long: {place}"),
        }
    }
}

/// A command for the program with these arguments and piped streams.
pub(crate) fn sockeye(arguments: &[&str]) -> Command {
    command(env!("CARGO_BIN_EXE_sockeye"), arguments)
}

/// A command for the program in a session whose controlling terminal is standard input, so that keys such as Ctrl-C
/// send signals.
pub(crate) fn sockeye_with_terminal(arguments: &[&str]) -> Command {
    let prefix = ["--ctty", env!("CARGO_BIN_EXE_sockeye")];
    command("setsid", &[&prefix, arguments].concat())
}

fn command(name: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(name);
    for name in [
        "http_proxy",
        "https_proxy",
        "ws_proxy",
        "wss_proxy",
        "all_proxy",
        "no_proxy",
    ] {
        command.env_remove(name).env_remove(name.to_uppercase());
    }
    command
        .args(arguments)
        .env_remove("RUST_LOG")
        .env_remove("SOCKEYE_LOG")
        .env_remove("TERM")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    command
}

/// The output and exit status of a program.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: String,
}

/// Runs the program with this standard input, and waits until it exits.
pub(crate) async fn run(arguments: &[&str], input: &[u8]) -> Outcome {
    let mut child = sockeye(arguments).spawn().expect("the program starts");
    let mut stdin = child.stdin.take().expect("piped");
    // Writing fails if the program exits before it has read everything.
    let feeding = async move { drop(stdin.write_all(input).await) };
    let (output, ()) = soon(async { tokio::join!(child.wait_with_output(), feeding) }).await;
    let output = output.expect("the program can be waited for");
    Outcome {
        code: output.status.code(),
        stdout: output.stdout,
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// A running program.
pub(crate) struct Program {
    pub(crate) child: Child,
    pub(crate) stdin: Option<ChildStdin>,
    lines: Option<Lines<BufReader<ChildStdout>>>,
}

impl Program {
    pub(crate) fn start(arguments: &[&str]) -> Self {
        Self::spawn(&mut sockeye(arguments))
    }

    pub(crate) fn spawn(command: &mut Command) -> Self {
        let mut child = command.spawn().expect("the program starts");
        let stdout = child.stdout.take();
        Self {
            stdin: child.stdin.take(),
            lines: stdout.map(|stdout| BufReader::new(stdout).lines()),
            child,
        }
    }

    /// Starts `sockeye echo` on a free port, and returns its URL.
    pub(crate) async fn echo(options: &[&str]) -> (Self, String) {
        let mut program = Self::start(&[&["echo", "--listen", "127.0.0.1:0"], options].concat());
        let url = program.url().await;
        (program, url)
    }

    /// Waits for the URL that a server prints when it is ready.
    #[track_caller]
    pub(crate) fn url(&mut self) -> impl Future<Output = String> {
        soon(async {
            let line = self.line().await;
            let url = line.strip_prefix("listening on ").expect("the line of a server");
            url.to_owned()
        })
    }

    pub(crate) async fn say(&mut self, text: &str) {
        let stdin = self.stdin.as_mut().expect("still open");
        soon(stdin.write_all(text.as_bytes())).await.expect("it reads");
    }

    /// The next line of its standard output.
    pub(crate) async fn line(&mut self) -> String {
        let lines = self.lines.as_mut().expect("piped");
        let line = soon(lines.next_line()).await.expect("UTF-8");
        match line {
            Some(line) => line,
            None => panic!("it ended: {}", self.stderr().await),
        }
    }

    /// Stops reading standard output. The pipe is closed when the returned value is dropped.
    pub(crate) fn stop_reading(&mut self) -> Box<dyn Send> {
        Box::new(self.lines.take())
    }

    /// Reads standard error to its end.
    pub(crate) async fn stderr(&mut self) -> String {
        let mut text = String::new();
        if let Some(mut stderr) = self.child.stderr.take() {
            soon(stderr.read_to_string(&mut text)).await.expect("UTF-8");
        }
        text
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let pid = self.child.id().and_then(|id| Pid::from_raw(id.cast_signed()));
        rustix::process::kill_process(pid.expect("it runs"), signal).expect("it can be signalled");
    }

    pub(crate) async fn exit_code(&mut self) -> Option<i32> {
        let status: ExitStatus = soon(self.child.wait()).await.expect("it can be waited for");
        status.code()
    }
}

/// Starts a server in this process that calls `serve` for every connection, and returns its URL.
pub(crate) async fn serve<F>(server: Server, serve: impl Fn(WebSocket) -> F + Send + Sync + 'static) -> String
where
    F: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("bound");
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            if let Ok(pending) = server.accept(tcp).await
                && let Ok(ws) = pending.accept().await
            {
                tokio::spawn(serve(ws));
            }
        }
    });
    format!("ws://{address}/")
}

/// Starts a server that sends each connection to the test.
pub(crate) async fn serve_test() -> (String, mpsc::UnboundedReceiver<WebSocket>) {
    let (sender, receiver) = mpsc::unbounded_channel();
    let url = serve(Server::default(), move |ws| {
        let _ = sender.send(ws);
        std::future::ready(())
    });
    (url.await, receiver)
}

pub(crate) async fn echo(mut ws: WebSocket) -> Result<(), Error> {
    while let Some(message) = ws.recv().await? {
        ws.feed(message).await?;
    }
    Ok(())
}

/// Starts a server that answers the first request with these bytes and closes. Returns `host:port`.
pub(crate) async fn answer(bytes: &'static [u8]) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("bound");
    tokio::spawn(async move {
        let (mut tcp, _) = listener.accept().await.expect("a client");
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            let read = tcp.read_buf(&mut request).await.expect("a request");
            assert_ne!(read, 0, "a whole request");
        }
        tcp.write_all(bytes).await.expect("a client that reads");
    });
    address.to_string()
}

/// Starts a server that performs one handshake and passes the TCP stream to `serve`. Returns `host:port`.
pub(crate) async fn serve_raw<F>(serve: impl FnOnce(TcpStream) -> F + Send + 'static) -> String
where
    F: Future<Output = ()> + Send,
{
    serve_raw_with("", serve).await
}

/// The same as [`serve_raw`], with additional header lines in the response.
pub(crate) async fn serve_raw_with<F>(
    lines: &'static str,
    serve: impl FnOnce(TcpStream) -> F + Send + 'static,
) -> String
where
    F: Future<Output = ()> + Send,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        let (mut tcp, _) = listener.accept().await.unwrap();
        let mut buffer = [0; 4096];
        let len = tcp.read(&mut buffer).await.unwrap();
        let (library, mut pipe) = tokio::io::duplex(buffer.len());
        pipe.write_all(&buffer[..len]).await.unwrap();
        let _ws = sockeye::accept(library).await.unwrap();
        let len = pipe.read(&mut buffer).await.unwrap();
        let head = buffer[..len].strip_suffix(b"\r\n").expect("a whole head");
        tcp.write_all(&[head, lines.as_bytes(), b"\r\n"].concat())
            .await
            .unwrap();
        serve(tcp).await;
    });
    address
}

/// Reads a short frame of a client, and returns its first byte and payload.
pub(crate) async fn read_frame(tcp: &mut TcpStream) -> (u8, Vec<u8>) {
    // Two header bytes, the second of which has the mask bit and the length, and the masking key.
    let mut header = [0; 6];
    tcp.read_exact(&mut header).await.unwrap();
    let mut payload = vec![0; usize::from(header[1] & 0x7f)];
    tcp.read_exact(&mut payload).await.unwrap();
    for (byte, key) in payload.iter_mut().zip(header[2..].iter().cycle()) {
        *byte ^= key;
    }
    (header[0], payload)
}

/// A certificate and its key in files.
pub(crate) struct Certificate {
    folder: TempDir,
    cert_pem: String,
    key_pem: String,
}

impl Certificate {
    pub(crate) fn new() -> Self {
        Self::with(&["localhost", "127.0.0.1"], |_| {})
    }

    /// Creates a certificate for these names. `change` modifies its parameters.
    pub(crate) fn with(names: &[&str], change: impl FnOnce(&mut rcgen::CertificateParams)) -> Self {
        let names: Vec<_> = names.iter().copied().map(str::to_owned).collect();
        let mut params = rcgen::CertificateParams::new(names).expect("valid names");
        change(&mut params);
        let key = rcgen::KeyPair::generate().expect("randomness");
        let certificate = Self {
            folder: tempfile::tempdir().expect("a place for files"),
            cert_pem: params.self_signed(&key).expect("a valid key").pem(),
            key_pem: key.serialize_pem(),
        };
        std::fs::write(certificate.cert(), &certificate.cert_pem).expect("room for files");
        std::fs::write(certificate.key(), &certificate.key_pem).expect("room for files");
        certificate
    }

    pub(crate) fn cert(&self) -> String {
        self.folder.path().join("cert.pem").to_string_lossy().into_owned()
    }

    pub(crate) fn key(&self) -> String {
        self.folder.path().join("key.pem").to_string_lossy().into_owned()
    }

    /// The configuration of a server in this process.
    pub(crate) fn server_config(&self) -> Arc<rustls::ServerConfig> {
        let chain = vec![CertificateDer::from_pem_slice(self.cert_pem.as_bytes()).expect("just made")];
        let key = PrivateKeyDer::from_pem_slice(self.key_pem.as_bytes()).expect("just made");
        let config = rustls::ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .expect("the provider has them")
            .with_no_client_auth()
            .with_single_cert(chain, key);
        Arc::new(config.expect("they belong together"))
    }

    /// The configuration of a client in this process that trusts the certificate.
    pub(crate) fn client_config(&self) -> Arc<rustls::ClientConfig> {
        let mut roots = rustls::RootCertStore::empty();
        let certificate = CertificateDer::from_pem_slice(self.cert_pem.as_bytes()).expect("just made");
        roots.add(certificate).expect("it can be trusted");
        let config = rustls::ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .expect("the provider has them")
            .with_root_certificates(roots);
        Arc::new(config.with_no_client_auth())
    }
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}
