//! Keys that are fetched from an address.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::super::key_set::KeySet;
use super::super::test_keys::*;
use super::*;
use crate::node::Node;

/// A server of one answer, which counts requests.
struct Provider {
    url: String,
    requests: Arc<AtomicUsize>,
}

impl Provider {
    /// Answers the n-th request with what `answer` gives for n; `None` closes the connection without an answer.
    async fn start(answer: impl Fn(usize) -> Option<String> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/keys?v=1", listener.local_addr().unwrap());
        let requests = Arc::new(AtomicUsize::new(0));
        let count = requests.clone();
        let answer = Arc::new(answer);
        tokio::spawn(async move {
            loop {
                let (tcp, _) = listener.accept().await.unwrap();
                let answer = answer(count.fetch_add(1, Ordering::SeqCst));
                tokio::spawn(answer_one(tcp, answer));
            }
        });
        Self { url, requests }
    }

    async fn with_set(keys: &[Value]) -> Self {
        let answer = ok(&json!({"keys": keys}).to_string());
        Self::start(move |_| Some(answer.clone())).await
    }

    fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }

    fn verifier(&self) -> TokenVerifier {
        verifier(&config(&self.url))
    }
}

async fn answer_one(mut io: impl AsyncRead + AsyncWrite + Unpin, answer: Option<String>) {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        match io.read_u8().await {
            Ok(byte) => request.push(byte),
            Err(_) => return,
        }
    }
    let request = String::from_utf8(request).unwrap();
    assert!(request.starts_with("GET /keys?v=1 HTTP/1.1\r\n"), "{request}");
    assert!(request.contains("\r\nhost: "), "{request}");
    if let Some(answer) = answer {
        let _ = io.write_all(answer.as_bytes()).await;
        let _ = io.shutdown().await;
    }
}

