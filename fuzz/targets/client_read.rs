//! Frames received by a client.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sockeye_fuzz::reading;

fuzz_target!(|input: &[u8]| reading::check(reading::CLIENT, input));
