//! Connections that are driven by threads.
#![cfg(all(unix, feature = "blocking"))]

mod common;

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::thread;
use std::time::{Duration, Instant};

use sockeye::blocking::{self, RecvTimeoutError, WebSocket};
use sockeye::{Client, CloseCode, DeflateConfig, Error, ErrorKind, Keepalive, Limits, MessageKind, Server, Timeouts};

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
    for (is_compressing, (client, server)) in [(false, (Client::default(), Server::default())), (true, compressing)] {
        let (mut client, server) = pair(&client, &server);
        assert_eq!(client.negotiated_deflate().is_some(), is_compressing);
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

/// The end is reported when the close frame arrives, although the peer does not close TCP.
#[test]
fn end_does_not_wait_for_tcp() {
    // Without pings, and within this time, nothing else ends the wait.
    let timeouts = Timeouts::default().close(Duration::from_secs(120));
    for is_server in [false, true] {
        for is_split in [false, true] {
            let client = Client::builder().keepalive(None).timeouts(timeouts.clone());
            let server = Server::builder().keepalive(None).timeouts(timeouts.clone());
            let (client, server) = pair(&client.build().unwrap(), &server.build());
            let (mut local, peer) = if is_server { (server, client) } else { (client, server) };
            let (sender, _receiver) = peer.split();
            let start = Instant::now();
            // One segment, so that the close frame is received with the message.
            sender.feed("last").unwrap();
            sender.close(CloseCode::NORMAL, "bye").unwrap();
            let close_info = if is_split {
                let (sender, mut receiver) = local.split();
                assert_eq!(receiver.recv().unwrap().unwrap().as_text(), Some("last"));
                assert_eq!(receiver.recv().unwrap(), None);
                sender.close_info()
            } else {
                assert_eq!(local.recv().unwrap().unwrap().as_text(), Some("last"));
                assert_eq!(local.recv().unwrap(), None);
                local.close_info().cloned()
            };
            assert!(start.elapsed() < Duration::from_secs(60), "{:?}", start.elapsed());
            assert_eq!(close_info.unwrap().reason(), "bye");
        }
    }
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
    let resolve = async |_: String, _: u16| Ok(vec![]);
    let resolving = Client::builder().resolver(resolve).build().unwrap();
    let error = resolving.request("ws://localhost/").connect_blocking().unwrap_err();
    assert!(
        error.is_invalid_input() && error.to_string().contains("connect_blocking_over"),
        "{error}"
    );
}

#[test]
fn body_of_a_rejection_is_awaited_for_one_second() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("ws://{}/", listener.local_addr().unwrap());
    let rejecting = thread::spawn(move || {
        let (mut tcp, _) = listener.accept().unwrap();
        let _ = tcp.read(&mut [0; 4096]).unwrap();
        // The body ends with the connection, which stays open.
        tcp.write_all(b"HTTP/1.1 404 Not Found\r\n\r\nnot here").unwrap();
        tcp.read(&mut [0; 1])
    });
    let start = Instant::now();
    let error = blocking::connect(&url).unwrap_err();
    assert!(start.elapsed() >= Duration::from_secs(1) && start.elapsed() < Duration::from_secs(9));
    let response = error.response().unwrap();
    assert_eq!(
        (response.status().as_u16(), &response.body()[..]),
        (404, &b"not here"[..])
    );
    assert_eq!(rejecting.join().unwrap().unwrap(), 0, "the client has closed");
}

#[test]
fn connection_begins_at_the_local_address() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("ws://localhost:{}/", listener.local_addr().unwrap().port());
    // Linux has all of 127.0.0.0/8.
    let own = match cfg!(target_os = "linux") {
        true => [127, 0, 0, 7],
        false => [127, 0, 0, 1],
    };
    let client = Client::builder().local_address((own, 0)).build().unwrap();
    let accepting = thread::spawn(move || blocking::accept(listener.accept().unwrap().0).unwrap());
    // IPv6 addresses of the name are not tried.
    let ws = client.request(url).connect_blocking().unwrap();
    assert_eq!(ws.local_addr().unwrap().ip(), std::net::IpAddr::from(own));
    assert_eq!(accepting.join().unwrap().peer_addr(), ws.local_addr());
    let error = client.request("ws://[::1]:1/").connect_blocking().unwrap_err();
    assert!(error.is_invalid_input(), "{error}");
}

