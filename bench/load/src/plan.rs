//! What to do.

use std::{net::SocketAddr, path::Path, sync::Arc, time::Duration};

use anyhow::{Context, Result, ensure};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, pem::PemObject},
};

/// One measurement.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The server, and how it is spoken to.
    pub target: Target,
    /// What the payloads are made of.
    pub kind: Kind,
    /// Payload bytes of a message.
    pub size: usize,
    /// Connections; in [`Drive::Fanout`] the subscribers, to which the publisher is added.
    pub connections: usize,
    /// What makes a message leave.
    pub drive: Drive,
    /// How long it runs before anything counts.
    pub warm_up: Duration,
    /// How long it counts.
    pub duration: Duration,
    /// Which replies are looked at.
    pub verify: Verify,
    /// The server's process, whose processor time is to be read.
    pub pid: Option<u32>,
}

/// A server, and how it is spoken to.
#[derive(Clone, Debug)]
pub struct Target {
    /// Where it listens.
    pub address: SocketAddr,
    /// What is spoken.
    pub protocol: Protocol,
    /// TLS below the protocol, with these settings.
    pub tls: Option<Arc<ClientConfig>>,
    /// The path of the request.
    pub path: String,
    /// How many addresses connections come from, 127.0.0.1 and up: each has some 28,000 ports.
    pub sources: u8,
    /// The size asked of the kernel for the send buffer, where not its default.
    pub send_buffer: Option<usize>,
}

/// What is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// Bytes without any framing.
    Raw,
    /// RFC 6455, without extensions.
    WebSocket,
    /// RFC 6455 with permessage-deflate, no context taken over in either direction.
    Deflate,
}

/// What payloads are made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Pseudo-random bytes, in binary messages.
    Binary,
    /// Letters, digits and blanks, in text messages.
    Text,
    /// Records of a market feed, in text messages: compresses to about a third.
    Json,
}

/// What makes a message leave.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Drive {
    /// So many messages are in flight on each connection: a reply makes the next one leave. The latency seen is not
    /// what users see, since a slow server is asked less.
    Closed {
        /// Messages in flight on each connection.
        in_flight: usize,
    },
    /// Messages leave at times fixed beforehand, spread evenly over the connections, whatever the server does.
    Open {
        /// Messages a second, of all connections together.
        rate: f64,
    },
    /// One connection publishes, all others receive; a message that all have makes the next one leave.
    Fanout {
        /// Messages in flight.
        in_flight: usize,
    },
}

/// Which replies are compared byte for byte. The others are counted, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verify {
    /// All of them.
    All,
    /// One read in so many, with all the replies in it. The rest is thrown away in the kernel.
    OneIn(u32),
}

impl Plan {
    /// Refuses what makes no sense.
    ///
    /// # Errors
    /// With the reason.
    pub(crate) fn check(&self) -> Result<()> {
        ensure!((1..=60_000).contains(&self.connections), "1 to 60,000 connections");
        ensure!(
            (1..=64 << 20).contains(&self.size),
            "messages have from 1 byte to 64 MiB"
        );
        ensure!(!self.duration.is_zero(), "a measurement takes time");
        match self.drive {
            Drive::Closed { in_flight } | Drive::Fanout { in_flight } => {
                ensure!((1..=65_536).contains(&in_flight), "1 to 65,536 messages in flight");
                ensure!(
                    in_flight * self.size <= 1 << 30,
                    "more than 1 GiB in flight on a connection"
                );
            }
            Drive::Open { rate } => ensure!(
                rate > 0.0 && rate <= 1e8,
                "a rate is more than 0 and at most 100,000,000"
            ),
        }
        Ok(())
    }

    /// How many messages at most leave in one piece.
    pub(crate) fn burst_max(&self) -> usize {
        match self.drive {
            Drive::Closed { in_flight } | Drive::Fanout { in_flight } => in_flight,
            Drive::Open { .. } => 1,
        }
    }
}

impl Target {
    /// A server of WebSockets without TLS, at its path `/`.
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

/// TLS settings that trust the certificates of a PEM file and no others.
///
/// # Errors
/// If the file is missing or holds no certificate.
pub fn trust(file: &Path) -> Result<Arc<ClientConfig>> {
    let mut roots = RootCertStore::empty();
    let certificates =
        CertificateDer::pem_file_iter(file).with_context(|| format!("cannot read {}", file.display()))?;
    for certificate in certificates {
        roots.add(certificate?)?;
    }
    ensure!(!roots.is_empty(), "{} holds no certificate", file.display());
    let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}
