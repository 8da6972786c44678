//! Pings, pongs and deadlines.

use std::time::{Duration, Instant};

use super::{CommandError, Session, State, Step};
use crate::codes::DisconnectCode;
use crate::hooks::Hook;

/// How a connected client is pinged.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Pings {
    /// Pings of the client protocol: empty replies, which the client sends back.
    Commands {
        /// Delay of the first ping, at most the ping interval. Randomized, to spread the pings of clients that connect
        /// together.
        first: Duration,
    },
    /// WebSocket ping frames, which are sent by the connection and not by the session.
    Frames,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Heartbeat {
    /// The session sends no pings.
    Off,
    /// No ping is unanswered; the next one is sent at `ping_at`.
    Idle { ping_at: Instant },
    /// A ping is unanswered.
    AwaitingPong { pong_by: Instant, ping_at: Instant },
}

/// Tells the caller to send a ping.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct PingDue;

impl Session {
    /// Handles expired deadlines. Has no effect before [`deadline`](Self::deadline).
    ///
    /// # Errors
    /// Returns the code with which to disconnect the client, if it missed a deadline.
    pub(crate) fn handle_timeout(&mut self, now: Instant) -> Result<Option<PingDue>, DisconnectCode> {
        let timeouts = &self.config.timeouts;
        match &mut self.state {
            _ if let Some(code) = self.failed => Err(code),
            // `connect` may be in flight on a slow network, so use a code after which SDKs reconnect.
            State::Opening { deadline, .. } if now >= *deadline => Err(self.fail(DisconnectCode::ConnectionClosed)),
            // `connect` failed, and the client did not close the connection.
            State::Refused { deadline } if now >= *deadline => Err(self.fail(DisconnectCode::Stale)),
            State::Connected {
                heartbeat: Heartbeat::AwaitingPong { pong_by, .. },
                ..
            } if now >= *pong_by => Err(self.fail(DisconnectCode::NoPong)),
            State::Connected {
                expires_at: Some(expires_at),
                ..
            } if now >= *expires_at && !self.config.hooks.has(Hook::Refresh) => Err(self.fail(DisconnectCode::Expired)),
            State::Connected { heartbeat, .. } => match *heartbeat {
                Heartbeat::Idle { ping_at } if now >= ping_at => {
                    let (pong_by, ping_at) = (now + timeouts.pong, now + timeouts.ping_interval);
                    *heartbeat = Heartbeat::AwaitingPong { pong_by, ping_at };
                    Ok(Some(PingDue))
                }
                _ => Ok(None),
            },
            _ => Ok(None),
        }
    }

    /// Gives the client more time to answer a ping, because input of it is not processed yet.
    pub(crate) fn extend_pong(&mut self, now: Instant) {
        let extended = now + self.config.timeouts.pong;
        if let State::Connected {
            heartbeat: Heartbeat::AwaitingPong { pong_by, ping_at },
            ..
        } = &mut self.state
        {
            *pong_by = extended.max(*pong_by);
            *ping_at = (*pong_by).max(*ping_at);
        }
    }

    /// The time at which [`handle_timeout`](Self::handle_timeout) must be called.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        match self.state {
            State::Opening { deadline, .. } | State::Refused { deadline } => Some(deadline),
            State::Connected { heartbeat, .. } => {
                let heartbeat = match heartbeat {
                    Heartbeat::Off => None,
                    Heartbeat::Idle { ping_at } => Some(ping_at),
                    Heartbeat::AwaitingPong { pong_by, .. } => Some(pong_by),
                };
                heartbeat.into_iter().chain(self.expires_at).min()
            }
        }
    }

    pub(super) fn pong(&mut self) -> Result<Step, CommandError> {
        match &mut self.state {
            State::Connected { heartbeat, .. } if let Heartbeat::AwaitingPong { ping_at, .. } = *heartbeat => {
                *heartbeat = Heartbeat::Idle { ping_at };
                Ok(Step::Nothing)
            }
            _ => Err(CommandError::Disconnect(DisconnectCode::BadRequest)),
        }
    }
}
