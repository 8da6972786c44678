//! Options with valid and invalid values, and with values in the format of other tools.
#![cfg(unix)]

mod cli_support;

use std::process::Stdio;

use cli_support::{Program, answer, echo, run, serve, sockeye as program, soon};
use sockeye::{Client, Origin, Server};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

async fn echo_server() -> String {
    serve(Server::default(), async |ws| drop(echo(ws).await)).await
}

#[tokio::test]
async fn values_in_the_format_of_other_tools_are_accepted() {
    let url = echo_server().await;
    let port = url.trim_end_matches('/').rsplit_once(':').unwrap().1;
    let (local, http) = (format!(":{port}"), url.replace("ws://", "http://"));
    for arguments in [
        &["--wait", "1m30s", "-n", "1", &url][..],
        &["--wait", "500ms", "-n1", &url],
        &["--connect-timeout", "0", "-n", "1", &url],
        &["--connect-timeout", "off", "-n", "1", &url],
        &["--connect-timeout=1m", "-n", "1", &url],
        &["--ping-interval", "0", "-n", "1", &url],
        &["--ping-interval", "off", "-n", "1", &url],
        &["--compression", "takeover", "-n", "1", &url],
        &["-n", "1", &url, "--compression", "off"],
        &["-n", "1", "--compression", &url],
        &["--log-level", "warn,hyper=debug", "-n", "1", &url],
        &["-n", "1", &local],
        &["-n", "1", &http],
    ] {
        let outcome = run(&[&["connect"], arguments].concat(), b"hi\n").await;
        assert_eq!(
            (outcome.stdout.as_slice(), outcome.code),
            (&b"hi\n"[..], Some(0)),
            "{arguments:?} {}",
            outcome.stderr
        );
        assert_eq!(outcome.stderr, "", "{arguments:?}");
    }
}

/// Invalid values, and the advice in the error message.
#[tokio::test]
async fn errors_about_invalid_values_contain_advice() {
    for (arguments, message) in [
        (
            &["connect", ":1", "--wait", "1m30"][..],
            "a time such as 90, 500ms, 10s or 1m30s, or `forever`",
        ),
        (&["connect", ":1", "--wait", "off"], "or `forever`"),
        (&["connect", ":1", "--wait", "-1s"], "unexpected argument '-1'"),
        (&["connect", ":1", "--connect-timeout", "ten"], "1m30s, or `off`"),
        (&["connect", ":1", "--ping-interval", "never"], "1m30s, or `off`"),
        (&["connect", ":1", "--ping-interval", "400d"], "the maximum is 365d"),
        (&["connect", ":1", "-n", "0"], "1 or more"),
        (&["connect", ":1", "--count", "many"], "1 or more"),
        (
            &["connect", ":1", "--escape", "sometimes"],
            "possible values: auto, always, never",
        ),
        (
            &["connect", ":1", "--binary-out", "base64"],
            "possible values: raw, hex",
        ),
        (
            &["connect", ":1", "--compression=best"],
            "possible values: off, no-takeover, takeover",
        ),
        (
            &["connect", ":1", "--log-level", "bogus"],
            "write one of off, error, warn, info, debug, trace, or target=level",
        ),
        (&["connect", ":1", "--log-level", ""], "write one of off"),
        (&["connect", ":1", "--origin", "null x"], "origin"),
        (&["connect", ":1", "-H", "Host: a.example"], "`Host` cannot be sent"),
        (
            &["connect", ":1", "-H", "Sec-WebSocket-Key: x"],
            "`Sec-WebSocket-Key` cannot be sent",
        ),
        (&["connect", ":1", "-H", "Sec-WebSocket-Extensions: x"], "--compression"),
        (&["connect", ":1", "-H", "Sec-WebSocket-Protocol: a b"], "--subprotocol"),
        (
            &["connect", ":1", "-H", "Sec-WebSocket-Protocol: a, a"],
            "already offered",
        ),
        (&["connect", "--cacert", "x.pem", "-k", ":1"], "cannot be used with"),
        (&["connect", ":1", ":2"], "unexpected argument ':2'"),
        (&["echo", "--listen", "9001x"], "ADDRESS:PORT"),
        (&["echo", "--listen", "::1:9001"], "[::]"),
        (&["echo", "--listen", ":99999"], "ADDRESS:PORT"),
        (&["echo", ":9001"], "unexpected argument ':9001'"),
        (&["echo", "--log-level", "bogus"], "write one of off"),
        (&["serve", "--listen", "nowhere"], "ADDRESS:PORT"),
    ] {
        let outcome = run(arguments, b"").await;
        assert_eq!(outcome.code, Some(2), "{arguments:?} {}", outcome.stderr);
        assert!(outcome.stderr.contains(message), "{arguments:?} {}", outcome.stderr);
        assert!(outcome.stdout.is_empty());
    }
    let mut command = program(&["echo"]);
    let output = soon(command.env("SOCKEYE_LOG", "bogus").output()).await.unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("write one of off"));
}

