//! Measures servers in this process and checks that wrong replies are detected.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener},
    thread,
    time::Duration,
};

use load::{Drive, Kind, Plan, Protocol, Report, Target, Verify};

#[test]
fn right_replies_are_counted_and_compared() {
    let report = measure(|message, _| message.to_vec()).expect("the server echoes");
    assert!(report.messages > 0.0);
    assert!(report.verified as f64 >= report.messages, "all are compared");
    assert_eq!(report.unanswered, 0);
    assert_eq!(report.latency.count as f64, report.messages.round());
}

#[test]
fn a_wrong_byte_fails_the_run() {
    let error = measure(|message, count| {
        let mut message = message.to_vec();
        message[7] ^= u8::from(count == 20);
        message
    });
    let error = format!("{:#}", error.expect_err("the twentieth reply is wrong"));
    assert!(error.contains("wrong bytes in reply 20"), "{error}");
}

#[test]
fn a_reply_too_many_fails_the_run() {
    let error = measure(|message, count| message.repeat(if count == 20 { 2 } else { 1 }));
    let error = format!("{:#}", error.expect_err("a reply came twice"));
    // The surplus reply may also be compared with the reply to the next message, if that was requested before it was
    // read.
    assert!(
        error.contains("more came back") || error.contains("wrong bytes"),
        "{error}"
    );
}

#[test]
fn a_server_that_ends_fails_the_run() {
    let error = measure(|message, count| if count < 20 { message.to_vec() } else { Vec::new() });
    let error = format!("{:#}", error.expect_err("the connection ended"));
    assert!(error.contains("connection 0 of 1"), "{error}");
}

/// Runs 200 ms on one raw connection to a server that computes each reply from the message and its number; `None`
/// closes the connection.
fn measure(reply: impl Fn(&[u8], u64) -> Vec<u8> + Send) -> anyhow::Result<Report> {
    let listener = TcpListener::bind("127.0.0.1:0").expect("there is a free port");
    let address = listener.local_addr().expect("it is bound");
    thread::scope(|scope| {
        scope.spawn(move || {
            let (mut stream, _) = listener.accept().expect("the load connects");
            let mut message = [0; SIZE];
            for count in 0.. {
                if stream.read_exact(&mut message).is_err() {
                    return;
                }
                let reply = reply(&message, count);
                if reply.is_empty() || stream.write_all(&reply).is_err() {
                    return;
                }
            }
        });
        load::run(&plan(address))
    })
}

const SIZE: usize = 50;

fn plan(address: SocketAddr) -> Plan {
    Plan {
        target: Target {
            protocol: Protocol::Raw,
            ..Target::new(address)
        },
        kind: Kind::Binary,
        size: SIZE,
        connections: 1,
        drive: Drive::Closed { in_flight: 1 },
        warm_up: Duration::ZERO,
        duration: Duration::from_millis(200),
        verify: Verify::All,
        pid: None,
    }
}
