//! Every pair of calls on one connection, against every kind of peer: each combination ends within its deadline, and no
//! message is lost, duplicated or reordered.
//!
//! A combination consists of two calls (as [`Op`]s: sending ones send some messages, receiving ones receive until the
//! end), a way to run them concurrently, a peer, and the side under test. Once the sending operations are done, the
//! connection is closed and received from until its end. [`check_outcome`] checks the outcome with a few rules.

#[path = "pairs/cases.rs"]
mod cases;
mod common;
#[path = "pairs/op.rs"]
mod op;
#[path = "pairs/peer.rs"]
mod peer;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::future::poll_fn;
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::distinct_wakers::DistinctWakers;
use common::{BOTH, Local};
use futures_util::StreamExt;
use futures_util::future::{join_all, select_all};
use futures_util::stream::FuturesUnordered;
use op::{Call, Got, Handle, Log, OF_RECEIVER, OF_SENDER, OF_SINK, OF_WHOLE, Op};
use peer::{Moment, PEERS, Peer, PeerKind, Report, SLOW_RATE};
use sockeye::{Error, Limits, Side, WebSocket};
use tokio::runtime::Builder;
use tokio::time::{Instant, timeout};

/// Capacity of each direction of the transport.
const LINK_CAPACITY: usize = 4 * 1024;

const WRITE_BUFFER_MAX: usize = 16 * 1024;

/// How many combinations with the same kind of failure are printed.
const SHOWN: usize = 3;

/// Upper bound for the paused time of a combination.
const LIMIT: Duration = Duration::from_secs(120);

/// Upper bound for the real time of a combination.
const LIMIT_OF_THREADS: Duration = Duration::from_secs(30);

/// More polls than any combination needs: beyond it, a task spins.
const POLLS_MAX: usize = 50_000;

/// How the two operations run concurrently.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Driving {
    /// One task each.
    Tasks,
    /// One task each, on several threads and in real time.
    Threads,
    /// One task and one waker: `join!`.
    Join,
    /// One task, and one waker each.
    Unordered,
    /// One task, with wakers that are never equal for `will_wake`, and with spurious polls.
    DistinctWakers,
    /// `select!` in a loop: the call that does not finish first is dropped and called again.
    Select,
    /// One after the other; each call is dropped after some milliseconds.
    Alternate,
    /// Like `Alternate`, but with one task each.
    TasksByTurns,
}

impl Driving {
    /// Whether a call may be dropped before it has finished.
    fn drops_calls(self) -> bool {
        matches!(self, Self::Select | Self::Alternate | Self::TasksByTurns)
    }
}

/// How the operations share the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Shared {
    /// A `WebSocket`, used by one call at a time.
    Exclusive,
    /// A `WebSocket` behind a lock that is held during each poll.
    Locked,
    /// A `Sender` and a `Receiver`, or two `Sender`s.
    Split,
    /// The halves of `StreamExt::split`.
    Futures,
}

#[derive(Clone, Copy, Debug)]
struct Combination {
    shared: Shared,
    driving: Driving,
    calls: [Call; 2],
    peer: PeerKind,
    local: Local,
}

/// The result of a combination.
struct Outcome {
    /// Of the operations, and of the final receiver if no operation received until the end.
    logs: Vec<Log>,
    after: After,
    /// Whether this side began to close. `None` if no handle is left to ask.
    was_first: Option<bool>,
    /// Until the end was received.
    elapsed: Duration,
    /// Until the peer has seen the end of TCP, if it reads.
    total: Duration,
}

/// Results of calls after the end.
struct After {
    received: Vec<String>,
    sent: Vec<Result<(), Error>>,
}

