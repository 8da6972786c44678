//! A client and a server connected by a link, in virtual time that only `run_until` advances.
//!
//! Each side is driven according to the contract on the crate page: input, then deadlines, then output, then the
//! transport action. The link preserves the order of bytes, as TCP does.

use std::collections::VecDeque;

use sockeye_proto::{CloseCode, Config, Data, TransportAction};

use super::endpoint::{Endpoint, Got, Local, at};

pub(crate) struct Pair {
    pub(crate) now_ms: u64,
    pub(crate) client: Node,
    pub(crate) server: Node,
}

/// One side: its connection, the packets on their way to it, and its events with their times.
pub(crate) struct Node {
    pub(crate) endpoint: Endpoint,
    pub(crate) log: Vec<(u64, Got)>,
    /// Time at which it shut down its sending half of TCP.
    pub(crate) half_closed_at: Option<u64>,
    /// Time at which it closed TCP.
    pub(crate) closed_at: Option<u64>,
    /// Whether the driver ignores transport actions.
    pub(crate) never_closes_tcp: bool,
    /// Whether the process is suspended.
    pub(crate) is_suspended: bool,
    /// Whether everything that this node sends is lost.
    pub(crate) loses_output: bool,
    latency_ms: u64,
    out: Vec<u8>,
    link: VecDeque<(u64, Packet)>,
}

enum Packet {
    Bytes(Vec<u8>),
    End,
}

impl Pair {
    /// Creates two endpoints with default configuration and a link with the given latency in each direction.
    pub(crate) fn new(latency_ms: u64) -> Self {
        Self::with(latency_ms, Config::default(), Config::default())
    }

    pub(crate) fn with(latency_ms: u64, client: Config, server: Config) -> Self {
        Self {
            now_ms: 0,
            client: Node::new(Endpoint::with(Local::Client, client), latency_ms),
            server: Node::new(Endpoint::with(Local::Server, server), latency_ms),
        }
    }

    pub(crate) fn node(&mut self, local: Local) -> &mut Node {
        match local {
            Local::Client => &mut self.client,
            Local::Server => &mut self.server,
        }
    }

    /// Cuts the link: from now on nothing arrives in either direction, without notice.
    pub(crate) fn cut_link(&mut self) {
        for node in [&mut self.client, &mut self.server] {
            node.loses_output = true;
            node.link.clear();
        }
    }

    /// Advances time to `ms`, processing arrivals and deadlines on the way.
    pub(crate) fn run_until(&mut self, ms: u64) {
        loop {
            self.client.flush(self.now_ms, &mut self.server.link);
            self.server.flush(self.now_ms, &mut self.client.link);
            let next = [&self.client, &self.server].into_iter().filter_map(Node::next_ms).min();
            let Some(next) = next.filter(|&next| next.max(self.now_ms) <= ms) else {
                break;
            };
            self.now_ms = next.max(self.now_ms);
            self.client.wake(self.now_ms);
            self.server.wake(self.now_ms);
        }
        self.now_ms = ms;
        self.client.endpoint.now_ms = ms;
        self.server.endpoint.now_ms = ms;
    }
}

impl Node {
    fn new(endpoint: Endpoint, latency_ms: u64) -> Self {
        Self {
            endpoint,
            log: Vec::new(),
            half_closed_at: None,
            closed_at: None,
            never_closes_tcp: false,
            is_suspended: false,
            loses_output: false,
            latency_ms,
            out: Vec::new(),
            link: VecDeque::new(),
        }
    }

    #[track_caller]
    pub(crate) fn send(&mut self, data: Data<'_>) {
        self.endpoint.connection.send(data, &mut self.out).unwrap();
    }

    #[track_caller]
    pub(crate) fn close(&mut self, code: u16, reason: &str) {
        self.endpoint.connection.close(CloseCode(code), reason).unwrap();
    }

    #[track_caller]
    pub(crate) fn ping(&mut self, payload: &[u8]) {
        self.endpoint.connection.ping(payload).unwrap();
    }

    /// Delivers `bytes` from the peer in pieces of `piece_len`, one every `every_ms`. Bytes that the peer sends
    /// meanwhile arrive after them.
    pub(crate) fn drip(&mut self, bytes: &[u8], piece_len: usize, every_ms: u64) {
        let mut arrival = self.endpoint.now_ms;
        for piece in bytes.chunks(piece_len) {
            arrival += every_ms;
            self.link.push_back((arrival, Packet::Bytes(piece.to_vec())));
        }
    }

    /// The events without their times.
    pub(crate) fn got(&self) -> Vec<Got> {
        self.log.iter().map(|(_, got)| got.clone()).collect()
    }

    pub(crate) fn pings_received(&self) -> usize {
        self.log.iter().filter(|(_, got)| matches!(got, Got::Ping(_))).count()
    }

    pub(crate) fn rtt_ms(&self) -> Option<u128> {
        self.endpoint.connection.rtt().map(|time| time.as_millis())
    }

    fn next_ms(&self) -> Option<u64> {
        if self.is_suspended || self.closed_at.is_some() {
            return None;
        }
        let arrival = self.link.front().map(|(arrival, _)| *arrival);
        let deadline = self.endpoint.connection.poll_timeout();
        let deadline = deadline.map(|deadline| deadline.since_origin().as_millis() as u64);
        arrival.into_iter().chain(deadline).min()
    }

    fn wake(&mut self, now_ms: u64) {
        self.endpoint.now_ms = now_ms;
        if self.is_suspended || self.closed_at.is_some() {
            return;
        }
        while let Some((_, packet)) = self.link.pop_front_if(|(arrival, _)| *arrival <= now_ms) {
            match packet {
                Packet::Bytes(bytes) => {
                    let got = self.endpoint.receives_bytes(&bytes);
                    self.log.extend(got.into_iter().map(|got| (now_ms, got)));
                }
                Packet::End => self.endpoint.connection.handle_transport_end(),
            }
        }
        self.endpoint.connection.handle_timeout(at(now_ms));
    }

    fn flush(&mut self, now_ms: u64, link: &mut VecDeque<(u64, Packet)>) {
        if self.is_suspended || self.closed_at.is_some() {
            return;
        }
        self.endpoint.connection.poll_transmit(&mut self.out);
        let behind = link.back().map_or(0, |(arrival, _)| *arrival);
        let arrival = behind.max(now_ms + self.latency_ms);
        let mut deliver = |packet| {
            if !self.loses_output {
                link.push_back((arrival, packet));
            }
        };
        if !self.out.is_empty() {
            deliver(Packet::Bytes(std::mem::take(&mut self.out)));
            self.endpoint.connection.handle_transmitted(at(now_ms));
        }
        let transport = self.endpoint.connection.transport_action();
        if self.never_closes_tcp || transport == TransportAction::Open {
            return;
        }
        if self.half_closed_at.is_none() {
            self.half_closed_at = Some(now_ms);
            deliver(Packet::End);
        }
        if transport == TransportAction::Close {
            self.closed_at = Some(now_ms);
        }
    }
}
