//! What log lines contain: ids of requests and clients, and no secrets.

use jsonwebtoken::{EncodingKey, Header, encode};
use serde_json::json;

use super::tests::{Fixture, Log, TIMEOUT};
use super::*;
use crate::auth::Secret;

const KEY: &str = "key-of-the-http-api";
const WRONG_KEY: &str = "wrong-key-of-the-http-api";
const PASSWORD: &str = "password-of-the-console";
const WRONG_PASSWORD: &str = "wrong-password-of-the-console";
const HMAC: &str = "secret-that-signs-all-the-tokens";

fn config() -> Config {
    let mut config = Config {
        api_keys: vec![Secret::new(KEY)],
        ..Config::default()
    };
    config.console.password = Some(Secret::new(PASSWORD));
    config.tokens.hmac_secret = Some(Secret::new(HMAC));
    config
}

fn token(secret: &str, claims: &serde_json::Value) -> String {
    let key = EncodingKey::from_secret(secret.as_bytes()).unwrap();
    encode(&Header::default(), claims, &key).unwrap()
}

/// Sends a request with headers and a body, and returns the response.
async fn request(server: &Fixture, line: &str, headers: &str, body: &str) -> String {
    let request = format!(
        "{line} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\nContent-Length: {}\r\n{headers}\r\n{body}",
        server.address,
        body.len()
    );
    server.http(&request).await
}

/// Connects with a token in the command, and subscribes with another one. Returns the id of the client, if it has one,
/// and waits until the connection ends.
async fn connect(server: &Fixture, headers: &[(&str, &str)], query: &str, token: &str) -> Option<String> {
    let url = format!("ws://{}/connection/websocket?{query}", server.address);
    let client = sockeye::Client::new();
    let mut connecting = client.request(&url);
    for &(name, value) in headers {
        connecting = connecting.header(name, value);
    }
    let mut ws = connecting.connect().await.unwrap();
    let commands = format!(
        "{{\"id\":1,\"connect\":{{\"token\":\"{token}\"}}}}\n\
         {{\"id\":2,\"subscribe\":{{\"channel\":\"$room\",\"token\":\"{token}\"}}}}\n\
         {{\"id\":3,\"nothing\":{{}}}}\n{{\"id\":0,\"publish\":{{}}}}"
    );
    ws.send(&*commands).await.unwrap();
    let mut heard = String::new();
    let reading = async {
        while let Ok(Some(message)) = ws.recv().await {
            heard.push_str(message.as_text().unwrap_or_default());
        }
    };
    timeout(TIMEOUT, reading).await.expect("the connection did not end");
    let (_, rest) = heard.split_once("\"client\":\"")?;
    rest.split('"').next().map(str::to_owned)
}