/// Runs the operations until they are done, as `driving` says.
async fn drive(driving: Driving, ops: &mut Vec<Op>) {
    match driving {
        Driving::Tasks | Driving::Threads => {
            let tasks: Vec<_> = ops.drain(..).map(|op| tokio::spawn(run_owned(op))).collect();
            for task in tasks {
                ops.push(task.await.expect("no panic in a task"));
            }
        }
        Driving::TasksByTurns => {
            let tasks: Vec<_> = ops.drain(..).map(|op| tokio::spawn(run_by_turns(op))).collect();
            for task in tasks {
                ops.push(task.await.expect("no panic in a task"));
            }
        }
        Driving::Join => match &mut ops[..] {
            [a, b] => _ = tokio::join!(a.run(), b.run()),
            [a, b, c] => _ = tokio::join!(a.run(), b.run(), c.run()),
            _ => unreachable!("two or three operations"),
        },
        Driving::Unordered => {
            let mut all: FuturesUnordered<_> = ops.iter_mut().map(Op::run).collect();
            while all.next().await.is_some() {}
        }
        Driving::DistinctWakers => {
            join_all(
                ops.iter_mut()
                    .map(|op| DistinctWakers::new(op.run(), Arc::default()).with_spurious_polls()),
            )
            .await;
        }
        Driving::Select => loop {
            let steps = ops.iter_mut().filter(|op| !op.log.is_done);
            let steps: Vec<_> = steps.map(|op| Box::pin(op.step())).collect();
            if steps.is_empty() {
                break;
            }
            select_all(steps).await;
        },
        Driving::Alternate => loop {
            let mut is_done = true;
            for op in &mut *ops {
                is_done &= op.step_briefly().await;
            }
            if is_done {
                break;
            }
        },
    }
}

async fn run_owned(mut op: Op) -> Op {
    op.run().await;
    op
}

async fn run_by_turns(mut op: Op) -> Op {
    while !op.step_briefly().await {
        // The lock is not fair.
        tokio::task::yield_now().await;
    }
    op
}

/// Fails if a task spins, because paused time would not advance.
async fn fail_if_spinning<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    let mut polls = 0;
    poll_fn(|cx| {
        polls += 1;
        assert!(polls < POLLS_MAX, "a task spins");
        future.as_mut().poll(cx)
    })
    .await
}

impl Combination {
    async fn run(self, report: Arc<Mutex<Report>>) -> Outcome {
        let mut limits = Limits::default();
        limits.write_buffer_max = WRITE_BUFFER_MAX;
        let (ws, far) = common::open_linked(self.local, LINK_CAPACITY, limits).await;
        let peer = Peer::new(far, self.peer, self.local == Local::Server, report);
        let peer = tokio::spawn(peer.run());
        let start = Instant::now();
        let (mut sending, mut receiving) = self.shared.handles(ws);
        let mut take = |call: Call| {
            let handle = if call.receives() { &mut receiving } else { &mut sending };
            let shared = handle.as_ref().and_then(Handle::share);
            shared
                .or_else(|| handle.take())
                .expect("a half that is not shared has one call")
        };
        let mut ops: Vec<Op> = self
            .calls
            .into_iter()
            .zip(['A', 'B'])
            .map(|(call, tag)| Op::new(take(call), call, tag))
            .collect();
        let receivers = self.calls.iter().filter(|call| call.receives()).count();
        match receivers {
            0 => {}
            1 => ops = ops.into_iter().map(Op::then_close_unless_it_receives).collect(),
            _ => ops.push(Op::new(take(Call::Wait), Call::Wait, 'C').then_close_unless_it_receives()),
        }
        drive(self.driving, &mut ops).await;
        let mut drain = None;
        if receivers == 0 {
            let (is_of_trait, call) = (ops[0].call.is_of_trait(), ops[0].call);
            let closing = ops[0].handle.close_gently(call);
            let receiving = receiving.take().or_else(|| sending.as_ref().and_then(Handle::share));
            let mut op = Op::new(receiving.expect("no operation has it"), drain_call(is_of_trait), 'D');
            let closing = match self.shared {
                Shared::Exclusive => {
                    let closing = closing.await;
                    op.run().await;
                    closing
                }
                _ => tokio::join!(closing, op.run()).0,
            };
            ops[0].log.closing = Some(closing);
            drain = Some(op);
        }
        let elapsed = start.elapsed();
        let was_first = ops.iter().chain(&drain).find_map(|op| op.handle.close_info());
        let was_first = was_first.map(|close_info| close_info.initiator() == Side::Local);
        let after = self.calls_after_the_end(&mut ops, &mut drain).await;
        let logs = ops.into_iter().chain(drain).map(|op| op.log).collect();
        // The rest of the end of TCP happens in the background.
        drop((sending, receiving));
        if self.peer.reads_to_the_end() {
            peer.await.expect("no panic of the peer");
        }
        Outcome {
            logs,
            after,
            was_first,
            elapsed,
            total: start.elapsed(),
        }
    }

