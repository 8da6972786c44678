//! Echo of one 20-byte message in flight, by a server thread with a blocking API: Sockeye and tungstenite, alternated.
//!
//! `bench-blocking [SECONDS] [ROUNDS]`. The client is a plain socket with frames made beforehand. CPU time is that of
//! the server's thread, as the kernel accounts it.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

const PAYLOAD_LEN: usize = 20;

const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";

fn sockeye(tcp: TcpStream) {
    let Ok(mut ws) = sockeye::blocking::accept(tcp) else {
        return;
    };
    while let Ok(Some(message)) = ws.recv() {
        if ws.feed(message).is_err() {
            return;
        }
    }
}

fn tungstenite(tcp: TcpStream) {
    if tcp.set_nodelay(true).is_err() {
        return;
    }
    let Ok(mut ws) = tungstenite::accept(tcp) else { return };
    while let Ok(message) = ws.read() {
        if (message.is_text() || message.is_binary()) && ws.send(message).is_err() {
            return;
        }
    }
}

#[derive(Clone, Copy)]
struct Measured {
    /// Messages per second.
    rate: f64,
    /// CPU time of the server per message, in microseconds: in user mode, and in total.
    user: f64,
    total: f64,
}

fn measure(serve: fn(TcpStream), time: Duration) -> std::io::Result<Measured> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let server = thread::spawn(move || {
        if let Ok((tcp, _)) = listener.accept() {
            serve(tcp);
        }
        cpu_time()
    });
    let mut tcp = TcpStream::connect(address)?;
    tcp.set_nodelay(true)?;
    tcp.write_all(REQUEST)?;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        tcp.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    let key = [1, 2, 3, 4];
    let mut frame = vec![0x81, 0x80 | PAYLOAD_LEN as u8];
    frame.extend_from_slice(&key);
    frame.extend((0..PAYLOAD_LEN).map(|i| b'a' ^ key[i % 4]));
    let mut answer = [0; 2 + PAYLOAD_LEN];
    let (start, mut count) = (Instant::now(), 0_u32);
    while count % 1000 != 0 || start.elapsed() < time {
        tcp.write_all(&frame)?;
        tcp.read_exact(&mut answer)?;
        count += 1;
    }
    let elapsed = start.elapsed();
    assert_eq!(answer[2..], [b'a'; PAYLOAD_LEN]);
    drop(tcp);
    let (user, system) = server.join().expect("the server does not panic");
    let each = |time: f64| time * 1e6 / f64::from(count);
    Ok(Measured {
        rate: f64::from(count) / elapsed.as_secs_f64(),
        user: each(user),
        total: each(user + system),
    })
}

/// The CPU time of this thread in seconds: in user mode, and in the kernel.
fn cpu_time() -> (f64, f64) {
    let stat = std::fs::read_to_string("/proc/thread-self/stat").unwrap_or_default();
    // The name in parentheses may contain spaces. Then come the state and ten more fields.
    let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields);
    let mut times = fields
        .split_whitespace()
        .skip(11)
        .map(|ticks| ticks.parse::<f64>().unwrap_or(0.0) / 100.0);
    (times.next().unwrap_or(0.0), times.next().unwrap_or(0.0))
}

fn median(rounds: &[Measured], value: impl Fn(&Measured) -> f64) -> f64 {
    let mut values: Vec<f64> = rounds.iter().map(value).collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn main() -> std::io::Result<()> {
    let arg = |number| std::env::args().nth(number).and_then(|arg| arg.parse::<u64>().ok());
    let time = Duration::from_secs(arg(1).unwrap_or(3));
    let rounds = arg(2).unwrap_or(7);
    let peers: [(&str, fn(TcpStream)); 2] = [("sockeye", sockeye), ("tungstenite", tungstenite)];
    let mut results = [vec![], vec![]];
    for _ in 0..rounds {
        for ((name, serve), results) in peers.iter().zip(&mut results) {
            let measured = measure(*serve, time)?;
            let Measured { rate, user, total } = measured;
            println!("{name:12} {rate:8.0} messages/s, {user:.3} us user, {total:.3} us CPU per message");
            results.push(measured);
        }
    }
    let [ours, theirs] = &results;
    for (what, value) in [
        ("user CPU", (|it: &Measured| it.user) as fn(&Measured) -> f64),
        ("CPU", |it| it.total),
        ("messages/s", |it| it.rate),
    ] {
        let (ours, theirs) = (median(ours, value), median(theirs, value));
        println!(
            "median {what}: {ours:.3} beside {theirs:.3}, ratio {:.2}",
            theirs / ours
        );
    }
    Ok(())
}
