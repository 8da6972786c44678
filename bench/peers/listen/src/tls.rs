//! TLS with rustls, its default settings and ring.

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

/// Server-side TLS settings with this certificate and key (PEM files).
///
/// # Errors
///
/// If a file cannot be read or has the wrong contents.
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

/// Like [`serve`](crate::serve), but over TLS with this certificate and key (PEM files).
///
/// # Errors
///
/// The errors of [`serve`](crate::serve) and [`server_config`].
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
