//! A list that many threads append to until one task takes it.

use crate::sync::{Mutex, lock};

/// A list with a maximum length, for one task. Once taken, it accepts no more items.
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
    /// The batch is full or was taken. Returns the item.
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

    /// Takes all items. Later calls of [`push`](Self::push) fail.
    pub(crate) fn take(&self) -> Vec<T> {
        lock(&self.items).take().unwrap_or_default()
    }
}
