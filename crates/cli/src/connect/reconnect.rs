//! The exchange of messages with `--reconnect`: over any number of connections.
//!
//! Lines are read only while there is a connection, so that a pipe waits. Lines that were sent before a loss are not
//! sent again, because the server may have received them.

use std::io;

use sockeye::{CloseCode, Error, ReconnectEvent, Reconnecting};
use tokio::time::{Instant, timeout};

use super::address::Target;
use super::input::{Input, InputError};
use super::output::{Output, Writer};
use super::session::{FAST_CLOSE_TIMEOUT, Tally, UNREAD_CLOSE_TIMEOUT, ended_by_output, failed, failure, finish, idle};
use crate::cli::{ConnectOptions, Failure, Signal, Wait};
use crate::log;
use crate::platform::Signals;

/// Why the exchange ends.
enum End {
    /// The server closed normally, or an error does not pass.
    Connection(Result<(), Error>),
    /// `--count` messages were received.
    Count,
    /// No message arrived for the time of `--wait`.
    Idle,
    Input(InputError),
    Output(io::Error),
    Signal(Signal),
}

/// The session over several connections.
pub(super) struct ReconnectSession<'a> {
    options: &'a ConnectOptions,
    target: &'a Target,
    client: Reconnecting,
    output: Output,
    input: Input,
    tally: Tally<'a>,
}

impl<'a> ReconnectSession<'a> {
    pub(super) fn new(
        options: &'a ConnectOptions,
        target: &'a Target,
        client: Reconnecting,
        output: Output,
        input: Input,
    ) -> Self {
        Self {
            options,
            target,
            client,
            output,
            input,
            tally: Tally::new(options),
        }
    }

    /// Exchanges messages until the end of the session, and waits until all received messages are written.
    pub(super) async fn run(
        mut self,
        mut writer: Writer,
        output_closed: impl Future<Output = ()>,
        signals: &mut Signals,
    ) -> Result<(), Failure> {
        let end = tokio::select! {
            biased;
            signal = signals.next() => End::Signal(signal),
            error = failed(&mut writer) => End::Output(error),
            () = output_closed => End::Output(io::ErrorKind::BrokenPipe.into()),
            end = self.exchange() => end,
        };
        let Self {
            options,
            target,
            mut client,
            output,
            tally,
            ..
        } = self;
        let code = match end {
            End::Count | End::Idle | End::Input(_) => CloseCode::NORMAL,
            _ => CloseCode::GOING_AWAY,
        };
        let close_timeout = match end {
            End::Output(_) => UNREAD_CLOSE_TIMEOUT,
            _ => FAST_CLOSE_TIMEOUT,
        };
        // The exit status does not depend on how the server closes.
        let _ = timeout(close_timeout, client.close(code, "")).await;
        // Lets the writer end when it has written everything.
        drop(output);
        match end {
            End::Output(error) => ended_by_output(error),
            End::Signal(signal) => {
                let _ = timeout(FAST_CLOSE_TIMEOUT, writer).await;
                Err(Failure::Interrupted(signal))
            }
            End::Input(error) => finish(writer, signals).await.and(Err(Failure::Input(error))),
            End::Count => finish(writer, signals).await,
            End::Idle | End::Connection(Ok(())) => {
                finish(writer, signals).await?;
                tally.check_count()
            }
            End::Connection(Err(error)) => {
                finish(writer, signals).await?;
                Err(final_failure(error, target, options))
            }
        }
    }

    async fn exchange(&mut self) -> End {
        let mut is_input_ended = false;
        let mut last_event_at = Instant::now();
        loop {
            let is_connected = self.client.websocket().is_some();
            let wait = match is_input_ended && is_connected {
                true => self.tally.wait(),
                false => Wait::Forever,
            };
            tokio::select! {
                event = next_event(&mut self.client, &self.output) => {
                    last_event_at = Instant::now();
                    match event {
                        Ok(Some(ReconnectEvent::Message(message))) => {
                            self.tally.record(message, &self.output);
                            if self.tally.is_complete() {
                                return End::Count;
                            }
                        }
                        Ok(Some(event)) => self.report(&event),
                        Ok(None) => return End::Connection(Ok(())),
                        Err(error) => return End::Connection(Err(error)),
                    }
                }
                line = self.input.next(), if is_connected && !is_input_ended => {
                    last_event_at = Instant::now();
                    let Some(line) = line else {
                        is_input_ended = true;
                        continue;
                    };
                    if let Err(end) = self.send_lines(line).await {
                        return end;
                    }
                }
                () = idle(last_event_at, wait) => {
                    self.tally.report_no_reply();
                    return End::Idle;
                }
            }
        }
    }

    /// Sends a line and those that are available after it.
    async fn send_lines(&mut self, first: Result<String, InputError>) -> Result<(), End> {
        let mut next = Some(first);
        while let Some(line) = next {
            let message = line.and_then(|line| self.tally.message(line)).map_err(End::Input)?;
            let fed = self.client.feed(message).await;
            fed.map_err(|error| End::Connection(Err(error)))?;
            self.tally.record_sent();
            next = self.input.try_next();
        }
        let flushed = self.client.flush().await;
        flushed.map_err(|error| End::Connection(Err(error)))
    }

    /// Reports a change of the connection on standard error.
    fn report(&self, event: &ReconnectEvent) {
        if self.options.quiet {
            return;
        }
        let uri = self.target.uri();
        match event {
            ReconnectEvent::Connected { .. } => log::line(&format!("sockeye: connected to {uri}")),
            ReconnectEvent::Disconnected {
                error,
                undelivered,
                retry_in,
                ..
            } => {
                let lost = match undelivered.count {
                    0 => String::new(),
                    1 => "; 1 sent line may be lost".into(),
                    count => format!("; {count} sent lines may be lost"),
                };
                log::line(&format!("sockeye: {error}{lost}; connecting again in {retry_in:.1?}"));
            }
            ReconnectEvent::ConnectFailed { error, retry_in, .. } => {
                let failure = Failure::opening(uri, error.clone(), self.options);
                let message = failure.message().unwrap_or_default();
                log::line(&format!("sockeye: {message}; next attempt in {retry_in:.1?}"));
            }
            _ => {}
        }
    }
}

/// Waits for room in the output queue, then for the next event. Cancel-safe.
async fn next_event(client: &mut Reconnecting, output: &Output) -> Result<Option<ReconnectEvent>, Error> {
    output.wait_for_room().await;
    client.recv().await
}

/// Converts an error that does not pass.
fn final_failure(error: Error, target: &Target, options: &ConnectOptions) -> Failure {
    match error.close_info() {
        Some(close_info) => match close_info.received() {
            Some(frame) if error.kind() == sockeye::ErrorKind::Closed => Failure::Closed(frame.clone()),
            _ => failure(error, options),
        },
        None => Failure::opening(target.uri(), error, options),
    }
}
