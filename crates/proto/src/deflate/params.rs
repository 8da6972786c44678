//! Negotiation (RFC 7692 §5, §7.1): what is offered, what is answered, what both then hold to.

use alloc::borrow::Cow;
use alloc::format;
use alloc::string::String;

use crate::handshake::{Extension, HandshakeError};

/// The name in `Sec-WebSocket-Extensions`.
// [6455-9.1-3, 7692-7-1]
const NAME: &str = "permessage-deflate";

const SERVER_NO_CONTEXT_TAKEOVER: &str = "server_no_context_takeover";
const CLIENT_NO_CONTEXT_TAKEOVER: &str = "client_no_context_takeover";
const SERVER_MAX_WINDOW_BITS: &str = "server_max_window_bits";
const CLIENT_MAX_WINDOW_BITS: &str = "client_max_window_bits";

/// The size of an LZ77 window as a power of two, 8 to 15: 256 bytes to 32 KiB (RFC 7692 §7.1.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WindowBits(u8);

impl WindowBits {
    /// 8 bits, 256 bytes. What is compressed with it cannot be made by zlib: an endpoint held to it sends plain.
    pub const MIN: Self = Self(8);
    /// 15 bits, 32 KiB: what holds when nothing is said.
    // No window is larger, whatever is agreed on. [7692-7.2.1-9]
    pub const MAX: Self = Self(15);

    /// A window of 2 to the `bits` bytes; `None` unless 8 to 15.
    pub const fn new(bits: u8) -> Option<Self> {
        match bits {
            8..=15 => Some(Self(bits)),
            _ => None,
        }
    }

    /// The number of bits.
    pub const fn bits(self) -> u8 {
        self.0
    }

    /// The size of the window in bytes.
    pub const fn size(self) -> usize {
        1 << self.0
    }

    /// RFC 7692 §7.1.2.1: a decimal integer without leading zeros, 8 to 15.
    // [7692-7.1.2.1-1, 7692-7.1.2.2-1]
    fn parse(text: &str) -> Option<Self> {
        Some(Self(match text {
            "8" => 8,
            "9" => 9,
            "10" => 10,
            "11" => 11,
            "12" => 12,
            "13" => 13,
            "14" => 14,
            "15" => 15,
            _ => return None,
        }))
    }
}

/// Whether a message may refer back to earlier ones (RFC 7692 §7.1.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Takeover {
    /// It may: small messages that are alike compress several times better, and each connection remembers up to a
    /// window.
    Keep,
    /// It may not: an idle connection remembers nothing, and a secret in one message cannot be guessed at by the length
    /// of another.
    Reset,
}

/// How this endpoint wants to compress. What is agreed on may be less: see [`NegotiatedParams`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DeflateConfig {
    /// How hard to compress, 1 (fast) to 9 (small); other values count as the nearest. Default 1: on messages of a few KiB, higher levels save few bytes
    /// and cost several times the time.
    pub level: u8,
    /// How much memory a codec may use to compress, 1 to 9; other values count as the nearest. Default 8. It is the codec's, not the connection's.
    pub memory_level: u8,
    /// Messages smaller than this are sent as they are. Default 128 bytes: below, there is nothing to gain.
    pub size_min: usize,
    /// Whether our messages refer back to earlier ones. Default [`Takeover::Reset`].
    pub takeover: Takeover,
    /// Whether the peer's messages may. Default [`Takeover::Reset`]. A client that offers [`Takeover::Reset`] asks the
    /// server for `server_no_context_takeover`. A server that cannot do that declines, and nothing is compressed. A
    /// server that accepts the offer and ignores the parameter (libwebsockets has done so) breaks RFC 7692 §7.1.1.1, and
    /// the connection fails with [`HandshakeError::TakeoverIgnored`]. [`falls_back`](Self::falls_back) accepts both.
    pub peer_takeover: Takeover,
    /// The largest window that we compress with. Default 15. Smaller saves memory per connection with takeover, on both
    /// sides. Below 9 nothing is compressed.
    pub window_bits: WindowBits,
    /// The largest window that the peer is asked to compress with. Default 15.
    pub peer_window_bits: WindowBits,
    /// Whether a client accepts a server that keeps its context and uses any window, although
    /// [`peer_takeover`](Self::peer_takeover) and [`peer_window_bits`](Self::peer_window_bits) ask for less: the client
    /// makes a second offer without these conditions (RFC 7692 §5). Default no.
    ///
    /// Set it to talk to servers that cannot, or do not, honor `server_no_context_takeover` or
    /// `server_max_window_bits`. The cost is up to 32 KiB of window for each such connection, and a peer whose messages
    /// can refer back to each other (RFC 7692 §8).
    pub falls_back: bool,
}

