//! Negotiation of permessage-deflate: offers, responses and the resulting parameters (RFC 7692 §5, §7.1).

use alloc::borrow::Cow;
use alloc::format;
use alloc::string::String;

use crate::handshake::{Extension, HandshakeError};

/// The name of the extension in `Sec-WebSocket-Extensions`.
// [6455-9.1-3, 7692-7-1]
const NAME: &str = "permessage-deflate";

const SERVER_NO_CONTEXT_TAKEOVER: &str = "server_no_context_takeover";
const CLIENT_NO_CONTEXT_TAKEOVER: &str = "client_no_context_takeover";
const SERVER_MAX_WINDOW_BITS: &str = "server_max_window_bits";
const CLIENT_MAX_WINDOW_BITS: &str = "client_max_window_bits";

/// The base-2 logarithm of the LZ77 window size: 8 to 15, that is, 256 bytes to 32 KiB (RFC 7692 §7.1.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WindowBits(u8);

impl WindowBits {
    /// 8 bits, 256 bytes. zlib cannot compress with this window, so an endpoint limited to it sends messages
    /// uncompressed.
    pub const MIN: Self = Self(8);
    /// 15 bits, 32 KiB. Applies if no window size is negotiated.
    // No window may be larger. [7692-7.2.1-9]
    pub const MAX: Self = Self(15);

    /// A window of 2^`bits` bytes. Returns `None` unless `bits` is 8 to 15.
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

/// Whether the compression context (LZ77 window) is kept between messages (RFC 7692 §7.1.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Takeover {
    /// Keep the context: messages may refer back to earlier ones. Small similar messages compress several times better,
    /// but each connection keeps up to one window in memory per direction.
    Keep,
    /// Reset the context after each message. An idle connection uses no memory for compression, and the compressed
    /// length of one message reveals nothing about another.
    Reset,
}

/// Configuration of permessage-deflate for this endpoint.
///
/// Negotiation with the peer may result in smaller windows or less context takeover: see [`NegotiatedParams`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DeflateConfig {
    /// Compression level, 1 (fastest) to 9 (smallest); other values are clamped. Default 1.
    ///
    /// For messages of a few KiB, higher levels save few bytes and take several times as long.
    pub level: u8,
    /// zlib memory level of a compressor, 1 to 9; other values are clamped. Default 8.
    ///
    /// Affects the memory of pooled codecs, not of connections.
    pub memory_level: u8,
    /// Messages smaller than this many bytes are sent uncompressed. Default 128: smaller messages rarely get smaller.
    pub size_min: usize,
    /// Context takeover for messages that this endpoint sends. Default [`Takeover::Reset`].
    pub takeover: Takeover,
    /// Context takeover for messages from the peer. Default [`Takeover::Reset`].
    ///
    /// With [`Takeover::Reset`], a client requests `server_no_context_takeover`. A server that does not support it
    /// declines the offer, and messages are not compressed. A server that accepts the offer but ignores the parameter
    /// (libwebsockets has done so) violates RFC 7692 §7.1.1.1, and the handshake fails with
    /// [`HandshakeError::NoContextTakeoverIgnored`]. Set [`allow_fallback`](Self::allow_fallback) to accept both.
    pub peer_takeover: Takeover,
    /// Maximum window for messages that this endpoint sends. Default 15 bits (32 KiB).
    ///
    /// With context takeover, a smaller window saves memory per connection on both sides. With 8 bits, messages are
    /// sent uncompressed, because zlib does not support that window.
    pub window_bits: WindowBits,
    /// Maximum window requested for messages from the peer. Default 15 bits (32 KiB).
    pub peer_window_bits: WindowBits,
    /// Whether a client makes a second offer that does not restrict the server (RFC 7692 §5). Default `false`.
    ///
    /// The server may then use context takeover and any window, even if [`peer_takeover`](Self::peer_takeover) or
    /// [`peer_window_bits`](Self::peer_window_bits) ask for less. Set this to compress with servers that do not
    /// support, or ignore, `server_no_context_takeover` or `server_max_window_bits`. Such connections use up to 32 KiB
    /// more memory, and the peer's messages may refer back to each other (see RFC 7692 §8 for the security
    /// implications).
    pub allow_fallback: bool,
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
            allow_fallback: false,
        }
    }
}

