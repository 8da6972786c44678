//! C11, C15 and C25 below the WebSocket.

use std::pin::pin;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::common::script::transport;
use crate::common::tls::{certified, client, server};
use crate::common::{poll_once, within};
use crate::heap::{live, peak_during};
use crate::watched;

/// The header of a TLS record: type, version, length.
const RECORD_HEADER: usize = 5;

/// Upper bound for what rustls keeps of one handshake.
const TLS_HANDSHAKE: usize = 64 * 1024;

/// The first record of a client: its ClientHello.
async fn client_hello() -> Vec<u8> {
    let (io, peer) = transport(false);
    let client = client(&certified());
    let mut connecting = pin!(client.request("wss://localhost/").connect_over(io));
    assert!(poll_once(&mut connecting).await.is_pending());
    let hello = peer.take_bytes();
    assert_eq!(hello[0], 22, "a handshake record");
    assert_eq!(
        hello.len(),
        RECORD_HEADER + usize::from(u16::from_be_bytes([hello[3], hello[4]]))
    );
    hello
}

#[tokio::test(start_paused = true)]
async fn cve_2026_126343_end_at_any_byte_of_a_client_hello_is_an_error() {
    let (server, hello) = (server(&certified()), client_hello().await);
    for resets in [false, true] {
        for len in 0..hello.len() {
            let (io, peer) = transport(true);
            peer.send_bytes(&hello[..len]);
            match resets {
                true => peer.reset(),
                false => peer.end(),
            }
            assert!(within(60, server.accept(io)).await.is_err(), "{len}");
            assert!(peer.is_transport_closed(), "{len}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn cve_2026_129500_failure_at_any_tls_operation_is_an_error() {
    let hello = client_hello().await;
    let server = server(&certified());
    let mut failures = 0;
    for operation in 0..1000 {
        let (io, peer) = transport(true);
        peer.change_rules(|rules| {
            rules.read_max = 50;
            rules.write_max = 50;
        });
        peer.fail_after(operation);
        peer.send_bytes(&hello);
        peer.end();
        let error = within(60, server.accept(io)).await.unwrap_err();
        assert!(peer.is_transport_closed(), "{operation}");
        // From here on, the transport works until its end, which comes in the middle of the handshake.
        if peer.take_bytes().len() > 500 {
            break;
        }
        assert!(error.is_io() || error.is_tls(), "{error:?}");
        failures += 1;
    }
    assert!((10..1000).contains(&failures), "{failures}");
}

#[tokio::test(start_paused = true)]
async fn cve_ghsa_8j3g_f24p_4mpw_tls_and_request_share_10_s() {
    let (server, hello) = (server(&certified()), client_hello().await);
    // Single bytes; late; single bytes after the complete hello.
    for (at_once, every) in [(0, 100), (0, 9000), (hello.len(), 100)] {
        let (io, peer) = transport(true);
        let start = Instant::now();
        let dripping = async {
            peer.send_bytes(&hello[..at_once]);
            for byte in hello[at_once..].iter().chain(&[22, 3, 3, 0, 200]).chain([&0; 1000]) {
                sleep(Duration::from_millis(every)).await;
                peer.send_bytes([*byte]);
            }
            std::future::pending().await
        };
        let ended = async {
            tokio::select! {
                accepted = server.accept(io) => accepted,
                () = dripping => unreachable!(),
            }
        };
        let (accepted, most) = peak_during(ended).await;
        let error = accepted.unwrap_err();
        assert!(peer.is_transport_closed());
        assert!(error.is_timeout() || error.is_tls(), "{error:?}");
        assert!(start.elapsed().as_secs() <= 10, "{at_once}, {every}");
        assert!(most <= TLS_HANDSHAKE, "{most}");
    }
}

#[tokio::test(start_paused = true)]
async fn cve_rustsec_2024_0336_close_notify_in_the_handshake_ends_it_without_spinning() {
    // An alert record: warning, close_notify.
    const CLOSE_NOTIFY: [u8; 7] = [21, 3, 3, 0, 2, 1, 0];
    let (server, hello) = (server(&certified()), client_hello().await);
    for first in [&hello[..0], &hello[..]] {
        for ends in [true, false] {
            let (io, peer) = transport(true);
            peer.send_bytes(first);
            peer.send_bytes(CLOSE_NOTIFY);
            if ends {
                peer.end();
            }
            let (accepted, secs, polls) = watched(server.accept(io)).await;
            assert!(accepted.is_err() && peer.is_transport_closed());
            assert!(secs <= 10 && polls <= 16, "{secs} s, {polls} polls");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn cve_rustsec_2024_0399_client_hello_in_one_byte_records_does_not_panic() {
    let (server, hello) = (server(&certified()), client_hello().await);
    let records: Vec<u8> = hello[RECORD_HEADER..]
        .iter()
        .flat_map(|byte| [22, hello[1], hello[2], 0, 1, *byte])
        .collect();
    for read_max in [usize::MAX, 1] {
        let (io, peer) = transport(true);
        peer.change_rules(|rules| rules.read_max = read_max);
        peer.send_bytes(&records);
        let mut accepting = pin!(server.accept(io));
        let before = live();
        let answered = poll_once(&mut accepting).await;
        let told = peer.take_bytes();
        assert!(
            answered.is_ready() || told.first() == Some(&22),
            "{answered:?}: {told:?}"
        );
        assert!(live() - before <= TLS_HANDSHAKE as isize);
        peer.end();
        if answered.is_pending() {
            assert!(within(60, accepting).await.is_err());
        }
        assert!(peer.is_transport_closed());
    }
}

#[tokio::test(start_paused = true)]
async fn cve_rustsec_2026_0346_endless_record_or_message_is_not_buffered() {
    let server = server(&certified());
    // A record of the maximum length that its header can declare; a ClientHello that declares 16 MiB, in whole records.
    let mut hello = vec![22, 3, 3, 0x40, 0, 1, 0xff, 0xff, 0xff];
    hello.resize(RECORD_HEADER + 0x4000, 0);
    let mut more = vec![22, 3, 3, 0x40, 0];
    more.resize(RECORD_HEADER + 0x4000, 0);
    for (first, more) in [(vec![22, 3, 3, 0xff, 0xff], vec![0; 1000]), (hello, more)] {
        let (io, peer) = transport(true);
        let more_len = more.len();
        peer.send_bytes(first);
        peer.change_rules(|rules| rules.endless = more);
        let ((accepted, secs, _), most) = peak_during(watched(server.accept(io))).await;
        assert!(accepted.unwrap_err().is_tls() && peer.is_transport_closed());
        assert!(secs <= 1, "{secs}");
        assert!(most <= 2 * TLS_HANDSHAKE + 4 * more_len, "{most}");
    }
}

#[tokio::test(start_paused = true)]
async fn cve_2026_126343_invalid_server_hello_is_an_error() {
    let client = client(&certified());
    for bytes in [
        &b"HTTP/1.1 400 Bad Request\r\n\r\n"[..],
        &[22, 3, 3, 0, 4, 2, 0, 0, 0],
        &[21, 3, 3, 0, 2, 2, 40],
        &[0; 100],
        &[0xff; 100],
    ] {
        for resets in [false, true] {
            let (io, peer) = transport(false);
            peer.send_bytes(bytes);
            match resets {
                true => peer.reset(),
                false => peer.end(),
            }
            let error = within(60, client.request("wss://localhost/").connect_over(io))
                .await
                .unwrap_err();
            assert!(error.is_tls() || error.is_io(), "{error:?}");
            assert!(peer.is_transport_closed());
        }
    }
}
