//! Sessions of signed-in operators, and the limit of attempts to sign in.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use ring::digest::{SHA256, SHA256_OUTPUT_LEN, digest};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::auth::Secret;
use crate::rate_limiter::{Rate, RateLimiter};

type Digest = [u8; SHA256_OUTPUT_LEN];

/// Maximum number of sessions. Beyond it, the one that expires first ends.
const SESSIONS_MAX: usize = 64;

/// The sessions of one server, in memory only: a restart ends them.
#[derive(Debug, Default)]
pub(super) struct Sessions {
    /// By the digest of the token, so that the time of a lookup tells nothing about tokens.
    by_token: HashMap<Digest, Session>,
}

/// What a request with a valid token gets.
#[derive(Clone, Debug)]
pub(super) struct Session {
    pub(super) expires: Instant,
    /// Cancelled when the session ends before it expires.
    pub(super) ended: CancellationToken,
    /// Digest of the password that started the session. Another password ends it.
    password: Digest,
}

impl Sessions {
    /// Starts a session, and returns its token.
    pub(super) fn start(&mut self, password: &Secret, now: Instant, lifetime: Duration) -> String {
        self.keep_valid(password, now);
        if self.by_token.len() >= SESSIONS_MAX {
            let first = self.by_token.iter().min_by_key(|(_, session)| session.expires);
            if let Some(first) = first.map(|(token, _)| *token) {
                self.remove(&first);
            }
        }
        let token = format!("{:032x}{:032x}", rand::random::<u128>(), rand::random::<u128>());
        let session = Session {
            expires: now + lifetime,
            ended: CancellationToken::new(),
            password: sha256(password.expose()),
        };
        self.by_token.insert(sha256(&token), session);
        token
    }

    /// Returns the session of a token, unless it has expired or the password has changed.
    pub(super) fn find(&mut self, token: &str, password: &Secret, now: Instant) -> Option<Session> {
        let token = sha256(token);
        let session = self.by_token.get(&token)?;
        if session.expires <= now || session.password != sha256(password.expose()) {
            self.remove(&token);
            return None;
        }
        Some(session.clone())
    }

    /// Ends a session.
    pub(super) fn end(&mut self, token: &str) {
        self.remove(&sha256(token));
    }

    /// Ends sessions that have expired or were started with another password. Returns whether there are others.
    pub(super) fn keep_valid(&mut self, password: &Secret, now: Instant) -> bool {
        let password = sha256(password.expose());
        self.by_token.retain(|_, session| {
            let is_valid = session.expires > now && session.password == password;
            if !is_valid {
                session.ended.cancel();
            }
            is_valid
        });
        !self.by_token.is_empty()
    }

    fn remove(&mut self, token: &Digest) {
        if let Some(session) = self.by_token.remove(token) {
            session.ended.cancel();
        }
    }
}

fn sha256(text: &str) -> Digest {
    let digest = digest(&SHA256, text.as_bytes());
    digest.as_ref().try_into().expect("SHA-256 gives 32 bytes")
}

/// The limit of attempts to sign in: per address and in total. A refused attempt is not compared with the password.
#[derive(Debug, Default)]
pub(super) struct Attempts {
    total: RateLimiter,
    by_address: HashMap<IpAddr, RateLimiter>,
}

/// Attempts of one address: 5 at once, then one in 12 s.
const ADDRESS_RATE: Rate = Rate::per_interval(Duration::from_secs(12), 5);

/// Attempts of all addresses together: 30 at once, then one per second.
const TOTAL_RATE: Rate = Rate::per_interval(Duration::from_secs(1), 30);

/// Number of addresses that are remembered. Further ones are only limited in total.
const ADDRESSES_MAX: usize = 4096;