    /// The results of another `recv` and another `send` after the end.
    async fn calls_after_the_end(&self, ops: &mut [Op], drain: &mut Option<Op>) -> After {
        let mut all = ops.iter_mut().chain(drain);
        let receiving = all.find(|op| op.call.receives()).expect("one always receives");
        let call = receiving.call;
        let mut received = Vec::new();
        for _ in 0..3 {
            received.push(match receiving.handle.call(call, None).await {
                Ok(Got::End) => "the end".to_owned(),
                Ok(got) => format!("{got:?}"),
                Err(error) => error.to_string(),
            });
        }
        let sending = ops.iter_mut().find(|op| !op.call.receives());
        let mut sent = Vec::new();
        let (calls, close) = match self.shared {
            // `feed` of this half stores the message and returns `Ok`.
            Shared::Futures => (&[Call::SinkSend][..], Call::SinkClose),
            _ => (
                &[Call::Send, Call::Feed, Call::TrySend, Call::SendPing][..],
                Call::Close,
            ),
        };
        if let Some(op) = sending {
            for call in calls {
                sent.push(op.handle.call(*call, Some("late".into())).await.map(|_| ()));
            }
            // Whatever it returns, it can be called repeatedly.
            let _ = op.handle.call(close, None).await;
            let _ = op.handle.call(close, None).await;
        }
        After { received, sent }
    }
}

impl Shared {
    /// A handle for sending and a handle for receiving.
    fn handles(self, ws: WebSocket) -> (Option<Handle>, Option<Handle>) {
        match self {
            Self::Exclusive => {
                let handle = Handle::Exclusive(Arc::new(ws.into()));
                (handle.share(), Some(handle))
            }
            Self::Locked => {
                let handle = Handle::Locked(Arc::new(Mutex::new(ws)));
                (handle.share(), Some(handle))
            }
            Self::Split => {
                let (sender, receiver) = ws.split();
                (Some(Handle::Sender(sender)), Some(Handle::Receiver(receiver)))
            }
            Self::Futures => {
                let (sink, stream) = StreamExt::split(ws);
                (Some(Handle::Sink(sink)), Some(Handle::Stream(stream)))
            }
        }
    }
}

/// Runs a combination, and returns the violations.
fn check(combination: Combination) -> Vec<String> {
    op::NOTES.take();
    let report = Arc::<Mutex<Report>>::default();
    let runtime = match combination.driving {
        Driving::Threads => Builder::new_multi_thread().worker_threads(3).enable_time().build(),
        _ => Builder::new_current_thread().enable_time().start_paused(true).build(),
    }
    .unwrap();
    let limit = match combination.driving {
        Driving::Threads => LIMIT_OF_THREADS,
        _ => LIMIT,
    };
    let run = async { fail_if_spinning(timeout(limit, combination.run(report.clone()))).await };
    let outcome = std::panic::catch_unwind(AssertUnwindSafe(|| runtime.block_on(run)));
    drop(runtime);
    let report = report.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    match outcome {
        Ok(Ok(outcome)) => {
            LONGEST.with_borrow_mut(|longest| {
                let longest: &mut Duration = longest.entry(format!("{:?}", combination.peer)).or_default();
                *longest = (*longest).max(outcome.elapsed);
            });
            check_outcome(&combination, &outcome, &report)
        }
        Ok(Err(_)) => vec![format!("hangs: {:?}, {report:?}", op::NOTES.take())],
        Err(panic) => {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
            vec![format!("panics: {}, {:?}", text.unwrap_or("?"), op::NOTES.take())]
        }
    }
}