#[tokio::test]
async fn a_port_alone_listens_on_this_machine_only() {
    for listen in [":0", "0"] {
        let mut server = Program::start(&["echo", "--listen", listen]);
        assert!(server.url().await.starts_with("ws://127.0.0.1:"));
    }
}

/// Returns the head of the first request to a listener.
async fn read_request(listener: &TcpListener) -> String {
    let (tcp, _) = listener.accept().await.unwrap();
    let mut lines = BufReader::new(tcp).lines();
    let mut head = String::new();
    while let Some(line) = lines.next_line().await.unwrap().filter(|line| !line.is_empty()) {
        head += &line;
        head.push('\n');
    }
    head
}

#[tokio::test]
async fn headers_with_their_own_option_are_treated_like_the_option() {
    for (arguments, expected) in [
        (
            &["-H", "Sec-WebSocket-Protocol: a, b"][..],
            "Sec-WebSocket-Protocol: a, b\n",
        ),
        (
            &["--subprotocol", "a", "-H", "sec-websocket-protocol: b"],
            "Sec-WebSocket-Protocol: a, b\n",
        ),
        (&["-H", "Origin: https://a.example"], "Origin: https://a.example\n"),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let _client = Program::start(&[&["connect", &address], arguments].concat());
        let head = soon(read_request(&listener)).await;
        assert!(head.contains(expected), "{head}");
    }
}

#[tokio::test]
async fn credentials_of_the_url_are_sent_unless_a_header_overrides_them() {
    for (options, value) in [
        // `printf bob:s3cret | base64`
        (&[][..], "Basic Ym9iOnMzY3JldA=="),
        (&["-H", "authorization: Bearer x"], "Bearer x"),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("ws://bob:s3cret@{}/", listener.local_addr().unwrap());
        let _client = Program::start(&[&["connect", &url], options].concat());
        let head = soon(read_request(&listener)).await;
        let values: Vec<_> = head
            .lines()
            .filter_map(|line| line.split_once(": "))
            .filter(|(name, _)| name.eq_ignore_ascii_case("Authorization"))
            .map(|(_, value)| value)
            .collect();
        assert_eq!(values, [value], "{head}");
        // With the colon, which never occurs in a random Base64 key.
        assert!(!head.contains("bob:"), "{head}");
    }
}

#[tokio::test]
async fn a_password_is_never_printed() {
    let refusal = b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n";
    let (refusing, refusing_verbosely) = (answer(refusal).await, answer(refusal).await);
    let served = echo_server().await.replace("ws://", "ws://robert:s3cret@");
    for (arguments, code) in [
        (&["ws://robert:s3cret@"][..], 3),
        (&["ftp://robert:s3cret@a.example/"], 3),
        (&["ws://robert:s3cret@a.example:port/"], 3),
        (&["ws://robert:s3/cret@a.example/"], 3),
        (&["ws://robert:s3cret@a.example/#b"], 3),
        (&["robert:s3cret@no-such-host.invalid"], 6),
        (&["ws://robert:s3cret@127.0.0.1:1/"], 7),
        (&[&format!("ws://robert:s3cret@{refusing}")], 22),
        (&[&format!("ws://robert:s3cret@{refusing_verbosely}"), "-v"], 22),
        (&[":1", "ws://robert:s3cret@a.example/"], 2),
        (&[":1", "--ws://robert:s3cret@a.example/"], 2),
        (&[":1", "--wait=ws://robert:s3cret@a.example/"], 2),
        (&[":1", "--origin", "https://robert:s3cret@a.example"], 2),
        (&[&served, "-v", "--log-level", "trace", "-w", "0"], 0),
    ] {
        let outcome = run(&[&["connect"], arguments].concat(), b"").await;
        assert_eq!(outcome.code, Some(code), "{arguments:?} {}", outcome.stderr);
        // All longer than what can be by chance in the random `Sec-WebSocket-Accept` that `-v` shows. The last is the
        // user name in Base64.
        for secret in ["robert", "s3cret", "cret@", "cm9iZXJ0"] {
            assert!(!outcome.stderr.contains(secret), "{arguments:?} {}", outcome.stderr);
        }
    }
}