#[tokio::test]
async fn no_log_line_contains_a_token_or_key() {
    let log = Log::capture();
    let server = Fixture::start(config()).await;
    let good = token(HMAC, &json!({"sub": "ada", "exp": 4_000_000_000_u64}));
    let expired = token(HMAC, &json!({"sub": "ada", "exp": 1}));
    let forged = token("another secret of the same length", &json!({"sub": "ada"}));
    let mut ended = 0;
    for token in [&good, &expired, &forged] {
        let authorization = format!("Bearer {token}");
        let headers = [("Authorization", &*authorization), ("X-Request-Id", "trace-me")];
        let id = connect(&server, &headers, &format!("token={token}"), token).await;
        if let Some(id) = id {
            assert!(
                log.contains(&format!("client={id} request_id=trace-me")),
                "{}",
                log.text()
            );
            ended += 1;
        }
        let commands = json!({"id": 1, "connect": {"token": token}}).to_string();
        let commands = commands.replace('"', "%22").replace('{', "%7B").replace('}', "%7D");
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        let sse = format!(
            "GET /connection/sse?cf_connect={commands} HTTP/1.1\r\nHost: {}\r\nCookie: token={token}\r\n\r\n",
            server.address
        );
        stream.write_all(sse.as_bytes()).await.unwrap();
        let mut part = [0; 64];
        timeout(TIMEOUT, stream.read_exact(&mut part)).await.unwrap().unwrap();
    }
    assert_eq!(ended, 1);
    let body = r#"{"channel":"room","data":1}"#;
    for (key, status) in [(KEY, "200"), (WRONG_KEY, "401")] {
        for header in [
            format!("X-API-Key: {key}\r\n"),
            format!("Authorization: apikey {key}\r\n"),
        ] {
            let response = request(&server, &format!("POST /api/publish?key={key}"), &header, body).await;
            assert_eq!(response.get(9..12), Some(status));
        }
    }
    let mut cookie = String::new();
    for password in [WRONG_PASSWORD, PASSWORD] {
        let body = json!({ "password": password }).to_string();
        let response = request(&server, "POST /console/login", "", &body).await;
        if let Some((_, rest)) = response.split_once("sockeye_console=") {
            cookie = rest.split(';').next().unwrap().to_owned();
        }
    }
    let session = format!("Cookie: sockeye_console={cookie}\r\nSockeye-Console: 1\r\n");
    let published = request(&server, "POST /console/api/publish", &session, body).await;
    assert_eq!(published.get(9..12), Some("200"));
    let upgrade = format!(
        "GET /connection/websocket?token={good} HTTP/1.1\r\nHost: {}\r\nOrigin: http://evil.example\r\n\
         Authorization: Bearer {good}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: x3JJHMbDL1EzLkh9GBhXDw==\r\n\r\nGET /health HTTP/1.1\r\nHost: localhost\r\n\
         Connection: close\r\n\r\n",
        server.address
    );
    assert_eq!(server.http(&upgrade).await.get(9..12), Some("403"));

    let text = log.text();
    for line in [
        "signed in to the console",
        "wrong password",
        "wrong or missing key",
        "may not",
        "call from the console",
        "a client arrived",
    ] {
        assert!(text.contains(line), "{line}: {text}");
    }
    for secret in [
        KEY,
        WRONG_KEY,
        PASSWORD,
        WRONG_PASSWORD,
        HMAC,
        &cookie,
        &good,
        &expired,
        &forged,
    ] {
        assert!(!secret.is_empty() && !text.contains(secret), "{secret} in {text}");
        // The signature of a token.
        let last = secret.rsplit('.').next().unwrap();
        assert!(!text.contains(last), "{last} in {text}");
    }
}

#[tokio::test]
async fn every_response_has_the_id_of_the_request() {
    let log = Log::capture();
    let server = Fixture::start(config()).await;
    for line in [
        "GET /health/live",
        "GET /nothing",
        "POST /api/info",
        "GET /console",
        "GET /connection/websocket",
    ] {
        let response = request(&server, line, "X-Request-Id: from-the-proxy\r\n", "").await;
        assert!(
            response.contains("\r\nx-request-id: from-the-proxy\r\n"),
            "{line}: {response}"
        );
        let response = request(&server, line, "X-Request-Id: two words\r\n", "").await;
        let (_, rest) = response.split_once("\r\nx-request-id: ").unwrap();
        let id = rest.lines().next().unwrap();
        assert!(
            id.len() == 16 && id.bytes().all(|byte| byte.is_ascii_hexdigit()),
            "{id}"
        );
    }
    let refusal = "request_id=from-the-proxy status=401";
    assert!(log.contains(refusal), "{}", log.text());
    let upgrade = format!(
        "GET /connection/websocket HTTP/1.1\r\nHost: {}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: x3JJHMbDL1EzLkh9GBhXDw==\r\nX-Request-Id: upgrade-7\r\n\r\n",
        server.address
    );
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    stream.write_all(upgrade.as_bytes()).await.unwrap();
    let mut heard = String::new();
    while !heard.ends_with("\r\n\r\n") {
        heard.push(char::from(timeout(TIMEOUT, stream.read_u8()).await.unwrap().unwrap()));
    }
    assert!(
        heard.starts_with("HTTP/1.1 101") && heard.contains("\r\nx-request-id: upgrade-7\r\n"),
        "{heard}"
    );
}
