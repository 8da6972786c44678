//! C19, C21 and C22: keys that repeat, memory of others, unsafe code.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use sockeye::{Client, Server};
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};

use crate::common::wire::{binary, close, ping, text};
use crate::common::{BOTH, Local, Peer, look, open, pair};

#[tokio::test(start_paused = true)]
async fn cve_2025_10148_no_key_of_any_connection_comes_again() {
    let mut keys = BTreeSet::new();
    for _ in 0..100 {
        let (mut ws, peer) = open(Local::Client).await;
        for _ in 0..20 {
            ws.send("x").await.unwrap();
            let bytes = peer.takes_bytes();
            keys.insert(<[u8; 4]>::try_from(&bytes[2..6]).unwrap());
        }
    }
    // Of 2,000 out of 2^32, one pair is the same in one run of 2,000; two pairs never are.
    assert!(keys.len() >= 1999, "{}", keys.len());
}

const SECRET: &[u8] = b"the secret of another connection";

fn shows_secret(bytes: &[u8]) -> bool {
    bytes
        .windows(8)
        .any(|window| SECRET.windows(8).any(|part| part == window))
}

/// The buffers of the thread have the secret in them then: those that read and those that write.
async fn spread_secret(local: Local) {
    let (mut ws, peer) = open(local).await;
    peer.sends((0..1000).map(|_| binary(SECRET)));
    for _ in 0..1000 {
        let message = ws.recv().await.unwrap().unwrap();
        ws.feed(message).await.unwrap();
    }
    ws.flush().await.unwrap();
    assert_eq!(peer.takes().len(), 1000);
}

/// As [`spread_secret`], over a transport of a known type, which reads into buffers of the thread in which bytes are left.
async fn spread_secret_over_a_known_transport() {
    let (mut ours, mut theirs) = pair(&Client::default(), &Server::default()).await;
    for _ in 0..1000 {
        theirs.feed(SECRET).await.unwrap();
    }
    theirs.flush().await.unwrap();
    for _ in 0..1000 {
        assert_eq!(ours.recv().await.unwrap().unwrap().as_bytes(), SECRET);
    }
}

/// A transport that looks at what lies in the buffers that it is given to read into.
struct Snoop {
    io: DuplexStream,
    looks: usize,
    /// All bytes that were neither zero nor its own.
    seen: Arc<Mutex<Vec<u8>>>,
}

/// What its own messages are made of.
const FILLING: u8 = b'.';

impl Drop for Snoop {
    fn drop(&mut self) {
        assert!(self.looks >= 3, "{}", self.looks);
    }
}

impl AsyncRead for Snoop {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let unfilled = buf.initialize_unfilled();
        let foreign = unfilled.iter().filter(|byte| **byte != 0 && **byte != FILLING);
        self.seen.lock().unwrap().extend(foreign);
        self.looks += 1;
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl AsyncWrite for Snoop {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[tokio::test(start_paused = true)]
async fn a_transport_that_looks_into_its_read_buffer_sees_nothing_of_other_connections() {
    for large in [false, true] {
        spread_secret_over_a_known_transport().await;
        spread_secret(Local::Server).await;
        let (near, far) = tokio::io::duplex(64 * 1024);
        let seen = Arc::default();
        let snoop = Snoop {
            io: near,
            looks: 0,
            seen: Arc::clone(&seen),
        };
        let (server, client) = (Server::default(), Client::default());
        let accepting = async { server.accept(snoop).await?.accept().await };
        let (ours, theirs) = tokio::join!(accepting, client.connect_over(far, "ws://localhost/"));
        let (mut ours, mut theirs) = (ours.unwrap(), theirs.unwrap().0);
        let message = vec![FILLING; if large { 1 << 20 } else { 100 }];
        for _ in 0..3 {
            let (sent, received) = tokio::join!(theirs.send(message.clone()), ours.recv());
            sent.unwrap();
            assert_eq!(received.unwrap().unwrap().as_bytes(), message);
            spread_secret_over_a_known_transport().await;
        }
        assert_eq!(*seen.lock().unwrap(), b"");
    }
}

/// All that a connection makes of input that is short, cut off or wrong.
async fn told_by(local: Local, peer_sends: impl FnOnce(&Peer)) -> Vec<u8> {
    let (mut ws, peer) = open(local).await;
    peer_sends(&peer);
    peer.ends();
    let mut told = vec![];
    while let Ok(Some(message)) = ws.recv().await {
        told.extend_from_slice(message.as_bytes());
        ws.feed(message).await.unwrap();
    }
    let mut receiving = pin!(ws.recv());
    let _ = look(&mut receiving).await;
    told.extend(peer.takes_bytes());
    told
}

#[tokio::test(start_paused = true)]
async fn cve_2026_45736_nothing_that_another_connection_received_comes_out_of_this_one() {
    assert!(shows_secret(&[b"x", SECRET].concat()), "or else the rest shows nothing");
    for local in BOTH {
        spread_secret(local).await;
        // A client masks; its own close frame would be hidden from this test.
        for sends in [
            |peer: &Peer| peer.sends([text(""), ping(""), close(1000, "")]),
            |peer: &Peer| peer.sends([binary("ab"), binary([]), close(3000, "")]),
            |peer: &Peer| peer.sends([binary("cut off").declaring(30_000)]),
            |peer: &Peer| peer.sends([text("cut off").declaring(100)]),
            |peer: &Peer| peer.sends([ping("cut off").declaring(125)]),
            |peer: &Peer| peer.sends_bytes([0x88, 0x81, 0, 0, 0, 0, 1]),
        ] {
            let told = told_by(local, sends).await;
            assert!(!shows_secret(&told), "{local:?}: {told:?}");
        }
    }
}

/// The files of a folder, and of those in it.
fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => files(&path, found),
            false => found.push(path),
        }
    }
}

#[test]
fn cve_rustsec_2026_0007_unsafe_code_is_where_it_was() {
    // The workspace denies unsafe code; this is about who allows it again.
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut sources = vec![];
    files(&src, &mut sources);
    assert!(sources.len() > 10, "{sources:?}");
    let mut allowing: Vec<_> = sources
        .iter()
        .flat_map(|path| {
            let source = std::fs::read_to_string(path).unwrap();
            let count = source.matches("unsafe_code").count() + source.matches("unsafe {").count();
            std::iter::repeat_n(path.strip_prefix(&src).unwrap().to_owned(), count)
        })
        .collect();
    allowing.sort();
    // Permissions and blocks. `message/mod.rs` relies on text being UTF-8, which `endpoint/driver/receive.rs` and
    // `message/outbound.rs` guarantee. `transport/tcp_info.rs` calls `getsockopt`.
    let expected = [
        ["endpoint/driver/receive.rs"; 2].as_slice(),
        &["message/mod.rs"; 3],
        &["message/outbound.rs"; 2],
        &["transport/tcp_info.rs"; 4],
    ]
    .concat();
    let expected: Vec<_> = expected.iter().map(PathBuf::from).collect();
    assert_eq!(allowing, expected);
}
