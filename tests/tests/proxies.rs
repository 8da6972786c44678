//! Real proxies between the Sockeye client and `sockeye echo`: HTTP CONNECT and SOCKS5, with and without
//! authentication, TLS to the proxy, and names that the proxy resolves.

use std::{fs, io, os::unix::fs::PermissionsExt as _, time::Duration};

use sockeye::{
    Client, ClientBuilder, ClientTls, CloseCode, DeflateConfig, Error, ErrorKind, Event, MessageKind, WebSocket,
};
use sockeye_tests::interop::{self, Role};
use sockeye_tests::{Certificate, Process, Sockeye, client, free_address, patience, tool};
use tempfile::TempDir;
use tokio::{
    io::AsyncWriteExt as _,
    net::TcpStream,
    process::Command,
    time::{interval, timeout},
};

const USER: &str = "user";
const PASSWORD: &str = "s3cret";

/// The password of [`USER`], as `htpasswd -m` writes it.
const HASH: &str = "$apr1$sockeye0$FPVqG/bXwliUb8jkHiC0S.";

/// A name that only squid knows, from its own file of hosts.
const SQUID_ONLY_NAME: &str = "echo.behind-the-proxy.test";

/// What a proxy is and does.
struct Expected {
    /// The file for the table in docs/interop.md.
    record: &'static str,
    scheme: &'static str,
    /// The proxy requires user name and password.
    has_authentication: bool,
    /// Part of the error for a port that the proxy does not allow. `None` if it allows every port.
    refusal: Option<&'static str>,
    /// A name of 127.0.0.1 that the proxy can resolve. `None` if the client resolves names.
    proxy_resolved_name: Option<&'static str>,
}

#[tokio::test]
#[ignore = "needs squid: run `cargo xtask test`"]
async fn squid_tunnels_ws_and_wss() {
    let (servers, folder) = (Servers::start().await, folder());
    let (address, tls_address) = (free_address(), free_address());
    // squid gives up root.
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).expect("the folder is ours");
    let password_file = write(&folder, "passwd", &format!("{USER}:{HASH}\n"));
    let hosts_file = write(&folder, "hosts", &format!("127.0.0.1 {SQUID_ONLY_NAME}\n"));
    let certificate = write_copy(&folder, "cert.pem", &servers.certificate.cert_path());
    let key = write_copy(&folder, "key.pem", &servers.certificate.key_path());
    let config = write(
        &folder,
        "squid.conf",
        &format!(
            "http_port {address}\n\
             https_port {tls_address} tls-cert={certificate} tls-key={key}\n\
             hosts_file {hosts_file}\n\
             pid_filename none\n\
             access_log none\n\
             cache_log /dev/null\n\
             cache deny all\n\
             pinger_enable off\n\
             shutdown_lifetime 0 seconds\n\
             auth_param basic program /usr/lib/squid/basic_ncsa_auth {password_file}\n\
             auth_param basic children 1\n\
             acl users proxy_auth REQUIRED\n\
             acl closed port 1\n\
             http_access deny closed\n\
             http_access allow users\n\
             http_access deny all\n"
        ),
    );
    let mut command = Command::new(tool("squid"));
    command.args(["-N", "-d", "1", "-f", &config]);
    let process = started(command, &address).await;
    let mut expected = Expected {
        record: "squid",
        scheme: "http",
        has_authentication: true,
        refusal: Some("with status 403 Forbidden"),
        proxy_resolved_name: Some(SQUID_ONLY_NAME),
    };
    servers.check(&expected, &address, &process).await;
    // TLS to the proxy, and for wss:// TLS to the server inside it.
    expected.scheme = "https";
    servers.check(&expected, &tls_address, &process).await;
    // A client that does not trust the certificate of the proxy sends it no password.
    let other = ClientTls::new()
        .without_roots()
        .trust(Certificate::generate().der.clone().into());
    let client = Client::builder().tls(other);
    let client = client.proxy(format!("https://{USER}:{PASSWORD}@{tls_address}"));
    let error = connect_error(&client.build().expect("the settings are valid"), &servers.ws.url).await;
    assert!(
        error.kind() == ErrorKind::Proxy && error.to_string().contains("certificate"),
        "{error}"
    );
}

#[tokio::test]
#[ignore = "needs tinyproxy: run `cargo xtask test`"]
async fn tinyproxy_tunnels_ws_and_wss() {
    let (servers, folder, address) = (Servers::start().await, folder(), free_address());
    let mut config = format!(
        "Port {}\nListen 127.0.0.1\nBasicAuth {USER} {PASSWORD}\nLogLevel Info\n",
        port_of(&address)
    );
    for server in [&servers.ws, &servers.wss, &servers.compressing] {
        config.push_str(&format!("ConnectPort {}\n", port_of(server.address())));
    }
    let config = write(&folder, "tinyproxy.conf", &config);
    let mut command = Command::new(tool("tinyproxy"));
    command.args(["-d", "-c", &config]);
    let process = started(command, &address).await;
    let expected = Expected {
        record: "tinyproxy",
        scheme: "http",
        has_authentication: true,
        refusal: Some("with status 403 Forbidden"),
        proxy_resolved_name: Some("localhost"),
    };
    servers.check(&expected, &address, &process).await;
}

