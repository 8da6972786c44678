//! Connections that are driven by threads.
#![cfg(all(unix, feature = "blocking"))]

mod common;

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use sockeye::blocking::{self, RecvTimeoutError, WebSocket};
use sockeye::{Client, CloseCode, DeflateConfig, Error, ErrorKind, Keepalive, Limits, Server, Timeouts};

const LONG: Duration = Duration::from_secs(30);

/// A connected pair over TCP.
fn pair(client: &Client, server: &Server) -> (WebSocket, WebSocket) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("ws://{}/path", listener.local_addr().unwrap());
    thread::scope(|scope| {
        let accepting = scope.spawn(|| {
            let incoming = server.accept_blocking(listener.accept().unwrap().0).unwrap();
            assert_eq!(incoming.request().uri().path(), "/path");
            incoming.accept().unwrap()
        });
        let client = client.request(url).connect_blocking().unwrap();
        (client, accepting.join().unwrap())
    })
}

fn default_pair() -> (WebSocket, WebSocket) {
    pair(&Client::default(), &Server::default())
}

/// A ping after 50 ms of silence, and 50 ms for its pong.
fn quick_keepalive() -> Keepalive {
    let mut keepalive = Keepalive::default();
    (keepalive.interval, keepalive.timeout) = (Duration::from_millis(50), Duration::from_millis(50));
    keepalive
}

/// Echoes until the end.
fn echo(mut ws: WebSocket) -> Result<(), Error> {
    while let Some(message) = ws.recv()? {
        ws.feed(message)?;
    }
    Ok(())
}

#[test]
fn messages_are_echoed_and_the_closing_handshake_is_complete() {
    let config = DeflateConfig::default();
    let compressing = (
        Client::builder().compression(config.clone()).build().unwrap(),
        Server::builder().compression(config).build(),
    );
    for (client, server) in [(Client::default(), Server::default()), compressing] {
        let (mut client, server) = pair(&client, &server);
        let echoing = thread::spawn(|| echo(server));
        for len in [0, 1, 125, 70_000, 1_000_000] {
            let message: String = (0..len).map(|i| char::from(b'a' + (i % 23) as u8)).collect();
            client.send(message.as_str()).unwrap();
            let received = client.recv_timeout(LONG).unwrap().unwrap();
            assert!(received.as_text() == Some(&message));
        }
        // A burst is written at once.
        (0..1000).for_each(|i| client.feed(i.to_string()).unwrap());
        for i in 0..1000 {
            assert_eq!(client.recv().unwrap().unwrap().as_text(), Some(&*i.to_string()));
        }
        assert!(client.ping().unwrap() < LONG);
        assert_eq!(client.rtt().is_some(), client.is_open());
        assert_eq!(client.stats().received.messages, 1005);
        client.close(CloseCode::NORMAL, "done").unwrap();
        assert!(client.close_info().unwrap().is_clean());
        echoing.join().unwrap().unwrap();
        assert!(client.send("late").unwrap_err().is_normal_close());
        assert_eq!(client.recv().unwrap(), None);
    }
}

#[test]
fn recv_with_timeout_loses_nothing() {
    let (mut client, mut server) = default_pair();
    let start = Instant::now();
    let error = client.recv_timeout(Duration::from_millis(50)).unwrap_err();
    assert!(
        matches!(error, RecvTimeoutError::Elapsed) && client.is_open(),
        "{error}"
    );
    assert!(start.elapsed() >= Duration::from_millis(50) && start.elapsed() < LONG);
    let error = client.recv_timeout(Duration::ZERO).unwrap_err();
    assert!(matches!(error, RecvTimeoutError::Elapsed), "{error}");
    server.send("later").unwrap();
    assert_eq!(client.recv_timeout(LONG).unwrap().unwrap().as_text(), Some("later"));
}

