//! Attacks that have worked on other WebSocket implementations, and what they come to here.
//!
//! Each test is named after an advisory: `cve_`, its identifier (CVE, GHSA, RUSTSEC, GO, PYSEC), and what must hold.
//! Advisories seldom print their bytes, so the trigger is that of the class of mistakes which the advisory belongs to.
//! Each has a bound besides its verdict: the close code or HTTP status, the memory at its highest, the steps.
//!
//! | class | mistake | in |
//! |---|---|---|
//! | C1 | arithmetic on 64-bit lengths: sign, wrap, top bit | `lengths` |
//! | C2 | memory for a length that was only declared | `lengths` |
//! | C3 | a limit per frame instead of per message | `fragments` |
//! | C4 | a limit on bytes but none on pieces | `fragments` |
//! | C5 | a limit on the compressed size only | `deflate` |
//! | C6 | reserved bits taken without an extension | `extensions` |
//! | C7 | bad compression parameters, ends and blocks | `extensions`, `deflate` |
//! | C8 | an outbound queue without a bound | `closing` |
//! | C9 | a closing handshake that never ends | `closing` |
//! | C10 | memory kept after control frames and failures | `closing` |
//! | C11 | a peer that goes away in an unexpected state | `closing` |
//! | C12 | bytes, bodies and requests around the upgrade | `smuggling` |
//! | C13 | old drafts and missing tokens | `smuggling` |
//! | C14 | more than linear time on headers | `heads` |
//! | C15 | no limit on the whole handshake | `heads` |
//! | C16 | CR, LF and NUL from the application | `injection` |
//! | C17 | origins not compared, or as text | `injection` |
//! | C18 | DNS rebinding | `injection` |
//! | C19 | masking keys that repeat | `secrets` |
//! | C20 | credentials sent to another host | `secrets` |
//! | C21 | memory sent that was never written | `secrets` |
//! | C22 | unsafe code | `secrets` |
//!
//! The other half of C8, C9, C11 and C15 (transports, clocks, writers that stall) is in `crates/sockeye/tests/cve`.

#[path = "../common/mod.rs"]
mod common;
#[path = "../handshake_support/mod.rs"]
mod handshake_support;

mod closing;
mod cost;
#[cfg(feature = "deflate")]
mod deflate;
mod extensions;
mod fragments;
mod heads;
mod injection;
mod lengths;
mod secrets;
mod smuggling;
