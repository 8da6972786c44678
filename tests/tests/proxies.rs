//! Real proxies between the Sockeye client and `sockeye echo`: HTTP CONNECT and SOCKS5, with and without
//! authentication.

use std::{fs, os::unix::fs::PermissionsExt as _, time::Duration};

use sockeye::{Client, ClientTls, Error, ErrorKind};
use sockeye_tests::{Certificate, Process, Sockeye, free_address, patience, tool};
use tempfile::TempDir;
use tokio::{
    net::TcpStream,
    process::Command,
    time::{interval, timeout},
};

const USER: &str = "user";
const PASSWORD: &str = "s3cret";

/// The password of [`USER`], as `htpasswd -m` writes it.
const HASH: &str = "$apr1$sockeye0$FPVqG/bXwliUb8jkHiC0S.";

/// What a proxy is and does.
struct Expected {
    scheme: &'static str,
    /// The proxy requires user name and password.
    has_authentication: bool,
    /// Part of the error for a port that the proxy does not allow. `None` if it allows every port.
    refusal: Option<&'static str>,
}

#[tokio::test]
#[ignore = "needs squid: run `cargo xtask test`"]
async fn squid_tunnels_ws_and_wss() {
    let (servers, folder, address) = (Servers::start().await, folder(), free_address());
    // squid gives up root.
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).expect("the folder is ours");
    let password_file = write(&folder, "passwd", &format!("{USER}:{HASH}\n"));
    let config = write(
        &folder,
        "squid.conf",
        &format!(
            "http_port {address}\n\
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
    let expected = Expected {
        scheme: "http",
        has_authentication: true,
        refusal: Some("with status 403 Forbidden"),
    };
    servers.check(&expected, &address, &process).await;
}

#[tokio::test]
#[ignore = "needs tinyproxy: run `cargo xtask test`"]
async fn tinyproxy_tunnels_ws_and_wss() {
    let (servers, folder, address) = (Servers::start().await, folder(), free_address());
    let port = |address: &str| address.rsplit(':').next().unwrap_or_default().to_owned();
    let config = write(
        &folder,
        "tinyproxy.conf",
        &format!(
            "Port {}\nListen 127.0.0.1\nBasicAuth {USER} {PASSWORD}\nConnectPort {}\nConnectPort {}\nLogLevel Info\n",
            port(&address),
            port(servers.ws.address()),
            port(servers.wss.address()),
        ),
    );
    let mut command = Command::new(tool("tinyproxy"));
    command.args(["-d", "-c", &config]);
    let process = started(command, &address).await;
    let expected = Expected {
        scheme: "http",
        has_authentication: true,
        refusal: Some("with status 403 Forbidden"),
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
        scheme: "socks5h",
        has_authentication: false,
        refusal: Some("with SOCKS reply 2: not allowed by its rules"),
    };
    servers.check(&expected, &address, &process).await;
    expected.scheme = "socks5";
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
        scheme: "socks5h",
        has_authentication: true,
        refusal: None,
    };
    servers.check(&expected, &address, &process).await;
}

/// Echo servers behind the proxies.
struct Servers {
    ws: Sockeye,
    wss: Sockeye,
    certificate: Certificate,
}

impl Servers {
    async fn start() -> Self {
        let certificate = Certificate::generate();
        Self {
            ws: Sockeye::echo(&[]).await,
            wss: Sockeye::echo_tls(&certificate).await,
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
        for url in [&self.ws.url, &self.wss.url] {
            if let Err(error) = self.echo(&proxy, url).await {
                process.fail(&format!("did not connect {url}: {error}"));
            }
        }
        self.echo_by_program(&proxy).await;
        if let Some(refusal) = expected.refusal {
            let error = self.echo(&proxy, "ws://127.0.0.1:1/").await.unwrap_err();
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
                let error = self.echo(&wrong, &self.ws.url).await.unwrap_err();
                let is_authentication = error.proxy_error().is_some_and(|proxy| proxy.is_authentication());
                assert!(is_authentication && !error.to_string().contains("wr0ng"), "{error}");
            }
        }
    }

    async fn echo(&self, proxy: &str, url: &str) -> Result<(), Error> {
        let tls = ClientTls::new()
            .without_roots()
            .trust(self.certificate.der.clone().into());
        let client = Client::builder().tls(tls).proxy(proxy).build()?;
        let echoing = async {
            let mut ws = client.connect(url).await?;
            // More than the proxy's buffers hold.
            let large = "x".repeat(300_000);
            for text in ["hello", &large] {
                ws.send(text.to_owned()).await?;
                let echoed = ws.recv().await?;
                assert_eq!(echoed.as_ref().and_then(|message| message.as_text()), Some(text));
            }
            ws.close(sockeye::CloseCode::NORMAL, "").await
        };
        timeout(patience(), echoing).await.expect("an answer in time")
    }

    async fn echo_by_program(&self, proxy: &str) {
        let mut process = Process::start(Sockeye::command(&["connect", "-x", proxy, "-n", "1", &self.ws.url]));
        process.write_line("from the terminal").await;
        assert_eq!(process.line().await.as_deref(), Some("from the terminal"));
        process.exit_ok().await;
    }
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
