//! State of channels that exists while a call uses it.

use std::collections::HashMap;
use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::channel::ChannelName;

/// A value for each channel that is in use, such as a lock that is held during a call to the store. Calls for different
/// channels never wait for each other.
pub(crate) struct PerChannel<T> {
    channels: Mutex<HashMap<ChannelName, Shared<T>>>,
}

struct Shared<T> {
    value: Arc<T>,
    users: usize,
}

/// The value of a channel. When the last one is dropped, the value is removed.
pub(crate) struct InUse<'a, T> {
    all: &'a PerChannel<T>,
    channel: &'a ChannelName,
    value: Arc<T>,
}

impl<T: Default> PerChannel<T> {
    /// Returns the value of a channel, and creates it if nobody uses it.
    pub(crate) fn enter<'a>(&'a self, channel: &'a ChannelName) -> InUse<'a, T> {
        let mut channels = self.channels.lock();
        let shared = channels.entry(channel.clone()).or_insert_with(|| Shared {
            value: Arc::default(),
            users: 0,
        });
        shared.users += 1;
        InUse {
            all: self,
            channel,
            value: shared.value.clone(),
        }
    }

    /// Whether the value of a channel is in use.
    pub(crate) fn is_used(&self, channel: &ChannelName) -> bool {
        self.channels.lock().contains_key(channel)
    }
}

impl<T> Deref for InUse<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T> Drop for InUse<'_, T> {
    fn drop(&mut self) {
        let mut channels = self.all.channels.lock();
        let Some(shared) = channels.get_mut(self.channel) else {
            return;
        };
        shared.users -= 1;
        if shared.users == 0 {
            channels.remove(self.channel);
            if channels.len() < channels.capacity() / 4 {
                channels.shrink_to_fit();
            }
        }
    }
}

impl<T> Default for PerChannel<T> {
    fn default() -> Self {
        Self {
            channels: Mutex::default(),
        }
    }
}

impl<T> fmt::Debug for PerChannel<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PerChannel").finish_non_exhaustive()
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
