//! Entry points of the fuzz targets (`fuzz/targets`) into private modules. Only with the feature `__fuzz`; not part of
//! the API.

#![allow(missing_docs, reason = "not part of the API")]

use crate::auth::{InvalidToken, TokenConfig, TokenError, TokenVerifier};
use crate::protocol::{self, Data, DataField, Encoding, Malformed, Request};

pub use crate::engine::fuzzing::decode_payload;
pub use crate::journal::fuzzing as log;

/// A decoded command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command {
    pub id: u32,
    /// Whether it has a request that is valid.
    pub is_valid: bool,
    /// Application data that would be forwarded.
    pub data: Option<Vec<u8>>,
    /// All fields.
    pub shown: String,
}

/// Decodes the commands of a frame as a client's task does. `None` if the frame has none; a part that is no command is
/// `None` in the list.
pub fn commands(is_protobuf: bool, frame: &[u8]) -> Option<Vec<Option<Command>>> {
    let encoding = encoding(is_protobuf);
    if encoding.is_blank(frame) {
        return None;
    }
    let commands = decoded(encoding, frame).map(|command| {
        let command = command.ok()?;
        Some(Command {
            id: command.id,
            is_valid: !matches!(command.request, None | Some(Request::Invalid)),
            data: match &command.request {
                Some(Request::Publish(publish)) => forwarded(publish.data.as_ref()),
                Some(Request::Connect(connect)) => forwarded(connect.data.as_ref()),
                _ => None,
            },
            shown: format!("{command:?}"),
        })
    });
    Some(commands.collect())
}

/// Decodes and drops the commands of a frame, to measure that. Returns their number.
pub fn count_commands(is_protobuf: bool, frame: &[u8]) -> usize {
    decoded(encoding(is_protobuf), frame).count()
}

/// The commands of a frame, in order. A client's task stops at the first part that is no command.
fn decoded(encoding: Encoding, frame: &[u8]) -> impl Iterator<Item = Result<protocol::Command<'_>, Malformed>> {
    let mut rest = Some(frame);
    std::iter::from_fn(move || {
        let (command, len) = encoding.next_command(rest?)?;
        rest = rest?.get(len..).filter(|_| command.is_ok());
        Some(command)
    })
}

fn encoding(is_protobuf: bool) -> Encoding {
    match is_protobuf {
        false => Encoding::Json,
        true => Encoding::Protobuf,
    }
}

fn forwarded(data: Option<&DataField>) -> Option<Vec<u8>> {
    let data: &Data = data?.as_ref().ok()?;
    Some(data.as_bytes().to_vec())
}

/// Verifies tokens with one secret.
#[derive(Debug)]
pub struct Tokens(TokenVerifier);

/// Why a token is not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenFault {
    Expired,
    NotYetValid,
    /// Its claims are not valid, or it is too long.
    Claims,
    /// Invalid for another reason, such as its signature.
    Invalid,
    KeysUnavailable,
}

impl Tokens {
    pub fn new(secret: &str) -> Self {
        let config = TokenConfig {
            hmac_secret: Some(secret.into()),
            ..TokenConfig::default()
        };
        Self(TokenVerifier::new(&config).expect("a valid configuration"))
    }

    /// The user of a connection token at a time in seconds since the Unix epoch.
    pub fn connection(&self, token: &str, now: u64) -> Result<String, TokenFault> {
        let result = self.0.try_verify_connect(token, now).expect("no key is fetched");
        result.map(|claims| claims.user).map_err(TokenFault::from)
    }

    /// Verifies a subscription token.
    pub fn subscription(&self, token: &str, now: u64) -> Result<(), TokenFault> {
        let result = self.0.try_verify_subscribe(token, now).expect("no key is fetched");
        result.map(drop).map_err(TokenFault::from)
    }
}

impl From<TokenError> for TokenFault {
    fn from(error: TokenError) -> Self {
        match error {
            TokenError::Expired => Self::Expired,
            TokenError::NotYetValid => Self::NotYetValid,
            TokenError::KeysUnavailable => Self::KeysUnavailable,
            TokenError::Invalid(InvalidToken::Claims | InvalidToken::HasChannel | InvalidToken::TooLong) => {
                Self::Claims
            }
            TokenError::Invalid(_) => Self::Invalid,
        }
    }
}
