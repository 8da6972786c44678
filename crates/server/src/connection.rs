//! The task of one client: reads its WebSocket, writes its queue, and handles timeouts.
//!
//! An idle client costs one task and one timer, and no buffer.
//!
//! Queued frames are passed to the WebSocket while its write buffer has room, and are flushed by the next `recv`.
//! Pushes bypass this task while nothing is queued: see [`queue`](crate::queue). While a client reads slowly, its
//! commands are not read either, so their replies cannot fill the queue further.

use std::convert::Infallible;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use sockeye::{CloseCause, CloseCode, PreparedMessage, ProtocolError, Receiver, Sender, WebSocket};
use tokio::time::{Instant, Sleep, sleep_until, timeout};

use crate::client::{Client, TransportOptions};
use crate::codes::DisconnectCode;
use crate::connection_limiter::Admission;
use crate::ids::ClientId;
use crate::node::Node;
use crate::request_id::RequestId;

/// The place of a connection among the limited number of them, shared by the tasks of one connection.
pub(crate) type Permit = Arc<Admission>;

/// Why a client's task ends.
#[derive(Debug)]
enum End {
    /// The client closed the connection, with any code, or writing failed.
    Closed,
    /// The connection was lost, or the client violated the WebSocket protocol.
    Lost(sockeye::Error),
    /// The server closes the connection.
    Disconnect(DisconnectCode),
}

/// Size of the WebSocket write buffer of a slow client. Beyond it, frames stay in the queue.
pub(crate) const WRITE_BUFFER_BYTES_MAX: usize = 64 << 10;

/// Size of queued replies at which they are written before the next command of the same frame.
const REPLIES_BYTES_MAX: usize = 64 << 10;

/// Maximum number of messages received in a row before timeouts are checked.
const MESSAGES_IN_A_ROW_MAX: u32 = 64;

/// Serves a client until the connection ends, then releases the permit.
// Not an `async fn`, whose future would hold its arguments twice.
pub(crate) fn run(
    ws: WebSocket,
    node: Arc<Node>,
    options: TransportOptions,
    permit: Permit,
) -> impl Future<Output = ()> + Send {
    let (sender, mut receiver) = ws.split();
    let mut client = Client::new(node.clone(), Some(sender.clone()), options);
    async move {
        let close_timeout = client.close_timeout();
        let Err(end) = serve_client(&sender, &mut receiver, &mut client).await;
        if let End::Disconnect(_) = end {
            // Send the replies to commands that precede the error.
            let _ = write_queued(&sender, &mut client);
        }
        let close_frame = match &end {
            End::Disconnect(code) => {
                node.metrics().disconnect(*code);
                client.queue().close_frame(*code)
            }
            _ => Default::default(),
        };
        let (ids, reason) = (client.ids(), client.refusal_reason());
        // Removes the client from its channels before the closing handshake, which may take a while.
        drop(client);
        log_end(&node, &end, ids, reason);
        if let End::Disconnect(_) = end {
            let _ = timeout(close_timeout, close(&sender, &mut receiver, close_frame)).await;
        }
        drop(permit);
    }
}

/// Performs the closing handshake.
async fn close(sender: &Sender, receiver: &mut Receiver, (code, reason): (u16, String)) -> Result<(), sockeye::Error> {
    sender.close(CloseCode::from(code), &reason).await?;
    while receiver.recv().await?.is_some() {}
    Ok(())
}

/// Processes messages, the queue and timeouts. Only returns the reason why the connection ends.
///
/// Rarely used futures are boxed, so that the task of an idle client does not reserve memory for them.
async fn serve_client(sender: &Sender, receiver: &mut Receiver, client: &mut Client) -> Result<Infallible, End> {
    let mut timer = pin!(sleep_until(client.deadline().unwrap_or_else(far_away)));
    let mut messages_in_a_row = 0;
    loop {
        let message = tokio::select! {
            // Messages before timeouts: after a pause of the whole process, the pong may be received but unread.
            biased;
            message = receiver.recv(), if messages_in_a_row < MESSAGES_IN_A_ROW_MAX && client.wants_input() => {
                Some(message)
            }
            () = client.queue().ready() => None,
            () = timer.as_mut() => {
                client.handle_timeout()?;
                None
            }
            () = std::future::ready(()), if messages_in_a_row >= MESSAGES_IN_A_ROW_MAX => None,
        };
        match message {
            None => messages_in_a_row = 0,
            Some(Ok(Some(message))) => {
                messages_in_a_row += 1;
                client.receive(message)?;
                Box::pin(handle_input(sender, client)).await?;
            }
            Some(Ok(None)) => return Err(End::Closed),
            Some(Err(error)) => return Err(classify_error(error)),
        }
        while let Some(unwritten) = write_queued(sender, client)? {
            Box::pin(write_slowly(sender, client, unwritten)).await?;
        }
        while client.has_pending() {
            Box::pin(client.run_pending()).await?;
            // What waited for a decision.
            Box::pin(handle_input(sender, client)).await?;
            while let Some(unwritten) = write_queued(sender, client)? {
                Box::pin(write_slowly(sender, client, unwritten)).await?;
            }
        }
        if !client.wants_input() {
            // Nothing is received, so nothing else flushes.
            Box::pin(flush(sender, client)).await?;
        }
        rearm(timer.as_mut(), client.deadline());
    }
}

