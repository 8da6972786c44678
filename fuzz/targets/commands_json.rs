//! Frames of JSON from clients: agree with a parser that knows nothing of commands, in any combination of frames, and
//! with bounded memory.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sockeye_fuzz::json::{Line, read};
use sockeye_fuzz::memory::Meter;
use sockeye_server::fuzzing::{Command, commands, count_commands};

fuzz_target!(|input: &[u8]| {
    check_memory(input);
    let found = commands(false, input);
    let Ok(text) = std::str::from_utf8(input) else {
        assert_eq!(found, None);
        return;
    };
    let lines: Vec<_> = text.split('\n').filter(|line| !line.trim_ascii().is_empty()).collect();
    let Some(found) = found else {
        assert!(lines.is_empty(), "a frame with commands was refused");
        return;
    };
    assert_eq!(found.len(), lines.len());
    for (line, command) in lines.iter().zip(&found) {
        check_line(line, command.as_ref());
    }
    // The same for each line alone.
    for (line, command) in lines.iter().zip(&found) {
        assert_eq!(
            commands(false, line.as_bytes()).as_deref(),
            Some(&[command.clone()][..])
        );
    }
});

fn check_memory(input: &[u8]) {
    let meter = Meter::start();
    count_commands(false, input);
    let (peak, asked) = (meter.peak(), meter.asked());
    // A filter node of 3 bytes (`{},`) is some 150 bytes, in a list that doubles.
    assert!(
        peak <= 150 * input.len() + 4096,
        "{peak} bytes held for {}",
        input.len()
    );
    assert!(
        asked <= 400 * input.len() + 4096,
        "{asked} bytes allocated for {}",
        input.len()
    );
}

fn check_line(line: &str, command: Option<&Command>) {
    if let Some(data) = command.and_then(|command| command.data.as_ref()) {
        assert!(!data.contains(&b'\n'), "forwarded data would end the line");
        serde_json::from_slice::<serde::de::IgnoredAny>(data).expect("forwarded data is JSON");
        let text = std::str::from_utf8(data).expect("JSON is text");
        assert!(line.contains(text), "forwarded data is a part of the line");
    }
    match read(line) {
        Line::TooDeep => {}
        Line::Invalid => assert_eq!(command, None, "a line that is no JSON object was accepted"),
        // Without a single id the reply could not be addressed.
        Line::Object(ids) => match (&ids[..], command) {
            ([id], Some(command)) => assert_eq!(id.as_u64(), Some(u64::from(command.id))),
            ([id], None) => {
                let is_id = id.as_u64().is_some_and(|id| (1..=u64::from(u32::MAX)).contains(&id));
                assert!(!is_id, "a command with an id was refused");
            }
            ([], Some(command)) => assert_eq!(command.id, 0),
            ([], None) => {}
            (_, command) => assert_eq!(command, None, "a command with two ids was accepted"),
        },
    }
}
