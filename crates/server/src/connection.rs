//! The task of one client: reads its WebSocket, writes what its queue holds, and watches the clock.
//!
//! An idle client costs this one task, its timer, and no buffer.
//!
//! What is queued is handed to the WebSocket as far as it has room, and leaves in one write when there is nothing left
//! to do but wait. What channels say does not come by here unless it has to wait: see [`queue`](crate::queue). A client that reads slowly is not read from either, so its own commands cannot make it slower.

use std::convert::Infallible;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use sockeye::{CloseCause, CloseCode, Message, PreparedMessage, ProtocolError, Receiver, Sender, WebSocket};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, Sleep, sleep_until, timeout};

use crate::client::{Client, PingedBy};
use crate::codes::DisconnectCode;
use crate::node::Node;
use crate::protocol::commands;

/// A place among the connections that the server takes.
pub(crate) type Permit = Arc<OwnedSemaphorePermit>;

/// Why a client's task ends.
#[derive(Debug)]
enum End {
    /// The client closed the connection, with whatever code, or it cannot be written to any more.
    Gone,
    /// The connection was lost, or the client broke the rules of WebSocket.
    Lost(sockeye::Error),
    /// The server closes the connection.
    Disconnect(DisconnectCode),
}

/// Bytes that wait in the WebSocket for a slow client, beyond which they wait in its queue.
pub(crate) const WRITE_BUFFER_BYTES_MAX: usize = 64 << 10;

/// Replies to one frame are written out in between once this much waits.
const REPLIES_BYTES_MAX: usize = 64 << 10;

/// Messages taken in a row, at most, before the clock is looked at.
const MESSAGES_IN_A_ROW_MAX: u32 = 64;

/// Serves a client until it is gone or sent away. The permit is its place among all connections.
// Not an `async fn`, whose future would hold its arguments twice.
pub(crate) fn run(
    ws: WebSocket,
    node: Arc<Node>,
    pinged_by: PingedBy,
    permit: Permit,
) -> impl Future<Output = ()> + Send {
    let (sender, mut receiver) = ws.split();
    let mut client = Client::new(node.clone(), Some(sender.clone()), pinged_by);
    async move {
        let close_timeout = client.close_timeout();
        let Err(end) = talk(&sender, &mut receiver, &mut client).await;
        if let End::Disconnect(_) = end {
            // What was answered before the end is still worth reading.
            let _ = write_queued(&sender, &mut client);
        }
        // Others are told at once; the close handshake may take its time.
        drop(client);
        match &end {
            End::Gone => {}
            End::Lost(error) => log_loss(&node, error),
            // Clients do not come back after these, so whoever runs the server has to be able to see them.
            End::Disconnect(code) if !code.is_reconnect() => node
                .refusals()
                .log(|| tracing::info!(%code, "disconnecting a client, which will not connect again by itself")),
            End::Disconnect(code) => tracing::debug!(%code, "disconnecting a client"),
        }
        if let End::Disconnect(code) = end {
            let _ = timeout(close_timeout, close(&sender, &mut receiver, code)).await;
        }
        drop(permit);
    }
}

/// Goes through the closing handshake.
async fn close(sender: &Sender, receiver: &mut Receiver, code: DisconnectCode) -> Result<(), sockeye::Error> {
    sender.close(CloseCode::from(code.code()), code.reason()).await?;
    while receiver.recv().await?.is_some() {}
    Ok(())
}

/// Ends only with a reason to.
///
/// What is rarely needed is boxed: an idle client should not hold room for a command in flight.
async fn talk(sender: &Sender, receiver: &mut Receiver, client: &mut Client) -> Result<Infallible, End> {
    let mut timer = pin!(sleep_until(client.deadline().unwrap_or_else(far_away)));
    let mut messages_in_a_row = 0;
    loop {
        let message = tokio::select! {
            // First what has arrived, then the clock: after a pause of the whole process the pong may lie unread.
            biased;
            message = receiver.recv(), if messages_in_a_row < MESSAGES_IN_A_ROW_MAX => Some(message),
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
                Box::pin(handle_frame(sender, client, message)).await?;
            }
            Some(Ok(None)) => return Err(End::Gone),
            Some(Err(error)) => return Err(ended(error)),
        }
        while let Some(unwritten) = write_queued(sender, client)? {
            Box::pin(write_slowly(sender, client, unwritten)).await?;
        }
        if client.is_leaving() {
            Box::pin(client.finish_leaving()).await;
        }
        rearm(timer.as_mut(), client.deadline());
    }
}