impl Attempts {
    /// Admits an attempt.
    ///
    /// # Errors
    /// Returns the time after which an attempt would be admitted.
    pub(super) fn admit(&mut self, address: IpAddr, now: Instant) -> Result<(), Duration> {
        let address = network(address);
        if self.by_address.len() >= ADDRESSES_MAX {
            self.by_address.retain(|_, limiter| !limiter.is_idle(now.into_std()));
        }
        let is_known = self.by_address.contains_key(&address);
        let mut limiter = self.by_address.get(&address).copied().unwrap_or_default();
        limiter.admit(now.into_std(), ADDRESS_RATE)?;
        self.total.admit(now.into_std(), TOTAL_RATE)?;
        if is_known || self.by_address.len() < ADDRESSES_MAX {
            self.by_address.insert(address, limiter);
        }
        Ok(())
    }

    /// Forgets the attempts of an address, after a successful one.
    pub(super) fn succeeded(&mut self, address: IpAddr) {
        self.by_address.remove(&network(address));
    }
}

/// The address, or the /64 network of an IPv6 address, because a client can use all addresses of its network.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6((u128::from(address) & !u128::from(u64::MAX)).into()),
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    #[test]
    fn a_session_ends_by_time_by_sign_out_and_by_a_new_password() {
        let (mut sessions, password, now) = (Sessions::default(), Secret::new("old"), Instant::now());
        let [first, second, third] = [(); 3].map(|()| sessions.start(&password, now, HOUR));
        assert!(sessions.find(&first, &password, now + HOUR / 2).is_some());
        assert!(sessions.find("", &password, now).is_none());
        assert!(sessions.find(&first, &password, now + HOUR).is_none());
        let session = sessions.find(&second, &password, now).unwrap();
        sessions.end(&second);
        assert!(session.ended.is_cancelled());
        assert!(sessions.find(&second, &password, now).is_none());
        assert!(sessions.find(&third, &Secret::new("new"), now).is_none());
        // Also if the old password comes back.
        assert!(sessions.find(&third, &password, now).is_none());
        let fourth = sessions.start(&password, now, HOUR);
        let session = sessions.find(&fourth, &password, now).unwrap();
        assert!(sessions.keep_valid(&password, now));
        assert!(!sessions.keep_valid(&Secret::new("new"), now));
        assert!(session.ended.is_cancelled());
    }

    #[test]
    fn the_number_of_sessions_is_limited() {
        let (mut sessions, password, now) = (Sessions::default(), Secret::new("x"), Instant::now());
        let oldest = sessions.start(&password, now, HOUR);
        for second in 1..=SESSIONS_MAX as u64 {
            sessions.start(&password, now + Duration::from_secs(second), HOUR);
        }
        assert_eq!(sessions.by_token.len(), SESSIONS_MAX);
        assert!(sessions.find(&oldest, &password, now).is_none());
    }

    #[test]
    fn attempts_are_limited_per_address_and_network() {
        let (mut attempts, now) = (Attempts::default(), Instant::now());
        let address = |last| IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, last]);
        for last in 0..5_u16 {
            assert_eq!(attempts.admit(address(last), now), Ok(()));
        }
        assert_eq!(attempts.admit(address(99), now), Err(ADDRESS_RATE.interval));
        assert_eq!(attempts.admit([10, 0, 0, 1].into(), now), Ok(()));
        assert_eq!(attempts.admit(address(99), now + ADDRESS_RATE.interval), Ok(()));
        assert!(attempts.admit(address(99), now + ADDRESS_RATE.interval).is_err());
        attempts.succeeded(address(1));
        assert_eq!(attempts.admit(address(99), now + ADDRESS_RATE.interval), Ok(()));
    }

    #[test]
    fn attempts_of_many_addresses_are_limited_in_total_and_in_memory() {
        let (mut attempts, now) = (Attempts::default(), Instant::now());
        let admitted = (0..10_000u32).filter(|number| attempts.admit(IpAddr::V4((*number).into()), now).is_ok());
        assert_eq!(admitted.count(), 30);
        let later = now + Duration::from_secs(100_000);
        for number in 0..ADDRESSES_MAX as u32 * 2 {
            let now = later + TOTAL_RATE.interval * number;
            assert_eq!(attempts.admit(IpAddr::V4(number.into()), now), Ok(()));
        }
        assert!(attempts.by_address.len() <= ADDRESSES_MAX);
    }
}
