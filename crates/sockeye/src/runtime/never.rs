//! The timeout that never expires.

use std::time::Duration;

/// A duration that stands for "never": 30 years, which every clock can represent.
pub(super) const NEVER: Duration = Duration::from_secs(30 * 365 * 24 * 60 * 60);