/// Describes the violations of an outcome.
fn check_outcome(combination: &Combination, outcome: &Outcome, report: &Report) -> Vec<String> {
    let mut faults = report.faults.clone();
    let Combination { calls, peer, .. } = combination;
    let closes_by_call = calls.iter().any(|call| call.closes());
    let logs = || outcome.logs.iter();
    faults.extend(logs().flat_map(|log| log.faults.clone()));
    let mut expect = |is_so: bool, otherwise: String| {
        if !is_so {
            faults.push(otherwise);
        }
    };

    let bound = combination.bound();
    expect(
        outcome.elapsed <= bound,
        format!("took {:?}, not {bound:?}", outcome.elapsed),
    );
    let bound = bound + Duration::from_secs(10);
    expect(outcome.total <= bound, format!("TCP ended after {:?}", outcome.total));

    // What the peer sent is received once and in order. All of it, except by `close`, which drops messages.
    let mut received: Vec<usize> = logs().flat_map(|log| log.received.clone()).collect();
    for log in logs() {
        let is_sorted = log.received.is_sorted_by(|a, b| a < b);
        expect(is_sorted, format!("received out of order: {:?}", log.received));
    }
    received.sort_unstable();
    let drops_messages = calls.contains(&Call::Close) && combination.shared != Shared::Split;
    let is_complete = received.iter().copied().eq(0..report.sent);
    let is_in_order = received.is_sorted_by(|a, b| a < b) && received.iter().all(|number| *number < report.sent);
    // If nothing is received until the write timeout expires, the connection has failed.
    let is_given_up = *peer == PeerKind::ClosingDeaf && logs().any(|log| matches!(log.end, Some(Err(_))));
    expect(
        is_complete || ((drops_messages || is_given_up) && is_in_order),
        format!("received {received:?} of {} messages", report.sent),
    );

    // What was sent arrives once and in order. All of it if the peer reads.
    for (log, tag) in logs().zip(['A', 'B']) {
        let of_tag = report.messages.iter().filter(|(of, _)| *of == tag);
        let arrived: Vec<usize> = of_tag.map(|(_, number)| *number).collect();
        expect(
            arrived.is_sorted_by(|a, b| a < b),
            format!("{tag} arrived as {arrived:?}"),
        );
        expect(
            arrived.iter().all(|number| log.tried.contains(number)),
            format!("{tag} arrived as {arrived:?} of {:?}", log.tried),
        );
        let has_closed_well = *peer == PeerKind::Fast || *peer == PeerKind::Slow;
        // `Permit::send`: a message that is queued while another thread uses the connection is dropped if that closes
        // it.
        let may_be_dropped =
            combination.driving == Driving::Threads && closes_by_call && calls.contains(&Call::Reserve);
        let sure = match has_closed_well {
            true if may_be_dropped => &log.queued[..log.flushed],
            true => &log.queued[..],
            false if peer.reads_to_the_end() => &log.queued[..log.flushed],
            false => &[],
        };
        let lost: Vec<_> = sure.iter().filter(|number| !arrived.contains(number)).collect();
        expect(
            lost.is_empty(),
            format!("{tag} lost {lost:?} of {sure:?}; arrived: {arrived:?}"),
        );
        if has_closed_well && !closes_by_call && !combination.driving.drops_calls() {
            let all = log.queued.len() == log.tried.len() || calls.iter().any(|call| call.may_be_full());
            expect(
                all,
                format!("{tag} queued {:?} of {:?}: {:?}", log.queued, log.tried, log.failure),
            );
        }
    }

    // The errors of calls have the right kind.
    for (log, call) in logs().zip(calls) {
        let Some(error) = log.failure.as_ref() else { continue };
        let is_excused = match peer {
            PeerKind::Fast | PeerKind::Slow => closes_by_call && !call.closes() && error.is_closed(),
            PeerKind::Silent => error.is_timeout() || (closes_by_call && error.is_closed()),
            _ => error.is_closed(),
        };
        expect(is_excused, format!("{call:?} failed: {error:?}"));
    }
    // Senders and receivers get the same result.
    if peer.is_orderly() {
        let is_normal = logs().filter_map(|log| log.end.as_ref()).all(Result::is_ok);
        for error in logs().filter_map(|log| log.failure.as_ref()) {
            expect(
                error.is_normal_close() == is_normal,
                format!("a normal end: {is_normal}, but the call failed with {error:?}"),
            );
        }
    }
    if matches!(peer, PeerKind::Fast | PeerKind::Slow) && !closes_by_call {
        for closing in logs().filter_map(|log| log.closing.as_ref()) {
            expect(closing.is_ok(), format!("closing failed: {closing:?}"));
        }
    }

    // The end is the same for all receivers, and matches what the peer did.
    let has_given_error = calls == &[Call::Next; 2] && logs().any(|log| matches!(log.end, Some(Err(_))));
    for end in logs().filter_map(|log| log.end.as_ref()) {
        // A stream returns its error once, to one of two callers.
        let is_after_error = has_given_error && end.is_ok();
        if let (false, Err(fault)) = (is_after_error, combination.judge_end(end, outcome.was_first)) {
            expect(false, fault);
        }
    }
    let After { received, sent } = &outcome.after;
    expect(
        received.windows(2).all(|pair| pair[0] == pair[1]),
        format!("past the end: {received:?}"),
    );
    let is_rejected = |sent: &Result<(), Error>| sent.as_ref().is_err_and(Error::is_closed);
    expect(sent.iter().all(is_rejected), format!("sending after the end: {sent:?}"));

    // The peer saw a closing handshake.
    if peer.is_orderly() {
        expect(
            report.closes.len() == 1,
            format!("close frames {:?} arrived", report.closes),
        );
        let code = match peer {
            PeerKind::Closing(code, _) if outcome.was_first == Some(false) => code.unwrap_or(1005),
            _ => 1000,
        };
        let is_either = outcome.was_first.is_none();
        expect(
            is_either || report.closes.iter().all(|seen| *seen == code),
            format!("close frames {:?} arrived, not {code}", report.closes),
        );
    }
    faults
}