#[test]
fn unix_socket_carries_a_connection() {
    let path = std::env::temp_dir().join(format!("sockeye-blocking-{}", std::process::id()));
    let _ = std::fs::remove_file(&path);
    let listener = UnixListener::bind(&path).unwrap();
    let accepting = thread::spawn(move || echo(blocking::accept(listener.accept().unwrap().0).unwrap()));
    let socket = UnixStream::connect(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    let request = Client::default().request("ws://localhost/path");
    let mut ws = request.connect_blocking_over(socket).unwrap();
    assert_eq!((ws.peer_addr(), ws.local_addr()), (None, None));
    // More than the socket buffers hold, so that both sides wait for each other.
    ws.send(vec![7; 3_000_000]).unwrap();
    assert_eq!(ws.recv_timeout(LONG).unwrap().unwrap().len(), 3_000_000);
    let error = ws.recv_timeout(Duration::from_millis(20)).unwrap_err();
    assert!(matches!(error, RecvTimeoutError::Elapsed), "{error}");
    ws.close(CloseCode::NORMAL, "").unwrap();
    accepting.join().unwrap().unwrap();
}

#[test]
fn try_send_does_not_wait() {
    for is_split in [false, true] {
        let limits = Limits::default().write_buffer_max(64 * 1024);
        let client = Client::builder().limits(limits).build().unwrap();
        let (mut client, mut server) = pair(&client, &Server::default());
        // The peer does not read yet.
        let part = vec![7; 60_000];
        let start = Instant::now();
        let mut sent = 0;
        let receiving = if is_split {
            let (sender, receiver) = client.split();
            while sender.try_send(part.clone()).is_ok() {
                sent += 1;
            }
            let error = sender.try_send(part.clone()).unwrap_err();
            assert!(error.is_full(), "{error}");
            // The receiver writes the rest.
            let mut receiver = receiver;
            thread::spawn(move || receiver.recv())
        } else {
            while client.try_send(part.clone()).is_ok() {
                sent += 1;
            }
            let error = client.try_send(part.clone()).unwrap_err();
            assert!(error.is_full(), "{error}");
            thread::spawn(move || client.recv())
        };
        assert!(sent > 0 && start.elapsed() < LONG);
        for _ in 0..sent {
            assert_eq!(server.recv_timeout(LONG).unwrap().unwrap().len(), 60_000);
        }
        server.close(CloseCode::NORMAL, "").unwrap();
        assert_eq!(receiving.join().unwrap().unwrap(), None);
    }
}

#[test]
fn try_send_writes_before_it_finds_the_queue_full() {
    let limits = Limits::default().write_buffer_max(64 * 1024);
    let client = Client::builder().limits(limits).build().unwrap();
    let (client, mut server) = pair(&client, &Server::default());
    // No thread receives.
    let (sender, _receiver) = client.split();
    let part = vec![7; 60_000];
    let mut sent = 0;
    while sender.try_send(part.clone()).is_ok() {
        sent += 1;
    }
    // The peer reads what the kernels hold. The end of two messages may be in the queue.
    for _ in 2..sent {
        assert_eq!(server.recv_timeout(LONG).unwrap().unwrap().len(), 60_000);
    }
    sender.try_send(part).unwrap();
}

#[test]
fn try_send_writes_without_a_receiver() {
    let (client, mut server) = default_pair();
    let (sender, _receiver) = client.split();
    sender.try_send("alone").unwrap();
    assert_eq!(server.recv_timeout(LONG).unwrap().unwrap().as_text(), Some("alone"));
}

#[cfg(feature = "json")]
#[test]
fn values_cross_as_json() {
    let (client, mut server) = default_pair();
    let mut client = client.json();
    client.feed(&("a", 1)).unwrap();
    client.send(&("b", 2)).unwrap();
    assert_eq!(server.recv().unwrap().unwrap().as_text(), Some(r#"["a",1]"#));
    let (sender, mut receiver) = server.json().split();
    assert_eq!(receiver.recv::<(String, u8)>().unwrap().unwrap(), ("b".to_owned(), 2));
    sender.get_ref().send("no JSON").unwrap();
    sender.send(&[1, 2]).unwrap();
    let error = client.recv::<Vec<u8>>().unwrap_err();
    assert_eq!(error.message().unwrap().as_text(), Some("no JSON"));
    assert_eq!(client.recv::<Vec<u8>>().unwrap().unwrap(), [1, 2]);
    drop(receiver);
    assert!(client.recv::<u8>().unwrap_err().connection().is_some());
}

#[test]
fn messages_are_read_and_written_as_streams() {
    const LEN: usize = 5_000_000;
    let config = DeflateConfig::default();
    let compressing = (
        Client::builder().compression(config.clone()).build().unwrap(),
        Server::builder().compression(config).build(),
    );
    for (client, server) in [(Client::default(), Server::default()), compressing] {
        let (mut client, mut server) = pair(&client, &server);
        let sending = thread::spawn(move || {
            let mut message = client.send_stream(MessageKind::Binary);
            let copied = std::io::copy(&mut std::io::repeat(7).take(LEN as u64), &mut message).unwrap();
            assert_eq!(copied, LEN as u64);
            message.finish().unwrap();
            // A flush sends a fragment, also in the middle of a character.
            let mut message = client.send_stream(MessageKind::Text);
            for byte in "\u{fc}ber".bytes() {
                message.write_all(&[byte]).unwrap();
                message.flush().unwrap();
            }
            message.finish().unwrap();
            client.send("whole").unwrap();
            // The peer reads only the start of this one.
            let mut message = client.send_stream(MessageKind::Binary);
            message.write_all(&[1; 300_000]).unwrap();
            message.finish().unwrap();
            client.send("last").unwrap();
            let error = std::io::Error::from(client.recv().unwrap_err());
            (client, error)
        });
        let mut received = Vec::new();
        let mut message = server.recv_stream().unwrap().unwrap();
        assert!(!message.is_text());
        message.read_to_end(&mut received).unwrap();
        assert!(received == vec![7; LEN]);
        // At the end, reading returns nothing.
        assert_eq!(message.read(&mut [0; 10]).unwrap(), 0);
        drop(message);
        let mut text = String::new();
        let mut message = server.recv_stream().unwrap().unwrap();
        assert_eq!(message.kind(), MessageKind::Text);
        message.read_to_string(&mut text).unwrap();
        assert_eq!(text, "\u{fc}ber");
        drop(message);
        assert_eq!(server.recv().unwrap().unwrap().as_text(), Some("whole"));
        let mut message = server.recv_stream().unwrap().unwrap();
        message.read_exact(&mut [0; 1000]).unwrap();
        drop(message);
        assert_eq!(server.recv().unwrap().unwrap().as_text(), Some("last"));

        // A message that is not finished closes the connection with 1011.
        let mut message = server.send_stream(MessageKind::Binary);
        message.write_all(&[1; 100_000]).unwrap();
        drop(message);
        server.flush().unwrap_err();
        let (mut client, error) = sending.join().unwrap();
        let inner = error.get_ref().unwrap().downcast_ref::<Error>().unwrap();
        assert_eq!(inner.close_code(), Some(CloseCode::INTERNAL_ERROR), "{error}");
        assert_eq!(client.recv().unwrap_err().close_code(), Some(CloseCode::INTERNAL_ERROR));
    }
}

#[test]
fn truncated_stream_is_an_error() {
    let (client, mut server) = default_pair();
    let sending = thread::spawn(move || {
        let mut client = client;
        let mut message = client.send_stream(MessageKind::Binary);
        message.write_all(&[1; 1000]).unwrap();
        message.flush().unwrap();
        std::mem::forget(message);
        client.abort();
    });
    let mut message = server.recv_stream().unwrap().unwrap();
    message.read_exact(&mut [0; 1000]).unwrap();
    for _ in 0..2 {
        let error = message.read(&mut [0; 10]).unwrap_err();
        assert!(error.get_ref().unwrap().is::<Error>(), "{error}");
    }
    sending.join().unwrap();
}

#[test]
fn byte_protocol_runs_over_messages() {
    let (client, server) = default_pair();
    let answering = thread::spawn(move || {
        let mut io = server.into_io().half_close();
        let mut request = String::new();
        // The request ends with its direction.
        io.read_to_string(&mut request).unwrap();
        io.write_all(request.to_uppercase().as_bytes()).unwrap();
        io.shutdown().unwrap();
        io.into_inner()
    });
    let mut io = client.into_io().half_close();
    let request = "bytes ".repeat(100_000);
    io.write_all(request.as_bytes()).unwrap();
    io.shutdown().unwrap();
    assert_eq!(io.write(b"more").unwrap_err().kind(), std::io::ErrorKind::BrokenPipe);
    let mut answer = String::new();
    io.read_to_string(&mut answer).unwrap();
    assert!(answer == request.to_uppercase());
    let mut ws = io.into_inner();
    assert_eq!(ws.recv().unwrap(), None);
    ws.close(CloseCode::NORMAL, "").unwrap();
    assert!(ws.close_info().unwrap().is_clean());
    drop(answering.join().unwrap());
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

#[test]
fn started_close_still_receives_messages() {
    let (mut client, mut server) = default_pair();
    client.start_close(CloseCode::NORMAL, "done").unwrap();
    assert!(!client.is_open());
    server.send("late").unwrap();
    let closing = thread::spawn(move || server.recv().unwrap());
    assert_eq!(client.recv().unwrap().unwrap().as_text(), Some("late"));
    assert_eq!(client.recv().unwrap(), None);
    assert_eq!(closing.join().unwrap(), None);
    assert!(client.close_info().unwrap().is_clean());
}
