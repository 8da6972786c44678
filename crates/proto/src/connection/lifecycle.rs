//! Connection states and the pure transition function between them.
//!
//! Every state change of a connection goes through [`transition`]. This module is independent of frames and roles; the
//! connection performs the returned actions.

/// The state of a connection after the opening handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum State {
    /// Both sides may send messages.
    Open,
    /// We started the closing handshake and wait for the peer's close frame. Messages are still received.
    CloseSent,
    /// No more messages are sent or received. Our close frame may still have to be written, and the transport closed.
    Draining,
    /// The transport is closed, or must be closed now.
    Closed,
}

/// An event that can change the state of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Input {
    /// The application closes the connection.
    LocalClose,
    /// A valid close frame arrived.
    PeerClose,
    /// The peer violated the protocol.
    ProtocolError,
    /// The peer closed its half of the transport, or the transport failed.
    TransportEnd,
    /// The deadline of the current state passed: keepalive while open, closing handshake afterwards.
    Deadline,
    /// While draining, the peer sent more bytes than the connection is willing to discard.
    DiscardLimit,
}

/// What the connection must do in response to an input.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Action {
    /// Do nothing: the input has no effect in this state.
    Ignore,
    /// Send our close frame.
    SendClose,
    /// Answer the peer's close frame.
    AnswerClose,
    /// Record that the peer answered our close frame.
    FinishClose,
    /// Send a close frame that names the protocol error.
    SendProtocolError,
    /// Record the protocol error; our close frame has already been sent.
    RecordProtocolError,
    /// Record that the transport ended before the closing handshake.
    RecordTransportEnd,
    /// Record that the peer closed the transport without answering our close frame. If that frame had not been written
    /// yet, same as `RecordTransportEnd`.
    RecordUnansweredClose,
    /// Record that the peer did not answer in time.
    RecordTimeout,
    /// Close the transport.
    CloseTransport,
}

/// Returns the next state and the action to perform.
// [6455-7.1.2-2, 6455-7.1.7-6, 6455-7.2.1-2, 6455-7.3-1]
pub(crate) const fn transition(state: State, input: Input) -> (State, Action) {
    use {Action as A, Input as I, State as S};
    match (state, input) {
        (S::Open, I::LocalClose) => (S::CloseSent, A::SendClose),
        (S::Open, I::PeerClose) => (S::Draining, A::AnswerClose),
        (S::Open, I::ProtocolError) => (S::Draining, A::SendProtocolError),
        (S::CloseSent, I::PeerClose) => (S::Draining, A::FinishClose),
        (S::CloseSent, I::ProtocolError) => (S::Draining, A::RecordProtocolError),
        (S::Open, I::TransportEnd) => (S::Closed, A::RecordTransportEnd),
        (S::CloseSent, I::TransportEnd) => (S::Closed, A::RecordUnansweredClose),
        (S::Open | S::CloseSent, I::Deadline) => (S::Closed, A::RecordTimeout),
        (S::Draining, I::TransportEnd | I::Deadline | I::DiscardLimit) => (S::Closed, A::CloseTransport),
        // RFC 6455 §5.5.1: a second close frame and data after the first one have no effect.
        // [6455-5.5.1-12, 6455-7.1.7-5]
        (S::CloseSent | S::Draining, I::LocalClose) => (state, A::Ignore),
        (S::Draining, I::PeerClose | I::ProtocolError) => (state, A::Ignore),
        // Bytes are discarded only while draining, so this cannot happen here.
        (S::Open | S::CloseSent, I::DiscardLimit) => (state, A::Ignore),
        (S::Closed, _) => (S::Closed, A::Ignore),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::format;
    use alloc::string::String;

    #[test]
    fn transition_table_matches_snapshot() {
        // checks [6455-7.1.2-2, 6455-7.1.7-5, 6455-7.1.7-6]
        use {Input as I, State as S};
        let mut table = String::new();
        for state in [S::Open, S::CloseSent, S::Draining, S::Closed] {
            for input in [
                I::LocalClose,
                I::PeerClose,
                I::ProtocolError,
                I::TransportEnd,
                I::Deadline,
                I::DiscardLimit,
            ] {
                let (next, action) = transition(state, input);
                table += &format!("{state:?} + {input:?} -> {next:?}, {action:?}\n");
            }
        }
        let expected = "\
Open + LocalClose -> CloseSent, SendClose
Open + PeerClose -> Draining, AnswerClose
Open + ProtocolError -> Draining, SendProtocolError
Open + TransportEnd -> Closed, RecordTransportEnd
Open + Deadline -> Closed, RecordTimeout
Open + DiscardLimit -> Open, Ignore
CloseSent + LocalClose -> CloseSent, Ignore
CloseSent + PeerClose -> Draining, FinishClose
CloseSent + ProtocolError -> Draining, RecordProtocolError
CloseSent + TransportEnd -> Closed, RecordUnansweredClose
CloseSent + Deadline -> Closed, RecordTimeout
CloseSent + DiscardLimit -> CloseSent, Ignore
Draining + LocalClose -> Draining, Ignore
Draining + PeerClose -> Draining, Ignore
Draining + ProtocolError -> Draining, Ignore
Draining + TransportEnd -> Closed, CloseTransport
Draining + Deadline -> Closed, CloseTransport
Draining + DiscardLimit -> Closed, CloseTransport
Closed + LocalClose -> Closed, Ignore
Closed + PeerClose -> Closed, Ignore
Closed + ProtocolError -> Closed, Ignore
Closed + TransportEnd -> Closed, Ignore
Closed + Deadline -> Closed, Ignore
Closed + DiscardLimit -> Closed, Ignore
";
        assert_eq!(table, expected);
    }
}