/// A proxy that answers CONNECT with `response`, and then connects to `target` if there is one. Returns its address,
/// and the first line of the request.
async fn http_proxy(response: &'static str, target: Option<String>) -> (String, tokio::task::JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let (tell, told) = tokio::sync::oneshot::channel();
    tokio::spawn(async move {
        let (mut client, _) = listener.accept().await.unwrap();
        let mut head = vec![];
        while !head.ends_with(b"\r\n\r\n") {
            head.push(client.read_u8().await.unwrap());
        }
        let head = String::from_utf8(head).unwrap();
        let _ = tell.send(head.lines().next().unwrap().to_owned());
        client.write_all(response.as_bytes()).await.unwrap();
        if let Some(target) = target {
            let mut server = tokio::net::TcpStream::connect(target).await.unwrap();
            let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
        } else {
            let _ = client.read(&mut [0; 1]).await;
        }
    });
    (address, tokio::spawn(async { told.await.unwrap() }))
}

#[tokio::test]
async fn proxies_of_the_environment_and_of_the_flag_are_used() {
    let (_server, url) = Program::echo(&[]).await;
    let target = url.trim_start_matches("ws://").trim_end_matches('/').to_owned();
    for (variable, is_flag, is_proxied) in [
        (Some("http_proxy"), false, true),
        (Some("ALL_PROXY"), false, true),
        // As curl does.
        (Some("HTTP_PROXY"), false, false),
        (Some("https_proxy"), false, false),
        (None, true, true),
    ] {
        let (proxy, asked) = http_proxy("HTTP/1.1 200 OK\r\n\r\n", Some(target.clone())).await;
        let proxy_url = format!("http://bob:s3cret@{proxy}");
        let flags: &[&str] = if is_flag { &["-x", &proxy_url] } else { &[] };
        let url = if is_proxied { "ws://server.invalid:81/" } else { &url };
        let mut command = program(&[&["connect", url, "-v", "-n", "1"], flags].concat());
        if let Some(name) = variable {
            command.env(name, &proxy_url);
        }
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(b"hello\n").await.unwrap();
        let output = soon(child.wait_with_output()).await.unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(
            (output.status.code(), &output.stdout[..]),
            (Some(0), &b"hello\n"[..]),
            "{stderr}"
        );
        let line = format!("* through proxy http://{proxy}");
        assert_eq!(stderr.contains(&line), is_proxied, "{variable:?} {stderr}");
        assert!(!stderr.contains("s3cret"));
        if is_proxied {
            assert_eq!(soon(asked).await.unwrap(), "CONNECT server.invalid:81 HTTP/1.1");
        }
    }
}

#[tokio::test]
async fn hosts_in_no_proxy_and_an_empty_flag_connect_directly() {
    let (_server, url) = Program::echo(&[]).await;
    let dead = "http://127.0.0.1:1";
    for (flags, no_proxy, code) in [
        (&[][..], "", 7),
        (&[], "127.0.0.0/8", 0),
        (&["-x", ""], "", 0),
        (&["-x", "socks5h://127.0.0.1:1"], "", 7),
        (&["-x", "socks5h://127.0.0.1:1"], "*", 0),
    ] {
        let mut command = program(&[&["connect", &url, "-w", "0"], flags].concat());
        let output = soon(
            command
                .env("http_proxy", dead)
                .env("NO_PROXY", no_proxy)
                .stdin(Stdio::null())
                .output(),
        );
        let output = output.await.unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{flags:?} {no_proxy} {stderr}");
    }
}