#[test]
fn silent_peer_is_detected_and_pings_are_answered() {
    let keepalive = quick_keepalive();
    let client = Client::builder().keepalive(keepalive).build().unwrap();
    let (mut client, server) = pair(&client, &Server::default());
    let echoing = thread::spawn(|| echo(server));
    // The server answers pings while it waits.
    let error = client.recv_timeout(Duration::from_millis(300)).unwrap_err();
    assert!(matches!(error, RecvTimeoutError::Elapsed), "{error}");
    assert!(client.is_open() && client.rtt().is_some());
    drop(client);
    assert!(echoing.join().unwrap().is_err(), "1006");

    let keepalive = quick_keepalive();
    let client = Client::builder().keepalive(keepalive).build().unwrap();
    let (mut client, _server) = pair(&client, &Server::default());
    let start = Instant::now();
    let error = client.recv().unwrap_err();
    assert!(error.is_timeout() && !client.is_open(), "{error}");
    assert!(start.elapsed() >= Duration::from_millis(100) && start.elapsed() < LONG);
}

#[test]
fn peer_that_does_not_read_is_disconnected() {
    let timeouts = Timeouts::default().write(Duration::from_millis(200));
    let limits = Limits::default().write_buffer_max(64 * 1024);
    for is_split in [false, true] {
        let client = Client::builder().timeouts(timeouts.clone()).limits(limits.clone());
        let (mut client, _server) = pair(&client.build().unwrap(), &Server::default());
        let start = Instant::now();
        let error = if is_split {
            let (sender, _receiver) = client.split();
            std::iter::repeat_with(|| sender.send(vec![7; 100_000])).find_map(Result::err)
        } else {
            std::iter::repeat_with(|| client.send(vec![7; 100_000])).find_map(Result::err)
        };
        assert!(error.unwrap().is_timeout());
        assert!(start.elapsed() < LONG);
    }
}

#[test]
fn two_peers_that_both_send_first_do_not_deadlock() {
    let (client, server) = default_pair();
    let exchange = |mut ws: WebSocket| {
        move || {
            ws.send(vec![1; 6_000_000]).unwrap();
            assert_eq!(ws.recv().unwrap().unwrap().len(), 6_000_000);
            ws
        }
    };
    let threads = [client, server].map(|ws| thread::spawn(exchange(ws)));
    let _both = threads.map(|thread| thread.join().unwrap());
}

#[test]
fn senders_of_several_threads_share_a_connection() {
    const COUNT: usize = 200;
    let (client, server) = default_pair();
    let echoing = thread::spawn(|| echo(server));
    let (sender, mut receiver) = client.split();
    let threads: Vec<_> = (0..4)
        .map(|number| {
            let sender = sender.clone();
            thread::spawn(move || {
                for i in 0..COUNT {
                    sender.send(format!("{number} {i} {}", "x".repeat(i * 100))).unwrap();
                }
            })
        })
        .collect();
    let mut next = [0; 4];
    for _ in 0..4 * COUNT {
        let message = receiver.recv_timeout(LONG).unwrap().unwrap();
        let mut words = message.as_text().unwrap().split(' ');
        let number: usize = words.next().unwrap().parse().unwrap();
        assert_eq!(words.next().unwrap(), next[number].to_string(), "in order");
        assert_eq!(words.next().unwrap().len(), next[number] * 100);
        next[number] += 1;
    }
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    sender.send_ping(b"?").unwrap();
    sender.close(CloseCode::NORMAL, "").unwrap();
    assert_eq!(receiver.recv().unwrap(), None);
    assert!(sender.rtt().is_some() && !sender.is_open() && sender.close_info().unwrap().is_clean());
    assert_eq!(sender.stats().received.messages, 4 * COUNT as u64);
    echoing.join().unwrap().unwrap();
}

#[test]
fn abort_wakes_the_receiver_of_another_thread() {
    let (client, server) = default_pair();
    let echoing = thread::spawn(|| echo(server));
    let (sender, mut receiver) = client.split();
    let receiving = thread::spawn(move || receiver.recv());
    thread::sleep(Duration::from_millis(50));
    let start = Instant::now();
    sender.abort();
    assert!(receiving.join().unwrap().is_err());
    assert!(start.elapsed() < Duration::from_millis(900), "woken, not by a timeout");
    assert!(sender.send("late").is_err());
    assert!(echoing.join().unwrap().is_err());

    // Dropping the receiver closes the connection.
    let (client, mut server) = default_pair();
    let (sender, receiver) = client.split();
    drop(receiver);
    assert!(sender.send("late").is_err());
    assert!(server.recv().is_err());
}