impl Default for DeflateConfig {
    fn default() -> Self {
        Self {
            level: 1,
            memory_level: 8,
            size_min: 128,
            takeover: Takeover::Reset,
            peer_takeover: Takeover::Reset,
            // [7692-7.3-1]
            window_bits: WindowBits::MAX,
            peer_window_bits: WindowBits::MAX,
            falls_back: false,
        }
    }
}

/// What both endpoints hold to for the life of the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NegotiatedParams {
    /// Whether our messages refer back to earlier ones.
    pub takeover: Takeover,
    /// Whether the peer's may.
    pub peer_takeover: Takeover,
    /// The window that we compress with, at most.
    pub window_bits: WindowBits,
    /// The window that the peer compresses with, at most.
    pub peer_window_bits: WindowBits,
}

/// The parameters of one element, each at most once and valid.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Params {
    server_no_context_takeover: bool,
    client_no_context_takeover: bool,
    server_max_window_bits: Option<WindowBits>,
    /// The inner `None`: without a value, which only a client may send.
    client_max_window_bits: Option<Option<WindowBits>>,
}

impl Params {
    /// RFC 7692 §7.1: unknown, repeated and invalid parameters make the element unusable.
    // [7692-7-2, 7692-7-4, 7692-7-6, 7692-7-8]
    fn read(extension: Extension<'_>) -> Option<Self> {
        let mut params = Self::default();
        for (name, value) in extension.params() {
            let is_new = params.set(name, value)?;
            if !is_new {
                return None;
            }
        }
        Some(params)
    }

    /// Sets one parameter: whether it was not set before, or `None` if it is unknown or invalid.
    // [7692-7-3, 7692-7-7, 7692-7.1.1.1-1, 7692-7.1.1.2-1]
    fn set(&mut self, name: &str, value: Option<Cow<'_, str>>) -> Option<bool> {
        let value = value.as_deref();
        Some(match (name, value) {
            (SERVER_NO_CONTEXT_TAKEOVER, None) => !core::mem::replace(&mut self.server_no_context_takeover, true),
            (CLIENT_NO_CONTEXT_TAKEOVER, None) => !core::mem::replace(&mut self.client_no_context_takeover, true),
            (SERVER_MAX_WINDOW_BITS, Some(value)) => {
                self.server_max_window_bits.replace(WindowBits::parse(value)?).is_none()
            }
            (CLIENT_MAX_WINDOW_BITS, None) => self.client_max_window_bits.replace(None).is_none(),
            (CLIENT_MAX_WINDOW_BITS, Some(value)) => {
                let bits = WindowBits::parse(value)?;
                self.client_max_window_bits.replace(Some(bits)).is_none()
            }
            _ => return None,
        })
    }

    fn write(self) -> String {
        let mut text = String::from(NAME);
        if self.server_no_context_takeover {
            text += &format!("; {SERVER_NO_CONTEXT_TAKEOVER}");
        }
        if self.client_no_context_takeover {
            text += &format!("; {CLIENT_NO_CONTEXT_TAKEOVER}");
        }
        if let Some(bits) = self.server_max_window_bits {
            text += &format!("; {SERVER_MAX_WINDOW_BITS}={}", bits.bits());
        }
        match self.client_max_window_bits {
            Some(Some(bits)) => text += &format!("; {CLIENT_MAX_WINDOW_BITS}={}", bits.bits()),
            Some(None) => text += &format!("; {CLIENT_MAX_WINDOW_BITS}"),
            None => {}
        }
        text
    }
}

