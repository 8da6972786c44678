//! The code that all servers of the benchmark share.
//!
//! Each server is a program that takes `--listen ADDRESS`, prints `listening on ADDRESS:PORT`, and runs until its
//! standard input closes. This crate does not touch the bytes of a connection: the code to measure is in each server's
//! own package.

use std::io::Read as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

#[cfg(feature = "tokio")]
mod accept;
#[cfg(feature = "tls")]
mod tls;

#[cfg(feature = "tokio")]
pub use accept::serve;
#[cfg(feature = "tls")]
pub use tls::{serve_tls, server_config};

/// The parsed command-line flags.
#[derive(Debug, Clone)]
pub struct Flags {
    /// Address to listen on. Default: a free port of 127.0.0.1.
    pub listen: SocketAddr,
    /// PEM files of the certificate chain and its key, to serve TLS.
    pub tls: Option<(PathBuf, PathBuf)>,
    /// Accept permessage-deflate.
    pub deflate: Option<Takeover>,
}

/// Context takeover of permessage-deflate (RFC 7692 §7.1.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Takeover {
    /// None: each message is compressed by itself, in both directions.
    No,
    /// In both directions.
    Yes,
}

/// Optional features of a server; flags for others are rejected.
#[derive(Debug, Clone, Copy, Default)]
pub struct Can {
    /// `--tls CERT KEY`.
    pub tls: bool,
    /// `--deflate`.
    pub deflate: bool,
    /// `--deflate=takeover`.
    pub takeover: bool,
}

impl Can {
    /// Only TLS.
    pub const TLS: Self = Self {
        tls: true,
        deflate: false,
        takeover: false,
    };
}

impl Flags {
    /// Parses the flags of this process; on an error prints it and exits with status 2.
    pub fn parse(can: Can) -> Flags {
        match Flags::read(std::env::args().skip(1), can) {
            Ok(flags) => flags,
            Err(fault) => {
                eprintln!("{fault}");
                std::process::exit(2);
            }
        }
    }

    fn read(mut arguments: impl Iterator<Item = String>, can: Can) -> Result<Flags, String> {
        let mut flags = Flags {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            tls: None,
            deflate: None,
        };
        while let Some(flag) = arguments.next() {
            let mut value = || arguments.next().ok_or_else(|| format!("{flag} needs a value"));
            match flag.as_str() {
                "--listen" => flags.listen = value()?.parse().map_err(|error| format!("--listen: {error}"))?,
                "--tls" if can.tls => flags.tls = Some((value()?.into(), value()?.into())),
                "--deflate" if can.deflate => flags.deflate = Some(Takeover::No),
                "--deflate=takeover" if can.takeover => flags.deflate = Some(Takeover::Yes),
                _ => return Err(format!("unknown flag {flag}")),
            }
        }
        Ok(flags)
    }
}

/// Prints the address on standard output, and ends the process when standard input closes.
pub fn announce(address: SocketAddr) {
    println!("listening on {address}");
    std::thread::spawn(|| {
        // The parent process holds the other end of standard input, so the server ends with it, however it died.
        let mut ignored = [0; 256];
        while matches!(std::io::stdin().read(&mut ignored), Ok(1..)) {}
        std::process::exit(0);
    });
}

/// Converts the result of a server into an exit code.
pub fn exit(result: std::io::Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str, can: Can) -> Result<Flags, String> {
        Flags::read(line.split_whitespace().map(String::from), can)
    }

    #[test]
    fn unsupported_flag_is_rejected() {
        let all = Can {
            tls: true,
            deflate: true,
            takeover: true,
        };
        let flags = read("--listen 127.0.0.1:9 --tls c k --deflate=takeover", all).unwrap();
        assert_eq!(flags.listen.port(), 9);
        assert_eq!(flags.tls, Some(("c".into(), "k".into())));
        assert_eq!(flags.deflate, Some(Takeover::Yes));
        assert_eq!(read("--deflate", all).unwrap().deflate, Some(Takeover::No));

        for line in ["--tls c k", "--deflate", "--deflate=takeover", "--listen", "--listen 9"] {
            assert!(read(line, Can::default()).is_err(), "{line}");
        }
        assert!(read("--tls c", all).is_err());
    }
}