#[tokio::test]
#[ignore = "needs dante: run `cargo xtask test`"]
async fn dante_connects_ws_and_wss() {
    let (servers, folder, address) = (Servers::start().await, folder(), free_address());
    let (host, port) = address.split_once(':').expect("an address has a port");
    // User names would be those of the system.
    let config = write(
        &folder,
        "danted.conf",
        &format!(
            "logoutput: stdout\n\
             internal: {host} port = {port}\n\
             external: 127.0.0.1\n\
             clientmethod: none\n\
             socksmethod: none\n\
             client pass {{ from: 127.0.0.1/32 to: 0.0.0.0/0 }}\n\
             socks block {{ from: 127.0.0.1/32 to: 0.0.0.0/0 port = 1 }}\n\
             socks pass {{ from: 127.0.0.1/32 to: 0.0.0.0/0 }}\n"
        ),
    );
    let mut command = Command::new(tool("danted"));
    command.args(["-f", &config]);
    let process = started(command, &address).await;
    let mut expected = Expected {
        record: "dante",
        scheme: "socks5h",
        has_authentication: false,
        refusal: Some("with SOCKS reply 2: not allowed by its rules"),
        proxy_resolved_name: Some("localhost"),
    };
    servers.check(&expected, &address, &process).await;
    (expected.scheme, expected.proxy_resolved_name) = ("socks5", None);
    servers.check(&expected, &address, &process).await;
}

#[tokio::test]
#[ignore = "needs microsocks: run `cargo xtask test`"]
async fn microsocks_connects_ws_and_wss_with_a_password() {
    let (servers, address) = (Servers::start().await, free_address());
    let (host, port) = address.split_once(':').expect("an address has a port");
    let mut command = Command::new(tool("microsocks"));
    command.args(["-i", host, "-p", port, "-u", USER, "-P", PASSWORD]);
    let process = started(command, &address).await;
    let expected = Expected {
        record: "microsocks",
        scheme: "socks5h",
        has_authentication: true,
        refusal: None,
        proxy_resolved_name: Some("localhost"),
    };
    servers.check(&expected, &address, &process).await;
}

/// Echo servers behind the proxies.
struct Servers {
    ws: Sockeye,
    wss: Sockeye,
    compressing: Sockeye,
    certificate: Certificate,
}

impl Servers {
    async fn start() -> Self {
        let certificate = Certificate::generate();
        Self {
            ws: Sockeye::echo(&[]).await,
            wss: Sockeye::echo_tls(&certificate).await,
            compressing: Sockeye::echo(&["--compression"]).await,
            certificate,
        }
    }

    /// Echoes through the proxy, from the library and from the program; then checks the refusals.
    async fn check(&self, expected: &Expected, address: &str, process: &Process) {
        let scheme = expected.scheme;
        let proxy = match expected.has_authentication {
            true => format!("{scheme}://{USER}:{PASSWORD}@{address}"),
            false => format!("{scheme}://{address}"),
        };
        let client = self.client(&proxy);
        for url in [&self.ws.url, &self.wss.url] {
            open(&client, url, process, async |mut ws| {
                client::exchanges(&mut ws).await?;
                ws.ping().await?;
                ws.close(CloseCode::from(3001), "done here").await?;
                let received = ws.close_info().and_then(|info| info.received().cloned());
                assert_eq!(received.map(|frame| frame.code), Some(CloseCode::from(3001)));
                Ok(())
            })
            .await;
            open(&client, url, process, fragments).await;
        }
        let compressing = self.builder(&proxy).compression(DeflateConfig::default());
        let compressing = compressing.build().expect("the settings are valid");
        open(&compressing, &self.compressing.url, process, async |mut ws| {
            client::exchanges_compressed(&mut ws).await
        })
        .await;
        let features = [
            "text",
            "binary",
            "1 MiB",
            "fragments",
            "compression",
            "ping",
            "close",
            "TLS",
        ];
        interop::record_of(expected.record, Role::Proxy, &features);

        if let Some(name) = expected.proxy_resolved_name {
            self.check_name(&proxy, name, process).await;
        }
        if scheme != "https" {
            // The program trusts only the certificates of the platform.
            self.echo_by_program(&proxy).await;
        }
        if let Some(refusal) = expected.refusal {
            let error = connect_error(&client, "ws://127.0.0.1:1/").await;
            let text = error.to_string();
            assert_eq!(error.kind(), ErrorKind::Proxy, "{text}");
            assert!(text.contains(&format!("proxy {scheme}://{address} refused ")), "{text}");
            assert!(text.contains("127.0.0.1:1 ") && text.ends_with(refusal), "{text}");
        }
        if expected.has_authentication {
            for wrong in [
                format!("{scheme}://{address}"),
                format!("{scheme}://{USER}:wr0ng@{address}"),
            ] {
                let error = connect_error(&self.client(&wrong), &self.ws.url).await;
                let is_authentication = error.proxy_error().is_some_and(|proxy| proxy.is_authentication());
                assert!(is_authentication && !error.to_string().contains("wr0ng"), "{error}");
            }
        }
    }