impl DeflateConfig {
    /// A server's answer to the offers of a request, the first that it can take: what to write into the response, and
    /// what then holds. `None` declines, and the connection goes without compression.
    // [7692-5-2, 7692-5-3, 7692-5-4, 7692-5-9]
    pub fn answer<'a>(&self, offers: impl IntoIterator<Item = Extension<'a>>) -> Option<(String, NegotiatedParams)> {
        let mut offers = offers.into_iter().filter(|offer| offer.name() == NAME);
        offers.find_map(|offer| Some(self.answer_one(Params::read(offer)?)))
    }

    fn answer_one(&self, offer: Params) -> (String, NegotiatedParams) {
        // RFC 7692 §7.1.1.1: asked not to take over, the server says so in its answer; it may say so unasked.
        // [7692-7.1.1.1-2, 7692-7.1.1.1-3]
        let takeover = match offer.server_no_context_takeover {
            true => Takeover::Reset,
            false => self.takeover,
        };
        // §7.1.2.1: asked for a smaller window, the server says that one or a smaller one. [7692-7.1.2.1-2]
        let window_bits = offer
            .server_max_window_bits
            .map_or(self.window_bits, |asked| asked.min(self.window_bits));
        let says_window = offer.server_max_window_bits.is_some() || window_bits < WindowBits::MAX;
        // §7.1.1.2: the server may always tell the client not to take over; a client that offers it does so anyway.
        // [7692-7.2.2-4]
        let peer_takeover = match offer.client_no_context_takeover {
            true => Takeover::Reset,
            false => self.peer_takeover,
        };
        // §7.1.2.2: the client's window may be limited only if the client said that it can.
        // [7692-7.1.2.2-2, 7692-7.1.2.2-3]
        let peer_window_bits = match offer.client_max_window_bits {
            Some(asked) => asked.unwrap_or(WindowBits::MAX).min(self.peer_window_bits),
            None => WindowBits::MAX,
        };
        let answer = Params {
            server_no_context_takeover: takeover == Takeover::Reset,
            client_no_context_takeover: peer_takeover == Takeover::Reset,
            server_max_window_bits: says_window.then_some(window_bits),
            client_max_window_bits: (peer_window_bits < WindowBits::MAX).then_some(Some(peer_window_bits)),
        };
        let agreement = NegotiatedParams {
            takeover,
            peer_takeover,
            window_bits,
            peer_window_bits,
        };
        (answer.write(), agreement)
    }

    /// A client's offers, as the request has them: one, and if it [falls back](Self::falls_back) a second one that asks
    /// nothing of the server.
    // [6455-9-2, 6455-9.1-4, 7692-5-1, 7692-5-2]
    pub fn offers(&self) -> impl Iterator<Item = String> {
        self.offered().map(Params::write)
    }

    fn offered(&self) -> impl Iterator<Item = Params> {
        let first = self.first_offer();
        let second = Params {
            server_no_context_takeover: false,
            server_max_window_bits: None,
            ..first
        };
        let falls_back = self.falls_back && second != first;
        core::iter::once(first).chain(falls_back.then_some(second))
    }

    fn first_offer(&self) -> Params {
        Params {
            server_no_context_takeover: self.peer_takeover == Takeover::Reset,
            client_no_context_takeover: self.takeover == Takeover::Reset,
            server_max_window_bits: (self.peer_window_bits < WindowBits::MAX).then_some(self.peer_window_bits),
            // §7.1.2.2: said always, so that a server may limit us; with a value where we limit ourselves.
            client_max_window_bits: Some((self.window_bits < WindowBits::MAX).then_some(self.window_bits)),
        }
    }

    /// Holds a server's answer against the [`offers`](Self::offers); `None` if it declined.
    ///
    /// # Errors
    ///
    /// RFC 7692 §5.1, §7.1: the connection fails on an answer that the offer does not allow, and on a second one.
    // [7692-5-6, 7692-5-11]
    pub fn accept<'a>(
        &self,
        answers: impl IntoIterator<Item = Extension<'a>>,
    ) -> Result<Option<NegotiatedParams>, HandshakeError> {
        let mut answers = answers.into_iter().filter(|answer| answer.name() == NAME);
        let Some(answer) = answers.next() else {
            return Ok(None);
        };
        let agreement =
            Params::read(answer).and_then(|answer| self.offered().find_map(|offer| self.accept_one(offer, answer)));
        match (agreement, answers.next()) {
            (Some(agreement), None) => Ok(Some(agreement)),
            (None, None) if self.is_only_takeover_ignored(answer) => Err(HandshakeError::TakeoverIgnored),
            _ => Err(HandshakeError::ExtensionMismatch),
        }
    }

    /// Whether an answer that was not accepted would have been with `server_no_context_takeover` added: a server that
    /// ignores the parameter.
    fn is_only_takeover_ignored(&self, answer: Extension<'_>) -> bool {
        let added = Params::read(answer)
            .filter(|answer| !answer.server_no_context_takeover)
            .map(|answer| Params {
                server_no_context_takeover: true,
                ..answer
            });
        added.is_some_and(|answer| self.accept_one(self.first_offer(), answer).is_some())
    }

    fn accept_one(&self, offer: Params, answer: Params) -> Option<NegotiatedParams> {
        // §7.1.1.1: a server that accepts the offer includes what it was asked. [7692-7-9]
        if offer.server_no_context_takeover && !answer.server_no_context_takeover {
            return None;
        }
        let peer_window_bits = match (offer.server_max_window_bits, answer.server_max_window_bits) {
            (None, answered) => answered.unwrap_or(WindowBits::MAX),
            (Some(asked), Some(answered)) if answered <= asked => answered,
            (Some(_), _) => return None,
        };
        let window_bits = match answer.client_max_window_bits {
            // §7.1.2.2: in an answer it has a value. [7692-7.1.2.2-1]
            Some(None) => return None,
            Some(Some(answered)) if answered <= self.window_bits => answered,
            Some(Some(_)) => return None,
            None => self.window_bits,
        };
        Some(NegotiatedParams {
            // [7692-7.1.1.2-2]
            takeover: match answer.client_no_context_takeover {
                true => Takeover::Reset,
                false => self.takeover,
            },
            peer_takeover: match answer.server_no_context_takeover {
                true => Takeover::Reset,
                false => Takeover::Keep,
            },
            window_bits,
            peer_window_bits,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::handshake::Headers;
    use alloc::vec;
    use alloc::vec::Vec;

    fn bits(bits: u8) -> WindowBits {
        WindowBits::new(bits).expect("8 to 15")
    }

    fn keeping() -> DeflateConfig {
        DeflateConfig {
            takeover: Takeover::Keep,
            peer_takeover: Takeover::Keep,
            ..DeflateConfig::default()
        }
    }

    fn headers(lines: &[&str]) -> Headers {
        let mut headers = Headers::new();
        for line in lines {
            headers.try_append("Sec-WebSocket-Extensions", line).expect("a header");
        }
        headers
    }

    #[track_caller]
    fn server_answers(config: &DeflateConfig, offers: &[&str], expected: Option<&str>) {
        let headers = headers(offers);
        let answer = config.answer(headers.extensions()).map(|(answer, _)| answer);
        assert_eq!(answer.as_deref(), expected, "{offers:?}");
    }

    #[test]
    fn server_answers_an_offer_with_what_was_asked_and_what_it_wants() {
        // checks [6455-9-2, 6455-9.1-3, 6455-9.1-4, 7692-5-4, 7692-7-1, 7692-7.1.1.1-2, 7692-7.1.1.1-3]
        // checks [7692-7.1.2.1-2, 7692-7.1.2.2-2, 7692-7.1.2.2-3, 7692-7.2.2-4]
        let pmd = |rest: &str| format!("permessage-deflate{rest}");
        let keep = keeping();
        for (offer, answer) in [
            ("", ""),
            ("; server_no_context_takeover", "; server_no_context_takeover"),
            ("; client_no_context_takeover", "; client_no_context_takeover"),
            ("; server_max_window_bits=10", "; server_max_window_bits=10"),
            ("; server_max_window_bits=\"9\"", "; server_max_window_bits=9"),
            ("; server_max_window_bits=8", "; server_max_window_bits=8"),
            ("; client_max_window_bits", ""),
            ("; client_max_window_bits=12", "; client_max_window_bits=12"),
        ] {
            server_answers(&keep, &[&pmd(offer)], Some(&pmd(answer)));
        }
        let both = "; server_no_context_takeover; client_no_context_takeover";
        server_answers(&DeflateConfig::default(), &[&pmd("")], Some(&pmd(both)));

        let small = DeflateConfig {
            window_bits: bits(11),
            peer_window_bits: bits(12),
            ..keeping()
        };
        server_answers(&small, &[&pmd("")], Some(&pmd("; server_max_window_bits=11")));
        server_answers(
            &small,
            &[&pmd("; client_max_window_bits; server_max_window_bits=15")],
            Some(&pmd("; server_max_window_bits=11; client_max_window_bits=12")),
        );
    }

    #[test]
    fn server_declines_offers_that_are_not_valid_and_takes_the_first_that_is() {
        // checks [7692-5-2, 7692-5-3, 7692-5-9, 7692-7-2, 7692-7-3, 7692-7-4, 7692-7.1.1.1-1, 7692-7.1.1.2-1]
        // checks [7692-7.1.2.1-1, 7692-7.1.2.2-1]
        let keep = keeping();
        for bad in [
            "unknown",
            "server_no_context_takeover=1",
            "client_no_context_takeover=true",
            "server_no_context_takeover; server_no_context_takeover",
            "client_max_window_bits; client_max_window_bits",
            "client_max_window_bits=10; client_max_window_bits",
            "server_max_window_bits",
            "server_max_window_bits=7",
            "server_max_window_bits=16",
            "server_max_window_bits=0",
            "server_max_window_bits=08",
            "server_max_window_bits=+9",
            "server_max_window_bits=x",
            "server_max_window_bits=99999999999999999999",
            "client_max_window_bits=7",
            "client_max_window_bits=16",
            "client_max_window_bits=010",
            "server_max_window_bits=10; server_max_window_bits=11",
            "Server_No_Context_Takeover",
        ] {
            let bad = format!("permessage-deflate; {bad}");
            server_answers(&keep, &[&bad], None);
            server_answers(
                &keep,
                &[&format!("{bad}, permessage-deflate")],
                Some("permessage-deflate"),
            );
            server_answers(&keep, &[&bad, "permessage-deflate"], Some("permessage-deflate"));
        }
        server_answers(&keep, &["x-webkit-deflate-frame", "permessage-bzip2"], None);
        server_answers(&keep, &[], None);
    }

    #[test]
    fn server_and_client_agree_for_every_pair_of_configurations() {
        // checks [6455-9-2, 6455-9.1-4, 7692-5-1, 7692-5-4, 7692-7.1.1.2-2]
        let takeovers = [Takeover::Keep, Takeover::Reset];
        let mut configs: Vec<DeflateConfig> = vec![];
        for takeover in takeovers {
            for peer_takeover in takeovers {
                for window in [8, 9, 12, 15] {
                    for peer_window in [8, 10, 15] {
                        configs.push(DeflateConfig {
                            takeover,
                            peer_takeover,
                            window_bits: bits(window),
                            peer_window_bits: bits(peer_window),
                            ..DeflateConfig::default()
                        });
                    }
                }
            }
        }
        for client in &configs {
            for server in &configs {
                let offers: Vec<String> = client.offers().collect();
                assert_eq!(offers.len(), 1);
                let request = headers(&[&offers[0]]);
                let (answer, servers) = server.answer(request.extensions()).expect("a valid offer");
                let response = headers(&[&answer]);
                let clients = client
                    .accept(response.extensions())
                    .expect("a valid answer")
                    .expect("accepted");
                assert_eq!(servers.window_bits, clients.peer_window_bits, "{client:?} {server:?}");
                assert_eq!(servers.takeover, clients.peer_takeover);
                // A client may do less than the server has to expect of it.
                assert!(clients.window_bits <= servers.peer_window_bits);
                assert!(clients.takeover == servers.peer_takeover || clients.takeover == Takeover::Reset);
            }
        }
    }

    #[test]
    fn a_client_that_falls_back_takes_what_the_server_can_do() {
        // checks [7692-5-2]
        let mut config = DeflateConfig {
            peer_window_bits: bits(10),
            falls_back: true,
            ..DeflateConfig::default()
        };
        let offers: Vec<String> = config.offers().collect();
        let own = "client_no_context_takeover; client_max_window_bits";
        let first = "permessage-deflate; server_no_context_takeover; client_no_context_takeover; \
                     server_max_window_bits=10; client_max_window_bits";
        assert_eq!(offers, [first, &format!("permessage-deflate; {own}")]);

        let accept = |config: &DeflateConfig, answer: &str| config.accept(headers(&[answer]).extensions());
        let agreed = accept(&config, "permessage-deflate")
            .expect("it was offered")
            .expect("accepted");
        assert_eq!(
            (agreed.peer_takeover, agreed.peer_window_bits),
            (Takeover::Keep, WindowBits::MAX)
        );
        let strict = "permessage-deflate; server_no_context_takeover; server_max_window_bits=10";
        let agreed = accept(&config, strict).expect("it was offered").expect("accepted");
        assert_eq!(
            (agreed.peer_takeover, agreed.peer_window_bits),
            (Takeover::Reset, bits(10))
        );

        config.falls_back = false;
        assert_eq!(
            accept(&config, "permessage-deflate"),
            Err(HandshakeError::ExtensionMismatch),
            "the window is missing too"
        );
        config.falls_back = true;
        (config.peer_takeover, config.peer_window_bits) = (Takeover::Keep, WindowBits::MAX);
        assert_eq!(config.offers().count(), 1, "the second would be the first again");
    }

    /// libwebsockets#765: the offer is accepted, and the parameter in it ignored.
    #[test]
    fn client_names_a_server_that_ignores_no_context_takeover_and_can_accept_it() {
        let mut config = DeflateConfig::default();
        for answer in ["permessage-deflate", "permessage-deflate; client_no_context_takeover"] {
            let headers = headers(&[answer]);
            config.falls_back = false;
            let fault = config.accept(headers.extensions()).expect_err("ignored");
            assert_eq!(fault, HandshakeError::TakeoverIgnored);
            assert!(alloc::string::ToString::to_string(&fault).contains("falls_back"));
            config.falls_back = true;
            let agreed = config.accept(headers.extensions()).expect("allowed").expect("accepted");
            assert_eq!(agreed.peer_takeover, Takeover::Keep);
            // What the client asked of itself holds all the same.
            assert_eq!(agreed.takeover, Takeover::Reset);
        }
    }

    #[test]
    fn client_fails_on_answers_that_its_offer_does_not_allow() {
        // checks [7692-5-6, 7692-5-11, 7692-7-6, 7692-7-8, 7692-7-9, 7692-7.1.2.2-1]
        let config = DeflateConfig {
            window_bits: bits(12),
            peer_window_bits: bits(11),
            peer_takeover: Takeover::Reset,
            takeover: Takeover::Keep,
            ..DeflateConfig::default()
        };
        let good = "permessage-deflate; server_no_context_takeover; server_max_window_bits=11";
        let accept = |lines: &[&str]| config.accept(headers(lines).extensions());
        assert!(matches!(accept(&[good]), Ok(Some(_))));
        assert!(matches!(
            accept(&[&format!("{good}; client_max_window_bits=12")]),
            Ok(Some(_))
        ));
        assert_eq!(accept(&[]), Ok(None));
        for bad in [
            "permessage-deflate",
            "permessage-deflate; server_no_context_takeover",
            "permessage-deflate; server_no_context_takeover; server_max_window_bits=12",
            &format!("{good}; client_max_window_bits"),
            &format!("{good}; client_max_window_bits=13"),
            &format!("{good}; unknown"),
            &format!("{good}; server_no_context_takeover"),
            &format!("{good}, {good}"),
        ] {
            assert_eq!(accept(&[bad]), Err(HandshakeError::ExtensionMismatch), "{bad}");
        }
        let ignored = "permessage-deflate; server_max_window_bits=11";
        assert_eq!(accept(&[ignored]), Err(HandshakeError::TakeoverIgnored));
    }
}
