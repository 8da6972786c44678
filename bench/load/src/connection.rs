//! One connection: its position in the endless stream of messages, and its replies.

use anyhow::{Context, Result};

use crate::{
    inbound::{Inbound, Reader},
    ledger::{Answer, Ledger},
    script::Script,
    transport::Transport,
};

#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) transport: Transport,
    pub(crate) ledger: Ledger,
    /// Messages of the script before this index are to be sent.
    asked: u64,
    /// Number of bytes of the stream that the socket has accepted.
    position: u64,
    inbound: Inbound,
    /// Messages of the script before this index are answered.
    answered: u64,
}

impl Connection {
    /// Starts at message `first` of the script, so that not all connections send the same message at the same time.
    pub(crate) fn new(transport: Transport, script: &Script, first: u64) -> Self {
        Self {
            transport,
            ledger: Ledger::default(),
            asked: first,
            position: script.requests.start(first),
            inbound: Inbound::new(script, first),
            answered: first,
        }
    }

    /// Requests that this many more messages are sent.
    pub(crate) fn ask(&mut self, count: u64, intended: u64) {
        self.asked += count;
        self.ledger.ask(count, self.asked, intended);
    }

    /// Like `ask`, for a publisher, whose messages are answered on other connections.
    pub(crate) fn ask_without_reply(&mut self, count: u64) {
        self.asked += count;
    }

    /// Whether requested messages are still unsent.
    pub(crate) fn wants_to_send(&self, script: &Script) -> bool {
        self.position < script.requests.start(self.asked) || self.transport.wants_to_send()
    }

    /// Sends requested messages as far as the socket accepts them.
    pub(crate) fn flush(&mut self, script: &Script, now: u64) -> Result<()> {
        if !self.transport.flush()? {
            return Ok(());
        }
        let end = script.requests.start(self.asked);
        if self.position == end {
            return Ok(());
        }
        while self.position < end {
            let len = self
                .transport
                .send(script.requests.at(self.position, end - self.position))
                .context("cannot send")?;
            if len == 0 {
                break;
            }
            self.position += len as u64;
        }
        let left = if self.position == end {
            self.asked
        } else {
            script.requests.ended(self.position)
        };
        self.ledger.wrote(left, now);
        Ok(())
    }

    /// Reads the replies that have arrived and returns their number.
    pub(crate) fn receive(&mut self, script: &Script, reader: &mut Reader, each: impl FnMut(Answer)) -> Result<u64> {
        let count = self.receive_before(self.asked, script, reader)?;
        if !self.ledger.answer(count, each) {
            anyhow::bail!("a reply arrived before its message was sent");
        }
        Ok(count)
    }

    /// Reads messages on a connection that only receives, up to the message `end`.
    pub(crate) fn receive_before(&mut self, end: u64, script: &Script, reader: &mut Reader) -> Result<u64> {
        self.inbound.receive(&mut self.transport, script, end, reader)?;
        let ended = self.inbound.ended(script);
        let count = ended - self.answered;
        self.answered = ended;
        Ok(count)
    }

    /// Messages of the script before this index are to be sent.
    pub(crate) fn asked(&self) -> u64 {
        self.asked
    }

    /// Messages of the script before this index are answered or received.
    pub(crate) fn answered(&self) -> u64 {
        self.answered
    }
}