impl Combination {
    fn judge_end(&self, end: &Result<(), Error>, was_first: Option<bool>) -> Result<(), String> {
        let is_as_expected = match (self.peer, end) {
            (PeerKind::Fast | PeerKind::Slow, Ok(())) => true,
            (PeerKind::Closing(Some(4001), _), Ok(())) => was_first != Some(false),
            (PeerKind::Closing(Some(4001), _), Err(error)) => was_first != Some(true) && error.is_closed(),
            (PeerKind::Closing(..) | PeerKind::ClosingDeaf, Ok(())) => true,
            (PeerKind::ClosingDeaf, Err(error)) => {
                let is_seen_at_once = self.calls.iter().any(|call| call.receives()) && was_first == Some(false);
                error.is_timeout() && !is_seen_at_once
            }
            (PeerKind::Silent, Err(error)) => error.is_timeout(),
            (PeerKind::Gone(_) | PeerKind::Reset(_) | PeerKind::HalfGone(_), Err(error)) => error.is_closed(),
            // The peer was gone as soon as our close frame was written.
            (PeerKind::Gone(_) | PeerKind::Reset(_) | PeerKind::HalfGone(_), Ok(())) => was_first != Some(false),
            _ => false,
        };
        match is_as_expected {
            true => Ok(()),
            false => Err(format!("ended with {end:?}, began to close: {was_first:?}")),
        }
    }

