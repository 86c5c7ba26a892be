//! The slot table: for each slot the highest promise and this node's role. The one place where a
//! promise is given, so the one place that keeps it from decreasing.
use crate::mutant::{Rule, without};
use crate::protocol::ids::{Epoch, Incarnation, Slot};
use crate::protocol::peer::SlotRange;
use crate::protocol::time::Millis;

/// What this node is to a slot.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Role {
    /// Nothing.
    #[default]
    Idle,
    /// It is claiming, in the claim of this number.
    Claiming(u64),
    /// It owns the slot, under the epoch that it promised to itself.
    Owner {
        /// The index that the next operation gets.
        index: u64,
        /// When it won.
        won: Millis,
        /// Until when it may not know everything.
        missing: Missing,
    },
}

/// Until when nodes that are missing may come back with what isn't known where a slot was won.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Missing {
    /// Anything: some node is missing.
    pub incomplete_until: Millis,
    /// What was acknowledged: so many are missing that they may be all who hold it.
    pub short_until: Millis,
}

/// What became of a promise that was asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Promised {
    /// Given, or given before to the same epoch; `was` is the role that this ended.
    Given {
        /// The role before.
        was: Role,
    },
    /// Refused for this higher promise.
    Refused(Epoch),
}

#[derive(Clone, Copy, Debug)]
struct Cell {
    promised: Epoch,
    role: Role,
}

/// See the module.
#[derive(Debug)]
pub struct SlotTable {
    me: Incarnation,
    cells: Vec<Cell>,
    turns: u64,
}

impl SlotTable {
    /// A table of `slots` slots without promises.
    pub fn new(me: Incarnation, slots: u16) -> Self {
        let cell = Cell { promised: Epoch::NONE, role: Role::Idle };
        Self { me, cells: vec![cell; usize::from(slots)], turns: 0 }
    }

    /// How often a role may have turned into another so far.
    pub fn turns(&self) -> u64 {
        self.turns
    }

    /// How many slots there are.
    pub fn slots(&self) -> u16 {
        self.cells.len() as u16
    }

    /// All slots in order.
    pub fn all(&self) -> impl Iterator<Item = Slot> + use<> {
        (0..self.slots()).map(Slot)
    }

    /// Whether the slot exists in this cluster.
    pub fn contains(&self, slot: Slot) -> bool {
        slot.index() < self.cells.len()
    }

    /// The highest epoch promised.
    pub fn promised(&self, slot: Slot) -> Epoch {
        self.cells.get(slot.index()).map_or(Epoch::NONE, |cell| cell.promised)
    }

    /// This node's role.
    pub fn role(&self, slot: Slot) -> Role {
        self.cells.get(slot.index()).map_or(Role::Idle, |cell| cell.role)
    }

    /// Whether this node owns the slot.
    pub fn owns(&self, slot: Slot) -> bool {
        matches!(self.role(slot), Role::Owner { .. })
    }

    /// Promises an epoch unless a higher one was promised. A promise to another node ends this
    /// node's role.
    pub fn promise(&mut self, slot: Slot, epoch: Epoch) -> Promised {
        let me = self.me;
        let Some(cell) = self.cells.get_mut(slot.index()) else {
            return Promised::Refused(Epoch::NONE);
        };
        if epoch < cell.promised && !without(Rule::Fence) {
            return Promised::Refused(cell.promised);
        }
        cell.promised = epoch;
        if epoch.owner == me {
            return Promised::Given { was: cell.role };
        }
        self.turns += u64::from(cell.role != Role::Idle);
        Promised::Given { was: std::mem::take(&mut cell.role) }
    }

    /// Takes the next epoch for a claim and promises it to this node.
    pub fn begin_claim(&mut self, slot: Slot, claim: u64) -> Epoch {
        let epoch = Epoch { term: self.promised(slot).term + 1, owner: self.me };
        self.turns += 1;
        if let Some(cell) = self.cells.get_mut(slot.index()) {
            *cell = Cell { promised: epoch, role: Role::Claiming(claim) };
        }
        epoch
    }

