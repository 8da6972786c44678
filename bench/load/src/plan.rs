//! The parameters of a measurement.

use std::{net::SocketAddr, path::Path, sync::Arc, time::Duration};

use anyhow::{Context, Result, ensure};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, pem::PemObject},
};

/// One measurement.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The server, and how to connect to it.
    pub target: Target,
    /// Content of the payloads.
    pub kind: Kind,
    /// Payload bytes of a message.
    pub size: usize,
    /// Number of connections. In [`Drive::Fanout`] the number of subscribers; the publisher is one more.
    pub connections: usize,
    /// What triggers the next message.
    pub drive: Drive,
    /// Warm-up time, which is not measured.
    pub warm_up: Duration,
    /// Measured time.
    pub duration: Duration,
    /// Which replies are compared.
    pub verify: Verify,
    /// Process id of the server, to read its processor time.
    pub pid: Option<u32>,
}

/// A server, and how to connect to it.
#[derive(Clone, Debug)]
pub struct Target {
    /// Address of the server.
    pub address: SocketAddr,
    /// Protocol on the connection.
    pub protocol: Protocol,
    /// TLS settings, if the protocol runs over TLS.
    pub tls: Option<Arc<ClientConfig>>,
    /// Path of the request.
    pub path: String,
    /// Number of source addresses, from 127.0.0.1 up. Each has some 28,000 ports.
    pub sources: u8,
    /// Send buffer size to request from the kernel, if not its default.
    pub send_buffer: Option<usize>,
}

/// The protocol on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// Bytes without framing.
    Raw,
    /// RFC 6455 without extensions.
    WebSocket,
    /// The same, with replies in fragments of 64 KiB.
    Fragments,
    /// RFC 6455 with permessage-deflate, without context takeover in either direction.
    Deflate,
}

/// Content of the payloads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Pseudo-random bytes in binary messages.
    Binary,
    /// Letters, digits and spaces in text messages.
    Text,
    /// JSON records of a market feed in text messages; compresses to about a third.
    Json,
}

/// What triggers the next message.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Drive {
    /// Closed loop: a reply triggers the next message, so that a fixed number is in flight on each connection. The
    /// latency differs from what users see, because a slow server receives fewer messages.
    Closed {
        /// Messages in flight on each connection.
        in_flight: usize,
    },
    /// Open loop: messages are sent at times fixed beforehand, spread evenly over the connections, however slow the
    /// server is.
    Open {
        /// Messages per second of all connections together.
        rate: f64,
    },
    /// One connection publishes and all others receive. A message that all have received triggers the next one.
    Fanout {
        /// Messages in flight.
        in_flight: usize,
    },
}

/// Which replies are compared byte for byte. Of the others only the bytes are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verify {
    /// All replies.
    All,
    /// All replies of one read out of this many. The rest is discarded in the kernel.
    OneIn(u32),
}

impl Plan {
    /// Checks that the values are in range.
    ///
    /// # Errors
    /// With the reason.
    pub(crate) fn check(&self) -> Result<()> {
        ensure!(
            (1..=60_000).contains(&self.connections),
            "the number of connections must be between 1 and 60,000"
        );
        ensure!(
            (1..=64 << 20).contains(&self.size),
            "the message size must be between 1 byte and 64 MiB"
        );
        ensure!(!self.duration.is_zero(), "the duration must not be zero");
        match self.drive {
            Drive::Closed { in_flight } | Drive::Fanout { in_flight } => {
                ensure!(
                    (1..=65_536).contains(&in_flight),
                    "the number of messages in flight must be between 1 and 65,536"
                );
                ensure!(
                    in_flight * self.size <= 1 << 30,
                    "more than 1 GiB in flight on a connection"
                );
            }
            Drive::Open { rate } => ensure!(
                rate > 0.0 && rate <= 1e8,
                "the rate must be more than 0 and at most 100,000,000"
            ),
        }
        Ok(())
    }

    /// Maximum number of messages that are sent in one piece.
    pub(crate) fn burst_max(&self) -> usize {
        match self.drive {
            Drive::Closed { in_flight } | Drive::Fanout { in_flight } => in_flight,
            Drive::Open { .. } => 1,
        }
    }
}

impl Target {
    /// A WebSocket server without TLS, at the path `/`.
    pub fn new(address: SocketAddr) -> Self {
        Self {
            address,
            protocol: Protocol::WebSocket,
            tls: None,
            path: "/".into(),
            sources: 1,
            send_buffer: None,
        }
    }
}

/// TLS settings that trust only the certificates in a PEM file.
///
/// # Errors
/// If the file is missing or contains no certificate.
pub fn trust(file: &Path) -> Result<Arc<ClientConfig>> {
    let mut roots = RootCertStore::empty();
    let certificates =
        CertificateDer::pem_file_iter(file).with_context(|| format!("cannot read {}", file.display()))?;
    for certificate in certificates {
        roots.add(certificate?)?;
    }
    ensure!(!roots.is_empty(), "{} contains no certificate", file.display());
    let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}