#[tokio::test]
async fn proxies_that_refuse_and_invalid_ones_are_reported() {
    let unused = "HTTP/1.1 200 OK\r\n\r\n";
    for (proxy, response, code, text) in [
        (
            "http://PROXY",
            "HTTP/1.1 407 Auth\r\n\r\n",
            97,
            "refused CONNECT a.invalid:80 with status 407 Proxy Authentication Required: it requires a user name and \
             password, in its URL: http://user:password@host; set it with --proxy, or in the environment",
        ),
        (
            "http://bob:s3cret@PROXY",
            "HTTP/1.1 403 No\r\n\r\n",
            97,
            "refused CONNECT a.invalid:80 with status 403 Forbidden; -x '' connects without a proxy",
        ),
        (
            "http://proxy.invalid",
            unused,
            5,
            "proxy http://proxy.invalid:1080: cannot connect to proxy.invalid:1080: ",
        ),
        (
            "socks4://bob:s3cret@PROXY",
            unused,
            2,
            "unsupported scheme; use http, https, socks5 or socks5h",
        ),
        (
            "http://bob:s3cret@:PROXY",
            unused,
            2,
            "the URL of the proxy in the environment variable all_proxy is invalid: ",
        ),
    ] {
        let (address, _asked) = http_proxy(response, None).await;
        let proxy = proxy.replace("PROXY", &address);
        let mut command = program(&["connect", "ws://a.invalid/"]);
        let output = soon(command.env("all_proxy", proxy).output()).await.unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{stderr}");
        assert!(stderr.contains(text) && !stderr.contains("s3cret"), "{stderr}");
        assert_eq!(stderr.lines().count(), 1, "{stderr}");
    }
}

#[tokio::test]
async fn redirects_are_followed_if_asked_for() {
    let (_server, url) = Program::echo(&[]).await;
    let moved = format!("HTTP/1.1 301 Moved\r\nLocation: {url}\r\nContent-Length: 0\r\n\r\n");
    let outcome = run(&["connect", "-L", &answer(moved.leak().as_bytes()).await], b"hello\n").await;
    assert_eq!(
        (outcome.code, &outcome.stdout[..]),
        (Some(0), &b"hello\n"[..]),
        "{}",
        outcome.stderr
    );
    let nowhere = b"HTTP/1.1 301 Moved\r\nContent-Length: 0\r\n\r\n";
    for flags in [&[][..], &["-L"]] {
        let outcome = run(&[&["connect", &answer(nowhere).await], flags].concat(), b"").await;
        assert_eq!(outcome.code, Some(22));
        let text = "301 Moved Permanently without a valid Location header";
        assert!(outcome.stderr.contains(text), "{}", outcome.stderr);
    }
}

/// The error message contains the first line of the response body; `-v` prints the whole response.
#[tokio::test]
async fn a_refusal_shows_the_response_of_the_server() {
    for (response, parts) in [
        (
            &b"HTTP/1.1 403 Forbidden\r\nContent-Length: 36\r\n\r\n\norigin \"https://x\" is not\x1b allowed\nx"[..],
            &[
                "refused the WebSocket with 403 Forbidden",
                r#": "origin "https://x" is not\u001b allowed""#,
                "; -v shows",
            ][..],
        ),
        (
            b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n",
            &["refused the WebSocket with 401 Unauthorized", "-H 'Authorization: ...'"],
        ),
        (
            b"HTTP/1.1 301 Moved Permanently\r\nLocation: wss://b.example/\r\nContent-Length: 6\r\n\r\n<html>",
            &[
                "refused the WebSocket with 301 Moved Permanently",
                "redirects to wss://b.example/:",
            ],
        ),
    ] {
        let outcome = run(&["connect", &answer(response).await], b"").await;
        assert_eq!(outcome.code, Some(22), "{}", outcome.stderr);
        assert_eq!(outcome.stderr.lines().count(), 1, "{}", outcome.stderr);
        for part in parts {
            assert!(outcome.stderr.contains(part), "{part} {}", outcome.stderr);
        }
    }
    let (_server, url) = Program::echo(&["--allow-origin", "https://a.example"]).await;
    let outcome = run(&["connect", &url, "--origin", "https://b.example"], b"").await;
    assert_eq!(outcome.code, Some(22));
    assert!(
        outcome
            .stderr
            .contains("refused the WebSocket with 403 Forbidden: \"origin "),
        "{}",
        outcome.stderr
    );
}

