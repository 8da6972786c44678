//! Executes subscriptions: starts to buffer publications, reads the history, and replies.

use std::collections::BTreeMap;

use sockeye::Message;

use super::Client;
use crate::channel::Gap;
use crate::codes::{DisconnectCode, ErrorCode};
use crate::delta;
use crate::engine::{EngineError, History, HistoryQuery, Publication, Tags, is_recovered};
use crate::presence::Membership;
use crate::protocol::{
    ConnectResult, Data, Encoding, Push, PushTarget, ReplyBody, ServerSubscription, SubscribeResult, WireData,
    WirePublication,
};
use crate::session::Subscribe;

/// Why a subscription failed.
enum SubscribeFailure {
    Refused(ErrorCode),
    Gap,
}

/// A subscription whose publications are buffered.
struct Started {
    /// What the client missed, and the current position, if the subscription is positioned.
    history: Option<History>,
    /// The id of the channel, if pushes have it instead of the name.
    channel_id: Option<u64>,
}

impl Started {
    /// The data of the last publication in the reply, from which the next one may be sent as a delta.
    fn base(&self, result: &SubscribeResult<'_>) -> Option<&Data> {
        let newest = self.history.as_ref()?.publications.last()?;
        (!result.publications.is_empty()).then_some(&newest.content.data)
    }
}

impl Client {
    /// Executes the server-side subscriptions of a new connection, and replies to `connect`.
    pub(super) async fn connect(
        &mut self,
        id: u32,
        mut result: ConnectResult<'_>,
        calls: Vec<Subscribe>,
    ) -> Result<(), DisconnectCode> {
        let mut started = Vec::with_capacity(calls.len());
        for call in &calls {
            started.push(self.start(call).await.map_err(|_| DisconnectCode::ServerError)?);
        }
        let mut subs = BTreeMap::new();
        let mut bases = Vec::with_capacity(calls.len());
        for (call, started) in calls.iter().zip(&started) {
            let result = self
                .subscribe_result(call, started)
                .map_err(|_| DisconnectCode::ServerError)?;
            bases.push(started.base(&result));
            subs.insert(call.membership.subscription.channel.as_str(), result);
        }
        result.subs = subs;
        self.reply(id, ReplyBody::Connect(result));
        for ((call, started), base) in calls.iter().zip(&started).zip(bases) {
            self.activate(call, started, base, None)
                .map_err(|Gap| DisconnectCode::InsufficientState)?;
            self.announce_join(call).await;
        }
        Ok(())
    }

    pub(super) async fn subscribe_by_server(&mut self, call: Subscribe) -> Result<(), DisconnectCode> {
        let started = self.start(&call).await.map_err(|_| DisconnectCode::ServerError)?;
        let result = self
            .subscribe_result(&call, &started)
            .map_err(|_| DisconnectCode::ServerError)?;
        let base = started.base(&result);
        let target = PushTarget::channel(call.membership.subscription.channel.as_str());
        let push = Push::Subscribe(ServerSubscription {
            recoverable: result.recoverable,
            epoch: result.epoch,
            offset: result.offset.unwrap_or_default(),
            positioned: result.positioned,
            data: result.data,
        });
        let mut message = self.queue.encoding().push(target, &push);
        let mut pushes = Vec::new();
        for publication in result.publications {
            pushes.push(self.queue.encoding().push(target, &Push::Pub(publication)));
        }
        if !pushes.is_empty() {
            let mut joined = crate::protocol::bytes(&message).to_vec();
            pushes.iter().for_each(|push| Encoding::join(&mut joined, push));
            message = self.queue.encoding().frame(joined);
        }
        self.activate(&call, &started, base, Some(message))
            .map_err(|Gap| DisconnectCode::InsufficientState)?;
        self.announce_join(&call).await;
        Ok(())
    }

    pub(super) async fn subscribe(&mut self, id: u32, call: Subscribe) -> Result<(), DisconnectCode> {
        let Err(failure) = self.try_subscribe(id, &call).await else {
            return Ok(());
        };
        // The join was not announced, so the leave is not announced either.
        self.session.handle_unsubscribed(&call.membership.subscription);
        self.node.hub().unsubscribe(&call.membership.subscription, self.id);
        self.node.remove_presence(&call.membership).await;
        match failure {
            SubscribeFailure::Gap => Err(DisconnectCode::InsufficientState),
            SubscribeFailure::Refused(code) => {
                self.reply(id, ReplyBody::Error(code));
                Ok(())
            }
        }
    }

    async fn try_subscribe(&self, id: u32, call: &Subscribe) -> Result<(), SubscribeFailure> {
        let started = self.start(call).await?;
        let result = self.subscribe_result(call, &started)?;
        let base = started.base(&result);
        if result.was_recovering {
            self.node.metrics().recovery(result.recovered);
        }
        let reply = self.encode(id, ReplyBody::Subscribe(result))?;
        self.activate(call, &started, base, Some(reply))?;
        self.announce_join(call).await;
        Ok(())
    }