/// Chainable setters, one for each field. The field documents the default.
impl DeflateConfig {
    /// Sets [`level`](field@Self::level).
    #[must_use]
    pub fn level(mut self, value: u8) -> Self {
        self.level = value;
        self
    }

    /// Sets [`memory_level`](field@Self::memory_level).
    #[must_use]
    pub fn memory_level(mut self, value: u8) -> Self {
        self.memory_level = value;
        self
    }

    /// Sets [`size_min`](field@Self::size_min).
    #[must_use]
    pub fn size_min(mut self, value: usize) -> Self {
        self.size_min = value;
        self
    }

    /// Sets [`takeover`](field@Self::takeover).
    #[must_use]
    pub fn takeover(mut self, value: Takeover) -> Self {
        self.takeover = value;
        self
    }

    /// Sets [`peer_takeover`](field@Self::peer_takeover).
    #[must_use]
    pub fn peer_takeover(mut self, value: Takeover) -> Self {
        self.peer_takeover = value;
        self
    }

    /// Sets [`window_bits`](field@Self::window_bits).
    #[must_use]
    pub fn window_bits(mut self, value: WindowBits) -> Self {
        self.window_bits = value;
        self
    }

    /// Sets [`peer_window_bits`](field@Self::peer_window_bits).
    #[must_use]
    pub fn peer_window_bits(mut self, value: WindowBits) -> Self {
        self.peer_window_bits = value;
        self
    }

    /// Sets [`allow_fallback`](field@Self::allow_fallback).
    #[must_use]
    pub fn allow_fallback(mut self, value: bool) -> Self {
        self.allow_fallback = value;
        self
    }
}

/// The negotiated parameters of permessage-deflate, fixed for the life of the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NegotiatedParams {
    /// Context takeover for messages that this endpoint sends.
    pub takeover: Takeover,
    /// Context takeover for messages from the peer.
    pub peer_takeover: Takeover,
    /// Maximum window for messages that this endpoint sends.
    pub window_bits: WindowBits,
    /// Maximum window for messages from the peer.
    pub peer_window_bits: WindowBits,
}

/// The parsed parameters of one offer or response.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Params {
    server_no_context_takeover: bool,
    client_no_context_takeover: bool,
    server_max_window_bits: Option<WindowBits>,
    /// `Some(None)`: present without a value, which is legal in offers only.
    client_max_window_bits: Option<Option<WindowBits>>,
}

impl Params {
    /// Parses the parameters. Returns `None` if one is unknown, repeated or invalid (RFC 7692 §7.1).
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

