//! Patterns of channel names, such as `chat:*`.

/// Whether a name matches a pattern: `*` stands for any number of characters, `?` for one. The empty pattern matches all.
pub(super) fn matches(pattern: &str, name: &str) -> bool {
    if pattern.is_empty() {
        return true;
    }
    let (mut pattern, mut name) = (pattern.chars(), name.chars());
    // Where to continue when a later part does not match: after the last `*`, one character further in the name.
    let mut retry: Option<(std::str::Chars<'_>, std::str::Chars<'_>)> = None;
    loop {
        let mut rest = pattern.clone();
        let is_matched = match rest.next() {
            Some('*') => {
                pattern = rest;
                retry = Some((pattern.clone(), name.clone()));
                continue;
            }
            None if name.as_str().is_empty() => return true,
            None => false,
            Some(expected) => name.next().is_some_and(|found| expected == '?' || expected == found),
        };
        if is_matched {
            pattern = rest;
            continue;
        }
        let Some((after_star, from)) = &mut retry else {
            return false;
        };
        if from.next().is_none() {
            return false;
        }
        (pattern, name) = (after_star.clone(), from.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_whole_names() {
        for (pattern, name, expect) in [
            ("", "chat:general", true),
            ("*", "chat:general", true),
            ("chat:*", "chat:general", true),
            ("chat:*", "chat:", true),
            ("chat:*", "chat", false),
            ("chat:*", "xchat:a", false),
            ("*:general", "chat:general", true),
            ("*:general", "chat:general2", false),
            ("c*:g*l", "chat:general", true),
            ("c?at:*", "chat:a", true),
            ("c?at:*", "cat:a", false),
            ("?", "é", true),
            ("*a*b*c", "aXbXbXc", true),
            ("*a*b*c", "aXcXb", false),
            ("chat", "chat", true),
            ("chat", "chats", false),
        ] {
            assert_eq!(matches(pattern, name), expect, "{pattern} {name}");
        }
    }

    #[test]
    fn many_stars_take_no_exponential_time() {
        assert!(!matches(&"*a".repeat(100), &"a".repeat(99)));
        assert!(!matches(&format!("{}b", "*a".repeat(60)), &"a".repeat(255)));
    }
}
