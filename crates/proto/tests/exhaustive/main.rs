//! Proof by enumeration: not samples of what a peer can send, but all of it, up to a size.
//!
//! | family | what is enumerated | held against |
//! |---|---|---|
//! | `headers` | all first two bytes of a frame, each length that they can announce, in each state of a message | the model |
//! | `close codes` | all close codes, received with five reasons, and sent; all lengths of a reason | the model |
//! | `utf8` | all strings of up to three bytes, those of four at every boundary, in every cut | `core::str::from_utf8` |
//! | `masking` | every alignment, length to 256 and phase of the key | the formula of the RFC |
//! | `sequences` | every sequence of up to three frames of 60 kinds, cut in two everywhere in its first 64 bytes | the model |
//! | `four` | every sequence of four of them, whole | the model |
//!
//! The model is `model.rs`: what RFC 6455 asks for, written from the RFC over frames as fields. For every input the
//! events, the close code and the rule named, what is sent back, the state, what the transport is to do and the memory
//! held must be as the model says. Compression is not negotiated here.
//!
//! `cargo test` runs a small part of each family. `cargo xtask ci` runs all of it, which takes a minute or so on two
//! cores that have nothing else to do, and prints its counts:
//!
//! ```console
//! $ cargo test --release -p sockeye-proto --test exhaustive -- --ignored
//! ```
//!
//! Inputs are counted once: within a family no two are the same bytes to the same role. Some hundred short ones belong
//! to two families. Runs of an input cut in pieces are counted apart, as splits. Both counts are asserted, so that no
//! part of a family can be lost without a test failing.

mod close_codes;
mod frame;
mod harness;
mod headers;
mod masking;
mod model;
mod sequences;
mod utf8;

use harness::{Count, Scale, print_line, timed};

#[test]
#[ignore = "a minute or so in release mode, far more without; `cargo xtask ci` runs it so"]
fn everything() {
    let begin = std::time::Instant::now();
    let families = [
        timed("headers", headers::WHOLE, || headers::run(Scale::Whole)),
        timed("close codes", close_codes::WHOLE, || close_codes::run(Scale::Whole)),
        timed("utf8", utf8::WHOLE, || utf8::run(Scale::Whole)),
        timed("masking", masking::WHOLE, || masking::run(Scale::Whole)),
        timed("sequences", sequences::UP_TO_THREE, || sequences::run(Scale::Whole)),
        timed("four", sequences::OF_FOUR, sequences::run_four),
    ];
    let total = families.into_iter().fold(Count::default(), std::ops::Add::add);
    print_line("total", total, begin.elapsed().as_secs_f64());
    assert!(total.inputs >= 10_000_000, "the least that this is for");
}

#[test]
fn every_header_matches_the_model() {
    assert_eq!(headers::run(Scale::Small), headers::SMALL);
}

#[test]
fn every_close_code_is_handled_as_in_the_rfc() {
    assert_eq!(close_codes::run(Scale::Small), close_codes::SMALL);
}

#[test]
fn utf8_validation_agrees_with_the_standard_library() {
    assert_eq!(utf8::run(Scale::Small), utf8::SMALL);
}

#[test]
fn masking_matches_the_rfc_formula_at_every_alignment() {
    assert_eq!(masking::run(Scale::Small), masking::SMALL);
}

#[test]
fn every_sequence_of_two_frames_matches_the_model() {
    assert_eq!(sequences::run(Scale::Small), sequences::UP_TO_TWO);
}
