//! The console over real sockets: signing in, what keeps other sites out, its calls, and the live view.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::Config;
use crate::auth::Secret;
use crate::serve::tests::{Fixture, TIMEOUT};

const PASSWORD: &str = "correct horse";

fn config() -> Config {
    let mut config = Config::default();
    config.console.password = Some(Secret::new(PASSWORD));
    config
}

/// Sends a request with headers and a body, and returns the whole response.
async fn request(server: &Fixture, line: &str, headers: &str, body: &str) -> String {
    let request = format!(
        "{line} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\nContent-Length: {}\r\n{headers}\r\n{body}",
        server.address,
        body.len()
    );
    server.http(&request).await
}

fn status(response: &str) -> &str {
    response.get(9..12).unwrap_or_default()
}

async fn sign_in(server: &Fixture, headers: &str, password: &str) -> String {
    let body = serde_json::json!({ "password": password }).to_string();
    request(server, "POST /console/login", headers, &body).await
}

/// Signs in, and returns the headers of further requests of the page.
async fn page(server: &Fixture) -> String {
    let response = sign_in(server, "", PASSWORD).await;
    let (_, rest) = response.split_once("set-cookie: ").expect("a cookie");
    let cookie = rest.split(';').next().unwrap();
    format!("Cookie: {cookie}\r\nSockeye-Console: 1\r\n")
}

#[tokio::test]
async fn without_a_password_there_is_no_console() {
    let server = Fixture::start(Config::default()).await;
    for path in ["/console", "/console/console.js", "/console/stats"] {
        assert_eq!(status(&server.get(path).await), "404", "{path}");
    }
    assert_eq!(status(&sign_in(&server, "", "").await), "404");
}

#[tokio::test]
async fn the_page_and_its_files_are_served_without_a_session_and_without_demonstrations() {
    let mut config = config();
    config.demos = false;
    let server = Fixture::start(config).await;
    for (path, kind) in [
        ("/console", "text/html"),
        ("/console/console.css", "text/css"),
        ("/console/console.js", "text/javascript"),
        ("/console/charts.js", "text/javascript"),
        ("/console/channel.js", "text/javascript"),
        ("/console/server.js", "text/javascript"),
        ("/console/base.css", "text/css"),
        ("/console/favicon.svg", "image/svg+xml"),
        ("/console/vendor/uplot-1.6.32.js", "text/javascript"),
        ("/console/vendor/uplot-1.6.32.css", "text/css"),
        ("/console/vendor/uplot.LICENSE", "text/plain"),
    ] {
        let response = server.get(path).await;
        assert_eq!(status(&response), "200", "{path}");
        assert!(
            response.contains(&format!("content-type: {kind}")),
            "{path}: {response}"
        );
        assert!(response.contains("content-security-policy: default-src 'none'; script-src 'self'"));
    }
    assert_eq!(status(&server.get("/consolex").await), "404");
    assert_eq!(status(&request(&server, "POST /console", "", "").await), "405");
    let foreign = "GET /console HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n";
    assert_eq!(status(&server.http(foreign).await), "421");
}

#[tokio::test]
async fn only_a_session_opens_the_console() {
    let server = Fixture::start(config()).await;
    let page = page(&server).await;
    let wrong = page.replace("sockeye_console=", "sockeye_console=0");
    let cookie_only = page.replace("Sockeye-Console: 1\r\n", "");
    for path in [
        "/console/stats",
        "/console/channels",
        "/console/history?channel=room",
        "/console/tap?channel=room",
    ] {
        let line = format!("GET {path}");
        for headers in ["", &wrong, &cookie_only, "Authorization: Bearer nothing\r\n"] {
            let response = request(&server, &line, headers, "").await;
            assert_eq!(status(&response), "401", "{path} {headers}: {response}");
        }
    }
    for method in ["publish", "info", "disconnect"] {
        let line = format!("POST /console/api/{method}");
        assert_eq!(status(&request(&server, &line, &cookie_only, "{}").await), "401");
    }
    let stats = request(&server, "GET /console/stats", &page, "").await;
    assert_eq!(status(&stats), "200");
    assert!(
        stats.contains("\"name\":\"sockeye\"") && stats.contains("\"fields\":[\"time\","),
        "{stats}"
    );
    assert_eq!(status(&request(&server, "POST /console/stats", &page, "").await), "405");
    assert_eq!(
        status(&request(&server, "GET /console/nothing", &page, "").await),
        "404"
    );
}

#[tokio::test]
async fn the_cookie_is_kept_from_scripts_and_other_sites() {
    let server = Fixture::start(config()).await;
    let response = sign_in(&server, "", PASSWORD).await;
    let (_, rest) = response.split_once("set-cookie: ").unwrap();
    let cookie = rest.lines().next().unwrap();
    for part in ["; Path=/console", "; HttpOnly", "; SameSite=Strict", "; Max-Age=43200"] {
        assert!(cookie.contains(part), "{part}: {cookie}");
    }
    assert!(
        !cookie.contains("Secure") && !response.contains("\"token\""),
        "{response}"
    );
    let behind_tls = sign_in(&server, "X-Forwarded-Proto: https\r\n", PASSWORD).await;
    assert!(behind_tls.contains("; Secure\r\n"), "{behind_tls}");
}