    /// Ends a claim in ownership.
    pub fn win(&mut self, slot: Slot, now: Millis, missing: Missing) {
        self.turns += 1;
        if let Some(cell) = self.cells.get_mut(slot.index()) {
            debug_assert_eq!(cell.promised.owner, self.me, "an owner has promised to itself");
            cell.role = Role::Owner { index: 1, won: now, missing };
        }
    }

    /// Ends a role without a promise to another.
    pub fn give_up(&mut self, slot: Slot) {
        self.turns += 1;
        if let Some(cell) = self.cells.get_mut(slot.index()) {
            cell.role = Role::Idle;
        }
    }

    /// The epoch and the next operation index of a slot that this node owns.
    pub fn next_index(&mut self, slot: Slot) -> Option<(Epoch, u64)> {
        let cell = self.cells.get_mut(slot.index())?;
        let Role::Owner { index, .. } = &mut cell.role else {
            return None;
        };
        *index += 1;
        let mut epoch = cell.promised;
        if without(Rule::IncarnationInEpoch) {
            epoch.owner = Incarnation(0);
        }
        Some((epoch, *index - 1))
    }

    /// Marks an owned slot as complete: all that can be asked has answered. `left`: who can't
    /// be.
    pub fn complete(&mut self, slot: Slot, left: Missing) {
        if let Some(Cell { role: Role::Owner { missing, .. }, .. }) =
            self.cells.get_mut(slot.index())
        {
            *missing = left;
        }
    }
}

/// Slots in order as ranges of one term each.
pub fn ranges_by_term(slots: impl IntoIterator<Item = (Slot, u64)>) -> Vec<(SlotRange, u64)> {
    let mut terms: std::collections::BTreeMap<u64, Vec<Slot>> = std::collections::BTreeMap::new();
    for (slot, term) in slots {
        terms.entry(term).or_default().push(slot);
    }
    let in_ranges = |(term, slots)| ranges(slots).into_iter().map(move |range| (range, term));
    terms.into_iter().flat_map(in_ranges).collect()
}

/// Slots in order as ranges.
pub fn ranges(slots: impl IntoIterator<Item = Slot>) -> Vec<SlotRange> {
    let mut ranges: Vec<SlotRange> = Vec::new();
    for slot in slots {
        match ranges.last_mut() {
            Some(range) if range.last.0.checked_add(1) == Some(slot.0) => range.last = slot,
            _ => ranges.push(SlotRange { first: slot, last: slot }),
        }
    }
    ranges
}

#[cfg(test)]
mod tests {
    use super::*;

    const ME: Incarnation = Incarnation(1);
    const OTHER: Incarnation = Incarnation(2);

    #[test]
    fn a_promise_never_decreases() {
        let mut table = SlotTable::new(ME, 4);
        let high = Epoch { term: 3, owner: OTHER };
        assert_eq!(table.promise(Slot(1), high), Promised::Given { was: Role::Idle });
        let low = Epoch { term: 3, owner: ME };
        assert_eq!(table.promise(Slot(1), low), Promised::Refused(high));
        assert_eq!(table.promised(Slot(1)), high);
        assert_eq!(table.begin_claim(Slot(1), 7), Epoch { term: 4, owner: ME });
    }

    #[test]
    fn a_promise_to_another_ends_ownership() {
        let mut table = SlotTable::new(ME, 4);
        table.begin_claim(Slot(0), 1);
        table.win(Slot(0), Millis(1), Missing::default());
        assert_eq!(table.next_index(Slot(0)).map(|(_, index)| index), Some(1));
        assert_eq!(table.next_index(Slot(0)).map(|(_, index)| index), Some(2));
        table.promise(Slot(0), Epoch { term: 2, owner: OTHER });
        assert!(!table.owns(Slot(0)));
        assert_eq!(table.next_index(Slot(0)), None);
    }

    #[test]
    fn ranges_join_neighbours() {
        let range = |first, last| SlotRange { first: Slot(first), last: Slot(last) };
        let slots = [1, 2, 3, 7, 9, 10].map(Slot);
        assert_eq!(ranges(slots), [range(1, 3), range(7, 7), range(9, 10)]);
    }
}
