//! SOCKS5 (RFC 1928) with user name and password (RFC 1929).
//!
//! Every answer is read to its exact length, because the bytes after it belong to the server.

use std::net::{IpAddr, SocketAddr};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::client::proxy::Credentials;
use crate::error::Error;
use crate::error::proxy::ProxyFailure;

const VERSION: u8 = 5;
/// RFC 1929 §2: the version of the subnegotiation.
const CREDENTIALS_VERSION: u8 = 1;
const NO_AUTHENTICATION: u8 = 0;
const USER_AND_PASSWORD: u8 = 2;
const CONNECT: u8 = 1;
const RESERVED: u8 = 0;
const ADDRESS_V4: u8 = 1;
const ADDRESS_NAME: u8 = 3;
const ADDRESS_V6: u8 = 4;

/// What the proxy is to connect to.
#[derive(Debug)]
pub(crate) enum Target<'a> {
    Name(&'a str, u16),
    Address(SocketAddr),
}

/// Asks the proxy for a connection.
pub(crate) async fn connect<S>(
    io: &mut S,
    credentials: Option<&Credentials>,
    target: Target<'_>,
) -> Result<(), ProxyFailure>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let request = encode_request(target)?;
    let methods: &[u8] = match credentials {
        None => &[VERSION, 1, NO_AUTHENTICATION],
        Some(_) => &[VERSION, 2, NO_AUTHENTICATION, USER_AND_PASSWORD],
    };
    io.write_all(methods).await.map_err(transport)?;
    io.flush().await.map_err(transport)?;
    let [version, method] = read(io).await?;
    check_version(version)?;
    match (method, credentials) {
        (NO_AUTHENTICATION, _) => {}
        (USER_AND_PASSWORD, Some(credentials)) => authenticate(io, credentials).await?,
        (_, credentials) => {
            return Err(ProxyFailure::SocksMethods {
                has_credentials: credentials.is_some(),
            });
        }
    }
    io.write_all(&request).await.map_err(transport)?;
    io.flush().await.map_err(transport)?;
    let [version, reply, _reserved, kind] = read(io).await?;
    check_version(version)?;
    if reply != 0 {
        return Err(ProxyFailure::SocksReply(reply));
    }
    // The address and port that the proxy connects from, which have no use here.
    let address_len = match kind {
        ADDRESS_V4 => 4,
        ADDRESS_V6 => 16,
        ADDRESS_NAME => usize::from(read::<1>(io).await?[0]),
        kind => return Err(ProxyFailure::SocksAddress(kind)),
    };
    let mut ignored = [0; 255 + 2];
    io.read_exact(&mut ignored[..address_len + 2])
        .await
        .map_err(transport)?;
    Ok(())
}

async fn authenticate<S>(io: &mut S, Credentials { user, password }: &Credentials) -> Result<(), ProxyFailure>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut request = vec![CREDENTIALS_VERSION];
    for part in [user, password] {
        // `Proxy` accepts at most 255 bytes.
        request.push(part.len() as u8);
        request.extend_from_slice(part);
    }
    io.write_all(&request).await.map_err(transport)?;
    io.flush().await.map_err(transport)?;
    let [_version, status] = read(io).await?;
    match status {
        0 => Ok(()),
        _ => Err(ProxyFailure::SocksCredentials),
    }
}

fn encode_request(target: Target<'_>) -> Result<Vec<u8>, ProxyFailure> {
    let mut request = vec![VERSION, CONNECT, RESERVED];
    let port = match target {
        Target::Name(name, port) => {
            let len = u8::try_from(name.len()).map_err(|_| ProxyFailure::NameTooLong)?;
            request.extend_from_slice(&[ADDRESS_NAME, len]);
            request.extend_from_slice(name.as_bytes());
            port
        }
        Target::Address(address) => {
            match address.ip() {
                IpAddr::V4(v4) => {
                    request.push(ADDRESS_V4);
                    request.extend_from_slice(&v4.octets());
                }
                IpAddr::V6(v6) => {
                    request.push(ADDRESS_V6);
                    request.extend_from_slice(&v6.octets());
                }
            }
            address.port()
        }
    };
    request.extend_from_slice(&port.to_be_bytes());
    Ok(request)
}

async fn read<const LEN: usize>(io: &mut (impl AsyncRead + Unpin)) -> Result<[u8; LEN], ProxyFailure> {
    let mut bytes = [0; LEN];
    io.read_exact(&mut bytes).await.map_err(transport)?;
    Ok(bytes)
}

fn check_version(version: u8) -> Result<(), ProxyFailure> {
    match version {
        VERSION => Ok(()),
        other => Err(ProxyFailure::SocksVersion(other)),
    }
}

fn transport(error: std::io::Error) -> ProxyFailure {
    match error.kind() {
        std::io::ErrorKind::UnexpectedEof => ProxyFailure::Closed,
        _ => ProxyFailure::Transport(Error::io(error)),
    }
}
