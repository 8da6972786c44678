//! Measures every usage pattern of a connection: nanoseconds per small message, over TCP on loopback, against an echo
//! server in its own thread.
//!
//! `cargo run --release -p bench-micro --example throughput -- [PATTERN] [COUNT...]`. Without counts: 1,000, 100,000
//! and 1,000,000. Without a pattern: all of them. The columns of a row should be alike; the first includes the start of
//! the connection.

#[path = "../../../crates/sockeye/tests/common/usage_patterns.rs"]
mod usage_patterns;

use std::io::Write;
use std::panic::AssertUnwindSafe;
use std::time::{Duration, Instant};

use sockeye::{Client, Error, Server};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, Runtime};
use tokio::time::timeout;
use usage_patterns::{USAGE_PATTERNS, UsagePattern, Watch};

/// Counts nothing.
struct Unwatched;

impl Watch for Unwatched {}

#[derive(Clone, Copy)]
enum Executor {
    BlockOn,
    Spawned,
}

/// A run is aborted after this time.
const LIMIT: Duration = Duration::from_secs(100);

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1).peekable();
    let only = args.next_if(|arg| arg.parse::<usize>().is_err());
    let counts: Vec<usize> = args.map(|arg| arg.parse()).collect::<Result<_, _>>()?;
    let counts = if counts.is_empty() {
        vec![1_000, 100_000, 1_000_000]
    } else {
        counts
    };
    let address = start_server()?;
    print!("{:<20} {:<28}", "pattern", "runtime");
    counts.iter().for_each(|count| print!(" {count:>12}"));
    println!("    ns per message");
    let is_wanted = |pattern: &UsagePattern| only.as_ref().is_none_or(|only| *only == format!("{pattern:?}"));
    for pattern in USAGE_PATTERNS.into_iter().filter(is_wanted) {
        for (name, executor, is_multi) in [
            ("current-thread, block_on", Executor::BlockOn, false),
            ("current-thread, spawned", Executor::Spawned, false),
            ("multi-thread, block_on", Executor::BlockOn, true),
            ("multi-thread, spawned", Executor::Spawned, true),
        ] {
            print!("{:<20} {name:<28}", format!("{pattern:?}"));
            let mut is_given_up = false;
            for count in &counts {
                if is_given_up {
                    print!(" {:>12}", "-");
                    continue;
                }
                let runtime = runtime(is_multi)?;
                match measure(&runtime, executor, pattern, *count, address) {
                    Ok(elapsed) => print!(" {:>12.0}", elapsed.as_nanos() as f64 / *count as f64),
                    Err(error) => {
                        is_given_up = true;
                        print!(" {error:>12}");
                    }
                }
                // Leaves hanging tasks behind.
                runtime.shutdown_background();
                std::io::stdout().flush()?;
            }
            println!();
        }
    }
    Ok(())
}

fn runtime(is_multi: bool) -> std::io::Result<Runtime> {
    match is_multi {
        true => Builder::new_multi_thread().worker_threads(2).enable_all().build(),
        false => Builder::new_current_thread().enable_all().build(),
    }
}

/// Echoes in its own thread. Returns the address.
fn start_server() -> std::io::Result<std::net::SocketAddr> {
    let runtime = runtime(false)?;
    let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0"))?;
    let address = listener.local_addr()?;
    std::thread::spawn(move || {
        runtime.block_on(async move {
            let server = Server::default();
            while let Ok((tcp, _)) = listener.accept().await {
                let server = server.clone();
                tokio::spawn(async move {
                    let ws = server.accept(tcp).await?.accept().await?;
                    usage_patterns::echo(ws).await
                });
            }
        });
    });
    Ok(address)
}

fn measure(
    runtime: &Runtime,
    executor: Executor,
    pattern: UsagePattern,
    count: usize,
    address: std::net::SocketAddr,
) -> Result<Duration, &'static str> {
    let run = async move {
        let tcp = TcpStream::connect(address).await.map_err(Error::io)?;
        tcp.set_nodelay(true).map_err(Error::io)?;
        let (ws, _) = Client::default().request("ws://localhost/").connect_over(tcp).await?;
        let start = Instant::now();
        Ok::<_, Error>(
            match timeout(LIMIT, usage_patterns::run(pattern, ws, count, &Unwatched)).await {
                Ok(()) => Some(start.elapsed()),
                Err(_) => None,
            },
        )
    };
    let elapsed = match executor {
        Executor::BlockOn => std::panic::catch_unwind(AssertUnwindSafe(|| runtime.block_on(run))).ok(),
        Executor::Spawned => {
            let task = runtime.spawn(run);
            runtime.block_on(task).ok()
        }
    };
    // It panics where the connection is lost on the way.
    elapsed.ok_or("fails")?.map_err(|_| "no connection")?.ok_or("> 100 s")
}
