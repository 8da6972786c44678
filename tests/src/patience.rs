//! The deadline of all tests.

use std::{env, time::Duration};

/// How long a test waits for anything before it fails: 30 s, multiplied by `SOCKEYE_TEST_PATIENCE` (such as `3` or
/// `0.5`) on slow or busy machines.
pub fn patience() -> Duration {
    let scale = env::var("SOCKEYE_TEST_PATIENCE")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(1.0);
    Duration::from_secs(30).mul_f64(scale)
}
