//! Decisions of the backend or the embedding program, and tokens whose keys must be fetched. Neither delays other
//! commands.
//!
//! A call runs in a task of its own, and its answer comes back through the queue of the client. When the client is
//! dropped, its calls are aborted. So a client that disconnects in the meantime leaves nothing behind.

use std::pin::Pin;
use std::sync::Arc;

use ::http::HeaderMap;
use serde_json::value::RawValue;
use tokio::task::AbortHandle;
use tokio::time::timeout;

use super::publishing::PUBLISHING_MAX;
use super::{Client, clock};
use crate::channel::ChannelName;
use crate::codes::{DisconnectCode, ErrorCode};
use crate::handle::Member;
use crate::handlers::{ClientMessage, RpcCall as HandledCall, RpcError};
use crate::hooks::{
    CallData, Common, ConnectCall, Hook, HookError, Hooks, PublishCall, RefreshCall, RpcCall, SubRefreshCall,
    SubscribeCall,
};
use crate::protocol::{Command, CustomError, Data, Encoding, Malformed, ReplyBody, Request, encode};
use crate::queue::{Answer, Item, Queue};
use crate::session::{Decision, Event};

/// Maximum number of subscriptions and publications of one client that wait for a decision or for a key. Further ones
/// are not started.
const PENDING_MAX: usize = 16;

type DecisionFuture = Pin<Box<dyn Future<Output = Result<Decision, HookError>> + Send>>;

/// An event without a decision.
#[derive(Debug)]
pub(super) struct PendingEvent {
    ticket: u64,
    /// The id of the command; zero if the event is not one of the client.
    id: u32,
    event: Event,
    task: AbortHandle,
}

impl Drop for PendingEvent {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Sends the decision when it is dropped, also if the task of the call panics.
struct AnswerOnDrop {
    queue: Arc<Queue>,
    ticket: u64,
    decision: Option<Result<Decision, HookError>>,
}

impl AnswerOnDrop {
    fn set(mut self, decision: Result<Decision, HookError>) {
        self.decision = Some(decision);
    }
}

impl Drop for AnswerOnDrop {
    fn drop(&mut self) {
        let panicked = || Err(HookError::Failed("the call panicked".to_owned()));
        let answer = Answer {
            ticket: self.ticket,
            decision: self.decision.take().unwrap_or_else(panicked),
        };
        self.queue.push(Item::Answer(answer.into()));
    }
}

impl Client {
    /// Whether a command may be executed now. Otherwise it has to wait for an earlier one.
    pub(super) fn may_start(&self, command: &Result<Command<'_>, Malformed>) -> bool {
        self.publications_allow(command) && self.decisions_allow(command)
    }

    /// Whether pending publications allow a command now. Only so many publications may be pending, and other commands
    /// wait for those in their channel.
    fn publications_allow(&self, command: &Result<Command<'_>, Malformed>) -> bool {
        let (
            Some(publishing),
            Ok(Command {
                request: Some(request), ..
            }),
        ) = (&self.pending_publications, command)
        else {
            return true;
        };
        match (request, request.channel()) {
            (Request::Publish(_), _) => publishing.len() < PUBLISHING_MAX,
            (_, Some(channel)) => !publishing.has_channel(channel),
            (_, None) => true,
        }
    }

    /// Whether pending decisions allow a command now: none for the same channel, and not too many calls.
    fn decisions_allow(&self, command: &Result<Command<'_>, Malformed>) -> bool {
        let pending = &self.pending;
        if pending.is_empty() {
            return true;
        }
        if pending.iter().any(|pending| pending.event.is_connect()) {
            return false;
        }
        let Ok(Command {
            request: Some(request), ..
        }) = command
        else {
            return true;
        };
        if matches!(request, Request::Rpc(_) | Request::Send(_)) {
            let calls = pending.iter().filter(|pending| pending.event.is_call()).count();
            return calls < self.node.config().hooks.rpc_per_client_max.max(1);
        }
        if matches!(request, Request::Refresh(_)) {
            // One token of the connection at a time.
            let is_token = |event: &Event| matches!(event, Event::Verify(check) if check.channel().is_none());
            return !pending.iter().any(|pending| is_token(&pending.event));
        }
        let Some(channel) = request.channel() else {
            return true;
        };
        pending.len() < PENDING_MAX
            && !pending
                .iter()
                .any(|pending| pending.event.channel().is_some_and(|known| known.as_str() == channel))
    }

