//! The parts of an opening request that a caller sets, and how those of a client and of one request are merged.

use std::fmt;

use http::{HeaderMap, HeaderName, HeaderValue, header};
use rand::random;
use sockeye_proto::handshake::{ClientRequest, HandshakeBuildError, Key, Origin, OriginError};

use crate::client::proxy::Proxy;
use crate::client::url::WebSocketUrl;
use crate::convert::{InvalidPart, wire_name};
use crate::settings::CommonOptions;

/// Headers that are not sent to another origin.
const CREDENTIALS: [HeaderName; 3] = [header::AUTHORIZATION, header::COOKIE, header::PROXY_AUTHORIZATION];

/// Whether a request contains the headers with credentials, which must not be sent to another origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HeaderCredentials {
    Sent,
    Dropped,
}

/// The parts that a caller adds to a request. Keeps the first invalid part until the request is built.
#[derive(Clone, Default)]
pub(crate) struct RequestParts {
    headers: HeaderMap,
    subprotocols: Option<Vec<String>>,
    origin: Option<Origin>,
    pub(crate) invalid: Option<InvalidPart>,
}

impl RequestParts {
    pub(crate) fn header<N>(&mut self, name: N, value: impl TryInto<HeaderValue>)
    where
        N: TryInto<HeaderName> + AsRef<[u8]>,
    {
        // Before the name is consumed.
        let invalid_name = InvalidPart::header_name(name.as_ref());
        let Ok(name) = name.try_into() else {
            self.invalid.get_or_insert(invalid_name);
            return;
        };
        match value.try_into() {
            Ok(value) => {
                if self.headers.try_append(&name, value).is_err() {
                    self.fail(
                        "header",
                        Some(wire_name(&name)),
                        HandshakeBuildError::InvalidHeaderValue,
                    );
                }
            }
            Err(_) => self.fail(
                "header",
                Some(wire_name(&name)),
                HandshakeBuildError::InvalidHeaderValue,
            ),
        }
    }

    pub(crate) fn headers(&mut self, headers: HeaderMap) {
        let mut last = None;
        for (name, value) in headers {
            // The map's iterator returns the name only with the first of its values.
            last = name.or(last);
            if let Some(name) = &last {
                self.header(name, value);
            }
        }
    }

    pub(crate) fn subprotocols<N: Into<String>>(&mut self, names: impl IntoIterator<Item = N>) {
        self.subprotocols = Some(names.into_iter().map(Into::into).collect());
    }

    /// Converts a proxy. Keeps the error, and returns `None`, if it is invalid.
    pub(crate) fn proxy(&mut self, proxy: impl TryInto<Proxy, Error: fmt::Display>) -> Option<Proxy> {
        let invalid = match proxy.try_into() {
            Ok(proxy) => return Some(proxy),
            Err(error) => InvalidPart::new("proxy", None, error),
        };
        self.invalid.get_or_insert(invalid);
        None
    }

    pub(crate) fn origin(&mut self, origin: impl TryInto<Origin>) {
        match origin.try_into() {
            Ok(origin) => self.origin = Some(origin),
            Err(_) => {
                self.invalid
                    .get_or_insert(InvalidPart::new("origin", None, OriginError));
            }
        }
    }

    pub(super) fn fail(&mut self, part: &'static str, name: Option<String>, reason: impl fmt::Display) {
        self.invalid.get_or_insert(InvalidPart::new(part, name, reason));
    }

    /// Builds the request to a URL from the `common` parts of a client and the `own` parts of the request. `own`
    /// replaces common headers of the same name.
    pub(crate) fn merge(
        common: &Self,
        own: &Self,
        url: &WebSocketUrl,
        options: &CommonOptions,
        credentials: HeaderCredentials,
        cookie: Option<HeaderValue>,
    ) -> Result<ClientRequest, InvalidPart> {
        // RFC 6455 §4.1: the nonce is chosen at random for each connection. [6455-4.1-22]
        let key = Key::from_bytes(random());
        let mut request = ClientRequest::new(url.uri(), key).limits(options.handshake_limits());
        let is_sent = |name: &HeaderName| credentials == HeaderCredentials::Sent || !CREDENTIALS.contains(name);
        let has = |name: HeaderName| {
            let is_present = common.headers.contains_key(&name) || own.headers.contains_key(&name);
            is_present && is_sent(&name)
        };
        if let Some(authorization) = url.authorization()
            && !has(header::AUTHORIZATION)
        {
            request = add_header(request, "Authorization".to_owned(), authorization.as_bytes())?;
        }
        let common_headers = common
            .headers
            .iter()
            .filter(|(name, _)| !own.headers.contains_key(*name));
        for (name, value) in common_headers.chain(&own.headers).filter(|(name, _)| is_sent(name)) {
            request = add_header(request, wire_name(name), value.as_bytes())?;
        }
        if let Some(cookie) = cookie
            && !has(header::COOKIE)
        {
            request = add_header(request, "Cookie".to_owned(), cookie.as_bytes())?;
        }
        for name in own
            .subprotocols
            .as_ref()
            .or(common.subprotocols.as_ref())
            .into_iter()
            .flatten()
        {
            let offer = request.subprotocol(name);
            request = offer.map_err(|reason| InvalidPart::new("subprotocol", Some(name.clone()), reason))?;
        }
        if let Some(origin) = own.origin.as_ref().or(common.origin.as_ref()) {
            request = request.origin(origin.clone());
        }
        if let Some(deflate) = &options.deflate {
            for offer in deflate.offers() {
                let extension = request.extension(&offer);
                request = extension.map_err(|reason| InvalidPart::new("extension", Some(offer), reason))?;
            }
        }
        Ok(request)
    }
}

fn add_header(request: ClientRequest, name: String, value: &[u8]) -> Result<ClientRequest, InvalidPart> {
    let header = request.header(&name, value);
    header.map_err(|reason| InvalidPart::new("header", Some(name), reason))
}

/// Omits the values of headers, which may be credentials.
impl fmt::Debug for RequestParts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequestParts")
            .field(
                "headers",
                &self.headers.keys().map(HeaderName::as_str).collect::<Vec<_>>(),
            )
            .field("subprotocols", &self.subprotocols)
            .field("origin", &self.origin)
            .finish_non_exhaustive()
    }
}
