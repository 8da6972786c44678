//! C19, C21 and C22: repeated keys, memory of other connections, unsafe code.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use sockeye::{Client, Server};
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};

use crate::common::wire::{binary, close, ping, text};
use crate::common::{BOTH, Local, Peer, open, pair, poll_once};

#[tokio::test(start_paused = true)]
async fn cve_2025_10148_masking_keys_do_not_repeat_across_connections() {
    let mut keys = BTreeSet::new();
    for _ in 0..100 {
        let (mut ws, peer) = open(Local::Client).await;
        for _ in 0..20 {
            ws.send("x").await.unwrap();
            let bytes = peer.take_bytes();
            keys.insert(<[u8; 4]>::try_from(&bytes[2..6]).unwrap());
        }
    }
    // Of 2,000 keys out of 2^32, two are equal in one run of 2,000; two pairs practically never.
    assert!(keys.len() >= 1999, "{}", keys.len());
}

const SECRET: &[u8] = b"the secret of another connection";

fn shows_secret(bytes: &[u8]) -> bool {
    bytes
        .windows(8)
        .any(|window| SECRET.windows(8).any(|part| part == window))
}

/// Fills the thread's read and write buffers with the secret.
async fn spread_secret(local: Local) {
    let (mut ws, peer) = open(local).await;
    peer.send((0..1000).map(|_| binary(SECRET)));
    for _ in 0..1000 {
        let message = ws.recv().await.unwrap().unwrap();
        ws.feed(message).await.unwrap();
    }
    ws.flush().await.unwrap();
    assert_eq!(peer.take_frames().len(), 1000);
}

/// Like [`spread_secret`], over a transport of a known type, which reads into buffers of the thread that contain old
/// bytes.
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

/// A transport that inspects the buffers that it reads into.
struct Snoop {
    io: DuplexStream,
    looks: usize,
    /// All bytes that were neither zero nor its own.
    seen: Arc<Mutex<Vec<u8>>>,
}

/// The content of its own messages.
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
async fn transport_that_inspects_its_read_buffer_sees_no_bytes_of_other_connections() {
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
        let (ours, theirs) = tokio::join!(accepting, client.request("ws://localhost/").connect_over(far));
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

/// Everything that a connection outputs for input that is short, truncated or invalid.
async fn output_of(local: Local, peer_sends: impl FnOnce(&Peer)) -> Vec<u8> {
    let (mut ws, peer) = open(local).await;
    peer_sends(&peer);
    peer.end();
    let mut told = vec![];
    while let Ok(Some(message)) = ws.recv().await {
        told.extend_from_slice(message.as_bytes());
        ws.feed(message).await.unwrap();
    }
    let mut receiving = pin!(ws.recv());
    let _ = poll_once(&mut receiving).await;
    told.extend(peer.take_bytes());
    told
}

#[tokio::test(start_paused = true)]
async fn cve_2026_45736_output_contains_no_bytes_of_other_connections() {
    assert!(shows_secret(&[b"x", SECRET].concat()), "or else the rest shows nothing");
    for local in BOTH {
        spread_secret(local).await;
        // Only for servers: a client masks its close frame, which would hide the secret from this test.
        for sends in [
            |peer: &Peer| peer.send([text(""), ping(""), close(1000, "")]),
            |peer: &Peer| peer.send([binary("ab"), binary([]), close(3000, "")]),
            |peer: &Peer| peer.send([binary("cut off").declaring(30_000)]),
            |peer: &Peer| peer.send([text("cut off").declaring(100)]),
            |peer: &Peer| peer.send([ping("cut off").declaring(125)]),
            |peer: &Peer| peer.send_bytes([0x88, 0x81, 0, 0, 0, 0, 1]),
        ] {
            let told = output_of(local, sends).await;
            assert!(!shows_secret(&told), "{local:?}: {told:?}");
        }
    }
}

/// Collects the files of a directory tree.
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
fn cve_rustsec_2026_0007_unsafe_code_is_only_in_known_files() {
    // The workspace denies unsafe code. This checks which files allow it.
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
    // `allow` attributes and unsafe blocks. `message/mod.rs` relies on text being UTF-8, which
    // `endpoint/driver/receive.rs` and `message/outbound.rs` guarantee. `transport/tcp_info.rs` calls `getsockopt`.
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
