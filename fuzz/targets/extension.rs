//! `Sec-WebSocket-Extensions` in both directions: parsed like the reference parser, answered as RFC 7692 allows, and
//! every response of our server accepted by our client.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sockeye_fuzz::grammar::{self, Deflate, Element};
use sockeye_fuzz::memory::Meter;
use sockeye_proto::deflate::{DeflateConfig, NegotiatedParams, Takeover, WindowBits};
use sockeye_proto::handshake::{HandshakeError, Headers, HttpVersion, Incoming, UpgradeParts};

const NAME: &str = "Sec-WebSocket-Extensions";

fuzz_target!(|input: &[u8]| {
    let [server, client, windows, more_windows, made, values, text @ ..] = input else {
        return;
    };
    let server = config(*server, *windows);
    let client = config(*client, *more_windows);
    check_client_accepts_server_response(&server, &client);
    // Mutation takes long to find four valid parameters, so generate an element as well.
    let made = made_element(*made, *values);
    let mut headers = Headers::new();
    headers.try_append(NAME, &made).expect("valid");
    let elements = grammar::list(made.as_bytes()).expect("valid syntax");
    check_server_response(&server, &headers, &elements);
    check_client_acceptance(&client, &headers, &elements);

    let mut headers = Headers::new();
    let mut expected = Some(vec![]);
    // One header per line. A line that is not a valid header value ends the input.
    for line in text.split(|byte| *byte == b'\n') {
        if headers.try_append(NAME, line).is_err() {
            return;
        }
        let elements = grammar::list(line.trim_ascii());
        expected = expected.zip(elements).map(|(all, elements)| [all, elements].concat());
    }
    check_parsed_list(&headers, expected.as_deref());
    let elements = expected.unwrap_or_default();
    check_server_response(&server, &headers, &elements);
    check_client_acceptance(&client, &headers, &elements);
});

/// A configuration: the bits of `choices` select context takeover, the nibbles of `windows` the window sizes.
fn config(choices: u8, windows: u8) -> DeflateConfig {
    let takeover = |bit: u8| {
        if choices >> bit & 1 == 0 {
            Takeover::Reset
        } else {
            Takeover::Keep
        }
    };
    let bits = |nibble: u8| WindowBits::new(8 + (nibble & 7)).expect("8 to 15");
    let mut config = DeflateConfig::default();
    config.takeover = takeover(0);
    config.peer_takeover = takeover(1);
    config.window_bits = bits(windows);
    config.peer_window_bits = bits(windows >> 4);
    // The window sizes use three bits of each nibble.
    config.allow_fallback = windows & 0x08 != 0;
    config
}

/// An element with any set of valid parameters.
fn made_element(choices: u8, values: u8) -> String {
    let mut element = String::from("permessage-deflate");
    let (server_bits, client_bits) = (8 + (values & 7), 8 + (values >> 4 & 7));
    for (bit, param) in [
        (0, "server_no_context_takeover".to_owned()),
        (1, "client_no_context_takeover".to_owned()),
        (2, format!("server_max_window_bits={server_bits}")),
        (3, format!("client_max_window_bits={client_bits}")),
        (4, "client_max_window_bits".to_owned()),
    ] {
        if choices >> bit & 1 == 1 {
            element = element + "; " + &param;
        }
    }
    element
}

fn check_parsed_list(headers: &Headers, expected: Option<&[Element]>) {
    let mut all = Headers::new();
    for (name, value) in [
        ("Host", "h"),
        ("Upgrade", "websocket"),
        ("Connection", "Upgrade"),
        ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Key", "x3JJHMbDL1EzLkh9GBhXDw=="),
    ] {
        all.try_append(name, value).expect("valid");
    }
    let mut len = 0;
    for (name, value) in headers.iter() {
        len += value.as_bytes().len();
        all.append(name, value);
    }
    let parts = UpgradeParts {
        method: "GET",
        target: "/",
        version: HttpVersion::HTTP_11,
        headers: all,
    };
    let meter = Meter::start();
    let incoming = Incoming::from_upgrade(parts);
    // Elements are parsed in place; only a quoted value with escapes is copied temporarily.
    assert!(
        meter.peak() <= 2 * len + 2048 && meter.asked() <= 8 * len + 2048,
        "{} bytes held",
        meter.peak()
    );
    match (incoming, expected) {
        (Ok(incoming), Some(expected)) => {
            let read: Vec<_> = incoming.request().extensions().map(element).collect();
            assert_eq!(read, expected);
        }
        (Err(invalid), None) => assert_eq!(invalid.error, HandshakeError::ExtensionsInvalid),
        (incoming, expected) => panic!("{incoming:?}, but the reference is {expected:?}"),
    }
}

