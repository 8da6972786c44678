//! Connections to servers.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, ProtocolVersion, PushInfo, RedisConnectionInfo};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use rustls_platform_verifier::BuilderVerifierExt;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::config::{Address, Credentials, RedisConfig};

/// Time for all steps of a connection: name lookup, TCP, TLS and the greeting.
pub(super) const DIAL_TIMEOUT: Duration = Duration::from_secs(2);

/// Number of commands that wait to be written.
const PIPELINE_LEN: usize = 1024;

/// Makes connections.
pub(super) struct Dialer {
    tls: Option<TlsConnector>,
    server: RedisConnectionInfo,
    sentinel: RedisConnectionInfo,
}

/// What to connect to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    Server,
    Sentinel,
}

/// A connection. Its task ends when the last clone is dropped.
#[derive(Clone)]
pub(super) struct Connection {
    commands: MultiplexedConnection,
    /// Cancelled when the connection is lost.
    lost: CancellationToken,
    _task: Arc<DropGuard>,
}

impl Dialer {
    /// # Errors
    /// The certificates cannot be read.
    pub(super) fn new(config: &RedisConfig) -> io::Result<Self> {
        let tls = match config.uses_tls {
            true => Some(TlsConnector::from(Arc::new(tls_config(config)?))),
            false => None,
        };
        Ok(Self {
            tls,
            server: greeting(&config.credentials, config.database),
            sentinel: greeting(&config.sentinel_credentials, 0),
        })
    }

    /// Connects within [`DIAL_TIMEOUT`]. `on_push` gets all messages that are not replies.
    pub(super) async fn dial(
        &self,
        address: &Address,
        role: Role,
        on_push: impl Fn(PushInfo) + Send + Sync + 'static,
    ) -> Result<Connection, String> {
        match timeout(DIAL_TIMEOUT, self.connect(address, role, on_push)).await {
            Ok(Ok(connection)) => Ok(connection),
            Ok(Err(error)) => Err(format!("{address}: {error}")),
            Err(_) => Err(format!("{address}: no connection within {DIAL_TIMEOUT:?}")),
        }
    }

    async fn connect(
        &self,
        address: &Address,
        role: Role,
        on_push: impl Fn(PushInfo) + Send + Sync + 'static,
    ) -> Result<Connection, Box<dyn std::error::Error + Send + Sync>> {
        let tcp = TcpStream::connect((&*address.host, address.port)).await?;
        tcp.set_nodelay(true)?;
        let info = match role {
            Role::Server => &self.server,
            Role::Sentinel => &self.sentinel,
        };
        match &self.tls {
            None => Self::greet(tcp, info, on_push).await,
            Some(tls) => {
                let name = ServerName::try_from(address.host.to_string())?;
                Self::greet(tls.connect(name, tcp).await?, info, on_push).await
            }
        }
    }

    async fn greet(
        stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
        info: &RedisConnectionInfo,
        on_push: impl Fn(PushInfo) + Send + Sync + 'static,
    ) -> Result<Connection, Box<dyn std::error::Error + Send + Sync>> {
        let on_push = move |push| {
            on_push(push);
            Ok::<_, std::convert::Infallible>(())
        };
        // The caller limits the time of each command.
        let config = AsyncConnectionConfig::new()
            .set_response_timeout(None)
            .set_pipeline_buffer_size(PIPELINE_LEN)
            .set_push_sender(on_push);
        let (commands, driver) = MultiplexedConnection::new_with_config(info, stream, config).await?;
        let lost = CancellationToken::new();
        let stop = CancellationToken::new();
        tokio::spawn({
            let (lost, stop) = (lost.clone().drop_guard(), stop.clone());
            async move {
                tokio::select! {
                    () = driver => {}
                    () = stop.cancelled() => {}
                }
                drop(lost);
            }
        });
        Ok(Connection {
            commands,
            lost,
            _task: Arc::new(stop.drop_guard()),
        })
    }
}

impl Connection {
    /// For commands.
    pub(super) fn commands(&self) -> MultiplexedConnection {
        self.commands.clone()
    }

    /// Cancelled when the connection is lost.
    pub(super) fn lost(&self) -> &CancellationToken {
        &self.lost
    }
}

fn greeting(credentials: &Credentials, database: u32) -> RedisConnectionInfo {
    let mut info = RedisConnectionInfo::default()
        // Pushes and replies on one connection.
        .set_protocol(ProtocolVersion::RESP3)
        .set_db(database.into())
        .set_lib_name("sockeye", env!("CARGO_PKG_VERSION"));
    if let Some(user) = &credentials.user {
        info = info.set_username(user);
    }
    if let Some(password) = &credentials.password {
        info = info.set_password(password);
    }
    info
}

fn tls_config(config: &RedisConfig) -> io::Result<ClientConfig> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?;
    let Some(ca) = &config.ca else {
        let builder = builder.with_platform_verifier().map_err(io::Error::other)?;
        return Ok(builder.with_no_client_auth());
    };
    let invalid = |error: &dyn std::fmt::Display| {
        io::Error::new(io::ErrorKind::InvalidData, format!("{}: {error}", ca.display()))
    };
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(ca).map_err(|error| invalid(&error))? {
        let certificate = certificate.map_err(|error| invalid(&error))?;
        roots.add(certificate).map_err(|error| invalid(&error))?;
    }
    if roots.is_empty() {
        return Err(invalid(&"no certificate"));
    }
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}
