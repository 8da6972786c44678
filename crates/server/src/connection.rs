//! The task of one client: reads its WebSocket, writes what its queue holds, and watches the clock.
//!
//! An idle client costs this one task, its timer, and no buffer.
//!
//! What is queued is handed to the WebSocket as far as it has room, and leaves in one write when there is nothing left
//! to do but wait. A client that reads slowly is not read from either, so its own commands cannot make it slower.

use std::pin::Pin;
use std::sync::Arc;

use sockeye::{CloseCode, Message, TrySendError, WebSocket};
use tokio::time::{Instant, Sleep, sleep_until, timeout};

use crate::client::Client;
use crate::codes::DisconnectCode;
use crate::node::Node;
use crate::protocol::commands;

/// Why a client's task ends.
#[derive(Debug)]
enum End {
    /// The client closed the connection, or it was lost.
    Gone,
    /// The server closes the connection.
    Disconnect(DisconnectCode),
}

/// Bytes that wait in the WebSocket for a slow client, beyond which they wait in its queue.
pub(crate) const WRITE_BUFFER_BYTES_MAX: usize = 64 << 10;

/// Replies to one frame are written out in between once this much waits.
const REPLIES_BYTES_MAX: usize = 64 << 10;

/// Messages taken in a row, at most, before the clock is looked at.
const MESSAGES_IN_A_ROW_MAX: u32 = 64;

/// Serves a client until it is gone or sent away.
pub(crate) async fn run(mut ws: WebSocket, node: Arc<Node>) {
    let close_timeout = node.config().timeouts.close;
    let mut client = Client::new(node);
    let Err(end) = talk(&mut ws, &mut client).await;
    if let End::Disconnect(_) = end {
        // What was answered before the end is still worth reading.
        while let Ok(Some(frame)) = client.next_frame().await
            && ws.try_send(frame).is_ok()
        {}
    }
    // Others are told at once; the close handshake may take its time.
    drop(client);
    if let End::Disconnect(code) = end {
        tracing::debug!(%code, "disconnecting a client");
        let _ = timeout(close_timeout, ws.close(CloseCode::from(code.code()), code.reason())).await;
    }
}

/// Ends only with a reason to.
async fn talk(ws: &mut WebSocket, client: &mut Client) -> Result<std::convert::Infallible, End> {
    let mut timer = std::pin::pin!(sleep_until(client.deadline()));
    let mut messages_in_a_row = 0;
    loop {
        tokio::select! {
            // First what has arrived, then the clock: after a pause of the whole process the pong may lie unread.
            biased;
            message = ws.recv(), if messages_in_a_row < MESSAGES_IN_A_ROW_MAX => {
                messages_in_a_row += 1;
                handle_message(ws, client, message).await?;
            }
            () = client.queue().ready() => {}
            () = timer.as_mut() => {
                messages_in_a_row = 0;
                client.handle_timeout()?;
            }
            () = std::future::ready(()), if messages_in_a_row >= MESSAGES_IN_A_ROW_MAX => messages_in_a_row = 0,
        }
        write_queued(ws, client).await?;
        rearm(timer.as_mut(), client.deadline());
    }
}

async fn handle_message(
    ws: &mut WebSocket,
    client: &mut Client,
    message: Result<Option<Message>, sockeye::Error>,
) -> Result<(), End> {
    let text = match message {
        Ok(Some(Message::Text(text))) => text,
        // Binary frames are for the protocol's other encoding, which this connection did not agree on.
        Ok(Some(Message::Binary(_))) => return Err(DisconnectCode::InappropriateProtocol.into()),
        Ok(None) | Err(_) => return Err(End::Gone),
    };
    match commands(&text) {
        Err(malformed) => client.handle_command(Err(malformed)).await?,
        Ok(commands) => {
            for command in commands {
                client.handle_command(command).await?;
                if client.queue().bytes() > REPLIES_BYTES_MAX {
                    write_queued(ws, client).await?;
                }
                // A frame of thousands of commands lets others have their turn in between.
                tokio::task::coop::consume_budget().await;
            }
        }
    }
    Ok(())
}

/// Hands everything queued to the WebSocket, and waits for a client that reads slowly as long as the limits allow.
async fn write_queued(ws: &mut WebSocket, client: &mut Client) -> Result<(), End> {
    while let Some(frame) = client.next_frame().await? {
        match ws.try_send(frame) {
            Ok(()) => {}
            Err(TrySendError::Closed(_)) => return Err(End::Gone),
            Err(TrySendError::Full(message)) => {
                let patience = client.write_timeout();
                tokio::select! {
                    fed = timeout(patience, ws.feed(message)) => match fed {
                        Ok(Ok(())) => {}
                        Ok(Err(_)) => return Err(End::Gone),
                        Err(_) => return Err(DisconnectCode::Slow.into()),
                    },
                    code = client.queue().closed() => return Err(code.into()),
                }
            }
        }
    }
    Ok(())
}

/// Sets the timer for an earlier deadline. For a later one it is left to ring in vain, which costs less than setting
/// it with every pong.
fn rearm(timer: Pin<&mut Sleep>, deadline: Instant) {
    if timer.is_elapsed() || deadline < timer.deadline() {
        timer.reset(deadline);
    }
}

impl From<DisconnectCode> for End {
    fn from(code: DisconnectCode) -> Self {
        Self::Disconnect(code)
    }
}