#[test]
fn failed_openings_are_errors() {
    let server = Server::builder()
        .timeouts(Timeouts::default().handshake(Duration::from_millis(100)))
        .build();
    let accept = |bytes: &[u8]| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut tcp = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        tcp.write_all(bytes).unwrap();
        let reading = thread::spawn(move || {
            let mut response = String::new();
            let _ = tcp.read_to_string(&mut response);
            response
        });
        let error = server.accept_blocking(listener.accept().unwrap().0).unwrap_err();
        (error, reading.join().unwrap())
    };
    let (error, response) = accept(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n");
    assert!(
        error.is_protocol() && response.starts_with("HTTP/1.1 426 "),
        "{error} {response}"
    );
    let (error, response) = accept(b"GET / HTTP/1.1\r\n");
    assert!(
        error.is_timeout() && response.starts_with("HTTP/1.1 408 "),
        "{error} {response}"
    );
    let foreign = common::REQUEST.replace("Upgrade: w", "Origin: http://evil.example\r\nUpgrade: w");
    let (error, response) = accept(foreign.as_bytes());
    assert!(
        error.is_denied() && response.starts_with("HTTP/1.1 403 "),
        "{error} {response}"
    );

    // A client that is rejected, and one that gets no answer.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let rejecting = thread::spawn(move || {
        let incoming = Server::default().accept_blocking(listener.accept().unwrap().0).unwrap();
        incoming.reject(sockeye::http::StatusCode::NOT_FOUND);
        listener
    });
    let error = blocking::connect(&format!("ws://{address}/")).unwrap_err();
    assert_eq!(error.response().unwrap().status(), 404);
    let listener = rejecting.join().unwrap();
    let client = Client::builder().timeouts(Timeouts::default().handshake(Duration::from_millis(50)));
    let request = client.build().unwrap().request(format!("ws://{address}/"));
    assert!(request.connect_blocking().unwrap_err().is_timeout());
    drop(listener);
    let error = blocking::connect(&format!("ws://{address}/")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Connect, "{error}");
    let error = blocking::connect("ws://no-such-host.invalid/").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Resolve, "{error}");
    assert!(blocking::connect("http:/").unwrap_err().is_invalid_input());
    let local = Client::builder().local_address(([127, 0, 0, 1], 0)).build().unwrap();
    let error = local.request("ws://localhost/").connect_blocking().unwrap_err();
    assert!(error.is_invalid_input(), "{error}");
}

#[cfg(feature = "tls")]
#[test]
fn messages_cross_tls() {
    let certified = common::tls::certified();
    let (client, server) = (common::tls::client(&certified), common::tls::server(&certified));
    for is_split in [false, true] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let accepting = {
            let server = server.clone();
            thread::spawn(move || echo(server.accept_blocking(listener.accept().unwrap().0)?.accept()?))
        };
        let mut ws = client
            .request(format!("wss://localhost:{port}/"))
            .connect_blocking()
            .unwrap();
        if is_split {
            let (sender, mut receiver) = ws.split();
            let sending = thread::spawn(move || {
                for len in [1, 100_000, 3_000_000] {
                    sender.send(vec![1; len]).unwrap();
                }
                sender
            });
            for len in [1, 100_000, 3_000_000] {
                assert_eq!(receiver.recv_timeout(LONG).unwrap().unwrap().len(), len);
            }
            sending.join().unwrap().close(CloseCode::NORMAL, "").unwrap();
            assert_eq!(receiver.recv().unwrap(), None);
        } else {
            for len in [1, 100_000, 3_000_000] {
                ws.send(vec![1; len]).unwrap();
                assert_eq!(ws.recv_timeout(LONG).unwrap().unwrap().len(), len);
            }
            ws.close(CloseCode::NORMAL, "").unwrap();
        }
        accepting.join().unwrap().unwrap();
    }
    // The other side does not speak TLS.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let answering = thread::spawn(move || {
        let (mut tcp, _) = listener.accept().unwrap();
        tcp.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").unwrap();
        let _ = tcp.read(&mut [0; 1000]);
    });
    let error = client
        .request(format!("wss://localhost:{port}/"))
        .connect_blocking()
        .unwrap_err();
    assert!(error.is_tls(), "{error}");
    answering.join().unwrap();
}
