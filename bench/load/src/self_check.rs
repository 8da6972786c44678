//! Measures a server with known delays to check that the reported figures contain them.

use std::{
    fmt,
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    ops::Range,
    thread,
    time::Duration,
};

use anyhow::{Context, Result};
use serde::Serialize;
use socket2::{Domain, Socket, Type};

use crate::{
    plan::{Drive, Kind, Plan, Protocol, Target, Verify},
    report::Report,
    run::run,
};

/// A figure and its expected range.
#[derive(Clone, Debug, Serialize)]
pub struct Check {
    /// Name of the figure.
    pub name: &'static str,
    /// The reported value in milliseconds.
    pub found_ms: f64,
    /// The expected range in milliseconds; the upper end is excluded.
    pub bounds_ms: Range<f64>,
}

/// Delay of every reply in the first two checks.
const DELAY: Duration = Duration::from_millis(20);

/// Upper bound for the median in those checks. A reply is never early.
const DELAY_BOUNDS: Range<f64> = 20.0..25.0;

/// How long the server of the last check stalls, once.
const STALL: Duration = Duration::from_millis(400);

/// Large messages and small kernel buffers, so that messages to a stalled server queue in the generator.
const LARGE: usize = 64 * 1024;
const SMALL_BUFFER: usize = 32 * 1024;

/// Measures a server with known delays in a closed and an open loop, and a server that stalls.
///
/// # Errors
/// If a measurement fails. A wrong figure is not an error but a [`Check`] that does not pass.
pub fn self_check() -> Result<Vec<Check>> {
    let delayed = |drive| {
        measure(
            plan(8, 64, drive, Duration::from_secs(1)),
            Behaviour {
                delay: DELAY,
                stall_at: None,
            },
        )
    };
    let closed = delayed(Drive::Closed { in_flight: 1 })?;
    // One message on each connection every 100 ms, so that no message waits for another.
    let open = delayed(Drive::Open { rate: 80.0 })?;
    let stalled = measure(
        plan(1, LARGE, Drive::Open { rate: 500.0 }, Duration::from_millis(1500)),
        Behaviour {
            delay: Duration::ZERO,
            stall_at: Some(150),
        },
    )?;
    let actual = stalled.open_loop.as_ref().context("this was an open loop")?;
    Ok(vec![
        check(
            "every reply 20 ms late, closed loop: p50",
            closed.latency.p50,
            DELAY_BOUNDS,
        ),
        check(
            "every reply 20 ms late, open loop: p50 from the intended time",
            open.latency.p50,
            DELAY_BOUNDS,
        ),
        // A quarter of the messages are due during the stall; a tenth of all waits at least this long.
        check(
            "a stall of 400 ms, open loop: p90 from the intended time",
            stalled.latency.p90,
            150.0..500.0,
        ),
        check(
            "a stall of 400 ms, open loop: p90 from the actual time",
            actual.actual.p90,
            0.0..50.0,
        ),
        check(
            "a stall of 400 ms, open loop: longest from the intended time",
            stalled.latency.max,
            380.0..1000.0,
        ),
    ])
}

impl Check {
    /// Whether the figure is in its range.
    pub fn passes(&self) -> bool {
        self.bounds_ms.contains(&self.found_ms)
    }
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} {}: {:.3} ms, expected {} to {} ms",
            if self.passes() { "ok    " } else { "FAILED" },
            self.name,
            self.found_ms,
            self.bounds_ms.start,
            self.bounds_ms.end
        )
    }
}

fn check(name: &'static str, found_ns: u64, bounds_ms: Range<f64>) -> Check {
    Check {
        name,
        found_ms: found_ns as f64 / 1e6,
        bounds_ms,
    }
}

fn plan(connections: usize, size: usize, drive: Drive, duration: Duration) -> Plan {
    Plan {
        target: Target {
            protocol: Protocol::Raw,
            send_buffer: (size == LARGE).then_some(SMALL_BUFFER),
            // Set before the server listens.
            ..Target::new(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))
        },
        kind: Kind::Binary,
        size,
        connections,
        drive,
        warm_up: Duration::from_millis(100),
        duration,
        verify: Verify::All,
        pid: None,
    }
}

/// What the server does with each message before it echoes it.
#[derive(Clone, Copy, Debug)]
struct Behaviour {
    delay: Duration,
    /// Stalls before this message of a connection.
    stall_at: Option<u64>,
}

fn measure(mut plan: Plan, behaviour: Behaviour) -> Result<Report> {
    let listener = listen()?;
    plan.target.address = listener.local_addr()?;
    let (connections, size) = (plan.connections, plan.size);
    thread::scope(|scope| {
        let server = scope.spawn(move || {
            // One thread per connection, so that a delay on one connection does not affect another.
            thread::scope(|scope| {
                for stream in listener.incoming().take(connections) {
                    let stream = stream?;
                    scope.spawn(move || echo(stream, size, behaviour));
                }
                Ok::<_, std::io::Error>(())
            })
        });
        let report = run(&plan);
        if report.is_err() && !server.is_finished() {
            // The server may still wait for connections that were never opened.
            for _ in 0..connections {
                let _ = TcpStream::connect(plan.target.address);
            }
        }
        report
    })
}

fn listen() -> Result<TcpListener> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.set_recv_buffer_size(SMALL_BUFFER)?;
    socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into())?;
    socket.listen(64)?;
    Ok(socket.into())
}

/// Until the other side closes the connection.
fn echo(mut stream: TcpStream, size: usize, behaviour: Behaviour) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut message = vec![0; size];
    for count in 0.. {
        if behaviour.stall_at == Some(count) {
            thread::sleep(STALL);
        }
        stream.read_exact(&mut message)?;
        if !behaviour.delay.is_zero() {
            thread::sleep(behaviour.delay);
        }
        stream.write_all(&message)?;
    }
    Ok(())
}