    /// Starts the call for an event.
    pub(super) fn ask(&mut self, id: u32, event: Event) {
        self.tickets += 1;
        let ticket = self.tickets;
        let call = self.call(&event);
        let answer = AnswerOnDrop {
            queue: self.queue.clone(),
            ticket,
            decision: None,
        };
        let task = tokio::spawn(async move { answer.set(call.await) });
        self.pending.push(PendingEvent {
            ticket,
            id,
            event,
            task: task.abort_handle(),
        });
    }

    /// Cancels the subscriptions to a channel, or to all channels, that wait for the backend. They fail with error 103,
    /// after which SDKs do not subscribe again by themselves, as after the end of a subscription with 2000.
    pub(super) fn cancel_subscribe(&mut self, channel: Option<&ChannelName>) {
        let is_meant = |pending: &PendingEvent| {
            let event = &pending.event;
            event.is_subscribe() && channel.is_none_or(|channel| event.channel() == Some(channel))
        };
        while let Some(index) = self.pending.iter().position(is_meant) {
            // Dropping it aborts the call.
            let cancelled = self.pending.swap_remove(index);
            self.reply(cancelled.id, ReplyBody::Error(ErrorCode::PermissionDenied));
        }
    }

    /// Continues an event after the decision.
    ///
    /// # Errors
    /// Returns the code with which to disconnect the client.
    pub(super) async fn handle_answer(&mut self, answer: Answer) -> Result<(), DisconnectCode> {
        let is_meant = |pending: &PendingEvent| pending.ticket == answer.ticket;
        let Some(index) = self.pending.iter().position(is_meant) else {
            return Ok(());
        };
        let mut pending = self.pending.swap_remove(index);
        if self.pending.is_empty() {
            self.pending = Vec::new();
        }
        let event = std::mem::replace(&mut pending.event, Event::Refresh);
        if let Err(error) = &answer.decision {
            let hook = event.hook().map_or("message", Hook::option);
            self.node
                .metrics()
                .hook_failure(event.hook().map_or("message", Hook::name));
            let (client, request_id) = (self.id, &self.request);
            let log = || tracing::warn!(hook, %error, %client, %request_id, "no decision about an event of a client");
            self.node.refusals().log(log);
        }
        let step = self.session.handle_decision(event, answer.decision, clock())?;
        self.execute_step(pending.id, step).await
    }

    /// The future of the call for an event.
    fn call(&self, event: &Event) -> DecisionFuture {
        let handlers = self.node.handlers();
        let limit = self.node.config().hooks.timeout;
        match event {
            Event::Rpc(method, data) if let Some(handler) = handlers.rpc.clone() => {
                let call = HandledCall {
                    caller: self.member(),
                    method: method.clone(),
                    data: bytes(data.as_ref()),
                };
                Box::pin(async move {
                    let result = timeout(limit, async { handler(call).await }).await;
                    let result = result.map_err(|_| HookError::Timeout)?;
                    Ok(Decision::Handled(result.map(handled_data).map_err(CustomError::from)))
                })
            }
            Event::Message(data) if let Some(handler) = handlers.message.clone() => {
                let message = ClientMessage {
                    sender: self.member(),
                    data: bytes(data.as_ref()),
                };
                Box::pin(async move {
                    let handled = timeout(limit, async { handler(message).await }).await;
                    handled.map_err(|_| HookError::Timeout)?;
                    Ok(Decision::Handled(Ok(None)))
                })
            }
            Event::Verify(check) => {
                let (verifiers, kind, token) = (self.node.verifiers(), check.kind, check.token.clone());
                Box::pin(async move { Ok(Decision::Verified(verifiers.verify(kind, &token).await)) })
            }
            event => self.call_hook(event),
        }
    }

    fn call_hook(&self, event: &Event) -> DecisionFuture {
        let hooks = self.node.hooks();
        let headers = self.headers.clone().unwrap_or_default();
        let Some(body) = self.hook_body(event) else {
            return Box::pin(async { Err(HookError::Failed("there is no hook for messages".to_owned())) });
        };
        match event {
            Event::Connect(_) => hook_call(Hook::Connect, hooks, headers, body, Decision::Connect),
            Event::Refresh => hook_call(Hook::Refresh, hooks, headers, body, Decision::Refresh),
            Event::Subscribe(_) => hook_call(Hook::Subscribe, hooks, headers, body, Decision::Subscribe),
            Event::SubRefresh(_) => hook_call(Hook::SubRefresh, hooks, headers, body, Decision::SubRefresh),
            Event::Publish(..) => hook_call(Hook::Publish, hooks, headers, body, Decision::Publish),
            Event::Rpc(..) | Event::Message(_) | Event::Verify(_) => {
                hook_call(Hook::Rpc, hooks, headers, body, Decision::Rpc)
            }
        }
    }

