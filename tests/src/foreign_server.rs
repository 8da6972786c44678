//! A peer that is a server, for tests of the Sockeye client.

use tokio::process::Command;

use crate::{Certificate, Process, Report};

/// An external server on a free port of 127.0.0.1. `tests/peers/ws_server.mjs` describes its paths.
#[derive(Debug)]
pub struct ForeignServer {
    process: Process,
    scheme: &'static str,
    port: u16,
}

impl ForeignServer {
    /// Starts `command` and waits until it reports that it listens.
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

    /// Like [`ForeignServer::start`], with TLS.
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

    /// Waits until the server reports the end of a connection. Returns the close code and reason it received.
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

    /// Kills the server.
    pub async fn kill(&mut self) {
        self.process.kill().await;
    }
}