fn ok(body: &str) -> String {
    format!(
        "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
}

fn config(url: &str) -> TokenConfig {
    TokenConfig {
        jwks_url: Some(url.into()),
        ..TokenConfig::default()
    }
}

/// A JWK of the tests, with more members.
fn jwk(key: &str, members: Value) -> Value {
    let mut key: Value = serde_json::from_str(key).unwrap();
    let members = members.as_object().unwrap().clone();
    key.as_object_mut().unwrap().extend(members);
    key
}

fn token(algorithm: Algorithm, key_id: &str) -> String {
    let mut header = Header::new(algorithm);
    header.kid = Some(key_id.into());
    sign_with(&header, &json!({"sub": "42"}))
}

async fn check(verifier: &TokenVerifier, token: &str) -> Result<String, TokenError> {
    verifier.verify_connect(token, NOW).await.map(|token| token.user)
}

/// Moves the clock of tokio, and leaves it running: the exchanges here are real.
async fn pass(time: Duration) {
    tokio::time::pause();
    tokio::time::advance(time).await;
    tokio::time::resume();
}

const UNKNOWN: Result<String, TokenError> = Err(TokenError::Invalid(InvalidToken::UnknownKeyId));
const UNAVAILABLE: Result<String, TokenError> = Err(TokenError::KeysUnavailable);

fn user() -> Result<String, TokenError> {
    Ok("42".into())
}

#[tokio::test]
async fn keys_are_fetched_once_and_kept() {
    let provider = Provider::with_set(&[
        jwk(RSA_JWK, json!({"kid": "r", "use": "sig", "alg": "RS256"})),
        jwk(P256_JWK, json!({"kid": "e2"})),
        jwk(P384_JWK, json!({"kid": "e3", "key_ops": ["verify"]})),
        jwk(ED_JWK, json!({"kid": "ed", "alg": "EdDSA"})),
    ])
    .await;
    let verifier = provider.verifier();
    assert!(
        verifier
            .try_verify_connect(&token(Algorithm::RS256, "r"), NOW)
            .is_none()
    );
    assert_eq!(provider.requests(), 0);
    for (algorithm, key_id) in [
        (Algorithm::RS256, "r"),
        (Algorithm::ES256, "e2"),
        (Algorithm::ES384, "e3"),
        (Algorithm::EdDSA, "ed"),
    ] {
        assert_eq!(check(&verifier, &token(algorithm, key_id)).await, user(), "{key_id}");
    }
    assert_eq!(provider.requests(), 1);
    assert!(matches!(
        verifier.try_verify_connect(&token(Algorithm::RS256, "r"), NOW),
        Some(Ok(_))
    ));
    let subscription = sign_with(&Header::new(Algorithm::ES256), &json!({"channel": "c"}));
    assert_eq!(
        verifier.verify_subscribe(&subscription, NOW).await.unwrap().channel,
        "c"
    );
    // Another key's signature under a known id.
    let (message, _) = token(Algorithm::RS256, "r")
        .rsplit_once('.')
        .map(|(a, b)| (a.to_owned(), b.to_owned()))
        .unwrap();
    let (_, signature) = token(Algorithm::RS256, "x")
        .rsplit_once('.')
        .map(|(a, b)| (a.to_owned(), b.to_owned()))
        .unwrap();
    let forged = check(&verifier, &format!("{message}.{signature}")).await;
    assert_eq!(forged, Err(InvalidToken::Signature.into()));
    assert_eq!(provider.requests(), 1);
}

#[tokio::test]
async fn a_reload_keeps_the_keys_unless_the_settings_of_tokens_change() {
    let set = ok(&json!({"keys": [jwk(RSA_JWK, json!({"kid": "r1"}))]}).to_string());
    // The provider answers once, and is down afterwards.
    let provider = Provider::start(move |count| (count == 0).then(|| set.clone())).await;
    let mut settings = crate::Config {
        tokens: config(&provider.url),
        ..crate::Config::default()
    };
    let node = Node::new(settings.clone());
    let check = async || check(node.verifiers().connections(), &token(Algorithm::RS256, "r1")).await;
    assert_eq!(check().await, user());

    settings.namespaces.clear();
    node.reload(settings.clone());
    assert_eq!((check().await, provider.requests()), (user(), 1));
    settings.tokens.leeway_seconds = 5;
    node.reload(settings);
    assert_eq!((check().await, provider.requests()), (UNAVAILABLE, 2));
}

#[tokio::test]
async fn concurrent_tokens_share_one_fetch() {
    let provider = Provider::with_set(&[jwk(RSA_JWK, json!({"kid": "r"}))]).await;
    let verifier = Arc::new(provider.verifier());
    let tasks = (0..50).map(|_| {
        let verifier = verifier.clone();
        tokio::spawn(async move { check(&verifier, &token(Algorithm::RS256, "r")).await })
    });
    for task in tasks.collect::<Vec<_>>() {
        assert_eq!(task.await.unwrap(), user());
    }
    assert_eq!(provider.requests(), 1);
}

#[tokio::test]
async fn a_caller_that_leaves_does_not_abort_the_fetch() {
    let provider = Provider::with_set(&[jwk(RSA_JWK, json!({"kid": "r"}))]).await;
    let verifier = provider.verifier();
    let token = token(Algorithm::RS256, "r");
    {
        let mut first = std::pin::pin!(verifier.verify_connect(&token, NOW));
        let polled = std::future::poll_fn(|cx| std::task::Poll::Ready(first.as_mut().poll(cx))).await;
        assert!(polled.is_pending());
    }
    assert_eq!(check(&verifier, &token).await, user());
    assert_eq!(provider.requests(), 1);
}

#[tokio::test]
async fn unknown_key_ids_cause_few_fetches() {
    let provider = Provider::with_set(&[jwk(RSA_JWK, json!({"kid": "r"}))]).await;
    let verifier = provider.verifier();
    for key_id in ["a", "b", "c", ""] {
        assert_eq!(check(&verifier, &token(Algorithm::RS256, key_id)).await, UNKNOWN);
    }
    assert_eq!(provider.requests(), 1);
    pass(Duration::from_secs(5)).await;
    assert_eq!(check(&verifier, &token(Algorithm::RS256, "d")).await, UNKNOWN);
    assert_eq!(provider.requests(), 1);
    pass(Duration::from_secs(6)).await;
    assert_eq!(check(&verifier, &token(Algorithm::RS256, "e")).await, UNKNOWN);
    assert_eq!(check(&verifier, &token(Algorithm::RS256, "f")).await, UNKNOWN);
    assert_eq!(provider.requests(), 2);
    // A known one needs none, and HMAC never does.
    pass(Duration::from_secs(60)).await;
    assert_eq!(check(&verifier, &token(Algorithm::RS256, "r")).await, user());
    let hmac = check(&verifier, &token(Algorithm::HS256, "r")).await;
    assert_eq!(hmac, Err(InvalidToken::NoKeyForAlgorithm.into()));
    assert_eq!(provider.requests(), 2);
}

#[tokio::test]
async fn a_rotated_key_is_found() {
    let old = ok(&json!({"keys": [jwk(RSA_JWK, json!({"kid": "old"}))]}).to_string());
    let new = ok(&json!({"keys": [jwk(ED_JWK, json!({"kid": "new"}))]}).to_string());
    let provider = Provider::start(move |n| Some(if n == 0 { old.clone() } else { new.clone() })).await;
    let verifier = provider.verifier();
    assert_eq!(check(&verifier, &token(Algorithm::RS256, "old")).await, user());
    pass(Duration::from_secs(11)).await;
    assert_eq!(check(&verifier, &token(Algorithm::EdDSA, "new")).await, user());
    assert_eq!(check(&verifier, &token(Algorithm::RS256, "old")).await, UNKNOWN);
    assert_eq!(provider.requests(), 2);
}

#[tokio::test]
async fn keys_outlive_a_provider_that_is_down_for_a_day() {
    let set = ok(&json!({"keys": [jwk(RSA_JWK, json!({"kid": "r"}))]}).to_string());
    let provider = Provider::start(move |n| (n == 0).then(|| set.clone())).await;
    let verifier = provider.verifier();
    let known = token(Algorithm::RS256, "r");
    assert_eq!(check(&verifier, &known).await, user());
    pass(Duration::from_secs(59 * 60)).await;
    assert_eq!(check(&verifier, &known).await, user());
    assert_eq!(provider.requests(), 1);
    pass(Duration::from_secs(2 * 60)).await;
    assert_eq!(check(&verifier, &known).await, user());
    assert_eq!(provider.requests(), 2);
    // A key that is not there may be new.
    assert_eq!(check(&verifier, &token(Algorithm::RS256, "new")).await, UNAVAILABLE);
    assert!(verifier.try_verify_connect(&known, NOW).is_some());
    pass(Duration::from_secs(24 * 60 * 60)).await;
    assert_eq!(check(&verifier, &known).await, UNAVAILABLE);
}

#[tokio::test]
async fn a_provider_that_comes_up_late_is_tried_again() {
    let set = ok(&json!({"keys": [jwk(RSA_JWK, json!({"kid": "r"}))]}).to_string());
    let provider = Provider::start(move |n| (n > 0).then(|| set.clone())).await;
    let verifier = provider.verifier();
    let token = token(Algorithm::RS256, "r");
    assert_eq!(check(&verifier, &token).await, UNAVAILABLE);
    assert_eq!(check(&verifier, &token).await, UNAVAILABLE);
    assert_eq!(provider.requests(), 1);
    pass(Duration::from_millis(1_100)).await;
    assert_eq!(check(&verifier, &token).await, user());
}

#[tokio::test]
async fn answers_that_are_no_key_set_leave_keys_unavailable() {
    let token = token(Algorithm::RS256, "r");
    let set = json!({"keys": [jwk(RSA_JWK, json!({"kid": "r"}))]}).to_string();
    let large = format!("{set}{}", " ".repeat(256 * 1024));
    let chunked = format!(
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{:x}\r\n{large}\r\n0\r\n\r\n",
        large.len()
    );
    for answer in [
        ok(""),
        ok("[]"),
        ok("{}"),
        ok(r#"{"keys":{}}"#),
        ok(&large),
        chunked,
        format!("HTTP/1.1 200 OK\r\ncontent-length: 99999999999\r\n\r\n{set}"),
        format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{set}", set.len() + 1),
        format!("HTTP/1.1 404 Not Found\r\ncontent-length: {}\r\n\r\n{set}", set.len()),
        "HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n".into(),
        format!("HTTP/1.1 200 OK\r\nx: {}\r\n\r\n", "y".repeat(100_000)),
        "SSH-2.0-OpenSSH\r\n".into(),
    ] {
        let provider = Provider::start(move |_| Some(answer.clone())).await;
        assert_eq!(check(&provider.verifier(), &token).await, UNAVAILABLE);
    }
    // These are fine: a chunked answer, and one that ends with the connection.
    let chunked = format!(
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{:x}\r\n{set}\r\n0\r\n\r\n",
        set.len()
    );
    for answer in [chunked, format!("HTTP/1.1 200 OK\r\n\r\n{set}")] {
        let provider = Provider::start(move |_| Some(answer.clone())).await;
        assert_eq!(check(&provider.verifier(), &token).await, user());
    }
}

#[tokio::test(start_paused = true)]
async fn a_silent_provider_is_given_up() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let verifier = verifier(&config(&format!("http://{}/", listener.local_addr().unwrap())));
    let began = tokio::time::Instant::now();
    assert_eq!(check(&verifier, &token(Algorithm::RS256, "r")).await, UNAVAILABLE);
    assert_eq!(began.elapsed().as_secs(), 5);
}

#[tokio::test]
async fn nobody_listening_leaves_keys_unavailable() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let verifier = verifier(&config(&format!("http://{address}/")));
    assert_eq!(check(&verifier, &token(Algorithm::RS256, "r")).await, UNAVAILABLE);
}

