//! The items of a queue in order, with what the policies for slow consumers need: to drop the oldest publication, and
//! to replace a publication that is not sent yet by a newer one of the same slot.
//!
//! All operations except [`Backlog::remove_droppable`] take amortized constant time. A removed item leaves a gap, which
//! takes memory until it is at the front, or until most of the backlog is gaps.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use super::Item;
use crate::channel::ChannelName;
use crate::ids::Subscription;

/// The items of a queue.
#[derive(Debug, Default)]
pub(super) struct Backlog {
    items: VecDeque<Option<Item>>,
    /// Number of the first of `items`. The numbers of items rise.
    first: u64,
    /// Number of the newest publication of each slot that is not sent yet. Boxed, because most clients have none.
    #[expect(clippy::box_collection, reason = "a map has 48 bytes, in each queue")]
    slots: Option<Box<HashMap<Slot, u64>>>,
    gaps: usize,
    /// Items before this number cannot be dropped.
    not_droppable_before: u64,
}

/// Where the `latest` policy keeps one publication: a channel, or a key in a channel.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Slot {
    pub(crate) channel: ChannelName,
    pub(crate) key: Option<Arc<str>>,
}

/// Beyond this number of gaps, they are removed when they are more than half of the backlog.
const GAPS_MAX: usize = 64;

impl Backlog {
    pub(super) fn is_empty(&self) -> bool {
        self.items.len() == self.gaps
    }

    /// Adds an item. Returns the one that it replaces, if there is one.
    pub(super) fn push_back(&mut self, item: Item) -> Option<Item> {
        let number = self.first + self.items.len() as u64;
        let replaced = match &item {
            Item::Latest(slot, _) => {
                let slots = self.slots.get_or_insert_default();
                slots.insert(slot.clone(), number)
            }
            _ => None,
        };
        self.items.push_back(Some(item));
        let replaced = self.remove(replaced?);
        self.compact();
        replaced
    }

    pub(super) fn pop_front(&mut self) -> Option<Item> {
        loop {
            let item = self.items.pop_front()?;
            self.first += 1;
            match item {
                Some(item) => {
                    self.forget_slot(&item, self.first - 1);
                    self.drop_leading_gaps();
                    return Some(item);
                }
                None => self.gaps -= 1,
            }
        }
    }

    pub(super) fn front(&self) -> Option<&Item> {
        self.items.iter().flatten().next()
    }

    /// Removes the oldest publication that may be dropped. The newest item stays.
    pub(super) fn drop_oldest(&mut self) -> Option<Item> {
        let start = self.not_droppable_before.saturating_sub(self.first) as usize;
        let end = self.items.len().saturating_sub(1);
        let index = (start..end).find(|index| matches!(self.items[*index], Some(Item::Droppable(..))));
        // Later items are not examined again.
        self.not_droppable_before = self.first + index.unwrap_or(end).max(start) as u64;
        let dropped = self.remove(self.first + index? as u64);
        self.compact();
        dropped
    }

    /// Removes all publications of a subscription that may be dropped.
    pub(super) fn remove_droppable(&mut self, subscription: &Subscription) -> Vec<Item> {
        let is_meant = |item: &Item| matches!(item, Item::Droppable(_, Some(known)) if known == subscription);
        let items = self.items.iter_mut();
        let removed: Vec<_> = items
            .filter(|item| item.as_ref().is_some_and(is_meant))
            .filter_map(Option::take)
            .collect();
        self.gaps += removed.len();
        self.drop_leading_gaps();
        self.compact();
        removed
    }

    fn remove(&mut self, number: u64) -> Option<Item> {
        let index = usize::try_from(number.checked_sub(self.first)?).ok()?;
        let item = self.items.get_mut(index)?.take()?;
        self.gaps += 1;
        self.drop_leading_gaps();
        Some(item)
    }

    fn forget_slot(&mut self, item: &Item, number: u64) {
        if let (Item::Latest(slot, _), Some(slots)) = (item, &mut self.slots)
            && slots.get(slot) == Some(&number)
        {
            slots.remove(slot);
        }
    }

    fn drop_leading_gaps(&mut self) {
        while let Some(None) = self.items.front() {
            self.items.pop_front();
            self.first += 1;
            self.gaps -= 1;
        }
    }

    /// Removes all gaps if they are the larger part.
    fn compact(&mut self) {
        if self.gaps <= GAPS_MAX || self.gaps * 2 < self.items.len() {
            return;
        }
        self.items.retain(Option::is_some);
        self.gaps = 0;
        self.not_droppable_before = 0;
        if let Some(slots) = &mut self.slots {
            slots.clear();
            for (index, item) in self.items.iter().enumerate() {
                if let Some(Item::Latest(slot, _)) = item {
                    slots.insert(slot.clone(), self.first + index as u64);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};
    use sockeye::PreparedMessage;

    use super::*;

    fn text(item: &Item) -> &str {
        match item {
            Item::Push(push) | Item::Droppable(push, _) | Item::Latest(_, push) => push.message().as_text().unwrap(),
            other => panic!("{other:?}"),
        }
    }

    /// Compares with a list that is searched.
    #[test]
    fn a_backlog_matches_a_naive_model() {
        for seed in 0..200 {
            let mut rng = StdRng::seed_from_u64(seed);
            let mut backlog = Backlog::default();
            // Kind (1: droppable, 2 and more: a slot) and text.
            let mut model: Vec<(u32, String)> = Vec::new();
            for n in 0..600 {
                match rng.random_range(0..10) {
                    0..2 => {
                        let item = backlog.pop_front();
                        let expected = (!model.is_empty()).then(|| model.remove(0).1);
                        assert_eq!(item.as_ref().map(text), expected.as_deref());
                    }
                    2 => {
                        let before_last = model.len().saturating_sub(1);
                        let at = model[..before_last].iter().position(|(kind, _)| *kind == 1);
                        let expected = at.map(|at| model.remove(at).1);
                        assert_eq!(backlog.drop_oldest().as_ref().map(text), expected.as_deref());
                    }
                    _ => {
                        let (kind, text_of) = (rng.random_range(0..6), n.to_string());
                        let push = PreparedMessage::new(text_of.as_str());
                        let item = match kind {
                            0 => Item::Push(push),
                            1 => Item::Droppable(push, None),
                            key => {
                                let slot = Slot {
                                    channel: ChannelName::new("a").unwrap(),
                                    key: (key > 2).then(|| key.to_string().into()),
                                };
                                Item::Latest(slot, push)
                            }
                        };
                        let at = model.iter().position(|(known, _)| kind > 1 && *known == kind);
                        let expected = at.map(|at| model.remove(at).1);
                        assert_eq!(backlog.push_back(item).as_ref().map(text), expected.as_deref());
                        model.push((kind, text_of));
                    }
                }
                assert_eq!(backlog.is_empty(), model.is_empty());
                assert_eq!(backlog.front().map(text), model.first().map(|(_, text)| text.as_str()));
                assert!(backlog.items.len() <= 2 * model.len() + GAPS_MAX + 1);
            }
        }
    }
}
