//! Attacks on other WebSocket implementations, and tests that they fail here.
//!
//! Each test is named after an advisory: `cve_`, its identifier (CVE, GHSA, RUSTSEC, GO, PYSEC), and the expected
//! behavior. Advisories rarely publish the bytes of an attack, so the tests use inputs of the same class. Each test
//! checks the result (close code or HTTP status) and a bound on memory or the number of steps.
//!
//! | class | mistake | module |
//! |---|---|---|
//! | C1 | arithmetic on 64-bit lengths: sign, wrap, top bit | `lengths` |
//! | C2 | memory for a length that was only declared | `lengths` |
//! | C3 | a limit per frame instead of per message | `fragments` |
//! | C4 | a limit on bytes but not on the number of pieces | `fragments` |
//! | C5 | a limit on the compressed size only | `deflate` |
//! | C6 | reserved bits accepted without an extension | `extensions` |
//! | C7 | invalid compression parameters, message ends and blocks | `extensions`, `deflate` |
//! | C8 | an unbounded outbound queue | `closing` |
//! | C9 | a closing handshake that never ends | `closing` |
//! | C10 | memory leaked after control frames and failures | `closing` |
//! | C11 | a peer that disconnects in an unexpected state | `closing` |
//! | C12 | bytes, bodies and requests around the upgrade | `smuggling` |
//! | C13 | old drafts and missing tokens | `smuggling` |
//! | C14 | superlinear time on headers | `heads` |
//! | C15 | no limit on the whole handshake | `heads` |
//! | C16 | CR, LF and NUL from the application | `injection` |
//! | C17 | origins not checked, or compared as text | `injection` |
//! | C18 | DNS rebinding | `injection` |
//! | C19 | masking keys that repeat | `secrets` |
//! | C20 | credentials sent to another host | `secrets` |
//! | C21 | uninitialized memory sent to the peer | `secrets` |
//! | C22 | unsafe code | `secrets` |
//!
//! `crates/sockeye/tests/cve` tests the parts of C8, C9, C11 and C15 that concern transports, timers and stalled
//! writers.

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