#[tokio::test]
async fn a_request_of_another_origin_is_refused() {
    let server = Fixture::start(config()).await;
    let page = page(&server).await;
    let own = format!("Origin: http://{}\r\n", server.address);
    for (headers, expect) in [
        ("Origin: http://evil.example\r\n", "403"),
        ("Origin: null\r\n", "403"),
        ("Sec-Fetch-Site: cross-site\r\n", "403"),
        ("Sec-Fetch-Site: same-site\r\n", "403"),
        ("Sec-Fetch-Site: same-origin\r\n", "200"),
        (&own, "200"),
    ] {
        let headers = format!("{page}{headers}");
        let line = "POST /console/api/publish";
        let response = request(&server, line, &headers, r#"{"channel":"room","data":1}"#).await;
        assert_eq!(status(&response), expect, "{headers}");
        let response = sign_in(&server, &headers, PASSWORD).await;
        assert_eq!(status(&response), expect, "{headers}");
    }
}

#[tokio::test]
async fn a_program_signs_in_with_a_bearer_token_and_out() {
    let server = Fixture::start(config()).await;
    let body = serde_json::json!({ "password": PASSWORD, "token": true }).to_string();
    let response = request(&server, "POST /console/login", "", &body).await;
    assert!(!response.contains("set-cookie"), "{response}");
    let (_, rest) = response.split_once("\"token\":\"").unwrap();
    let bearer = format!("Authorization: Bearer {}\r\n", rest.split('"').next().unwrap());
    let info = request(&server, "POST /console/api/info", &bearer, "{}").await;
    assert!(info.contains("\"nodes\""), "{info}");
    assert_eq!(
        status(&request(&server, "POST /console/logout", &bearer, "").await),
        "204"
    );
    assert_eq!(
        status(&request(&server, "POST /console/api/info", &bearer, "{}").await),
        "401"
    );
}

#[tokio::test]
async fn attempts_to_sign_in_are_limited() {
    let server = Fixture::start(config()).await;
    assert_eq!(status(&request(&server, "POST /console/login", "", "{").await), "400");
    let large = serde_json::json!({ "password": "x".repeat(10_000) }).to_string();
    assert_eq!(
        status(&request(&server, "POST /console/login", "", &large).await),
        "400"
    );
    assert_eq!(status(&request(&server, "GET /console/login", "", "").await), "405");
    for _ in 0..5 {
        assert_eq!(status(&sign_in(&server, "", "correct horsf").await), "401");
    }
    // Also with the right password, which is not compared.
    let limited = sign_in(&server, "", PASSWORD).await;
    assert_eq!(status(&limited), "429");
    let (_, after) = limited.split_once("retry-after: ").unwrap();
    let after: u64 = after.lines().next().unwrap().parse().unwrap();
    assert!((1..=13).contains(&after), "{after}");
    let metrics = server.get("/metrics").await;
    assert!(
        metrics.contains("sockeye_console_logins_total{result=\"wrong\"} 5\n"),
        "{metrics}"
    );
    assert!(
        metrics.contains("sockeye_console_logins_total{result=\"limited\"} 1\n"),
        "{metrics}"
    );
}

#[tokio::test]
async fn channels_are_listed_with_subscribers_and_positions() {
    let server = Fixture::start(config()).await;
    let page = page(&server).await;
    let _clients = (server.join().await, server.join().await);
    let publish = r#"{"channel":"room","data":{"text":"hi"}}"#;
    let published = request(&server, "POST /console/api/publish", &page, publish).await;
    assert!(published.contains("\"offset\":1"), "{published}");
    let channels = request(&server, "GET /console/channels?pattern=ro*", &page, "").await;
    assert!(
        channels.contains(r#"{"total":1,"channels":[{"name":"room","clients":2,"position":{"offset":1,"#),
        "{channels}"
    );
    let none = request(&server, "GET /console/channels?pattern=x*", &page, "").await;
    assert!(none.contains(r#"{"total":0,"channels":[]}"#), "{none}");
    let history = request(&server, "GET /console/history?channel=room", &page, "").await;
    assert!(
        history.contains(r#""data":{"text":"hi"},"offset":1,"time":"#),
        "{history}"
    );
    let before = request(&server, "GET /console/history?channel=room&before=1", &page, "").await;
    assert!(before.contains(r#"{"publications":[],"epoch":""#), "{before}");
    for (query, expect) in [
        ("channel=room&before=1&epoch=old", "409"),
        ("channel=no:x", "404"),
        ("channel=", "400"),
    ] {
        let line = format!("GET /console/history?{query}");
        assert_eq!(status(&request(&server, &line, &page, "").await), expect, "{query}");
    }
    let malformed = request(&server, "POST /console/api/publish", &page, "[]").await;
    assert_eq!(status(&malformed), "400");
    assert_eq!(
        status(&request(&server, "GET /console/api/publish", &page, "").await),
        "405"
    );
}

/// A live view over its own connection.
struct Live {
    stream: TcpStream,
    heard: String,
}

impl Live {
    async fn open(server: &Fixture, page: &str, channel: &str) -> Self {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        let request = format!(
            "GET /console/tap?channel={channel} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n{page}\r\n",
            server.address
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let heard = String::new();
        Self { stream, heard }
    }

    /// Reads until the text arrives, or until the end if it does not.
    async fn hear(&mut self, text: &str) -> bool {
        let mut buf = [0; 4096];
        while !self.heard.contains(text) {
            let read = timeout(TIMEOUT, self.stream.read(&mut buf)).await;
            match read.unwrap_or_else(|_| panic!("no {text} in {}", self.heard)) {
                Ok(0) | Err(_) => return false,
                Ok(len) => self.heard.push_str(&String::from_utf8_lossy(&buf[..len])),
            }
        }
        true
    }
}

#[tokio::test]
async fn a_tap_shows_publications_joins_and_leaves_until_the_session_ends() {
    let server = Fixture::start(config()).await;
    let page = page(&server).await;
    let mut live = Live::open(&server, &page, "room").await;
    assert!(live.hear("application/x-ndjson").await && live.hear("{}\n").await);
    let client = server.join().await;
    let publish = r#"{"channel":"room","data":{"text":"hi"}}"#;
    request(&server, "POST /console/api/publish", &page, publish).await;
    assert!(
        live.hear(r#""pub":{"data":{"text":"hi"},"offset":1"#).await,
        "{}",
        live.heard
    );
    // Others do not see the tap.
    let presence = r#"{"channel":"room"}"#;
    let presence = request(&server, "POST /console/api/presence_stats", &page, presence).await;
    assert!(presence.contains("\"num_clients\":1"), "{presence}");
    drop(client);
    request(&server, "POST /console/logout", &page, "").await;
    assert!(!live.hear("never").await);

    for (channel, expect) in [("nothing:x", "404"), ("", "400")] {
        let page = self::page(&server).await;
        let line = format!("GET /console/tap?channel={channel}");
        assert_eq!(status(&request(&server, &line, &page, "").await), expect);
    }
}

#[tokio::test]
async fn the_number_of_taps_is_limited_and_a_shutdown_ends_them() {
    let server = Fixture::start(config()).await;
    let page = page(&server).await;
    let mut taps = Vec::new();
    for _ in 0..super::TAPS_MAX {
        let mut live = Live::open(&server, &page, "room").await;
        assert!(live.hear("{}\n").await);
        taps.push(live);
    }
    let refused = request(&server, "GET /console/tap?channel=room", &page, "").await;
    assert_eq!(status(&refused), "503");
    server.shutdown.send(()).unwrap();
    for live in &mut taps {
        assert!(!live.hear("never").await);
    }
    timeout(Duration::from_secs(20), server.serving)
        .await
        .unwrap()
        .unwrap()
        .unwrap();
}

#[tokio::test]
async fn another_password_ends_sessions() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = crate::Server::builder().config(config()).build().unwrap();
    let handle = server.handle();
    let (shutdown, _stopped) = tokio::sync::oneshot::channel();
    let serving = tokio::spawn(server.serve(listener));
    let server = Fixture {
        address,
        shutdown,
        serving,
    };
    let page = page(&server).await;
    assert_eq!(status(&request(&server, "GET /console/stats", &page, "").await), "200");
    let mut config = config();
    config.console.password = Some(Secret::new("another"));
    handle.reload(config.clone()).unwrap();
    assert_eq!(status(&request(&server, "GET /console/stats", &page, "").await), "401");
    assert_eq!(status(&sign_in(&server, "", PASSWORD).await), "401");
    config.console.password = None;
    handle.reload(config).unwrap();
    assert_eq!(status(&server.get("/console").await), "404");
}

#[tokio::test]
async fn the_figures_say_why_publications_fail() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = config();
    config.journal = Some(crate::JournalConfig::new(folder.path()));
    let node = crate::node::Node::open(config).unwrap();
    let console = super::Console::new(node.clone());
    let stats = async |console: &super::Console| {
        let body = http_body_util::BodyExt::collect(console.stats("").into_body());
        String::from_utf8(body.await.unwrap().to_bytes().to_vec()).unwrap()
    };
    let healthy = stats(&console).await;
    assert!(healthy.contains(r#""problem":null"#), "{healthy}");
    node.engine().close().await.unwrap();
    let closed = stats(&console).await;
    assert!(closed.contains(r#""problem":"the log is closed""#), "{closed}");
}