#[tokio::test]
async fn echo_logs_the_option_that_allows_a_refused_page() {
    let (mut server, url) = Program::echo(&["--allow-origin", "https://a.example"]).await;
    let client = Client::builder().origin(Origin::parse("https://b.example").unwrap());
    soon(client.build().unwrap().connect(&url)).await.unwrap_err();
    let mut line = String::new();
    soon(BufReader::new(server.child.stderr.take().unwrap()).read_line(&mut line))
        .await
        .unwrap();
    let host = url.trim_start_matches("ws://").trim_end_matches('/');
    for part in [
        "WARN",
        "origin https://b.example to",
        &format!("to host {host};"),
        "allowed: https://a.example;",
        "--allow-origin=https://b.example",
    ] {
        assert!(line.contains(part), "{part}: {line}");
    }
}

/// Users may paste the suggested option into a shell.
#[tokio::test]
async fn echo_does_not_suggest_an_invalid_origin() {
    let (mut server, url) = Program::echo(&["--allow-origin", "https://a.example"]).await;
    let mut tcp = soon(TcpStream::connect(
        url.trim_start_matches("ws://").trim_end_matches('/'),
    ))
    .await
    .unwrap();
    let request = "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                   Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\
                   Origin: https://$(reboot)\r\n\r\n";
    soon(tcp.write_all(request.as_bytes())).await.unwrap();
    let mut line = String::new();
    soon(BufReader::new(server.child.stderr.take().unwrap()).read_line(&mut line))
        .await
        .unwrap();
    assert!(line.contains("origin https://$(reboot) to"), "{line}");
    assert!(line.ends_with("--allow-origin=ORIGIN allows other origins\n"), "{line}");
}

/// URLs with characters that must be encoded, and with credentials.
#[tokio::test]
async fn urls_are_parsed_like_in_browsers() {
    for (url, request_line) in [
        (
            r#"ws://HOST/?filter={"x":1}"#,
            "GET /?filter=%7B%22x%22:1%7D HTTP/1.1\n",
        ),
        ("HOST/?t=Bearer x", "GET /?t=Bearer%20x HTTP/1.1\n"),
        ("http://HOST/?s=a|b&t=100%", "GET /?s=a%7Cb&t=100%25 HTTP/1.1\n"),
        ("ws://HOST/ü", "GET /%C3%BC HTTP/1.1\n"),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = url.replace("HOST", &listener.local_addr().unwrap().to_string());
        let _client = Program::start(&["connect", &url]);
        let head = soon(read_request(&listener)).await;
        assert!(head.starts_with(request_line), "{url}: {head}");
    }
}

/// A server that sends a banner, which is not a complete line of HTTP.
#[tokio::test]
async fn a_banner_of_another_protocol_is_detected_immediately() {
    for banner in [
        &b"SSH-2.0-OpenSSH_9.2\r\n"[..],
        b"220 mail.a.example ESMTP\r\n",
        b"+OK\r\n",
        b"\0",
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = listener.local_addr().unwrap().to_string();
        let serving = tokio::spawn(async move {
            let (mut tcp, _) = listener.accept().await.unwrap();
            tcp.write_all(banner).await.unwrap();
            // Until the client disconnects.
            let _ = tcp.read_to_end(&mut Vec::new()).await;
        });
        let outcome = run(&["connect", "--connect-timeout", "off", &url], b"").await;
        assert_eq!(outcome.code, Some(65), "{}", outcome.stderr);
        assert!(outcome.stderr.contains("no WebSocket server at"), "{}", outcome.stderr);
        soon(serving).await.unwrap();
    }
}