fn check_server_response(server: &DeflateConfig, headers: &Headers, offers: &[Element]) {
    let mut usable = offers
        .iter()
        .filter(|offer| offer.name == "permessage-deflate")
        .filter_map(Element::deflate);
    // Malformed lists are rejected earlier; the elements before the error are not checked here.
    if offers.is_empty() {
        return;
    }
    match (server.answer(headers.extensions()), usable.next()) {
        (None, None) => {}
        (Some((answer, params)), Some(offer)) => {
            let answer = only_deflate(&answer);
            assert!(answer.may_answer(&offer), "{answer:?} to {offer:?}");
            assert_eq!(params.takeover == Takeover::Reset, answer.server_reset);
            assert_eq!(params.peer_takeover == Takeover::Reset, answer.client_reset);
            assert_eq!(params.window_bits.bits(), answer.server_bits.unwrap_or(15));
            assert_eq!(
                params.peer_window_bits.bits(),
                answer.client_bits.flatten().unwrap_or(15)
            );
            // The response must not exceed the configuration.
            assert!(params.takeover == Takeover::Reset || server.takeover == Takeover::Keep);
            assert!(params.window_bits <= server.window_bits);
        }
        (answer, offer) => panic!("{answer:?} to {offer:?}"),
    }
}

fn check_client_acceptance(client: &DeflateConfig, headers: &Headers, answers: &[Element]) {
    let offers: Vec<_> = client.offers().map(|offer| only_deflate(&offer)).collect();
    let ours: Vec<_> = answers
        .iter()
        .filter(|answer| answer.name == "permessage-deflate")
        .collect();
    if answers.is_empty() {
        return;
    }
    let params = client.accept(headers.extensions());
    let usable = match &ours[..] {
        [] => return assert_eq!(params, Ok(None)),
        [answer] => {
            let may_answer = |answer: &Deflate| offers.iter().any(|offer| answer.may_answer(offer));
            answer.deflate().filter(may_answer)
        }
        _ => None,
    };
    match (params, usable) {
        (Ok(Some(params)), Some(answer)) => check_client_params(client, &params, &answer),
        (Err(HandshakeError::ExtensionMismatch | HandshakeError::NoContextTakeoverIgnored), None) => {}
        (params, answer) => panic!("{params:?} from {answer:?} to {offers:?}"),
    }
}

/// Checks the parameters that a client derives from a response (RFC 7692 §7.1).
fn check_client_params(client: &DeflateConfig, params: &NegotiatedParams, answer: &Deflate) {
    assert_eq!(params.peer_takeover == Takeover::Reset, answer.server_reset);
    assert_eq!(params.peer_window_bits.bits(), answer.server_bits.unwrap_or(15));
    let keeps = client.takeover == Takeover::Keep && !answer.client_reset;
    assert_eq!(params.takeover == Takeover::Keep, keeps);
    let bits = answer
        .client_bits
        .flatten()
        .unwrap_or(15)
        .min(client.window_bits.bits());
    assert_eq!(params.window_bits.bits(), bits);
}

fn check_client_accepts_server_response(server: &DeflateConfig, client: &DeflateConfig) {
    let header = |text: &str| {
        let mut headers = Headers::new();
        headers.try_append(NAME, text).expect("valid");
        headers
    };
    let offers: Vec<_> = client.offers().collect();
    let offers = header(&offers.join(", "));
    let (answer, servers) = server.answer(offers.extensions()).expect("an offer");
    let clients = client
        .accept(header(&answer).extensions())
        .expect("an answer to it")
        .expect("accepted");
    // Each side expects at least what the other may use.
    assert_eq!(
        (clients.peer_takeover, clients.peer_window_bits),
        (servers.takeover, servers.window_bits)
    );
    assert!(servers.peer_window_bits >= clients.window_bits);
    assert!(servers.peer_takeover == Takeover::Keep || clients.takeover == Takeover::Reset);
}

fn only_deflate(text: &str) -> Deflate {
    let elements = grammar::list(text.as_bytes()).expect("valid syntax");
    let [element] = &elements[..] else {
        panic!("one element: {text}")
    };
    assert_eq!(element.name, "permessage-deflate");
    element.deflate().expect("valid parameters")
}

fn element(extension: sockeye_proto::handshake::Extension<'_>) -> Element {
    let params = extension
        .params()
        .map(|(name, value)| (name.to_owned(), value.map(String::from)));
    Element {
        name: extension.name().to_owned(),
        params: params.collect(),
    }
}