/// Executes the received commands, until there are none or the next one must wait.
async fn handle_input(sender: &Sender, client: &mut Client) -> Result<(), End> {
    while client.handle_next().await? {
        while client.queue().bytes() > REPLIES_BYTES_MAX
            && let Some(unwritten) = write_queued(sender, client)?
        {
            write_slowly(sender, client, unwritten).await?;
        }
        // Yield between the commands of a large frame.
        tokio::task::coop::consume_budget().await;
    }
    Ok(())
}

/// Classifies an error of `recv`. A close frame with any code is a normal end.
fn classify_error(error: sockeye::Error) -> End {
    match error.close_info() {
        Some(close_info)
            if close_info.received().is_some() && !matches!(close_info.cause(), CloseCause::ProtocolError(_)) =>
        {
            tracing::debug!(code = %close_info.code(), "a client closed its connection");
            End::Closed
        }
        _ => End::Lost(error),
    }
}

fn log_end(node: &Node, end: &End, ids: (ClientId, RequestId), reason: &str) {
    let (client, request_id) = &ids;
    match end {
        End::Closed => tracing::debug!(%client, %request_id, "a client has gone"),
        End::Lost(error) => log_connection_error(node, error, client, request_id),
        // SDKs do not reconnect after these codes, so the operator should see them.
        End::Disconnect(code) if !code.allows_reconnect() => node
            .refusals()
            .log(|| log_permanent_disconnect(client, request_id, *code, reason)),
        End::Disconnect(code) => tracing::debug!(%client, %request_id, %code, "disconnecting a client"),
    }
}

/// Logs that a client is disconnected with a code after which SDKs do not reconnect.
pub(crate) fn log_permanent_disconnect(client: &ClientId, request_id: &RequestId, code: DisconnectCode, reason: &str) {
    match reason {
        "" => tracing::info!(%client, %request_id, %code, "disconnecting a client, which will not reconnect"),
        reason => {
            tracing::info!(%client, %request_id, %code, "disconnecting a client, which will not reconnect: {reason}");
        }
    }
}

fn log_connection_error(node: &Node, error: &sockeye::Error, client: &ClientId, request_id: &RequestId) {
    let cause = error.close_info().map(|close_info| close_info.cause());
    if cause == Some(CloseCause::ProtocolError(ProtocolError::MessageTooBig)) {
        let limit = node.startup_config().limits.message_size_max;
        // SDKs do not connect again after 1009.
        node.refusals().log(|| {
            tracing::info!(
                %client,
                %request_id,
                limit,
                "closed a connection with 1009: a message was larger than limits.message_size_max \
                 (sockeye serve --max-message-size)"
            );
        });
    } else {
        // RFC 6455 §7.1.7: a failure is logged. [6455-7.1.7-3]
        tracing::debug!(%client, %request_id, %error, "connection failed");
    }
}

/// Moves queued frames to the write buffer of the WebSocket. Returns the first frame that did not fit.
fn write_queued(sender: &Sender, client: &mut Client) -> Result<Option<PreparedMessage>, End> {
    while let Some(frame) = client.next_frame()? {
        // Not `try_send`, which would wake the flush task: the following `recv` of this task flushes.
        let fed = pin!(sender.feed(&frame)).poll(&mut Context::from_waker(Waker::noop()));
        match fed {
            Poll::Ready(Ok(())) => {}
            Poll::Ready(Err(_)) => return Err(End::Closed),
            Poll::Pending => return Ok(Some(frame)),
        }
    }
    Ok(None)
}

/// Waits until a slow client has read enough for the frame to fit, or its timeout or queue limit is exceeded.
async fn write_slowly(sender: &Sender, client: &Client, frame: PreparedMessage) -> Result<(), End> {
    tokio::select! {
        fed = timeout(client.write_timeout(), sender.feed(&frame)) => match fed {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(End::Closed),
            Err(_) => Err(DisconnectCode::Slow.into()),
        },
        code = client.queue().closed() => Err(code.into()),
    }
}

/// Writes what is in the write buffer of the WebSocket.
async fn flush(sender: &Sender, client: &Client) -> Result<(), End> {
    tokio::select! {
        flushed = timeout(client.write_timeout(), sender.flush()) => match flushed {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(End::Closed),
            Err(_) => Err(DisconnectCode::Slow.into()),
        },
        code = client.queue().closed() => Err(code.into()),
    }
}

/// Resets the timer if the deadline is earlier or much later, or the timer has expired. For a deadline that is a little
/// later, the timer expires too early and is then reset. A pong moves the deadline from its own timeout to the next
/// ping, which is worth a reset: otherwise each idle client would be woken once more per ping.
fn rearm(timer: Pin<&mut Sleep>, deadline: Option<Instant>) {
    let deadline = deadline.unwrap_or_else(far_away);
    if timer.is_elapsed() || deadline < timer.deadline() || deadline > timer.deadline() + LATE_MIN {
        timer.reset(deadline);
    }
}

/// How much later a deadline must be for the timer to be reset.
const LATE_MIN: Duration = Duration::from_secs(1);

/// The deadline of a client that waits for nothing.
fn far_away() -> Instant {
    Instant::now() + Duration::from_secs(24 * 60 * 60)
}

impl From<DisconnectCode> for End {
    fn from(code: DisconnectCode) -> Self {
        Self::Disconnect(code)
    }
}
