//! Placement: slot to owner and successors, from a view alone.
use crate::ownership::view::View;
use crate::protocol::ids::{Incarnation, Slot};

/// Distinct nodes kept a slot: the most copies that can be configured (5) and one spare.
pub const PREFERENCE_LEN: usize = 6;

/// Who owns each slot, and who comes next.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Placement {
    nodes: Vec<Incarnation>,
    table: Vec<[u16; PREFERENCE_LEN]>,
}

impl Placement {
    /// Computes the placement of `slots` slots.
    pub fn compute(_view: &View, _slots: u16) -> Self {
        Self::default()
    }

    /// Owner and successors of a slot in ring order, at most [`PREFERENCE_LEN`]; empty for an empty view.
    pub fn preference(&self, slot: Slot) -> impl Iterator<Item = Incarnation> + '_ {
        let row = self.table.get(slot.index()).into_iter().flatten();
        row.map_while(|&node| self.nodes.get(usize::from(node)).copied())
    }

    /// The owner of a slot; `None` for an empty view.
    pub fn owner(&self, slot: Slot) -> Option<Incarnation> {
        self.preference(slot).next()
    }
}
