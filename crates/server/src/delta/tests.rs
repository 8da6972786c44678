//! Deltas there and back, and hostile ones.

use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::*;

const LIMIT: usize = 1 << 20;

#[track_caller]
fn round_trip(source: &str, target: &str) -> Option<String> {
    let delta = create_text(source, target)?;
    assert_eq!(
        apply(source.as_bytes(), delta.as_bytes(), LIMIT).as_deref(),
        Ok(target.as_bytes())
    );
    assert!(delta.len() < target.len());
    Some(delta)
}

#[test]
fn a_changed_field_costs_a_few_bytes() {
    let text = |price: &str| {
        format!(r#"{{"symbol":"BTC-USD","price":{price},"bid":1.5,"ask":2.5,"exchange":"somewhere","volume":123456}}"#)
    };
    let delta = round_trip(&text("100.25"), &text("100.75")).unwrap();
    assert!(delta.len() < 30, "{delta:?}");
    let delta = round_trip(&text("100.25"), &text("100.25")).unwrap();
    assert_eq!(delta, "1U\n1U@0,Ty6hU;");
}

#[test]
fn two_changed_fields_and_a_moved_one_are_found() {
    let source = r#"{"first":"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa","second":"bbbbbbbbbbbbbbbb-cccccccc-dddddd","n":1,"m":2,"rest":"eeeeeeeeeeeeeeeeee"}"#;
    let target = r#"{"second":"bbbbbbbbbbbbbbbb-cccccccc-dddddd","first":"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa","n":7,"m":9,"rest":"eeeeeeeeeeeeeeeeee"}"#;
    let delta = round_trip(source, target).unwrap();
    assert!(delta.len() < target.len() / 2, "{delta:?}");
}

#[test]
fn what_gets_no_smaller_gets_no_delta() {
    assert_eq!(create(b"", b""), None);
    assert_eq!(create(b"a", b"a"), None);
    assert_eq!(create(b"", b"something entirely new, and long enough"), None);
    assert_eq!(
        create(b"0123456789abcdef", b"something entirely new, and long enough"),
        None
    );
    assert!(create(&vec![0; SIZE_MAX], &vec![0; SIZE_MAX]).is_some());
    assert_eq!(create(&vec![0; SIZE_MAX + 1], &[0; 100]), None);
    assert_eq!(create(&[0; 100], &vec![0; SIZE_MAX + 1]), None);
}

#[test]
fn no_insert_ends_within_a_character() {
    // These differ within the first, the last and each byte of a character; the bytes around it are the same.
    let around = "0123456789abcdefghijklmnopqrstuvwxyz".repeat(2);
    for (old, new) in [
        ("\u{e4}", "\u{f6}"),
        ("\u{20ac}", "\u{20ad}"),
        ("\u{20ac}", "\u{30ac}"),
        ("\u{1f600}", "\u{1f601}"),
        ("\u{1f600}", "\u{2f600}"),
    ] {
        let text = |middle: &str| format!("{around}{middle}{around}");
        let delta = round_trip(&text(old), &text(new)).unwrap();
        assert!(delta.contains(new), "{delta:?}");
        round_trip(&text(old), &format!("{around}{new}")).unwrap();
        round_trip(&text(old), &format!("{new}{around}")).unwrap();
    }
}

/// Deltas that npm `fossil-delta` 2.0.0 made.
#[test]
fn deltas_of_another_implementation_are_applied() {
    for (source, target, delta) in [
        ("", "", "0\n0:0;"),
        ("", "hello", "5\n5:hello3NPMmh;"),
        ("abc", "abc", "3\n3:abc1XObC0;"),
        (
            "0123456789 0123456789 0123456789 0123456789",
            "0123456789 0123456789 0123456789 x 0123456789",
            "i\nX@0,C:x 01234567891_Sme1;",
        ),
        (
            "{\"symbol\":\"BTC-USD\",\"price\":100.25,\"bid\":1.5,\"ask\":2.5,\"exchange\":\"somewhere\"}",
            "{\"symbol\":\"BTC-USD\",\"price\":100.75,\"bid\":1.5,\"ask\":2.5,\"exchange\":\"somewhere\"}",
            "1E\nW@0,1:7i@X,3b1bJL;",
        ),
        (
            "The quick brown fox jumps over the lazy dog. Größe: 5 €. abcdefghijklmnopabcdefghijklmnopabcdefghijklmnopabcdefghijklmnop",
            "A quick brown fox jumps over the lazy dog! Größe: 6 €. abcdefghijklmnopabcdefghijklmnopabcdefghijklmnopabcdefghijklmnopabcdefghijklmnop",
            "2B\n1:Ad@3,C:! Größe: 616@s,G:abcdefghijklmnopDy8U8;",
        ),
    ] {
        assert_eq!(
            apply(source.as_bytes(), delta.as_bytes(), LIMIT).as_deref(),
            Ok(target.as_bytes()),
            "{delta:?}"
        );
    }
}

#[test]
fn malformed_deltas_are_refused() {
    let source = b"0123456789";
    for (delta, expect) in [
        ("", DeltaError::Truncated),
        ("3", DeltaError::Truncated),
        ("3,", DeltaError::UnknownCommand),
        ("3\n", DeltaError::Truncated),
        ("3\n3", DeltaError::Truncated),
        ("3\n3@", DeltaError::Truncated),
        ("3\n3@0", DeltaError::Truncated),
        ("3\n3@0;", DeltaError::UnknownCommand),
        ("3\n3@0,", DeltaError::Truncated),
        ("3\n3!0,", DeltaError::UnknownCommand),
        ("3\n3:ab", DeltaError::Truncated),
        ("3\n3~~~~~:abc", DeltaError::Truncated),
        ("3\n4@7,0;", DeltaError::CopyOutsideSource),
        ("3\n1@A,0;", DeltaError::CopyOutsideSource),
        ("3\n3~~~~~@3~~~~~,0;", DeltaError::CopyOutsideSource),
        ("3\n4~~~~~@0,0;", DeltaError::NumberTooLarge),
        ("3\n4@0,0;", DeltaError::WrongSize),
        ("3\n2@0,0;", DeltaError::WrongSize),
        ("3\n2:ab2:cd0;", DeltaError::WrongSize),
        ("3\n3@0,0;", DeltaError::WrongChecksum),
        ("0\n0;x", DeltaError::TrailingBytes),
        ("101\n", DeltaError::TooLarge),
        ("3~~~~~\n", DeltaError::TooLarge),
    ] {
        assert_eq!(apply(source, delta.as_bytes(), 4096), Err(expect), "{delta:?}");
    }
    assert_eq!(apply(source, b"0\n0;", 0), Ok(Vec::new()));
}

#[test]
fn the_delta_for_another_source_is_noticed() {
    let source = "0123456789 0123456789 0123456789 0123456789";
    let delta = create_text(source, &format!("{source}!")).unwrap();
    let other = source.replace('5', "6");
    assert_eq!(
        apply(other.as_bytes(), delta.as_bytes(), LIMIT),
        Err(DeltaError::WrongChecksum)
    );
}

#[test]
fn memory_follows_the_limit_and_not_the_declared_size() {
    // Copies amplify: 5 bytes of delta give 4096 bytes each.
    let source = vec![b'x'; 4096];
    let mut delta = b"3~~~~\n".to_vec();
    for _ in 0..10_000 {
        delta.extend_from_slice(b"100@0,");
    }
    assert_eq!(apply(&source, &delta, LIMIT), Err(DeltaError::TooLarge));
    // The declared size is within the limit, and what the commands give is not.
    delta.splice(..5, *b"4000");
    assert_eq!(apply(&source, &delta, LIMIT), Err(DeltaError::WrongSize));
}

/// Inputs on which a search that follows every candidate would take quadratic time.
#[test]
fn repetitive_data_takes_linear_time() {
    let half_mib = 1 << 19;
    let zeros = vec![0u8; half_mib];
    let mut dotted = zeros.clone();
    for at in (0..half_mib).step_by(100) {
        dotted[at] = 1;
    }
    let mut shifted = dotted.clone();
    shifted.insert(0, 7);
    shifted.push(9);
    let short = b"abcdefgh".repeat(half_mib / 8);
    let mut broken = short.clone();
    for at in (0..half_mib).step_by(23) {
        broken[at] = b'!';
    }
    let start = Instant::now();
    for (source, target) in [
        (&zeros, &dotted),
        (&dotted, &zeros),
        (&dotted, &shifted),
        (&short, &broken),
        (&broken, &short),
        (&broken, &shifted),
    ] {
        if let Some(delta) = create(source, target) {
            assert_eq!(apply(source, &delta, LIMIT).as_ref(), Ok(target));
        }
    }
    // A fraction of a second, even without optimization; quadratic time would be minutes.
    assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
}

/// A text and an edited version of it.
fn edited_text() -> impl Strategy<Value = (String, String)> {
    let piece = "[a-c\u{e4}\u{20ac}\u{1f600}\\n\"]{0,40}";
    let pieces = prop::collection::vec((piece, any::<u8>()), 0..12);
    pieces.prop_map(|pieces| {
        let source = pieces.iter().map(|(piece, _)| piece.as_str()).collect();
        let mut target = String::new();
        for (piece, edit) in &pieces {
            match edit % 5 {
                0 => {}
                1 => target.insert_str(0, piece),
                2 => target.push_str(&piece.repeat(2)),
                3 => target.push_str(&format!("{edit}{piece}")),
                _ => target.push_str(piece),
            }
        }
        (source, target)
    })
}

/// Bytes and an edited version of them, large enough for an index of every eighth offset.
fn edited_bytes() -> impl Strategy<Value = (Vec<u8>, Vec<u8>)> {
    let pieces = prop::collection::vec((prop::collection::vec(0u8..4, 0..600), any::<u8>()), 0..20);
    pieces.prop_map(|pieces| {
        let source = pieces.iter().flat_map(|(piece, _)| piece.clone()).collect();
        let mut target = Vec::new();
        for (piece, edit) in pieces {
            match edit % 4 {
                0 => {}
                1 => target.splice(..0, piece).for_each(drop),
                2 => target.extend(piece.iter().map(|byte| byte ^ u8::from(byte == &3))),
                _ => target.extend(piece),
            }
        }
        (source, target)
    })
}

proptest! {
    #[test]
    fn applying_a_delta_of_text_gives_the_target((source, target) in edited_text()) {
        if let Some(delta) = create_text(&source, &target) {
            prop_assert!(delta.len() < target.len());
            let applied = apply(source.as_bytes(), delta.as_bytes(), target.len());
            prop_assert_eq!(applied.as_deref(), Ok(target.as_bytes()));
        }
    }

    #[test]
    fn applying_a_delta_of_bytes_gives_the_target((source, target) in edited_bytes()) {
        if let Some(delta) = create(&source, &target) {
            prop_assert!(delta.len() < target.len());
            prop_assert_eq!(apply(&source, &delta, target.len()), Ok(target));
        }
    }

    #[test]
    fn unrelated_bytes_round_trip(source: Vec<u8>, target: Vec<u8>) {
        if let Some(delta) = create(&source, &target) {
            prop_assert_eq!(apply(&source, &delta, LIMIT), Ok(target));
        }
    }

    #[test]
    fn garbage_is_never_more_than_refused(source: Vec<u8>, delta in "[0-3A~\n@,:;a-c]{0,40}", noise: Vec<u8>) {
        for delta in [delta.as_bytes(), &noise] {
            if let Ok(target) = apply(&source, delta, 4096) {
                prop_assert!(target.len() <= 4096);
            }
        }
    }

    #[test]
    fn a_damaged_delta_gives_the_target_or_nothing((source, target) in edited_text(), at: prop::sample::Index, byte: u8) {
        let Some(delta) = create_text(&source, &target) else {
            return Ok(());
        };
        let mut delta = delta.into_bytes();
        let at = at.index(delta.len());
        delta[at] = byte;
        // The checksum is a sum: it cannot notice everything, but a result is always of the declared size.
        if let Ok(applied) = apply(source.as_bytes(), &delta, LIMIT) {
            prop_assert!(applied.len() <= LIMIT);
        }
        delta.truncate(at);
        prop_assert!(apply(source.as_bytes(), &delta, LIMIT).is_err());
    }
}
