//! Validated channel names.

use std::borrow::Borrow;
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

/// A channel name. Clones share the allocation. Names are compared byte by byte, without case folding or Unicode
/// normalization.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ChannelName(Arc<str>);

/// The name is empty, longer than [`ChannelName::LENGTH_BYTES_MAX`] or contains a control character.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct InvalidChannelName;

impl ChannelName {
    /// The longest name, in bytes of UTF-8.
    pub(crate) const LENGTH_BYTES_MAX: usize = 255;

    /// Validates a name.
    ///
    /// # Errors
    /// Returns [`InvalidChannelName`] if the name is empty, too long, or contains a control character.
    pub(crate) fn new(name: &str) -> Result<Self, InvalidChannelName> {
        let is_valid = !name.is_empty() && name.len() <= Self::LENGTH_BYTES_MAX && !name.chars().any(char::is_control);
        is_valid.then(|| Self(name.into())).ok_or(InvalidChannelName)
    }

    /// The name.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether subscribers need a token: names of private channels start with `$`.
    pub(crate) fn is_private(&self) -> bool {
        self.0.starts_with('$')
    }

    /// Whether the name admits a user, if it names the users that it admits: they follow the last `#`, separated by
    /// commas. `None` if the name does not limit users.
    pub(crate) fn allows_user(&self, user: &str) -> Option<bool> {
        let (_, users) = self.0.rsplit_once('#')?;
        Some(!user.is_empty() && users.split(',').any(|allowed| allowed == user))
    }

    /// Returns the shard of this channel.
    pub(crate) fn shard<'a, T>(&self, shards: &'a [T], hasher: &RandomState) -> &'a T {
        let hash = hasher.hash_one(self.as_str()) as usize;
        &shards[hash % shards.len()]
    }
}

/// A name hashes and compares like its text.
impl Borrow<str> for ChannelName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ChannelName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for ChannelName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

impl fmt::Display for InvalidChannelName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "a channel name has 1 to {} bytes and no control character",
            ChannelName::LENGTH_BYTES_MAX
        )
    }
}

impl std::error::Error for InvalidChannelName {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_1_to_255_bytes() {
        assert!(ChannelName::new("").is_err());
        assert!(ChannelName::new("a").is_ok());
        assert!(ChannelName::new(&"a".repeat(255)).is_ok());
        assert!(ChannelName::new(&"a".repeat(256)).is_err());
        assert!(ChannelName::new(&"é".repeat(128)).is_err());
    }

    #[test]
    fn control_characters_are_refused_and_case_matters() {
        assert!(ChannelName::new("a\nb").is_err());
        assert!(ChannelName::new("a\u{9b}b").is_err());
        assert_ne!(ChannelName::new("Room").unwrap(), ChannelName::new("room").unwrap());
    }

    #[test]
    fn private_and_user_limited_names_are_restricted() {
        for (name, is_private, allows_ada) in [
            ("$secret", true, None),
            ("dialog#ada,bob", false, Some(true)),
            ("dialog#bob,adam", false, Some(false)),
            ("chat:x#ada", false, Some(true)),
            ("dialog#", false, Some(false)),
            ("dialog#bob#ada", false, Some(true)),
            ("dialog#ada#bob", false, Some(false)),
            ("chat:general", false, None),
            ("a$b", false, None),
        ] {
            let name = ChannelName::new(name).unwrap();
            assert_eq!(
                (name.is_private(), name.allows_user("ada")),
                (is_private, allows_ada),
                "{name}"
            );
            assert_ne!(name.allows_user(""), Some(true), "{name}");
        }
    }
}
