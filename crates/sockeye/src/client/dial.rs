//! From a URI to a TCP connection: name resolution, and racing the addresses of a host (Happy Eyeballs, RFC 8305).
//!
//! Addresses are tried in the resolver's order, with A and AAAA results interleaved (§4). The next attempt starts when
//! one fails, or 250 ms after the last one started (§5); earlier attempts continue. The first connection wins, and the
//! others are dropped. So an address that does not answer costs 250 ms.
//!
//! The system's resolver returns both families in one answer, sorted by RFC 6724, so no resolution delay is needed
//! (§3).

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use sockeye_proto::handshake::Uri;
use tokio::net::{TcpSocket, TcpStream, lookup_host};
use tokio::time::timeout;

use crate::error::connect::{Attempt, ConnectFailure, TimeLimit};
use crate::error::{ConnectError, Error, Kind};
use crate::transport::socket::set_tcp_options;

/// RFC 8305 §5: the recommended connection attempt delay.
const ATTEMPT_DELAY: Duration = Duration::from_millis(250);

/// Maximum number of addresses that are tried. At 250 ms each, the default timeout allows 40.
const ADDRESSES_MAX: usize = 64;

type ResolveFuture = Pin<Box<dyn Future<Output = io::Result<Vec<SocketAddr>>> + Send>>;

/// A custom resolver.
#[derive(Clone)]
struct Resolver(Arc<dyn Fn(String, u16) -> ResolveFuture + Send + Sync>);

impl fmt::Debug for Resolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Resolver")
    }
}

/// Connects a client: resolver and local addresses.
#[derive(Clone, Debug, Default)]
pub(crate) struct Dialer {
    resolver: Option<Resolver>,
    local_v4: Option<SocketAddr>,
    local_v6: Option<SocketAddr>,
}

impl Dialer {
    pub(crate) fn set_resolver<R, F>(&mut self, resolve: R)
    where
        R: Fn(String, u16) -> F + Send + Sync + 'static,
        F: Future<Output = io::Result<Vec<SocketAddr>>> + Send + 'static,
    {
        self.resolver = Some(Resolver(Arc::new(move |host, port| Box::pin(resolve(host, port)))));
    }

    pub(crate) fn set_local_address(&mut self, address: SocketAddr) {
        match address {
            SocketAddr::V4(_) => self.local_v4 = Some(address),
            SocketAddr::V6(_) => self.local_v6 = Some(address),
        }
    }

    #[cfg(all(unix, feature = "blocking"))]
    pub(crate) fn has_resolver(&self) -> bool {
        self.resolver.is_some()
    }

    /// Connects to the host and port of a URI within a time, and disables Nagle's algorithm.
    // RFC 6455 §4.1: without a proxy, connect to host and port directly; fail if that fails. [6455-4.1-8, 6455-4.1-10]
    pub(crate) async fn connect(&self, uri: &Uri, limit: TimeLimit) -> Result<TcpStream, Error> {
        // Declared outside of the timed future, so that a timeout error can list the attempts.
        let mut attempts = vec![];
        let dialing = async {
            let addresses = self.resolve(uri).await?;
            let connect = |address| connect_tcp(address, self.local_for(address));
            let connected = race(addresses, connect, &mut attempts).await;
            connected.ok_or(ConnectFailure::Failed)
        };
        let cause = match timeout(limit.duration, dialing).await {
            Ok(Ok(tcp)) => return Ok(tcp),
            Ok(Err(cause)) => cause,
            Err(_) => ConnectFailure::TimedOut(limit),
        };
        Err(Error::new(Kind::Connect(ConnectError {
            target: target(uri),
            cause,
            attempts,
        })))
    }

    /// Resolves the host of a URI to its first address, for a proxy that does not resolve names.
    pub(crate) async fn first_address(&self, uri: &Uri) -> Result<SocketAddr, Error> {
        let addresses = self.resolve(uri).await;
        addresses.map(|addresses| addresses[0]).map_err(|cause| {
            Error::new(Kind::Connect(ConnectError {
                target: target(uri),
                cause,
                attempts: vec![],
            }))
        })
    }

    /// Resolves the host of a URI to at least one address.
    async fn resolve(&self, uri: &Uri) -> Result<Vec<SocketAddr>, ConnectFailure> {
        let (host, port) = (uri.host(), uri.port());
        let addresses = match (uri.zone(), host.parse::<IpAddr>()) {
            (None, Ok(ip)) => vec![SocketAddr::new(ip, port)],
            // The system resolves the interface name to its index.
            (Some(zone), _) => system_addresses(&format!("{host}%{zone}"), port).await?,
            (None, Err(_)) => match &self.resolver {
                Some(resolver) => (resolver.0)(host.to_owned(), port)
                    .await
                    .map_err(ConnectFailure::Unresolved)?,
                None => system_addresses(host, port).await?,
            },
        };
        self.in_order(addresses)
    }

