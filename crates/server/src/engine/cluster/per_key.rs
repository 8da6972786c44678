//! State of channels, or of clients in channels, that exists while a call uses it.

use std::collections::HashMap;
use std::fmt;
use std::hash::Hash;
use std::ops::Deref;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::channel::ChannelName;

/// A value for each key that is in use, such as a lock that is held during a call to the store. Calls for different
/// keys never wait for each other.
pub(crate) struct PerKey<K, T> {
    values: Mutex<HashMap<K, Entry<T>>>,
}

/// A value for each channel that is in use.
pub(crate) type PerChannel<T> = PerKey<ChannelName, T>;

struct Entry<T> {
    value: Arc<T>,
    users: usize,
}

/// Guard for the value of a key. Dropping the last guard removes the value.
pub(crate) struct ValueGuard<'a, K: Eq + Hash, T> {
    all: &'a PerKey<K, T>,
    key: &'a K,
    value: Arc<T>,
}

impl<K: Clone + Eq + Hash, T: Default> PerKey<K, T> {
    /// Returns the value of a key, and creates it if nobody uses it.
    pub(crate) fn enter<'a>(&'a self, key: &'a K) -> ValueGuard<'a, K, T> {
        let mut values = self.values.lock();
        let entry = values.entry(key.clone()).or_insert_with(|| Entry {
            value: Arc::default(),
            users: 0,
        });
        entry.users += 1;
        ValueGuard {
            all: self,
            key,
            value: entry.value.clone(),
        }
    }

    /// Whether the value of a key is in use.
    pub(crate) fn is_used(&self, key: &K) -> bool {
        self.values.lock().contains_key(key)
    }
}

impl<K: Eq + Hash, T> Deref for ValueGuard<'_, K, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<K: Eq + Hash, T> Drop for ValueGuard<'_, K, T> {
    fn drop(&mut self) {
        let mut values = self.all.values.lock();
        let Some(entry) = values.get_mut(self.key) else {
            return;
        };
        entry.users -= 1;
        if entry.users == 0 {
            values.remove(self.key);
            if values.len() < values.capacity() / 4 {
                values.shrink_to_fit();
            }
        }
    }
}

impl<K, T> Default for PerKey<K, T> {
    fn default() -> Self {
        Self {
            values: Mutex::default(),
        }
    }
}

impl<K, T> fmt::Debug for PerKey<K, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PerKey").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_lives_as_long_as_it_is_used() {
        let all = PerChannel::<Mutex<u32>>::default();
        let channel = ChannelName::new("a").unwrap();
        let first = all.enter(&channel);
        *first.lock() = 1;
        let second = all.enter(&channel);
        drop(first);
        assert_eq!((*second.lock(), all.is_used(&channel)), (1, true));
        drop(second);
        assert!(!all.is_used(&channel));
        assert_eq!(*all.enter(&channel).lock(), 0);
    }
}