#[tokio::test]
async fn keys_of_the_configuration_come_before_those_of_the_set() {
    let provider = Provider::with_set(&[jwk(RSA_JWK, json!({"kid": "r"}))]).await;
    let mut config = config(&provider.url);
    config.hmac_secret = Some(SECRET.into());
    config.rsa_public_key = Some(RSA_PUBLIC.into());
    let verifier = verifier(&config);
    assert_eq!(check(&verifier, &token(Algorithm::HS256, "x")).await, user());
    assert_eq!(check(&verifier, &token(Algorithm::RS256, "r")).await, user());
    assert_eq!(provider.requests(), 0);
}

#[tokio::test]
async fn https_needs_a_trusted_certificate() {
    let certificate = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let key = PrivatePkcs8KeyDer::from(certificate.signing_key.serialize_der());
    let server = ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.cert.der().clone()], key.into())
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(server));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        loop {
            let (tcp, _) = listener.accept().await.unwrap();
            if let Ok(tls) = acceptor.accept(tcp).await {
                let set = json!({"keys": [jwk(RSA_JWK, json!({"kid": "r"}))]}).to_string();
                answer_one(tls, Some(ok(&set))).await;
            }
        }
    });
    let client = |trusted: bool| {
        let mut roots = RootCertStore::empty();
        if trusted {
            roots.add(certificate.cert.der().clone()).unwrap();
        }
        let config = ClientConfig::builder_with_provider(provider.clone());
        let config = config.with_safe_default_protocol_versions().unwrap();
        Some(Arc::new(config.with_root_certificates(roots).with_no_client_auth()))
    };
    let token = token(Algorithm::RS256, "r");
    for (host, trusted, expect) in [
        ("localhost", true, user()),
        ("localhost", false, UNAVAILABLE),
        // The certificate is for another name.
        ("127.0.0.1", true, UNAVAILABLE),
    ] {
        let config = config(&format!("https://{host}:{port}/keys?v=1"));
        let verifier = TokenVerifier::with_tls(&config, client(trusted)).unwrap();
        assert_eq!(check(&verifier, &token).await, expect, "{host} {trusted}");
    }
}

