//! Changes of users' records that weren't committed when their slot was lost. The next owner may have
//! undone them, or never have had them; whoever sends one again is told that it isn't known.
use std::collections::BTreeMap;

use super::log::UNCOMMITTED_MAX;
use super::parked::PARKED_MS;
use crate::protocol::ids::Epoch;
use crate::protocol::message::OperationId;
use crate::protocol::time::Millis;

/// How long it is remembered what wasn't committed: its senders have given up by then.
const REMEMBERED_MS: u64 = 2 * PARKED_MS;
/// Operations remembered, a slot; over it all of the slot's are doubtful.
const OPERATIONS_MAX: usize = UNCOMMITTED_MAX;

/// Those of one slot.
#[derive(Debug, Default)]
pub(super) struct Doubtful {
    /// When the slot was lost last.
    lost: Millis,
    /// Under which epoch each was made.
    operations: BTreeMap<OperationId, Epoch>,
    /// The first epoch of those for which there was no room.
    others: Option<Epoch>,
}

impl Doubtful {
    /// The slot is lost, and with it the epoch under which these operations were made.
    pub(super) fn note(
        &mut self,
        operations: impl Iterator<Item = OperationId>,
        ended: Epoch,
        now: Millis,
    ) {
        self.lost = now;
        for operation in operations {
            if self.operations.len() < OPERATIONS_MAX {
                self.operations.entry(operation).or_insert(ended);
            } else if !self.operations.contains_key(&operation) {
                self.others.get_or_insert(ended);
            }
        }
    }

    /// The epoch under which an operation was made of which nothing is known.
    pub(super) fn epoch(&self, operation: OperationId) -> Option<Epoch> {
        self.operations.get(&operation).copied().or(self.others)
    }

    /// Whoever claims with this term asks this node, and so takes in what it made in the term before.
    pub(super) fn settle(&mut self, term: u64) {
        let stays = |ended: &Epoch| term > ended.term + 1;
        self.operations.retain(|_, ended| stays(ended));
        self.others = self.others.filter(stays);
    }

    /// Whether it is too long ago to matter.
    pub(super) fn is_over(&self, now: Millis) -> bool {
        now.since(self.lost) >= REMEMBERED_MS
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::ids::Incarnation;

    fn operation(number: u64) -> OperationId {
        OperationId { gateway: Incarnation(1), number }
    }

    fn epoch(term: u64) -> Epoch {
        Epoch { term, owner: Incarnation(2) }
    }

    #[test]
    fn beyond_what_is_remembered_every_operation_is_doubtful() {
        let (most, mut doubtful) = (OPERATIONS_MAX as u64, Doubtful::default());
        doubtful.note((1..=most).map(operation), epoch(3), Millis(0));
        assert_eq!(doubtful.epoch(operation(most)), Some(epoch(3)));
        assert_eq!(doubtful.epoch(operation(most + 1)), None);
        doubtful.note([operation(1), operation(most + 2)].into_iter(), epoch(5), Millis(1));
        assert_eq!(doubtful.epoch(operation(1)), Some(epoch(3)), "made before");
        assert_eq!(doubtful.epoch(operation(most + 1)), Some(epoch(5)));
        assert!(!doubtful.is_over(Millis(REMEMBERED_MS)));
        assert!(doubtful.is_over(Millis(1 + REMEMBERED_MS)));
    }

    #[test]
    fn what_the_next_owner_takes_in_is_not_doubtful() {
        let mut doubtful = Doubtful::default();
        doubtful.note([operation(1)].into_iter(), epoch(3), Millis(0));
        doubtful.settle(5);
        assert_eq!(doubtful.epoch(operation(1)), Some(epoch(3)), "there was an owner between");
        doubtful.settle(4);
        assert_eq!(doubtful.epoch(operation(1)), None);
    }
}