    /// Upper bound for the time until the end is received.
    fn bound(&self) -> Duration {
        let secs = match self.peer {
            _ if self.driving == Driving::Threads => 30,
            PeerKind::Fast | PeerKind::Closing(..) | PeerKind::Gone(_) | PeerKind::Reset(_) | PeerKind::HalfGone(_) => {
                3
            }
            // Two operations of 29 KiB, and what the peer sends, one after the other in the worst case.
            PeerKind::Slow => 2 * 32 * 1024 / SLOW_RATE as u64 + 10,
            // The write timeout, then the close timeout.
            PeerKind::ClosingDeaf => 10 + 5 + 1,
            // Keepalive: 20 s of silence and 10 s for the pong. Then the close timeout.
            PeerKind::Silent => 20 + 10 + 5 + 5,
        };
        Duration::from_secs(secs)
    }
}

thread_local! {
    /// The longest time of a combination, by peer.
    static LONGEST: RefCell<BTreeMap<String, Duration>> = const { RefCell::new(BTreeMap::new()) };
}

/// Checks all combinations with each of the two sides. Fails with a few of each kind of violation.
fn check_all(shared: Shared, drivings: &[Driving], pairs: impl Iterator<Item = [Call; 2]>) {
    let mut count = 0;
    let mut failed = 0;
    let mut kinds = BTreeMap::<String, Vec<String>>::new();
    for calls in pairs {
        for driving in drivings {
            for (peer, local) in PEERS.into_iter().flat_map(|peer| BOTH.map(|local| (peer, local))) {
                let combination = Combination {
                    shared,
                    driving: *driving,
                    calls,
                    peer,
                    local,
                };
                let faults = check(combination);
                count += 1;
                failed += usize::from(!faults.is_empty());
                if let Some(first) = faults.first() {
                    let kind = format!("{peer:?}, {}", first.split([':', '[', '(']).next().unwrap_or_default());
                    let shown = format!("{combination:?}\n    {}", faults.join("\n    "));
                    kinds.entry(kind).or_default().push(shown);
                }
            }
        }
    }
    println!("{shared:?} {drivings:?}: {count} combinations, {failed} failed");
    println!("the longest, by peer: {:?}", LONGEST.take());
    for (kind, shown) in &kinds {
        println!("{} times {kind}", shown.len());
        let step = shown.len().div_ceil(SHOWN);
        for failure in shown.iter().step_by(step) {
            println!("  {failure}");
        }
    }
    assert!(failed == 0, "{failed} of {count} combinations failed");
}

/// Each unordered pair of calls, including a call with itself.
fn pairs_of(calls: &[Call]) -> impl Iterator<Item = [Call; 2]> {
    (0..calls.len()).flat_map(move |a| (a..calls.len()).map(move |b| [calls[a], calls[b]]))
}

/// The call that receives the rest beside a close.
fn drain_call(is_of_trait: bool) -> Call {
    match is_of_trait {
        true => Call::Next,
        false => Call::Recv,
    }
}

/// Pairs of which one call receives and the other does not. Both are methods of `WebSocket`, or both of the traits:
/// each kind stores its wakers differently.
fn in_both_directions() -> impl Iterator<Item = [Call; 2]> {
    pairs_of(&OF_WHOLE).filter(|[a, b]| a.receives() != b.receives() && a.is_of_trait() == b.is_of_trait())
}

/// Pairs of which both calls receive, or neither does.
fn in_one_direction() -> impl Iterator<Item = [Call; 2]> {
    pairs_of(&OF_WHOLE).filter(|[a, b]| a.receives() == b.receives() && a.is_of_trait() == b.is_of_trait())
}

/// `Stream` in one task and `Sink` in another, as with `StreamExt::split`.
#[test]
fn unsplit_as_stream_and_sink_in_two_tasks() {
    let drivings = [Driving::Tasks, Driving::Unordered, Driving::DistinctWakers];
    let pairs = OF_SINK.into_iter().map(|call| [Call::Next, call]);
    check_all(Shared::Locked, &drivings, pairs);
}