    /// Orders a host's addresses for connecting: families alternate. Fails if there are none, or if no local address
    /// has a matching family.
    pub(crate) fn in_order(&self, addresses: Vec<SocketAddr>) -> Result<Vec<SocketAddr>, ConnectFailure> {
        if addresses.is_empty() {
            return Err(ConnectFailure::NoAddress);
        }
        let addresses = interleave(addresses);
        let usable: Vec<_> = addresses.iter().copied().filter(|it| self.is_usable(*it)).collect();
        match usable.is_empty() {
            true => Err(ConnectFailure::FamilyMismatch(addresses)),
            false => Ok(usable),
        }
    }

    /// Whether there is a local address of the same family, or none at all.
    fn is_usable(&self, address: SocketAddr) -> bool {
        let is_bound = self.local_v4.is_some() || self.local_v6.is_some();
        !is_bound || self.local_for(address).is_some()
    }

    /// The local address to bind for connections to `address`.
    pub(crate) fn local_for(&self, address: SocketAddr) -> Option<SocketAddr> {
        match address {
            SocketAddr::V4(_) => self.local_v4,
            SocketAddr::V6(_) => self.local_v6,
        }
    }
}

async fn system_addresses(host: &str, port: u16) -> Result<Vec<SocketAddr>, ConnectFailure> {
    let addresses = lookup_host((host, port)).await.map_err(ConnectFailure::Unresolved)?;
    Ok(addresses.collect())
}

async fn connect_tcp(address: SocketAddr, local: Option<SocketAddr>) -> io::Result<TcpStream> {
    let tcp = match local {
        None => TcpStream::connect(address).await?,
        Some(local) => {
            let socket = match address {
                SocketAddr::V4(_) => TcpSocket::new_v4()?,
                SocketAddr::V6(_) => TcpSocket::new_v6()?,
            };
            socket.bind(local)?;
            socket.connect(address).await?
        }
    };
    set_tcp_options(&tcp)?;
    Ok(tcp)
}

/// RFC 8305 §4: alternates the families, beginning with that of the first address. Keeps the order within a family.
fn interleave(addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let mut unique: Vec<SocketAddr> = vec![];
    for address in addresses {
        if unique.len() < ADDRESSES_MAX && !unique.contains(&address) {
            unique.push(address);
        }
    }
    let first_is_v6 = unique.first().is_some_and(SocketAddr::is_ipv6);
    let (first, second): (Vec<_>, Vec<_>) = unique.into_iter().partition(|it| it.is_ipv6() == first_is_v6);
    let (mut first, mut second) = (first.into_iter(), second.into_iter());
    let mut interleaved = vec![];
    loop {
        match (first.next(), second.next()) {
            (None, None) => return interleaved,
            (a, b) => interleaved.extend(a.into_iter().chain(b)),
        }
    }
}

/// RFC 8305 §5: returns the first connection, or `None` once every attempt has failed.
async fn race<T, F>(
    addresses: Vec<SocketAddr>,
    connect: impl Fn(SocketAddr) -> F,
    attempts: &mut Vec<Attempt>,
) -> Option<T>
where
    F: Future<Output = io::Result<T>>,
{
    let mut waiting = addresses.into_iter();
    let mut running: Vec<(usize, Pin<Box<F>>)> = vec![];
    loop {
        if let Some(address) = waiting.next() {
            running.push((attempts.len(), Box::pin(connect(address))));
            attempts.push(Attempt { address, error: None });
        } else if running.is_empty() {
            return None;
        }
        let ended = poll_fn(|cx| poll_ended(&mut running, attempts, cx));
        let ended = match waiting.len() {
            0 => Some(ended.await),
            _ => timeout(ATTEMPT_DELAY, ended).await.ok(),
        };
        if let Some(Some(connected)) = ended {
            return Some(connected);
        }
    }
}

/// Ready with a connection, or with `None` once at least one attempt has failed.
fn poll_ended<T, F>(
    running: &mut Vec<(usize, Pin<Box<F>>)>,
    attempts: &mut [Attempt],
    cx: &mut Context<'_>,
) -> Poll<Option<T>>
where
    F: Future<Output = io::Result<T>>,
{
    let running_len = running.len();
    let mut connected = None;
    running.retain_mut(|(idx, attempt)| {
        if connected.is_some() {
            return true;
        }
        match attempt.as_mut().poll(cx) {
            Poll::Pending => return true,
            Poll::Ready(Ok(ready)) => connected = Some(ready),
            Poll::Ready(Err(error)) => attempts[*idx].error = Some(error),
        }
        false
    });
    match connected {
        None if running.len() == running_len => Poll::Pending,
        connected => Poll::Ready(connected),
    }
}

