//! The calls: from the JSON of a request to the JSON of a result.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, timeout_at};

use super::types::{
    self, BatchReply, BatchResponse, BroadcastResult, ChannelInfo, ChannelsResult, Empty, HistoryResult, InfoResult,
    PresenceStats, PublishResponse, RawJson,
};
use super::{ApiMethod, CallResult, Malformed};
use crate::codes::ErrorCode;
use crate::handle::{
    Disconnect, HistoryOptions, PublishOptions, RefreshOptions, ServerHandle, SubscribeOptions, Target,
};
use crate::presence::ClientInfo;
use crate::protocol::{PresenceResult, encode};

/// Time for all calls of a request together.
const CALL_TIMEOUT: Duration = Duration::from_secs(9);

/// Maximum size of the results of a batch together: a short request can ask for many long histories. The results beyond
/// it are replaced by error 106.
const BATCH_REPLIES_MAX: usize = 16 << 20;

/// A call with its arguments.
enum Call<'a> {
    Publish(types::Publish<'a>),
    Broadcast(types::Publish<'a>),
    Subscribe(types::Subscribe<'a>),
    Unsubscribe(types::Unsubscribe),
    Disconnect(types::DisconnectRequest),
    Refresh(types::Refresh<'a>),
    Presence(types::Channel),
    PresenceStats(types::Channel),
    History(types::History),
    HistoryRemove(types::Channel),
    Channels(types::Channels),
    Info,
}

/// Executes a request, and returns the body of the response.
///
/// # Errors
/// Fails if the body is not valid. Nothing is executed then, also not a part of a batch.
pub(super) async fn call(handle: &ServerHandle, method: ApiMethod, body: &[u8]) -> Result<String, Malformed> {
    let body = std::str::from_utf8(body).map_err(|_| Malformed)?;
    if method == ApiMethod::Batch {
        return batch(handle, body).await;
    }
    let call = Call::parse(method, body)?;
    let deadline = Instant::now() + CALL_TIMEOUT;
    Ok(super::reply(call.execute_until(deadline, handle).await))
}

async fn batch(handle: &ServerHandle, body: &str) -> Result<String, Malformed> {
    let batch: types::Batch<'_> = parse(body)?;
    let mut calls = Vec::with_capacity(batch.commands.len());
    for command in &batch.commands {
        // Of several calls in one command, the first in this order counts.
        let methods = ApiMethod::ALL.into_iter().filter(|method| *method != ApiMethod::Batch);
        let mut calls_named = methods.filter_map(|method| Some((method, command.get(method.name())?.get())));
        calls.push(match calls_named.find(|(_, arguments)| *arguments != "null") {
            Some((method, arguments)) => Some((method, Call::parse(method, arguments)?)),
            None => None,
        });
    }
    let deadline = Instant::now() + CALL_TIMEOUT;
    let mut replies = Vec::with_capacity(calls.len());
    let mut room = BATCH_REPLIES_MAX;
    for call in calls {
        let reply = match call {
            None => Err(ErrorCode::MethodNotFound),
            Some((method, call)) => match call.execute_until(deadline, handle).await {
                Ok(result) if result.get().len() > room => Err(ErrorCode::LimitExceeded),
                result => result.map(|result| (method.name(), result)),
            },
        };
        if let Ok((_, result)) = &reply {
            room -= result.get().len();
        }
        replies.push(match reply {
            Ok((name, result)) => BatchReply::Result(name, result),
            Err(code) => BatchReply::Error(code),
        });
        tokio::task::coop::consume_budget().await;
    }
    Ok(encode(&BatchResponse { replies }))
}

impl<'a> Call<'a> {
    fn parse(method: ApiMethod, arguments: &'a str) -> Result<Self, Malformed> {
        Ok(match method {
            ApiMethod::Publish => Self::Publish(parse(arguments)?),
            ApiMethod::Broadcast => Self::Broadcast(parse(arguments)?),
            ApiMethod::Subscribe => Self::Subscribe(parse(arguments)?),
            ApiMethod::Unsubscribe => Self::Unsubscribe(parse(arguments)?),
            ApiMethod::Disconnect => Self::Disconnect(parse(arguments)?),
            ApiMethod::Refresh => Self::Refresh(parse(arguments)?),
            ApiMethod::Presence => Self::Presence(parse(arguments)?),
            ApiMethod::PresenceStats => Self::PresenceStats(parse(arguments)?),
            ApiMethod::History => Self::History(parse(arguments)?),
            ApiMethod::HistoryRemove => Self::HistoryRemove(parse(arguments)?),
            ApiMethod::Channels => Self::Channels(parse(arguments)?),
            ApiMethod::Info => {
                let types::Info {} = parse(arguments)?;
                Self::Info
            }
            // Handled by the caller.
            ApiMethod::Batch => return Err(Malformed),
        })
    }

    /// Fails with the temporary error 100 if there is no result until then. The call may have taken effect.
    async fn execute_until(self, deadline: Instant, handle: &ServerHandle) -> CallResult {
        let result = timeout_at(deadline, self.execute(handle)).await;
        result.unwrap_or(Err(ErrorCode::Internal))
    }

    async fn execute(self, handle: &ServerHandle) -> CallResult {
        match self {
            Self::Publish(mut request) => {
                let channel = std::mem::take(&mut request.channel);
                let options = publish_options(request)?;
                result(&types::Published::from(handle.publish(&channel, options).await?))
            }
            Self::Broadcast(mut request) => {
                let channels = std::mem::take(&mut request.channels);
                let published = handle.broadcast(&channels, publish_options(request)?).await?;
                let responses = published.into_iter().map(|published| match published {
                    Ok(position) => PublishResponse::Result(position.into()),
                    Err(code) => PublishResponse::Error(code.into()),
                });
                result(&BroadcastResult {
                    responses: responses.collect(),
                })
            }
            Self::Subscribe(request) => subscribe(handle, request).await,
            Self::Unsubscribe(request) => {
                if let Some(target) = target(request.user, request.client, &request.session) {
                    handle.unsubscribe(target, &request.channel).await?;
                }
                result(&Empty {})
            }
            Self::Disconnect(request) => disconnect(handle, request).await,
            Self::Refresh(request) => {
                let options = RefreshOptions {
                    expired: request.expired,
                    expire_at: (request.expire_at > 0).then_some(request.expire_at),
                    info: request.info.0.map(|info| info.get().to_owned()),
                };
                if let Some(target) = target(request.user, request.client, &request.session) {
                    handle.refresh(target, options).await?;
                }
                result(&Empty {})
            }
            Self::Presence(request) => {
                let members = handle.members(&request.channel).await?;
                let clients = members.iter().map(|info| ClientInfo::wire(info)).collect();
                result(&PresenceResult { clients })
            }
            Self::PresenceStats(request) => {
                let stats = handle.presence_stats(&request.channel).await?;
                result(&PresenceStats {
                    num_clients: stats.clients,
                    num_users: stats.users,
                })
            }
            Self::History(request) => {
                let options = HistoryOptions {
                    // A negative limit means no limit.
                    limit: usize::try_from(request.limit).unwrap_or(usize::MAX),
                    since: request.since.map(Into::into),
                    reverse: request.reverse,
                };
                let history = handle.read_history(&request.channel, options).await?;
                result(&HistoryResult {
                    publications: history.publications.iter().map(Into::into).collect(),
                    epoch: history.top.epoch.as_str(),
                    offset: history.top.offset,
                })
            }
            Self::HistoryRemove(request) => {
                handle.history_remove(&request.channel).await?;
                result(&Empty {})
            }
            Self::Channels(request) => {
                let channels = handle.channels(&request.pattern).await?.into_iter();
                result(&ChannelsResult {
                    channels: channels
                        .map(|channel| {
                            (
                                channel.name,
                                ChannelInfo {
                                    num_clients: channel.subscribers,
                                },
                            )
                        })
                        .collect(),
                })
            }
            Self::Info => result(&InfoResult {
                nodes: handle.nodes().await?.into_iter().map(Into::into).collect(),
            }),
        }
    }
}

async fn subscribe(handle: &ServerHandle, request: types::Subscribe<'_>) -> CallResult {
    let value = |flag: Option<types::BoolValue>| flag.map(|flag| flag.value);
    let overrides = request.overrides;
    let options = SubscribeOptions {
        expire_at: (request.expire_at > 0).then_some(request.expire_at),
        info: payload(&request.info, &request.b64info)?.map(text).transpose()?,
        data: payload(&request.data, &request.b64data)?.map(text).transpose()?,
        recover_since: request.recover_since.map(Into::into),
        presence: value(overrides.presence),
        join_leave: value(overrides.join_leave),
        force_push_join_leave: value(overrides.force_push_join_leave),
        force_positioning: value(overrides.force_positioning),
        force_recovery: value(overrides.force_recovery),
    };
    if let Some(target) = target(request.user, request.client, &request.session) {
        handle.subscribe(target, &request.channel, options).await?;
    }
    result(&Empty {})
}

async fn disconnect(handle: &ServerHandle, request: types::DisconnectRequest) -> CallResult {
    let disconnect = match request.disconnect {
        None => Disconnect::default(),
        Some(wire) if (3000..5000).contains(&wire.code) && wire.reason.len() <= REASON_BYTES_MAX => Disconnect {
            code: wire.code,
            reason: wire.reason,
        },
        Some(_) => return Err(ErrorCode::BadRequest),
    };
    if let Some(mut target) = target(request.user, request.client, &request.session) {
        target.except = request.whitelist;
        handle.disconnect(target, disconnect).await?;
    }
    result(&Empty {})
}

/// RFC 6455 §5.5: a control frame has at most 125 bytes, two of which are the code.
const REASON_BYTES_MAX: usize = 123;

/// The clients that a call applies to. `None` if it names a session: bidirectional clients have none.
fn target(user: String, client: String, session: &str) -> Option<Target> {
    let mut target = Target::user(user);
    target.client = (!client.is_empty()).then_some(client);
    session.is_empty().then_some(target)
}

fn publish_options(request: types::Publish<'_>) -> Result<PublishOptions, ErrorCode> {
    let data = payload(&request.data, &request.b64data)?.ok_or(ErrorCode::BadRequest)?;
    Ok(PublishOptions {
        data,
        tags: request.tags,
        idempotency_key: (!request.idempotency_key.is_empty()).then_some(request.idempotency_key),
        version: request.version,
        version_epoch: request.version_epoch,
        skip_history: request.skip_history,
    })
}

/// The bytes of a field that is JSON or base64. Base64 counts if there are both.
fn payload(json: &RawJson<'_>, base64: &str) -> Result<Option<Vec<u8>>, ErrorCode> {
    if !base64.is_empty() {
        return STANDARD.decode(base64).map(Some).map_err(|_| ErrorCode::BadRequest);
    }
    Ok(json.0.map(|json| json.get().as_bytes().to_owned()))
}

fn text(bytes: Vec<u8>) -> Result<String, ErrorCode> {
    String::from_utf8(bytes).map_err(|_| ErrorCode::BadRequest)
}

fn parse<'a, T: Deserialize<'a>>(text: &'a str) -> Result<T, Malformed> {
    // An array would be taken for the fields in their order.
    if !text.trim_ascii_start().starts_with('{') {
        return Err(Malformed);
    }
    serde_json::from_str(text).map_err(|_| Malformed)
}

fn result(value: &impl Serialize) -> CallResult {
    serde_json::value::to_raw_value(value).map_err(|_| ErrorCode::Internal)
}
