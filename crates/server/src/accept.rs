//! An accept loop that survives errors.
//!
//! Without free file descriptors, every `accept` fails immediately and the connection stays in the backlog. Retrying at
//! once would use a whole core, and returning would stop the server. The loop therefore retries with exponential
//! backoff.

use std::io;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, sleep};

const BACK_OFF_MIN: Duration = Duration::from_millis(10);
const BACK_OFF_MAX: Duration = Duration::from_secs(1);
const LOG_INTERVAL: Duration = Duration::from_secs(1);

/// Accepts connections forever and passes each to `handle`.
///
/// Errors of a single connection are ignored. After any other error, such as too many open files, the loop waits from
/// 10 ms up to 1 s before it retries, and logs at most one line per second.
///
/// # Cancel safety
/// Dropping the future loses no connection: those that are not accepted yet stay in the backlog.
pub(crate) async fn accept_all<T>(
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
            Err(error) if is_connection_error(&error) => {}
            Err(error) => {
                if logged_at.is_none_or(|at| at.elapsed() >= LOG_INTERVAL) {
                    logged_at = Some(Instant::now());
                    tracing::error!(%error, "cannot accept connections; retrying");
                }
                sleep(back_off).await;
                back_off = (back_off * 2).min(BACK_OFF_MAX);
            }
        }
    }
}

/// Whether the error concerns only the connection that was being accepted: on Linux, `accept` returns its pending
/// errors.
fn is_connection_error(error: &io::Error) -> bool {
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

    /// Runs the loop on a list of results. Returns the accepted connections and the elapsed time.
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
    async fn cve_rustsec_2024_0376_a_connection_aborted_in_the_backlog_causes_no_delay() {
        let lost = Err(io::ErrorKind::ConnectionAborted.into());
        assert_eq!(
            accept_script(vec![Ok(1), lost, Ok(2)]).await,
            (vec![1, 2], Duration::ZERO)
        );
    }

    #[tokio::test(start_paused = true)]
    async fn cve_rustsec_2024_0376_without_descriptors_the_delay_doubles_up_to_a_second() {
        let script = std::iter::repeat_with(no_descriptors).take(12).chain([Ok(1)]).collect();
        let (accepted, took) = accept_script(script).await;
        assert_eq!(accepted, [1]);
        // 10 + 20 + 40 + 80 + 160 + 320 + 640 ms, then 5 times 1 s.
        assert_eq!(took.as_millis(), 1270 + 5000);
    }

    #[tokio::test(start_paused = true)]
    async fn cve_rustsec_2024_0376_no_error_code_ends_the_loop_or_delays_it_for_long() {
        // All error codes of Linux, and some that do not exist.
        for code in 1..200 {
            let (accepted, took) = accept_script(vec![Err(io::Error::from_raw_os_error(code)), Ok(1)]).await;
            assert_eq!(accepted, [1], "{code}");
            assert!(took <= BACK_OFF_MIN, "{code}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_accepted_connection_resets_the_delay() {
        let script = vec![no_descriptors(), no_descriptors(), Ok(1), no_descriptors(), Ok(2)];
        let (accepted, took) = accept_script(script).await;
        assert_eq!((accepted, took.as_millis()), (vec![1, 2], 10 + 20 + 10));
    }
}
