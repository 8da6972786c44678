//! The life of a connection after the handshake: a small enum and one pure function over it.
//!
//! This file owns every transition. It knows neither frames nor roles, except that it names what the caller must do
//! to the transport; the connection carries it out.

/// Where a connection stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum State {
    /// Both sides may send.
    Open,
    /// Our close frame is on its way; the peer's has not come. Messages are still received.
    CloseSent,
    /// The last frame of each side has been decided; what remains is to write ours and to end TCP.
    Ending,
    /// The transport is closed, or is to be closed now.
    Closed,
}

/// What happens to a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Input {
    /// The application closes.
    LocalClose,
    /// A valid close frame arrived.
    PeerClose,
    /// The peer broke a rule.
    ProtocolError,
    /// The peer closed its half of the transport, or the transport broke.
    TransportEnd,
    /// The deadline of the present state passed: keepalive while open, close handshake later.
    Deadline,
    /// After the end, the peer sent more than is worth reading.
    Flood,
}

/// What the connection must do about an input.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Action {
    /// Nothing; the input has no meaning in this state.
    Ignore,
    /// Send our close frame.
    SendClose,
    /// Answer the peer's close frame.
    AnswerClose,
    /// Note that the peer answered our close frame.
    FinishClose,
    /// Tell the peer which rule it broke, in our close frame.
    SendProtocolError,
    /// Note the fault; our close frame has been sent already.
    RecordProtocolError,
    /// Note that the transport ended before the close handshake did.
    Abandon,
    /// Note that the peer ended the transport instead of answering our close frame, if that had been written; else the
    /// same as `Abandon`.
    EndUnanswered,
    /// Note that the peer did not answer in time.
    GiveUp,
    /// All is done; close the transport.
    Release,
}

/// The life of a connection, whole.
// [6455-7.1.2-2, 6455-7.1.7-6, 6455-7.2.1-2, 6455-7.3-1]
pub(crate) const fn transition(state: State, input: Input) -> (State, Action) {
    use {Action as A, Input as I, State as S};
    match (state, input) {
        (S::Open, I::LocalClose) => (S::CloseSent, A::SendClose),
        (S::Open, I::PeerClose) => (S::Ending, A::AnswerClose),
        (S::Open, I::ProtocolError) => (S::Ending, A::SendProtocolError),
        (S::CloseSent, I::PeerClose) => (S::Ending, A::FinishClose),
        (S::CloseSent, I::ProtocolError) => (S::Ending, A::RecordProtocolError),
        (S::Open, I::TransportEnd) => (S::Closed, A::Abandon),
        (S::CloseSent, I::TransportEnd) => (S::Closed, A::EndUnanswered),
        (S::Open | S::CloseSent, I::Deadline) => (S::Closed, A::GiveUp),
        (S::Ending, I::TransportEnd | I::Deadline | I::Flood) => (S::Closed, A::Release),
        // RFC 6455 §5.5.1: a second close frame changes nothing, and neither does data after the first.
        // [6455-5.5.1-12, 6455-7.1.7-5]
        (S::CloseSent | S::Ending, I::LocalClose) => (state, A::Ignore),
        (S::Ending, I::PeerClose | I::ProtocolError) => (state, A::Ignore),
        // Only what comes after the end is discarded, so only then can there be too much of it.
        (S::Open | S::CloseSent, I::Flood) => (state, A::Ignore),
        (S::Closed, _) => (S::Closed, A::Ignore),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::format;
    use alloc::string::String;

    #[test]
    fn every_input_in_every_state_has_the_outcome_written_here() {
        // checks [6455-7.1.2-2, 6455-7.1.7-5, 6455-7.1.7-6]
        use {Input as I, State as S};
        let mut table = String::new();
        for state in [S::Open, S::CloseSent, S::Ending, S::Closed] {
            for input in [
                I::LocalClose,
                I::PeerClose,
                I::ProtocolError,
                I::TransportEnd,
                I::Deadline,
                I::Flood,
            ] {
                let (next, action) = transition(state, input);
                table += &format!("{state:?} + {input:?} -> {next:?}, {action:?}\n");
            }
        }
        let expected = "\
Open + LocalClose -> CloseSent, SendClose
Open + PeerClose -> Ending, AnswerClose
Open + ProtocolError -> Ending, SendProtocolError
Open + TransportEnd -> Closed, Abandon
Open + Deadline -> Closed, GiveUp
Open + Flood -> Open, Ignore
CloseSent + LocalClose -> CloseSent, Ignore
CloseSent + PeerClose -> Ending, FinishClose
CloseSent + ProtocolError -> Ending, RecordProtocolError
CloseSent + TransportEnd -> Closed, EndUnanswered
CloseSent + Deadline -> Closed, GiveUp
CloseSent + Flood -> CloseSent, Ignore
Ending + LocalClose -> Ending, Ignore
Ending + PeerClose -> Ending, Ignore
Ending + ProtocolError -> Ending, Ignore
Ending + TransportEnd -> Closed, Release
Ending + Deadline -> Closed, Release
Ending + Flood -> Closed, Release
Closed + LocalClose -> Closed, Ignore
Closed + PeerClose -> Closed, Ignore
Closed + ProtocolError -> Closed, Ignore
Closed + TransportEnd -> Closed, Ignore
Closed + Deadline -> Closed, Ignore
Closed + Flood -> Closed, Ignore
";
        assert_eq!(table, expected);
    }
}
