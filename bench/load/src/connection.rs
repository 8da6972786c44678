//! One connection: the part of the endless stream that it has sent, and the replies.

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
    /// Messages of the script before `asked` are to leave.
    asked: u64,
    /// How much of the stream the socket has taken.
    position: u64,
    inbound: Inbound,
    /// Messages of the script before this one are answered.
    answered: u64,
}

impl Connection {
    /// Begins with the message `first` of the script, so that not all connections send the same at the same time.
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

    /// Takes down that so many more messages are to leave.
    pub(crate) fn ask(&mut self, count: u64, intended: u64) {
        self.asked += count;
        self.ledger.ask(count, self.asked, intended);
    }

    /// As `ask`, where the replies come to others.
    pub(crate) fn ask_without_reply(&mut self, count: u64) {
        self.asked += count;
    }

    /// Whether anything is to leave that has not.
    pub(crate) fn wants_to_send(&self, script: &Script) -> bool {
        self.position < script.requests.start(self.asked) || self.transport.wants_to_send()
    }

    /// Sends what is to leave, as far as the socket takes it.
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

    /// Takes the replies that have arrived; how many.
    pub(crate) fn receive(&mut self, script: &Script, reader: &mut Reader, each: impl FnMut(Answer)) -> Result<u64> {
        let count = self.receive_before(self.asked, script, reader)?;
        if !self.ledger.answer(count, each) {
            anyhow::bail!("a reply came before its message had left");
        }
        Ok(count)
    }

    /// As `receive`, for one who listens only: no more than to the message `end`.
    pub(crate) fn receive_before(&mut self, end: u64, script: &Script, reader: &mut Reader) -> Result<u64> {
        self.inbound.receive(&mut self.transport, script, end, reader)?;
        let ended = self.inbound.ended(script);
        let count = ended - self.answered;
        self.answered = ended;
        Ok(count)
    }

    /// Messages of the script before this one are to leave.
    pub(crate) fn asked(&self) -> u64 {
        self.asked
    }

    /// Messages of the script before this one are answered, or have arrived.
    pub(crate) fn answered(&self) -> u64 {
        self.answered
    }
}
