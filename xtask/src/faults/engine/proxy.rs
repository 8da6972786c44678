//! A network that can be cut: a TCP proxy that stops forwarding.

use std::{
    io::{ErrorKind, Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use anyhow::Result;

/// How often a thread checks whether the network is cut.
const TICK: Duration = Duration::from_millis(10);

/// Forwards connections to an address. Ends when dropped.
pub(super) struct Proxy {
    pub(super) address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    is_cut: AtomicBool,
    is_stopped: AtomicBool,
}

impl Proxy {
    pub(super) fn start(to: SocketAddr) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared::default());
        thread::Builder::new().name("proxy".into()).spawn({
            let shared = shared.clone();
            move || {
                for stream in listener.incoming() {
                    if shared.is_stopped.load(Ordering::Acquire) {
                        return;
                    }
                    if let Ok(stream) = stream {
                        let shared = shared.clone();
                        thread::spawn(move || forward(stream, to, &shared));
                    }
                }
            }
        })?;
        Ok(Self { address, shared })
    }

    /// While the network is cut, data is held back, and neither side gets an error.
    pub(super) fn cut(&self, is_cut: bool) {
        self.shared.is_cut.store(is_cut, Ordering::Release);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.is_stopped.store(true, Ordering::Release);
        // Wakes the thread that accepts.
        let _ = TcpStream::connect(self.address);
    }
}

fn forward(client: TcpStream, to: SocketAddr, shared: &Arc<Shared>) {
    shared.wait();
    let Ok(server) = TcpStream::connect(to) else { return };
    let (Ok(client_write), Ok(server_write)) = (client.try_clone(), server.try_clone()) else {
        return;
    };
    thread::spawn({
        let shared = shared.clone();
        move || copy(client, server_write, &shared)
    });
    copy(server, client_write, shared);
}

fn copy(mut from: TcpStream, mut to: TcpStream, shared: &Shared) {
    let mut bytes = [0; 64 << 10];
    let _ = from.set_read_timeout(Some(TICK));
    let _ = to.set_nodelay(true);
    loop {
        shared.wait();
        match from.read(&mut bytes) {
            Ok(len) if len > 0 => {
                // The network may have been cut while the thread was reading.
                shared.wait();
                if to.write_all(&bytes[..len]).is_err() {
                    break;
                }
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                if shared.is_stopped.load(Ordering::Acquire) {
                    break;
                }
            }
            _ => break,
        }
    }
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
}

impl Shared {
    fn wait(&self) {
        while self.is_cut.load(Ordering::Acquire) && !self.is_stopped.load(Ordering::Acquire) {
            thread::sleep(TICK);
        }
    }
}