    /// Starts to buffer publications, and only then reads the history, so that none is lost in between.
    async fn start(&self, call: &Subscribe) -> Result<Started, ErrorCode> {
        let Membership { subscription, info, .. } = &call.membership;
        let channel = &subscription.channel;
        let engine = self.node.engine();
        let hub = self.node.hub();
        let mut options = call.options.clone();
        // The JavaScript SDK asks for ids with both encodings, but with Protobuf it decodes them to objects, which it
        // compares by identity: it would never find the subscription of a push.
        options.by_id &= self.queue.encoding() == Encoding::Json;
        let channel_id = hub.subscribe(subscription, self.id, self.queue.clone(), options);
        self.node.interest_changed(channel).await?;
        if call.membership.presence {
            engine
                .presence_add(subscription, info.clone(), call.membership.join_leave)
                .await?;
        }
        if !call.options.positioned {
            return Ok(Started {
                history: None,
                channel_id,
            });
        }
        let query = match &call.recover_from {
            None => HistoryQuery::default(),
            Some(_) if call.is_cache => HistoryQuery {
                since: None,
                limit: 1,
                is_reversed: true,
            },
            Some(from) => HistoryQuery {
                since: Some(from.offset),
                limit: usize::MAX,
                is_reversed: false,
            },
        };
        Ok(Started {
            history: Some(engine.history(channel, query).await?),
            channel_id,
        })
    }

    /// Queues the reply, and starts the delivery of pushes.
    fn activate(
        &self,
        call: &Subscribe,
        started: &Started,
        base: Option<&Data>,
        reply: Option<Message>,
    ) -> Result<(), Gap> {
        let channel = &call.membership.subscription.channel;
        let top = started.history.as_ref().map(|history| &history.top);
        self.node.hub().activate(channel, self.id, reply, top, base)
    }

    async fn announce_join(&self, call: &Subscribe) {
        let Membership { subscription, info, .. } = &call.membership;
        let channel = &subscription.channel;
        if call.membership.join_leave
            && let Err(error) = self.node.engine().publish_join(channel, info.clone()).await
        {
            let what = "the engine could not announce that a client joined";
            self.node.engine_failures().log(channel, error, what);
        }
    }

    fn subscribe_result<'a>(
        &self,
        call: &'a Subscribe,
        started: &'a Started,
    ) -> Result<SubscribeResult<'a>, ErrorCode> {
        subscribe_result(call, started, self.queue.encoding())
    }
}

/// Builds the reply to a subscription from the history since the position of the client.
///
/// # Errors
/// Fails if recovery is impossible and the client wants no subscription without it.
fn subscribe_result<'a>(
    call: &'a Subscribe,
    started: &'a Started,
    encoding: Encoding,
) -> Result<SubscribeResult<'a>, ErrorCode> {
    let mut result = SubscribeResult {
        expiry: call.expiry,
        data: call.data.as_ref(),
        id: started.channel_id.unwrap_or_default(),
        ..Default::default()
    };
    let Some(history) = &started.history else {
        return Ok(result);
    };
    result.positioned = true;
    result.recoverable = call.is_recoverable;
    result.epoch = history.top.epoch.as_str();
    result.offset = Some(history.top.offset);
    result.delta = call.options.delta;
    let Some(from) = &call.recover_from else {
        return Ok(result);
    };
    result.was_recovering = true;
    let newest = history.publications.first();
    let is_current = from.offset > 0 && *from == history.top;
    result.recovered = match call.is_cache {
        false => is_recovered(from, history),
        true => newest.map_or(is_current, |newest| newest.offset == history.top.offset),
    };
    if result.recovered {
        if !call.is_cache {
            // The client advances the offset as it processes the publications.
            result.offset = Some(from.offset);
        }
        let missed = history.publications.iter().filter(|_| !call.is_cache || !is_current);
        let wanted = missed.filter(|publication| is_wanted(call, publication));
        result.publications = match call.options.delta {
            false => wanted.map(Publication::wire).collect(),
            true => delta_chain(wanted, encoding),
        };
    } else if call.rejects_unrecovered {
        return Err(ErrorCode::UnrecoverablePosition);
    }
    Ok(result)
}

/// Whether the filter of a subscription includes a publication.
fn is_wanted(call: &Subscribe, publication: &Publication) -> bool {
    let Some(filter) = &call.options.filter else {
        return true;
    };
    match &publication.content.tags {
        Some(tags) => filter.matches(&**tags),
        None => filter.matches(&Tags::new()),
    }
}

/// The publications as differences, each to the one before it. The first is complete.
fn delta_chain<'a>(
    publications: impl Iterator<Item = &'a Publication>,
    encoding: Encoding,
) -> Vec<WirePublication<'a>> {
    let mut previous = None;
    publications
        .map(|publication| {
            let data = &publication.content.data;
            let delta = previous.and_then(|previous| delta::between(encoding, previous, data));
            previous = Some(data);
            publication.wire_with(match delta {
                Some(delta) => WireData::Delta(delta.into()),
                None => WireData::Complete(data),
            })
        })
        .collect()
}

impl From<ErrorCode> for SubscribeFailure {
    fn from(code: ErrorCode) -> Self {
        Self::Refused(code)
    }
}

impl From<EngineError> for SubscribeFailure {
    fn from(error: EngineError) -> Self {
        Self::Refused(error.into())
    }
}

impl From<Gap> for SubscribeFailure {
    fn from(Gap: Gap) -> Self {
        Self::Gap
    }
}
