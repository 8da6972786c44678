//! TLS by rustls, with its defaults and ring.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::Flags;

/// The server's side of TLS with this certificate and key (PEM files).
///
/// # Errors
///
/// A file cannot be read or does not hold what it should.
pub fn server_config(certificate: &Path, key: &Path) -> io::Result<Arc<ServerConfig>> {
    let chain = CertificateDer::pem_file_iter(certificate)
        .and_then(Iterator::collect)
        .map_err(io::Error::other)?;
    let key = PrivateKeyDer::from_pem_file(key).map_err(io::Error::other)?;
    let config = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(io::Error::other)?;
    Ok(Arc::new(config))
}

/// As [`serve`](crate::serve), over TLS with this certificate and key (PEM files).
///
/// # Errors
///
/// As [`serve`](crate::serve) and [`server_config`].
pub fn serve_tls<F>(
    flags: &Flags,
    (certificate, key): &(PathBuf, PathBuf),
    connection: impl Fn(TlsStream<TcpStream>) -> F + Clone + Send + 'static,
) -> io::Result<()>
where
    F: Future<Output: Send> + Send + 'static,
{
    let acceptor = TlsAcceptor::from(server_config(certificate, key)?);
    crate::serve(flags, move |tcp| {
        let (acceptor, connection) = (acceptor.clone(), connection.clone());
        async move {
            if let Ok(tls) = acceptor.accept(tcp).await {
                drop(connection(tls).await);
            }
        }
    })
}