/// Host and port, with brackets around IPv6 addresses.
pub(crate) fn target(uri: &Uri) -> String {
    let (host, port) = (uri.host(), uri.port());
    match (uri.zone(), host.contains(':')) {
        (Some(zone), _) => format!("[{host}%{zone}]:{port}"),
        (None, true) => format!("[{host}]:{port}"),
        (None, false) => format!("{host}:{port}"),
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::rc::Rc;

    use tokio::time::{Instant, sleep};

    use super::*;
    use crate::error::ErrorKind;

    /// The outcome of an attempt.
    #[derive(Clone, Copy, Debug)]
    enum Outcome {
        /// Succeeds after this many milliseconds.
        Connects(u64),
        /// Is refused after this many milliseconds.
        Refused(u64),
        /// Never gets an answer.
        NoAnswer,
    }
    use Outcome::*;

    fn address(number: usize) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, number as u8], 80))
    }

    /// Races addresses with these outcomes. Returns the winner, the elapsed milliseconds, the start of each attempt,
    /// and the recorded attempts. Stops after an hour.
    async fn raced(outcomes: &[Outcome]) -> (Option<usize>, u128, Vec<u128>, Vec<Attempt>) {
        let start = Instant::now();
        let started = Rc::new(RefCell::new(vec![]));
        let connect = |to: SocketAddr| {
            started.borrow_mut().push(start.elapsed().as_millis());
            let number = (0..).find(|number| address(*number) == to).unwrap();
            let outcome = outcomes[number];
            async move {
                match outcome {
                    Connects(after) => {
                        sleep(Duration::from_millis(after)).await;
                        Ok(number)
                    }
                    Refused(after) => {
                        sleep(Duration::from_millis(after)).await;
                        Err(io::ErrorKind::ConnectionRefused.into())
                    }
                    NoAnswer => std::future::pending().await,
                }
            }
        };
        let mut attempts = vec![];
        let addresses = (0..outcomes.len()).map(address).collect();
        let racing = race(addresses, connect, &mut attempts);
        let won = timeout(Duration::from_secs(3600), racing).await.unwrap_or(None);
        let started = started.borrow().clone();
        (won, start.elapsed().as_millis(), started, attempts)
    }

    #[track_caller]
    fn check(found: (Option<usize>, u128, Vec<u128>, Vec<Attempt>), won: Option<usize>, after: u128, started: &[u128]) {
        assert_eq!((found.0, found.1), (won, after));
        assert_eq!(found.2, started);
    }

    #[tokio::test(start_paused = true)]
    async fn next_address_is_tried_after_250_ms() {
        check(raced(&[NoAnswer, Connects(30)]).await, Some(1), 280, &[0, 250]);
        check(
            raced(&[NoAnswer, NoAnswer, Connects(0)]).await,
            Some(2),
            500,
            &[0, 250, 500],
        );
        check(raced(&[Connects(249), Connects(0)]).await, Some(0), 249, &[0]);
    }

    #[tokio::test(start_paused = true)]
    async fn next_address_is_tried_immediately_after_a_failure() {
        check(raced(&[Refused(0), Connects(10)]).await, Some(1), 10, &[0, 0]);
        check(
            raced(&[Refused(5), Refused(5), Connects(5)]).await,
            Some(2),
            15,
            &[0, 5, 10],
        );
        // The delay restarts with each attempt.
        check(
            raced(&[Refused(100), NoAnswer, Connects(0)]).await,
            Some(2),
            350,
            &[0, 100, 350],
        );
        check(
            raced(&[NoAnswer, Refused(10), Connects(0)]).await,
            Some(2),
            260,
            &[0, 250, 260],
        );
    }

    #[tokio::test(start_paused = true)]
    async fn first_connection_wins_and_slow_attempts_continue() {
        check(raced(&[Connects(400), Connects(300)]).await, Some(0), 400, &[0, 250]);
        check(raced(&[Connects(600), Connects(300)]).await, Some(1), 550, &[0, 250]);
        check(
            raced(&[Connects(5000), Refused(0), Refused(0)]).await,
            Some(0),
            5000,
            &[0, 250, 250],
        );
    }

    #[tokio::test(start_paused = true)]
    async fn every_failure_is_recorded() {
        let (won, after, _, attempts) = raced(&[Refused(0), Refused(400), Refused(100)]).await;
        assert_eq!((won, after), (None, 400));
        assert!(attempts.iter().all(|attempt| attempt.error.is_some()) && attempts.len() == 3);
        let (won, _, _, attempts) = raced(&[NoAnswer, Refused(0)]).await;
        assert_eq!(won, None);
        assert!(attempts[0].error.is_none() && attempts[1].error.is_some());
        check(raced(&[]).await, None, 0, &[]);
    }

    #[test]
    fn address_families_are_interleaved() {
        let parse = |list: &[&str]| -> Vec<SocketAddr> {
            let address = |ip: &&str| SocketAddr::new(ip.parse().unwrap(), 80);
            list.iter().map(address).collect()
        };
        for (given, expected) in [
            (
                &["::1", "::2", "::3", "1.1.1.1", "2.2.2.2"][..],
                &["::1", "1.1.1.1", "::2", "2.2.2.2", "::3"][..],
            ),
            (&["1.1.1.1", "2.2.2.2", "::1"], &["1.1.1.1", "::1", "2.2.2.2"]),
            (&["::1", "::1", "::2"], &["::1", "::2"]),
            (&["1.1.1.1"], &["1.1.1.1"]),
            (&[], &[]),
        ] {
            assert_eq!(interleave(parse(given)), parse(expected));
        }
        let many = (0..10_000_u16).map(|port| SocketAddr::from(([127, 0, 0, 1], port)));
        assert_eq!(interleave(many.collect()).len(), ADDRESSES_MAX);
    }

    async fn connect(dialer: &Dialer, uri: &str) -> Error {
        let uri = Uri::parse(uri).unwrap();
        let limit = TimeLimit::connect(Duration::from_secs(10), None);
        dialer.connect(&uri, limit).await.unwrap_err()
    }

    #[tokio::test(start_paused = true)]
    async fn failed_empty_and_hanging_resolvers_are_reported() {
        let mut dialer = Dialer::default();
        dialer.set_resolver(async |host, _| Err(io::Error::other(format!("no such thing as {host}"))));
        let error = connect(&dialer, "ws://h.example/").await;
        assert_eq!(
            error.to_string(),
            "cannot connect to h.example:80: the host name cannot be resolved: no such thing as h.example"
        );
        assert_eq!(error.kind(), ErrorKind::Resolve);
        assert!(error.is_io() && !error.is_timeout());
        let error = error.connect_error().unwrap();
        assert!(error.is_unresolved() && !error.is_timeout());
        assert_eq!(error.target(), "h.example:80");
        assert_eq!(
            error.to_string(),
            "the host name cannot be resolved: no such thing as h.example"
        );

        dialer.set_resolver(async |_, _| Ok(vec![]));
        let error = connect(&dialer, "ws://h.example/").await;
        // The operating system reported no error.
        assert!(error.is_closed() && !error.is_io() && !error.is_invalid_input());
        let error = error.connect_error().unwrap();
        assert!(error.is_unresolved());
        assert_eq!(error.to_string(), "the host name has no address");

        dialer.set_resolver(async |_, _| std::future::pending().await);
        let start = Instant::now();
        let error = connect(&dialer, "wss://h.example/").await;
        assert_eq!(
            error.to_string(),
            "cannot connect to h.example:443: the host name was not resolved within 10s; the limit is Timeouts::connect"
        );
        assert!(error.is_timeout() && !error.is_io());
        let error = error.connect_error().unwrap();
        assert!(error.is_timeout() && !error.is_unresolved());
        assert_eq!(error.to_string(), "the host name was not resolved within 10s");
        assert_eq!(start.elapsed().as_secs(), 10);
    }

    #[tokio::test]
    async fn literal_address_skips_resolver_and_local_address_selects_family() {
        let mut dialer = Dialer::default();
        dialer.set_resolver(async |host, _| panic!("asked for {host}"));
        dialer.set_local_address(SocketAddr::from(([127, 0, 0, 1], 0)));
        let error = connect(&dialer, "ws://[::1]:9/").await;
        assert!(error.is_invalid_input() && !error.is_io() && !error.is_closed());
        let error = error.connect_error().unwrap();
        let expected = "the local address and the host's addresses are of different families: ::1";
        assert_eq!(error.to_string(), expected);
        assert_eq!(error.target(), "[::1]:9");
        assert!(!error.is_unresolved() && !error.is_timeout());
    }

    /// The loopback interface has index 1 on Linux.
    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn zone_is_resolved_to_interface_index() {
        let dialer = Dialer::default();
        for zone in ["lo", "1"] {
            let uri = Uri::parse(&format!("ws://[fe80::1%25{zone}]:9/")).unwrap();
            let addresses = dialer.resolve(&uri).await.unwrap();
            match addresses[..] {
                [SocketAddr::V6(address)] => assert_eq!((address.scope_id(), address.port()), (1, 9)),
                _ => panic!("{addresses:?}"),
            }
        }
        let uri = Uri::parse("ws://[fe80::1%25nosuchif]/").unwrap();
        assert!(matches!(dialer.resolve(&uri).await, Err(ConnectFailure::Unresolved(_))));
    }
}
