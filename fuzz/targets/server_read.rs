//! Frames received by a server.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sockeye_fuzz::reading;

fuzz_target!(|input: &[u8]| reading::check(reading::SERVER, input));
