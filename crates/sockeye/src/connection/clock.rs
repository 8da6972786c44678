//! Tokio's clock as the protocol's: counted from the first time that anyone asked.

use std::sync::OnceLock;

use sockeye_proto::Instant;

static ORIGIN: OnceLock<tokio::time::Instant> = OnceLock::new();

fn origin() -> tokio::time::Instant {
    *ORIGIN.get_or_init(tokio::time::Instant::now)
}

pub(crate) fn now() -> Instant {
    let origin = origin();
    Instant::from_origin(tokio::time::Instant::now().saturating_duration_since(origin))
}

pub(crate) fn to_tokio(instant: Instant) -> tokio::time::Instant {
    origin() + instant.since_origin()
}
