//! Idempotency keys of a slot, and the operations that each stands for: one, or several where nodes took
//! the same publication without knowing of each other. What is published with one key is one message.
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use smallvec::SmallVec;

use super::Holding;
use crate::mutant::{Rule, without};
use crate::ownership::rare::{Nothing, Rare};
use crate::protocol::channel::Channel;
use crate::protocol::ids::Position;
use crate::protocol::message::OperationId;
use crate::protocol::time::Millis;

/// Idempotency keys remembered, a slot: over it a publication with a new one is refused for now.
pub const KEYS_MAX: usize = 16_384;
/// The same where copies meet: two parts of a cut may each have remembered as many as they may. Over
/// it those that end first are forgotten.
pub(super) const KEYS_HELD_MAX: usize = 2 * KEYS_MAX;
/// How long an idempotency key is remembered.
pub const KEY_MS: u64 = 300_000;
/// Operations remembered for one key.
const OPERATIONS_MAX: usize = 8;

/// What a key stands for, in the order of the operations, each with its end.
type Operations = SmallVec<[(OperationId, Millis); 1]>;

/// See the module.
#[derive(Clone, PartialEq, Debug, Default)]
pub(in crate::ownership) struct Keys {
    known: BTreeMap<(Channel, Arc<str>), Operations>,
    /// The key of each of these operations.
    of_operations: BTreeMap<OperationId, Arc<str>>,
}

impl Nothing for Keys {
    const NOTHING: &'static Self = &Self { known: BTreeMap::new(), of_operations: BTreeMap::new() };
}

impl Rare<Keys> {
    /// Notes that a publication has a key, if it has one.
    pub(super) fn remember(
        &mut self,
        channel: &Channel,
        key: Option<Arc<str>>,
        operation: OperationId,
        now: Millis,
    ) {
        if let Some(key) = key {
            self.insert(channel.clone(), key, operation, now + KEY_MS);
        }
    }

    /// Forgets what has ended.
    pub(super) fn expire(&mut self, now: Millis) {
        if !self.is_empty() {
            self.forget_ended(now);
            self.tidy();
        }
    }
}

impl Keys {
    /// Notes that an operation has a key, until a time that another node may know.
    pub(super) fn insert(
        &mut self,
        channel: Channel,
        key: Arc<str>,
        operation: OperationId,
        expires: Millis,
    ) {
        let operations = self.known.entry((channel, key.clone())).or_default();
        match operations.binary_search_by_key(&operation, |(other, _)| *other) {
            Ok(at) => operations[at].1 = expires.max(operations[at].1),
            Err(at) => {
                operations.insert(at, (operation, expires));
                self.of_operations.insert(operation, key);
                if operations.len() > OPERATIONS_MAX {
                    let (first, _) = operations.remove(0);
                    self.of_operations.remove(&first);
                }
            }
        }
        if self.known.len() > KEYS_HELD_MAX {
            self.forget_first(KEYS_HELD_MAX / 4);
        }
    }

    /// Forgets so many keys that end first: many at once, since finding them costs a look at all.
    fn forget_first(&mut self, mut count: usize) {
        let end = |operations: &Operations| operations.iter().map(|(_, expires)| *expires).max();
        let mut ends: Vec<_> = self.known.values().map(end).collect();
        let (_, last, _) = ends.select_nth_unstable(count);
        let last = *last;
        let of_operations = &mut self.of_operations;
        self.known.retain(|_, operations| {
            let keeps = count == 0 || end(operations) > last;
            if !keeps {
                count -= 1;
                operations.iter().for_each(|(operation, _)| drop(of_operations.remove(operation)));
            }
            keeps
        });
    }

    /// The operations that a key stands for.
    fn of(
        &self,
        channel: &Channel,
        key: &Arc<str>,
        now: Millis,
    ) -> impl Iterator<Item = OperationId> {
        let known = self.known.get(&(channel.clone(), key.clone())).into_iter().flatten();
        known.filter(move |(_, expires)| *expires > now).map(|(operation, _)| *operation)
    }

    /// The key of an operation.
    fn find(&self, operation: OperationId) -> Option<&Arc<str>> {
        self.of_operations.get(&operation)
    }

    /// Whether a line with these names has what was published with the key of this operation, as
    /// another one.
    pub(super) fn has_other(
        &self,
        channel: &Channel,
        operation: OperationId,
        names: &HashMap<OperationId, Position>,
        now: Millis,
    ) -> bool {
        let Some(key) = self.find(operation).filter(|_| !without(Rule::OneMessageAKey)) else {
            return false;
        };
        let mut others = self.of(channel, key, now).filter(|other| *other != operation);
        others.any(|other| names.contains_key(&other))
    }

    /// Each key with each of its operations.
    pub(super) fn all(&self) -> impl Iterator<Item = (&Channel, &Arc<str>, OperationId, Millis)> {
        self.known.iter().flat_map(|((channel, key), operations)| {
            operations.iter().map(move |(operation, expires)| (channel, key, *operation, *expires))
        })
    }

    pub(super) fn is_empty(&self) -> bool {
        self.known.is_empty()
    }

    fn forget_ended(&mut self, now: Millis) {
        let of_operations = &mut self.of_operations;
        self.known.retain(|_, operations| {
            operations.retain(|(operation, expires)| {
                let keeps = *expires > now;
                if !keeps {
                    of_operations.remove(operation);
                }
                keeps
            });
            !operations.is_empty()
        });
    }
}

impl Holding {
    /// The operation that an idempotency key stands for: one that the line has, if there is one.
    pub fn key(&self, channel: &Channel, key: &Arc<str>, now: Millis) -> Option<OperationId> {
        let stream = self.stream(channel);
        let held = |of: &OperationId| stream.is_some_and(|stream| stream.find(*of).is_some());
        let mut known = self.keys.of(channel, key, now);
        let first = known.next()?;
        Some(std::iter::once(first).chain(known).find(held).unwrap_or(first))
    }

    /// The idempotency key that stands for an operation.
    pub fn key_of(&self, operation: OperationId) -> Option<Arc<str>> {
        self.keys.find(operation).cloned()
    }

    /// Whether there is room for one more idempotency key.
    pub fn takes_keys(&self) -> bool {
        self.keys.known.len() < KEYS_MAX
    }
}
