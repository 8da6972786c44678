//! The part of the driver's state that other pending operations depend on.

/// A set of bits. When it changes, other pending operations have to be polled again: their deadline, the transport, or
/// the messages received ahead may have changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct WakeFlags(u8);

impl WakeFlags {
    /// Messages can be sent.
    pub(crate) const OPEN: u8 = 1;
    /// The transport has ended or cannot be written to, so what an operation waits for may never happen.
    pub(crate) const TERMINATED: u8 = 1 << 1;
    /// The transport is neither closed nor handed to a background task.
    pub(crate) const TRANSPORT: u8 = 1 << 2;
    /// A sender that waited has received messages ahead of the receiver.
    pub(crate) const READ_AHEAD: u8 = 1 << 3;

    const ALL: u8 = Self::OPEN | Self::TERMINATED | Self::TRANSPORT | Self::READ_AHEAD;

    pub(crate) fn from_bits(bits: u8) -> Self {
        Self(bits & Self::ALL)
    }

    #[inline]
    pub(crate) fn bits(self) -> u8 {
        self.0
    }

    /// Whether every pending operation must be polled again, given the state `before` at its last poll.
    #[inline]
    pub(crate) fn must_wake_since(self, before: Self) -> bool {
        let is_new_end = (self.0 ^ before.0) & (Self::OPEN | Self::TERMINATED | Self::TRANSPORT) != 0;
        let is_new_read_ahead = self.0 & !before.0 & Self::READ_AHEAD != 0;
        is_new_end || is_new_read_ahead
    }
}
