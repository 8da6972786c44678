//! A list that many threads may append to until one task takes it.

use crate::sync::{Mutex, lock};

/// Up to a fixed number of items for one task. Once taken, it accepts no more.
#[derive(Debug)]
pub(crate) struct Batch<T> {
    len_max: usize,
    /// `None` once taken.
    items: Mutex<Option<Vec<T>>>,
}

impl<T> Batch<T> {
    pub(crate) fn new(first: T, len_max: usize) -> Self {
        let mut items = Vec::with_capacity(len_max);
        items.push(first);
        Self {
            len_max,
            items: Mutex::new(Some(items)),
        }
    }

    /// Appends an item.
    ///
    /// # Errors
    ///
    /// The batch is full or was taken; gives the item back.
    #[inline]
    pub(crate) fn push(&self, item: T) -> Result<(), T> {
        match &mut *lock(&self.items) {
            Some(items) if items.len() < self.len_max => {
                items.push(item);
                Ok(())
            }
            _ => Err(item),
        }
    }

    /// Takes all items. From now on [`push`](Self::push) fails.
    pub(crate) fn take(&self) -> Vec<T> {
        lock(&self.items).take().unwrap_or_default()
    }
}