    /// Sets one parameter. Returns whether it was unset before, or `None` if it is unknown or invalid.
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
    /// Accepts the first acceptable offer of a client's request, as a server.
    ///
    /// Returns the extension to put into the response and the negotiated parameters. Returns `None` if there is no
    /// acceptable offer; messages are then not compressed.
    // [7692-5-2, 7692-5-3, 7692-5-4, 7692-5-9]
    pub fn answer<'a>(&self, offers: impl IntoIterator<Item = Extension<'a>>) -> Option<(String, NegotiatedParams)> {
        let mut offers = offers.into_iter().filter(|offer| offer.name() == NAME);
        offers.find_map(|offer| Some(self.answer_one(Params::read(offer)?)))
    }

    fn answer_one(&self, offer: Params) -> (String, NegotiatedParams) {
        // RFC 7692 §7.1.1.1: the response must repeat server_no_context_takeover; a server may also include it unasked.
        // [7692-7.1.1.1-2, 7692-7.1.1.1-3]
        let takeover = match offer.server_no_context_takeover {
            true => Takeover::Reset,
            false => self.takeover,
        };
        // §7.1.2.1: the response to server_max_window_bits must contain that value or a smaller one. [7692-7.1.2.1-2]
        let window_bits = offer
            .server_max_window_bits
            .map_or(self.window_bits, |asked| asked.min(self.window_bits));
        let include_window = offer.server_max_window_bits.is_some() || window_bits < WindowBits::MAX;
        // §7.1.1.2: the server may always forbid context takeover; a client that offers no takeover does without
        // anyway.
        // [7692-7.2.2-4]
        let peer_takeover = match offer.client_no_context_takeover {
            true => Takeover::Reset,
            false => self.peer_takeover,
        };
        // §7.1.2.2: the client's window may be limited only if the client offered client_max_window_bits.
        // [7692-7.1.2.2-2, 7692-7.1.2.2-3]
        let peer_window_bits = match offer.client_max_window_bits {
            Some(asked) => asked.unwrap_or(WindowBits::MAX).min(self.peer_window_bits),
            None => WindowBits::MAX,
        };
        let answer = Params {
            server_no_context_takeover: takeover == Takeover::Reset,
            client_no_context_takeover: peer_takeover == Takeover::Reset,
            server_max_window_bits: include_window.then_some(window_bits),
            client_max_window_bits: (peer_window_bits < WindowBits::MAX).then_some(Some(peer_window_bits)),
        };
        let params = NegotiatedParams {
            takeover,
            peer_takeover,
            window_bits,
            peer_window_bits,
        };
        (answer.write(), params)
    }

    /// The offers for a client's request, in order of preference: one, plus an unrestricted second one if
    /// [`allow_fallback`](Self::allow_fallback) is set.
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
        let allow_fallback = self.allow_fallback && second != first;
        core::iter::once(first).chain(allow_fallback.then_some(second))
    }

    fn first_offer(&self) -> Params {
        Params {
            server_no_context_takeover: self.peer_takeover == Takeover::Reset,
            client_no_context_takeover: self.takeover == Takeover::Reset,
            server_max_window_bits: (self.peer_window_bits < WindowBits::MAX).then_some(self.peer_window_bits),
            // §7.1.2.2: always included, so that the server may limit our window; with a value if we limit it
            // ourselves.
            client_max_window_bits: Some((self.window_bits < WindowBits::MAX).then_some(self.window_bits)),
        }
    }

    /// Validates the extensions of a server's response against the [`offers`](Self::offers), as a client.
    ///
    /// Returns `None` if the server declined permessage-deflate.
    ///
    /// # Errors
    ///
    /// The handshake must fail (RFC 7692 §5.1, §7.1) with
    ///
    /// - [`HandshakeError::NoContextTakeoverIgnored`] if only `server_no_context_takeover` is missing in the response,
    /// - [`HandshakeError::ExtensionMismatch`] if the response does not match an offer otherwise, or names the
    ///   extension more than once.
    // [7692-5-6, 7692-5-11]
    pub fn accept<'a>(
        &self,
        answers: impl IntoIterator<Item = Extension<'a>>,
    ) -> Result<Option<NegotiatedParams>, HandshakeError> {
        let mut answers = answers.into_iter().filter(|answer| answer.name() == NAME);
        let Some(answer) = answers.next() else {
            return Ok(None);
        };
        let params =
            Params::read(answer).and_then(|answer| self.offered().find_map(|offer| self.accept_one(offer, answer)));
        match (params, answers.next()) {
            (Some(params), None) => Ok(Some(params)),
            (None, None) if self.is_only_takeover_ignored(answer) => Err(HandshakeError::NoContextTakeoverIgnored),
            _ => Err(HandshakeError::ExtensionMismatch),
        }
    }

    /// Whether a rejected response would be acceptable with `server_no_context_takeover` added, which means that the
    /// server ignored the parameter.
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
        // §7.1.1.1: a server that accepts the offer must include the parameter in its response. [7692-7-9]
        if offer.server_no_context_takeover && !answer.server_no_context_takeover {
            return None;
        }
        let peer_window_bits = match (offer.server_max_window_bits, answer.server_max_window_bits) {
            (None, answered) => answered.unwrap_or(WindowBits::MAX),
            (Some(asked), Some(answered)) if answered <= asked => answered,
            (Some(_), _) => return None,
        };
        let window_bits = match answer.client_max_window_bits {
            // §7.1.2.2: in a response, the parameter must have a value. [7692-7.1.2.2-1]
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

    fn with_takeover() -> DeflateConfig {
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
    fn server_response_combines_the_offer_and_its_configuration() {
        // checks [6455-9-2, 6455-9.1-3, 6455-9.1-4, 7692-5-4, 7692-7-1, 7692-7.1.1.1-2, 7692-7.1.1.1-3]
        // checks [7692-7.1.2.1-2, 7692-7.1.2.2-2, 7692-7.1.2.2-3, 7692-7.2.2-4]
        let pmd = |rest: &str| format!("permessage-deflate{rest}");
        let keep = with_takeover();
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
            ..with_takeover()
        };
        server_answers(&small, &[&pmd("")], Some(&pmd("; server_max_window_bits=11")));
        server_answers(
            &small,
            &[&pmd("; client_max_window_bits; server_max_window_bits=15")],
            Some(&pmd("; server_max_window_bits=11; client_max_window_bits=12")),
        );
    }

    #[test]
    fn server_skips_invalid_offers_and_accepts_the_first_valid_one() {
        // checks [7692-5-2, 7692-5-3, 7692-5-9, 7692-7-2, 7692-7-3, 7692-7-4, 7692-7.1.1.1-1, 7692-7.1.1.2-1]
        // checks [7692-7.1.2.1-1, 7692-7.1.2.2-1]
        let keep = with_takeover();
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
    fn client_with_fallback_accepts_an_unrestricted_server() {
        // checks [7692-5-2]
        let mut config = DeflateConfig {
            peer_window_bits: bits(10),
            allow_fallback: true,
            ..DeflateConfig::default()
        };
        let offers: Vec<String> = config.offers().collect();
        let own = "client_no_context_takeover; client_max_window_bits";
        let first = "permessage-deflate; server_no_context_takeover; client_no_context_takeover; \
                     server_max_window_bits=10; client_max_window_bits";
        assert_eq!(offers, [first, &format!("permessage-deflate; {own}")]);

        let accept = |config: &DeflateConfig, answer: &str| config.accept(headers(&[answer]).extensions());
        let negotiated = accept(&config, "permessage-deflate")
            .expect("a valid response")
            .expect("accepted");
        assert_eq!(
            (negotiated.peer_takeover, negotiated.peer_window_bits),
            (Takeover::Keep, WindowBits::MAX)
        );
        let strict = "permessage-deflate; server_no_context_takeover; server_max_window_bits=10";
        let negotiated = accept(&config, strict).expect("a valid response").expect("accepted");
        assert_eq!(
            (negotiated.peer_takeover, negotiated.peer_window_bits),
            (Takeover::Reset, bits(10))
        );

        config.allow_fallback = false;
        assert_eq!(
            accept(&config, "permessage-deflate"),
            Err(HandshakeError::ExtensionMismatch),
            "the window parameter is missing too"
        );
        config.allow_fallback = true;
        (config.peer_takeover, config.peer_window_bits) = (Takeover::Keep, WindowBits::MAX);
        assert_eq!(config.offers().count(), 1, "the second offer would equal the first");
    }

    /// libwebsockets#765: the server accepts the offer but ignores the parameter.
    #[test]
    fn client_reports_ignored_no_context_takeover_unless_fallback_is_allowed() {
        let mut config = DeflateConfig::default();
        for answer in ["permessage-deflate", "permessage-deflate; client_no_context_takeover"] {
            let headers = headers(&[answer]);
            config.allow_fallback = false;
            let error = config.accept(headers.extensions()).expect_err("ignored");
            assert_eq!(error, HandshakeError::NoContextTakeoverIgnored);
            assert!(alloc::string::ToString::to_string(&error).contains("allow_fallback"));
            config.allow_fallback = true;
            let negotiated = config.accept(headers.extensions()).expect("allowed").expect("accepted");
            assert_eq!(negotiated.peer_takeover, Takeover::Keep);
            // The restriction that the client put on itself still applies.
            assert_eq!(negotiated.takeover, Takeover::Reset);
        }
    }

    #[test]
    fn client_rejects_responses_that_do_not_match_its_offer() {
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
        assert_eq!(accept(&[ignored]), Err(HandshakeError::NoContextTakeoverIgnored));
    }
}
