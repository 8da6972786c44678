//! Frames of Protobuf from clients: agree with a reader that knows no messages, in any combination of frames, and with
//! bounded memory.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sockeye_fuzz::memory::Meter;
use sockeye_fuzz::protobuf::{id, messages};
use sockeye_server::fuzzing::{commands, count_commands};

fuzz_target!(|input: &[u8]| {
    let meter = Meter::start();
    count_commands(true, input);
    let (peak, asked) = (meter.peak(), meter.asked());
    // An empty filter node of 2 bytes is some 150 bytes, in a list that doubles, and once more in its final form.
    assert!(
        peak <= 800 * input.len() + 4096,
        "{peak} bytes held for {}",
        input.len()
    );
    assert!(
        asked <= 1600 * input.len() + 4096,
        "{asked} bytes allocated for {}",
        input.len()
    );

    let Some(found) = commands(true, input) else {
        assert!(input.is_empty());
        return;
    };
    let messages = messages(input);
    assert!(found.len() <= messages.len());
    for (command, message) in found.iter().zip(&messages) {
        match (command, message) {
            (Some(command), Some(message)) => {
                // Of a number that is too large for the field the lowest 32 bits count.
                if let Some(id) = id(message) {
                    assert_eq!(command.id, id as u32);
                }
                if let Some(data) = &command.data {
                    let is_part = data.is_empty() || message.windows(data.len()).any(|part| part == data);
                    assert!(is_part, "forwarded data is a part of the message");
                }
            }
            (Some(_), None) => panic!("a command that ends behind its frame"),
            // What follows is not read.
            (None, _) => assert!(found.last() == Some(&None)),
        }
    }
    if found.iter().all(Option::is_some) {
        assert_eq!(found.len(), messages.len());
        // Frames with valid commands can be joined.
        let twice = commands(true, &[input, input].concat()).expect("it is not empty");
        assert_eq!(twice, [&found[..], &found[..]].concat());
    }
});
