//! The task of a client whose frames are the body of a response.

use std::convert::Infallible;
use std::pin::pin;
use std::time::Duration;

use hyper::body::Bytes;
use sockeye::Message;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout};

use super::Framing;
use crate::client::Client;
use crate::codes::DisconnectCode;
use crate::connection::log_permanent_disconnect;
use crate::node::Node;
use crate::protocol::{Encoding, Push, PushTarget, WireClose, bytes};

/// Why a client's task ends.
enum End {
    /// The client closed the connection.
    Closed,
    /// The server closes the connection.
    Disconnect(DisconnectCode),
}

/// Serves a client until either side closes the response.
pub(super) async fn run(
    mut client: Client,
    node: &Node,
    first: Bytes,
    mut commands: mpsc::Receiver<Bytes>,
    frames: mpsc::Sender<Bytes>,
    framing: Framing,
) {
    let Err(end) = serve(&mut client, first, &mut commands, &frames, framing).await;
    let End::Disconnect(code) = end else { return };
    node.metrics().disconnect(code);
    let (id, request_id) = client.ids();
    match code.allows_reconnect() {
        // SDKs do not reconnect after these codes, so the operator should see them.
        false => node
            .refusals()
            .log(|| log_permanent_disconnect(&id, &request_id, code, client.refusal_reason())),
        true => tracing::debug!(client = %id, %request_id, %code, "disconnecting a client"),
    }
    let write_timeout = client.write_timeout();
    let mut last = Vec::new();
    // The replies to commands that precede the error.
    while let Ok(Some(frame)) = client.next_frame() {
        append(&mut last, bytes(frame.message()), framing);
    }
    // There is no close code, so the client learns the reason by a push.
    let (code, reason) = client.queue().close_frame(code);
    let push = Push::Disconnect(WireClose { code, reason });
    let push = client.queue().encoding().push(PushTarget::connection(), &push);
    append(&mut last, bytes(&push), framing);
    drop(client);
    let _ = timeout(write_timeout, frames.send(last.into())).await;
}

async fn serve(
    client: &mut Client,
    first: Bytes,
    commands: &mut mpsc::Receiver<Bytes>,
    frames: &mpsc::Sender<Bytes>,
    framing: Framing,
) -> Result<Infallible, End> {
    let mut timer = pin!(sleep_until(Instant::now()));
    let mut received = Some(first);
    loop {
        if let Some(frame) = received.take() {
            receive(client, &frame)?;
            handle_input(client).await?;
        }
        write_queued(client, frames, framing).await?;
        while client.has_pending() {
            client.run_pending().await?;
            handle_input(client).await?;
            write_queued(client, frames, framing).await?;
        }
        let far_away = || Instant::now() + Duration::from_secs(24 * 60 * 60);
        timer.as_mut().reset(client.deadline().unwrap_or_else(far_away));
        tokio::select! {
            command = commands.recv(), if client.wants_input() => received = command,
            () = client.queue().ready() => {}
            () = timer.as_mut() => client.handle_timeout()?,
            () = frames.closed() => return Err(End::Closed),
        }
    }
}

/// Adds the commands of a request.
fn receive(client: &mut Client, body: &Bytes) -> Result<(), DisconnectCode> {
    let message = match client.queue().encoding() {
        Encoding::Protobuf => Message::binary(&body[..]),
        Encoding::Json => Message::text(std::str::from_utf8(body).map_err(|_| DisconnectCode::BadRequest)?),
    };
    client.receive(message)
}

async fn handle_input(client: &mut Client) -> Result<(), DisconnectCode> {
    while client.handle_next().await? {
        tokio::task::coop::consume_budget().await;
    }
    Ok(())
}

/// Sends queued frames as one part of the body.
async fn write_queued(client: &mut Client, frames: &mpsc::Sender<Bytes>, framing: Framing) -> Result<(), End> {
    loop {
        let mut part = Vec::new();
        while part.len() < PART_BYTES_MAX
            && let Some(frame) = client.next_frame()?
        {
            append(&mut part, bytes(frame.message()), framing);
        }
        if part.is_empty() {
            return Ok(());
        }
        tokio::select! {
            sent = timeout(client.write_timeout(), frames.send(part.into())) => match sent {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return Err(End::Closed),
                Err(_) => return Err(DisconnectCode::Slow.into()),
            },
            code = client.queue().closed() => return Err(code.into()),
        }
    }
}

/// Size of a part of the body. More frames wait in the queue, where they count against its limit.
const PART_BYTES_MAX: usize = 16 << 10;

fn append(part: &mut Vec<u8>, frame: &[u8], framing: Framing) {
    match framing {
        Framing::Messages => part.extend_from_slice(frame),
        Framing::Lines => {
            part.extend_from_slice(frame);
            part.push(b'\n');
        }
        Framing::Events => {
            for line in frame.split(|&byte| byte == b'\n') {
                part.extend_from_slice(b"data: ");
                part.extend_from_slice(line);
                part.extend_from_slice(b"\n\n");
            }
        }
    }
}

impl From<DisconnectCode> for End {
    fn from(code: DisconnectCode) -> Self {
        Self::Disconnect(code)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_separated_by_their_framing() {
        for (framing, expect) in [
            (Framing::Messages, "a\nb"),
            (Framing::Lines, "a\nb\n"),
            (Framing::Events, "data: a\n\ndata: b\n\n"),
        ] {
            let mut part = Vec::new();
            append(&mut part, b"a\nb", framing);
            assert_eq!(part, expect.as_bytes());
        }
    }
}
