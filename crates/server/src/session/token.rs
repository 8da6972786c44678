//! Commands with a token, which the caller verifies.

use super::connect::Connect;
use super::grant::RequestedOptions;
use super::{Clock, CommandError, Session, Step};
use crate::auth::{ConnectionClaims, SubscriptionClaims, TokenError};
use crate::channel::ChannelName;
use crate::codes::{DisconnectCode, ErrorCode};
use crate::protocol::{ExpiryResult, ReplyBody};

/// A command whose token must be verified.
#[derive(Debug)]
pub(crate) struct TokenCheck {
    pub(crate) token: String,
    pub(crate) kind: TokenKind,
    pub(super) command: UnverifiedCommand,
}

/// The kind of a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TokenKind {
    Connection,
    Subscription,
}

/// A command without its token.
#[derive(Debug)]
pub(super) enum UnverifiedCommand {
    Connect(Box<Connect>),
    Subscribe(ChannelName, Box<RequestedOptions>),
    Refresh,
    SubRefresh(ChannelName),
}

/// A verified token.
#[derive(Debug)]
pub(crate) enum Verified {
    Connection(ConnectionClaims),
    Subscription(SubscriptionClaims),
}

impl TokenCheck {
    /// The channel of the command; `None` if it concerns the connection.
    pub(crate) fn channel(&self) -> Option<&ChannelName> {
        match &self.command {
            UnverifiedCommand::Subscribe(channel, _) | UnverifiedCommand::SubRefresh(channel) => Some(channel),
            UnverifiedCommand::Connect(_) | UnverifiedCommand::Refresh => None,
        }
    }

    pub(crate) fn is_connect(&self) -> bool {
        matches!(self.command, UnverifiedCommand::Connect(_))
    }

    pub(crate) fn is_subscribe(&self) -> bool {
        matches!(self.command, UnverifiedCommand::Subscribe(..))
    }
}

impl Session {
    /// Continues a command after the verification of its token.
    ///
    /// # Errors
    /// Returns the code with which to disconnect the client, such as for an invalid connection token.
    pub(crate) fn handle_token(
        &mut self,
        unverified: TokenCheck,
        result: Result<Verified, TokenError>,
        clock: Clock,
    ) -> Result<Step, DisconnectCode> {
        if let Some(code) = self.failed {
            return Err(code);
        }
        let step = match (unverified.command, result) {
            // SDKs give up a subscription whose refresh fails. Without an error they keep it until it expires, and then
            // subscribe again with a new token. Centrifugo answers in the same way.
            (UnverifiedCommand::SubRefresh(_), Err(TokenError::Expired | TokenError::NotYetValid)) => {
                Ok(Step::Reply(ReplyBody::SubRefresh(ExpiryResult::default())))
            }
            (command, Err(error)) => Err(self.refuse_token(&command, error)),
            (UnverifiedCommand::Connect(connect), Ok(Verified::Connection(token))) => {
                self.connect_with_token(*connect, token, clock)
            }
            (UnverifiedCommand::Subscribe(channel, requested), Ok(Verified::Subscription(token))) => {
                self.subscribe_with_token(channel, *requested, token, clock)
            }
            (UnverifiedCommand::Refresh, Ok(Verified::Connection(token))) => self.refresh(token, clock),
            (UnverifiedCommand::SubRefresh(channel), Ok(Verified::Subscription(token))) => {
                self.refresh_subscription(&channel, token, clock)
            }
            _ => Err(ErrorCode::Internal.into()),
        };
        self.finish(step)
    }

    pub(super) fn refuse_token(&mut self, command: &UnverifiedCommand, error: TokenError) -> CommandError {
        tracing::debug!(%error, client = %self.client, "refused a token");
        let code = match (command, error) {
            (_, TokenError::KeysUnavailable) => ErrorCode::Internal,
            (
                UnverifiedCommand::Connect(_) | UnverifiedCommand::Subscribe(..),
                TokenError::Expired | TokenError::NotYetValid,
            ) => ErrorCode::TokenExpired,
            (UnverifiedCommand::Refresh, TokenError::Expired | TokenError::NotYetValid) => {
                return CommandError::Disconnect(DisconnectCode::Expired);
            }
            (UnverifiedCommand::Connect(_) | UnverifiedCommand::Refresh, _) => {
                return CommandError::Disconnect(DisconnectCode::InvalidToken);
            }
            (UnverifiedCommand::Subscribe(..) | UnverifiedCommand::SubRefresh(_), _) => ErrorCode::PermissionDenied,
        };
        match command {
            UnverifiedCommand::Connect(_) => self.refuse(code),
            _ => code.into(),
        }
    }
}

pub(super) fn verify(token: &str, kind: TokenKind, command: UnverifiedCommand) -> Step {
    Step::Verify(Box::new(TokenCheck {
        token: token.to_owned(),
        kind,
        command,
    }))
}
