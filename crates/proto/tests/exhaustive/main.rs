//! Exhaustive tests: all inputs from a peer up to a size, not samples.
//!
//! | family | enumerated inputs | compared with |
//! |---|---|---|
//! | `headers` | all values of the first two bytes of a frame, with each length that they can declare, in each message state | the model |
//! | `close codes` | all close codes, received with five reasons, and sent; all lengths of a reason | the model |
//! | `utf8` | all strings of up to three bytes, those of four at every boundary, for every split | `core::str::from_utf8` |
//! | `masking` | every alignment, length to 256 and phase of the key | the formula of the RFC |
//! | `sequences` | every sequence of up to three frames of 60 kinds, split at every position in its first 64 bytes | the model |
//! | `four` | every sequence of four of them, in one piece | the model |
//!
//! The model in `model.rs` implements the requirements of RFC 6455 on structured frames. For every input, the events,
//! the close code, the reported rule, the frames sent back, the state, the transport action and the memory held must
//! match the model. Compression is not negotiated.
//!
//! `cargo test` runs a small part of each family. `cargo xtask ci` runs everything, which takes about a minute on two
//! idle cores, and prints the counts:
//!
//! ```console
//! $ cargo test --release -p sockeye-proto --test exhaustive -- --ignored
//! ```
//!
//! Inputs are distinct within a family; a few hundred short ones belong to two families. Runs of a split input are
//! counted separately, as splits. Both counts are asserted, so that no part of a family can be lost unnoticed.

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
#[ignore = "takes about a minute in release mode and much longer in debug mode; run by `cargo xtask ci`"]
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
    assert!(total.inputs >= 10_000_000, "expected at least ten million inputs");
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