#[test]
fn unsplit_in_both_directions_in_one_task() {
    check_all(Shared::Locked, &[Driving::Join, Driving::Select], in_both_directions());
}

#[test]
fn unsplit_in_one_direction_in_one_task() {
    check_all(Shared::Locked, &[Driving::Join, Driving::Select], in_one_direction());
}

#[test]
fn unsplit_with_alternating_calls() {
    let drivings = [Driving::Alternate, Driving::TasksByTurns];
    let calls: Vec<Call> = OF_WHOLE.into_iter().chain([Call::Ping]).collect();
    check_all(Shared::Exclusive, &drivings, pairs_of(&calls));
}

/// `Sender::ping` waits for the receiver.
fn of_halves() -> impl Iterator<Item = [Call; 2]> {
    OF_RECEIVER.into_iter().flat_map(|receive| {
        let calls = OF_SENDER.into_iter().chain([Call::Ping]);
        calls.map(move |call| [receive, call])
    })
}

#[test]
fn sender_and_receiver_from_two_tasks() {
    check_all(
        Shared::Split,
        &[Driving::Tasks],
        of_halves().chain(pairs_of(&OF_SENDER)),
    );
}

#[test]
fn sender_and_receiver_in_one_task() {
    let drivings = [Driving::Join, Driving::Select, Driving::Alternate];
    check_all(Shared::Split, &drivings, of_halves().chain(pairs_of(&OF_SENDER)));
}

#[test]
fn sender_and_receiver_with_any_waker() {
    let drivings = [Driving::Unordered, Driving::DistinctWakers];
    check_all(Shared::Split, &drivings, of_halves().chain(pairs_of(&OF_SENDER)));
}

#[test]
fn halves_of_futures() {
    let drivings = [
        Driving::Tasks,
        Driving::Join,
        Driving::Select,
        Driving::Alternate,
        Driving::Unordered,
        Driving::DistinctWakers,
    ];
    check_all(
        Shared::Futures,
        &drivings,
        OF_SINK.map(|call| [Call::Next, call]).into_iter(),
    );
}

/// Peers with which no time has to pass.
const QUICK_PEERS: [PeerKind; 4] = [
    PeerKind::Fast,
    PeerKind::Closing(Some(1000), Moment::Early),
    PeerKind::Gone(Moment::Early),
    PeerKind::Reset(Moment::Early),
];

/// Whether the call itself takes no time.
fn is_quick(call: &Call) -> bool {
    let has_gaps = call.may_be_full() || matches!(call, Call::SendPing | Call::Ping | Call::Questions);
    // As `Feed`.
    !has_gaps && *call != Call::FeedWith
}

/// Checks combinations on several threads repeatedly. Stops at the first failure, because one that hangs takes long.
fn check_on_threads(shared: Shared, pairs: impl Iterator<Item = [Call; 2]>) {
    for calls in pairs.filter(|calls| calls.iter().all(is_quick)) {
        for (peer, local) in QUICK_PEERS.into_iter().flat_map(|peer| BOTH.map(|local| (peer, local))) {
            let combination = Combination {
                shared,
                driving: Driving::Threads,
                calls,
                peer,
                local,
            };
            for _ in 0..REPEATS {
                let faults = check(combination);
                assert!(faults.is_empty(), "{combination:?}\n    {}", faults.join("\n    "));
            }
        }
    }
}

const REPEATS: usize = 10;

#[test]
fn sender_and_receiver_on_several_threads() {
    check_on_threads(Shared::Split, of_halves().chain(pairs_of(&OF_SENDER)));
}

#[test]
fn halves_of_futures_on_several_threads() {
    check_on_threads(Shared::Futures, OF_SINK.map(|call| [Call::Next, call]).into_iter());
}