async fn handle_frame(sender: &Sender, client: &mut Client, frame: Message) -> Result<(), End> {
    let commands = match commands(json(&frame)?) {
        Ok(commands) => commands,
        Err(malformed) => return Ok(client.handle_command(Err(malformed)).await?),
    };
    for command in commands {
        client.handle_command(command).await?;
        while client.queue().bytes() > REPLIES_BYTES_MAX
            && let Some(unwritten) = write_queued(sender, client)?
        {
            write_slowly(sender, client, unwritten).await?;
        }
        // A frame of thousands of commands lets others have their turn in between.
        tokio::task::coop::consume_budget().await;
    }
    Ok(())
}

/// The JSON of a frame. Some WebSocket libraries send text as binary messages unless told otherwise.
fn json(frame: &Message) -> Result<&str, DisconnectCode> {
    let bytes = match frame {
        Message::Text(text) => return Ok(text),
        Message::Binary(bytes) => bytes,
    };
    match std::str::from_utf8(bytes) {
        Ok(text) if text.trim_ascii_start().starts_with('{') => Ok(text),
        // The protocol's other encoding, Protobuf, which this connection did not agree on.
        _ => Err(DisconnectCode::InappropriateProtocol),
    }
}

/// What an error of `recv` means: a client may close with any code, which is no fault.
fn ended(error: sockeye::Error) -> End {
    match error.close_info() {
        Some(close_info)
            if close_info.received().is_some() && !matches!(close_info.cause(), CloseCause::ProtocolError(_)) =>
        {
            tracing::debug!(code = %close_info.code(), "a client closed its connection");
            End::Gone
        }
        _ => End::Lost(error),
    }
}

fn log_loss(node: &Node, error: &sockeye::Error) {
    let cause = error.close_info().map(|close_info| close_info.cause());
    if cause == Some(CloseCause::ProtocolError(ProtocolError::MessageTooBig)) {
        let limit = node.config().limits.message_size_max;
        // SDKs do not connect again after 1009.
        node.refusals().log(|| {
            tracing::info!(
                limit,
                "closed a connection with 1009: a message was larger than limits.message_size_max \
                 (sockeye serve --max-message-size)"
            );
        });
    } else {
        // RFC 6455 §7.1.7: a failure is logged. [6455-7.1.7-3]
        tracing::debug!(%error, "a connection ended badly");
    }
}

/// Hands what is queued to the WebSocket as far as it has room, and returns what came one too many.
fn write_queued(sender: &Sender, client: &mut Client) -> Result<Option<PreparedMessage>, End> {
    while let Some(frame) = client.next_frame()? {
        // Not `try_send`, which would have another task write it: this one is about to receive, and that writes.
        let fed = pin!(sender.feed(&frame)).poll(&mut Context::from_waker(Waker::noop()));
        match fed {
            Poll::Ready(Ok(())) => {}
            Poll::Ready(Err(_)) => return Err(End::Gone),
            Poll::Pending => return Ok(Some(frame)),
        }
    }
    Ok(None)
}

/// Waits for a client that reads slowly, as long as the limits allow.
async fn write_slowly(sender: &Sender, client: &Client, frame: PreparedMessage) -> Result<(), End> {
    tokio::select! {
        fed = timeout(client.write_timeout(), sender.feed(&frame)) => match fed {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(End::Gone),
            Err(_) => Err(DisconnectCode::Slow.into()),
        },
        code = client.queue().closed() => Err(code.into()),
    }
}

/// Sets the timer for an earlier deadline. For a later one it is left to ring in vain, which costs less than setting
/// it with every pong.
fn rearm(timer: Pin<&mut Sleep>, deadline: Option<Instant>) {
    let deadline = deadline.unwrap_or_else(far_away);
    if timer.is_elapsed() || deadline < timer.deadline() {
        timer.reset(deadline);
    }
}

/// When the timer rings for a client that has nothing to wait for.
fn far_away() -> Instant {
    Instant::now() + Duration::from_secs(24 * 60 * 60)
}

impl From<DisconnectCode> for End {
    fn from(code: DisconnectCode) -> Self {
        Self::Disconnect(code)
    }
}