    /// The proxy resolves the name of the server. The client cannot: its resolver knows no name.
    async fn check_name(&self, proxy: &str, name: &str, process: &Process) {
        let resolve = |_, _| async { Err(io::Error::other("the client resolves no name")) };
        let client = self.builder(proxy).resolver(resolve);
        let client = client.build().expect("the settings are valid");
        let url = format!("ws://{name}:{}/", port_of(self.ws.address()));
        open(&client, &url, process, async |mut ws| {
            ws.send("resolved by the proxy").await?;
            let echoed = ws.recv().await?;
            assert_eq!(
                echoed.as_ref().and_then(|message| message.as_text()),
                Some("resolved by the proxy")
            );
            Ok(())
        })
        .await;
        // Without the proxy, the client would have to resolve it.
        let error = timeout(patience(), client.request(&url).no_proxy().connect()).await;
        let error = error.expect("an answer in time").expect_err("no name is resolved");
        assert_eq!(error.kind(), ErrorKind::Resolve, "{error}");
    }

    fn client(&self, proxy: &str) -> Client {
        self.builder(proxy).build().expect("the settings are valid")
    }

    fn builder(&self, proxy: &str) -> ClientBuilder {
        let tls = ClientTls::new()
            .without_roots()
            .trust(self.certificate.der.clone().into());
        Client::builder()
            .tls(tls)
            .subprotocols(["superchat", "chat"])
            .proxy(proxy)
    }

    async fn echo_by_program(&self, proxy: &str) {
        let mut process = Process::start(Sockeye::command(&["connect", "-x", proxy, "-n", "1", &self.ws.url]));
        process.write_line("from the terminal").await;
        assert_eq!(process.line().await.as_deref(), Some("from the terminal"));
        process.exit_ok().await;
    }
}

/// Sends a text in fragments of one byte, also in the middle of a character, with a ping in between.
async fn fragments(ws: WebSocket) -> Result<(), Error> {
    let text = "über den Fluß";
    let (sender, mut receiver) = ws.split();
    let mut message = sender.send_stream(MessageKind::Text);
    for (at, byte) in text.bytes().enumerate() {
        message.write_all(&[byte]).await.expect("the connection is open");
        message.flush().await.expect("the connection is open");
        if at == 1 {
            sender.send_ping(b"between").await?;
        }
    }
    message.finish().await?;
    match receiver.recv_event().await? {
        Some(Event::Pong(payload)) => assert_eq!(&payload[..], b"between"),
        other => panic!("expected the pong, got {other:?}"),
    }
    let echoed = receiver.recv().await?;
    assert_eq!(echoed.as_ref().and_then(|message| message.as_text()), Some(text));
    Ok(())
}

/// Opens a WebSocket, and runs `exchange` on it.
async fn open(
    client: &Client,
    url: &str,
    process: &Process,
    exchange: impl AsyncFnOnce(WebSocket) -> Result<(), Error>,
) {
    let exchanging = async { exchange(client.connect(url).await?).await };
    match timeout(patience(), exchanging).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => process.fail(&format!("{url}: {error}")),
        Err(_) => process.fail(&format!("{url}: no answer in time")),
    }
}

async fn connect_error(client: &Client, url: &str) -> Error {
    let opened = timeout(patience(), client.connect(url)).await;
    opened
        .expect("an answer in time")
        .expect_err("the proxy gives no connection")
}

/// Starts a proxy, and waits until it accepts connections. Its log cannot tell: squid reports that it accepts before it
/// listens, and microsocks reports nothing.
async fn started(command: Command, address: &str) -> Process {
    let process = Process::start(command);
    let listening = async {
        let mut attempts = interval(Duration::from_millis(20));
        while TcpStream::connect(address).await.is_err() {
            attempts.tick().await;
        }
    };
    if timeout(patience(), listening).await.is_err() {
        process.fail("does not listen");
    }
    process
}

fn folder() -> TempDir {
    tempfile::tempdir().expect("a temporary folder can be made")
}

/// Writes a file, and returns its path.
fn write(folder: &TempDir, name: &str, content: &str) -> String {
    let path = folder.path().join(name);
    fs::write(&path, content).expect("the folder is writable");
    path.to_str().expect("the path is text").to_owned()
}

/// Copies a file into the folder, readable for everyone, and returns its path.
fn write_copy(folder: &TempDir, name: &str, path: &std::path::Path) -> String {
    write(folder, name, &fs::read_to_string(path).expect("the file is readable"))
}

fn port_of(address: &str) -> &str {
    address.rsplit(':').next().unwrap_or_default()
}