    /// The JSON of the call for an event; `None` for a message or a token.
    fn hook_body(&self, event: &Event) -> Option<String> {
        let client = self.id.to_string();
        let user = self.session.info().map_or("", |info| &info.user);
        let meta = self.session.meta();
        let with = |data: Option<&Data>, encode: &dyn Fn(Common<'_>, CallData<'_>) -> String| {
            let (encoding, data) = call_data(data);
            let common = Common {
                client: &client,
                transport: self.transport.name(),
                protocol: match self.queue.encoding() {
                    Encoding::Json => "json",
                    Encoding::Protobuf => "protobuf",
                },
                encoding,
            };
            encode(common, data)
        };
        Some(match event {
            Event::Connect(event) => with(event.data.as_ref(), &|common, data| {
                encode(&ConnectCall {
                    common,
                    data,
                    name: &event.name,
                    version: &event.version,
                    channels: &event.channels(),
                })
            }),
            Event::Refresh => with(None, &|common, _| encode(&RefreshCall { common, user, meta })),
            Event::Subscribe(event) => with(event.data.as_ref(), &|common, data| {
                let channel = event.channel.as_str();
                encode(&SubscribeCall {
                    common,
                    user,
                    channel,
                    data,
                    meta,
                })
            }),
            Event::SubRefresh(subscription) => with(None, &|common, _| {
                let channel = subscription.channel.as_str();
                encode(&SubRefreshCall {
                    common,
                    user,
                    channel,
                    meta,
                })
            }),
            Event::Publish(channel, data) => with(Some(data), &|common, data| {
                let channel = channel.as_str();
                encode(&PublishCall {
                    common,
                    user,
                    channel,
                    data,
                    meta,
                })
            }),
            Event::Rpc(method, data) => with(data.as_ref(), &|common, data| {
                encode(&RpcCall {
                    common,
                    user,
                    method,
                    data,
                    meta,
                })
            }),
            Event::Message(_) | Event::Verify(_) => return None,
        })
    }

    fn member(&self) -> Member {
        let info = self.session.info();
        info.map_or_else(Member::default, |info| Member::of(info))
    }
}

fn hook_call<T: serde::de::DeserializeOwned + Send + 'static>(
    hook: Hook,
    hooks: Hooks,
    headers: Arc<HeaderMap>,
    body: String,
    decision: fn(crate::hooks::HookReply<T>) -> Decision,
) -> DecisionFuture {
    Box::pin(async move { hooks.call(hook, &headers, body).await.map(decision) })
}

/// The form of data for the backend: JSON wherever it is JSON, and base64 otherwise.
fn call_data(data: Option<&Data>) -> (&'static str, CallData<'_>) {
    let Some(data) = data else {
        return ("json", CallData::default());
    };
    let json = match data {
        Data::Json(json) => Some(json.as_raw()),
        Data::Bytes(bytes) => serde_json::from_slice::<&RawValue>(bytes).ok(),
    };
    match json {
        Some(json) => {
            let data = CallData {
                data: Some(json),
                b64data: None,
            };
            ("json", data)
        }
        None => {
            let data = CallData {
                data: None,
                b64data: Some(data.to_base64()),
            };
            ("binary", data)
        }
    }
}

fn bytes(data: Option<&Data>) -> Vec<u8> {
    data.map(|data| data.as_bytes().to_vec()).unwrap_or_default()
}

/// The result of a handler: JSON if it is, so that JSON clients receive it as such.
fn handled_data(bytes: Vec<u8>) -> Option<Data> {
    if bytes.is_empty() {
        return None;
    }
    let json = std::str::from_utf8(&bytes).ok().and_then(|text| Data::json(text).ok());
    Some(json.unwrap_or_else(|| Data::from(bytes)))
}

impl From<RpcError> for CustomError {
    fn from(error: RpcError) -> Self {
        Self {
            code: error.code,
            message: error.message,
            temporary: error.temporary,
        }
    }
}
