//! A peer that is a server, for our client to talk to.

use tokio::process::Command;

use crate::{Certificate, Process, Report};

/// A server nobody here wrote, on a free port of 127.0.0.1. Its paths are described in `tests/peers/ws_server.mjs`.
#[derive(Debug)]
pub struct ForeignServer {
    process: Process,
    scheme: &'static str,
    port: u16,
}

impl ForeignServer {
    /// Starts `command`, a peer that reports that it listens.
    ///
    /// # Panics
    /// If it does not.
    pub async fn start(command: Command) -> Self {
        let mut process = Process::start(command);
        match Report::next(&mut process).await {
            Some(Report::Listening(port)) => Self {
                process,
                scheme: "ws",
                port,
            },
            other => process.fail(&format!("did not listen but reported {other:?}")),
        }
    }

    /// As [`ForeignServer::start`], with TLS.
    pub async fn start_tls(mut command: Command, certificate: &Certificate) -> Self {
        command
            .env("PEER_CERT", certificate.cert_path())
            .env("PEER_KEY", certificate.key_path());
        let server = Self::start(command).await;
        Self {
            scheme: "wss",
            ..server
        }
    }

    /// The URL of one of its paths, such as `/echo`.
    pub fn url(&self, path: &str) -> String {
        format!("{}://127.0.0.1:{}{path}", self.scheme, self.port)
    }

    /// Waits until it has seen a connection end; gives the close code and reason it received.
    ///
    /// # Panics
    /// If it reports anything else first.
    pub async fn closed(&mut self) -> (u16, String) {
        match Report::next(&mut self.process).await {
            Some(Report::Closed { code, reason }) => (code, reason),
            other => self
                .process
                .fail(&format!("should have seen a close but reported {other:?}")),
        }
    }

    /// Kills it at once.
    pub async fn kill(&mut self) {
        self.process.kill().await;
    }
}
