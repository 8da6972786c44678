//! Taking in connections for as long as the process lives, whatever accepting one of them comes to.
//!
//! Without free file descriptors every attempt fails at once while the connection stays in the backlog: trying again
//! immediately would burn a core, giving up would end the server. So it waits, a little longer each time.

use std::io;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, sleep};

const BACK_OFF_MIN: Duration = Duration::from_millis(10);
const BACK_OFF_MAX: Duration = Duration::from_secs(1);
const LOG_INTERVAL: Duration = Duration::from_secs(1);

/// Hands every connection that `poll_accept` yields to `handle`. Never returns.
pub async fn accept_all<T>(
    mut poll_accept: impl FnMut(&mut Context<'_>) -> Poll<io::Result<T>>,
    mut handle: impl FnMut(T),
) -> std::convert::Infallible {
    let mut back_off = BACK_OFF_MIN;
    let mut logged_at: Option<Instant> = None;
    loop {
        match std::future::poll_fn(&mut poll_accept).await {
            Ok(connection) => {
                back_off = BACK_OFF_MIN;
                handle(connection);
            }
            Err(error) if is_of_one_connection(&error) => {}
            Err(error) => {
                if logged_at.is_none_or(|at| at.elapsed() >= LOG_INTERVAL) {
                    logged_at = Some(Instant::now());
                    tracing::error!(%error, "cannot accept connections; trying again");
                }
                sleep(back_off).await;
                back_off = (back_off * 2).min(BACK_OFF_MAX);
            }
        }
    }
}

/// Whether only the connection that was to be accepted is at fault; Linux passes its pending errors on to `accept`.
fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::*;
    matches!(
        error.kind(),
        ConnectionAborted
            | ConnectionReset
            | ConnectionRefused
            | Interrupted
            | TimedOut
            | HostUnreachable
            | NetworkUnreachable
            | NetworkDown
    )
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use tokio::time::timeout;

    use super::*;

    /// Accepts a script to its end, and tells which connections came through and how long that took.
    async fn accept_script(script: Vec<io::Result<u32>>) -> (Vec<u32>, Duration) {
        let mut script = VecDeque::from(script);
        let mut accepted = Vec::new();
        let start = Instant::now();
        let mut ended = start;
        let accepting = accept_all(
            |_| {
                let Some(result) = script.pop_front() else {
                    return Poll::Pending;
                };
                ended = Instant::now();
                Poll::Ready(result)
            },
            |connection| accepted.push(connection),
        );
        let _ = timeout(Duration::from_secs(3600), accepting).await;
        (accepted, ended - start)
    }

    fn no_descriptors() -> io::Result<u32> {
        const EMFILE: i32 = 24;
        Err(io::Error::from_raw_os_error(EMFILE))
    }

    #[tokio::test(start_paused = true)]
    async fn cve_rustsec_2024_0376_a_connection_lost_in_the_backlog_costs_no_time() {
        let lost = Err(io::ErrorKind::ConnectionAborted.into());
        assert_eq!(
            accept_script(vec![Ok(1), lost, Ok(2)]).await,
            (vec![1, 2], Duration::ZERO)
        );
    }

    #[tokio::test(start_paused = true)]
    async fn cve_rustsec_2024_0376_without_descriptors_it_waits_longer_and_longer_up_to_a_second() {
        let script = std::iter::repeat_with(no_descriptors).take(12).chain([Ok(1)]).collect();
        let (accepted, took) = accept_script(script).await;
        assert_eq!(accepted, [1]);
        // 10 + 20 + 40 + 80 + 160 + 320 + 640 ms, then five times a second.
        assert_eq!(took.as_millis(), 1270 + 5000);
    }

    #[tokio::test(start_paused = true)]
    async fn cve_rustsec_2024_0376_no_error_there_is_ends_it_or_costs_more_than_a_moment() {
        // All of Linux, and some that there are not.
        for code in 1..200 {
            let (accepted, took) = accept_script(vec![Err(io::Error::from_raw_os_error(code)), Ok(1)]).await;
            assert_eq!(accepted, [1], "{code}");
            assert!(took <= BACK_OFF_MIN, "{code}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_accepted_connection_makes_it_quick_again() {
        let script = vec![no_descriptors(), no_descriptors(), Ok(1), no_descriptors(), Ok(2)];
        let (accepted, took) = accept_script(script).await;
        assert_eq!((accepted, took.as_millis()), (vec![1, 2], 10 + 20 + 10));
    }
}