#[test]
fn only_keys_for_signatures_are_taken_from_a_set() {
    let usable = |keys: &[Value]| KeySet::parse(json!({"keys": keys}).to_string().as_bytes()).unwrap();
    let refused = [
        jwk(RSA_JWK, json!({"use": "enc"})),
        jwk(RSA_JWK, json!({"key_ops": ["encrypt"]})),
        jwk(RSA_JWK, json!({"alg": "RSA-OAEP"})),
        jwk(RSA_JWK, json!({"alg": "HS256"})),
        jwk(RSA_JWK, json!({"alg": "ES256"})),
        jwk(RSA_JWK, json!({"n": "AQAB"})),
        jwk(P256_JWK, json!({"crv": "P-384"})),
        jwk(P256_JWK, json!({"alg": "ES384"})),
        jwk(P256_JWK, json!({"crv": "P-521"})),
        jwk(P256_JWK, json!({"x": "AAAA"})),
        jwk(ED_JWK, json!({"crv": "X25519"})),
        jwk(ED_JWK, json!({"x": "AAAA"})),
        json!({"kty": "oct", "k": BASE64_URL_SAFE_NO_PAD.encode(SECRET), "alg": "HS256"}),
        json!({"kty": "unheard-of"}),
        json!({}),
        json!(null),
        json!("key"),
    ];
    for key in &refused {
        let set = usable(std::slice::from_ref(key));
        // P-256 coordinates under the name P-384 are a key of P-256 at most.
        assert!(set.len() == 0 || set.find(None, Algorithm::ES384).is_none(), "{key}");
    }
    let mut keys = refused.to_vec();
    keys.push(jwk(RSA_JWK, json!({"kid": "r"})));
    let set = usable(&keys);
    assert!(set.find(Some("r"), Algorithm::PS512).is_some());
    assert!(set.find(Some("R"), Algorithm::PS512).is_none());
    assert!(set.find(Some("r"), Algorithm::ES256).is_none());
    for algorithm in [Algorithm::HS256, Algorithm::HS384, Algorithm::HS512] {
        assert!(set.find(None, algorithm).is_none());
    }
}

#[test]
fn a_token_without_a_key_id_needs_a_set_without_a_choice() {
    let set = |keys: &[Value]| KeySet::parse(json!({"keys": keys}).to_string().as_bytes()).unwrap();
    let rsa = || jwk(RSA_JWK, json!({}));
    assert!(
        set(&[rsa(), jwk(ED_JWK, json!({}))])
            .find(None, Algorithm::RS256)
            .is_some()
    );
    assert!(set(&[rsa(), rsa()]).find(None, Algorithm::RS256).is_none());
    assert!(set(&[]).find(None, Algorithm::RS256).is_none());
}

#[test]
fn a_set_with_endless_keys_is_cut() {
    let keys = vec![jwk(ED_JWK, json!({})); 1000];
    let set = KeySet::parse(json!({"keys": keys}).to_string().as_bytes()).unwrap();
    assert_eq!(set.len(), 64);
}
