//! Options of the admin console.

use std::time::Duration;

use super::options::options;
use crate::auth::Secret;

options! {
    /// The admin console at `/console`: statistics, channels, and the calls of the HTTP API by hand.
    #[derive(PartialEq, Eq)]
    pub struct ConsoleOptions {
        /// Password of the console. Without one, `/console` is 404. Whoever knows it can do what the HTTP API can:
        /// choose at least 16 random characters. Changing the password ends all sessions.
        pub password: Option<Secret> = None,
        /// Time after which an operator has to sign in again.
        pub session_lifetime: Duration = Duration::from_secs(12 * 60 * 60),
    }
}
