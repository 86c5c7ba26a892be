//! Placement: slot to owner and successors, from a view alone. Every node computes it for itself,
//! so what is hashed here and how is a contract of the cluster: change it and nodes of two versions
//! disagree on every slot.
use std::hash::{BuildHasher, Hash, Hasher};

use hashring::HashRing;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::ownership::view::View;
use crate::protocol::ids::{Incarnation, NodeName, Slot};

#[cfg(test)]
mod tests;

/// Distinct nodes kept a slot: the most copies that can be configured (5) and one spare.
pub const PREFERENCE_LEN: usize = 6;
/// Entries on the ring a node and unit of weight: the standard deviation of a node's share is then
/// about a sixteenth of it, and a ring of 100 nodes is still computed in a few milliseconds.
pub const ENTRIES_PER_WEIGHT: u32 = 256;

/// Part of the contract. Any number would do; this one spells "orb web".
const RING_SEED: u64 = 0x6f72_6220_7765_6231;
/// Ends the row of a slot when there are fewer nodes than places in it.
const NOBODY: u16 = u16::MAX;

type Row = [u16; PREFERENCE_LEN];

/// Who owns each slot, and who comes next.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Placement {
    nodes: Vec<Incarnation>,
    table: Vec<Row>,
}

impl Placement {
    /// Computes the placement of `slots` slots.
    pub fn compute(view: &View, slots: u16) -> Self {
        // Members come sorted by name, so a node's number is the same on every machine.
        let members = &view.members()[..view.len().min(usize::from(NOBODY))];
        let entries = sorted_entries(members.iter().map(|m| (&m.id.name, m.weight)));
        let rows = rows_of(&entries);
        let mut ring = HashRing::with_hasher(AsIs);
        ring.batch_add(entries);
        let row_of = |slot| {
            let entry = ring.get(&Place(place_of(Slot(slot), slots)));
            entry.map_or([NOBODY; PREFERENCE_LEN], |entry| rows[entry.index])
        };
        Self {
            nodes: members.iter().map(|m| m.id.incarnation).collect(),
            table: (0..slots).map(row_of).collect(),
        }
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

    /// How many slots there are.
    pub fn slots(&self) -> u16 {
        self.table.len() as u16
    }

    /// The slots that this node owns, in order.
    pub fn owned_slots(&self, node: Incarnation) -> impl Iterator<Item = Slot> + '_ {
        (0..self.slots()).map(Slot).filter(move |&slot| self.owner(slot) == Some(node))
    }

    /// How many slots this node owns.
    pub fn owned(&self, node: Incarnation) -> usize {
        self.owned_slots(node).count()
    }
}

/// Where a slot is on the ring: slots are equidistant. Hashing them instead would add a second
/// deviation to that of the entries, and would tear the ranges that sets of slots travel as.
fn place_of(slot: Slot, slots: u16) -> u64 {
    ((u128::from(slot.0) << 64) / u128::from(slots.max(1))) as u64
}

/// One of a node's entries on the ring.
#[derive(Clone, Copy, Debug)]
struct Entry {
    place: u64,
    /// Number of the node.
    node: u16,
    /// Number of the entry in ring order.
    index: usize,
}

impl Hash for Entry {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.place);
    }
}

/// All entries in ring order. Ties, should there ever be one, go by the node's number.
fn sorted_entries<'a>(nodes: impl Iterator<Item = (&'a NodeName, u16)>) -> Vec<Entry> {
    let mut entries = Vec::new();
    let mut text = Vec::new();
    for ((name, weight), node) in nodes.zip(0..NOBODY) {
        for replica in 0..ENTRIES_PER_WEIGHT * u32::from(weight.max(1)) {
            text.clear();
            text.extend_from_slice(name.as_str().as_bytes());
            text.push(0);
            text.extend_from_slice(&replica.to_le_bytes());
            entries.push(Entry { place: xxh3_64_with_seed(&text, RING_SEED), node, index: 0 });
        }
    }
    entries.sort_unstable_by_key(|entry| (entry.place, entry.node));
    for (index, entry) in entries.iter_mut().enumerate() {
        entry.index = index;
    }
    entries
}

/// For each entry, its node and the next distinct ones clockwise. Walking backwards, each row is
/// the entry's node and then the row behind it without that node.
fn rows_of(entries: &[Entry]) -> Vec<Row> {
    let mut rows = vec![[NOBODY; PREFERENCE_LEN]; entries.len()];
    let mut behind = [NOBODY; PREFERENCE_LEN];
    // Two turns: in the first, entries near the ring's end don't know yet what its start holds.
    for entry in entries.iter().rev().chain(entries.iter().rev()) {
        behind = row_before(behind, entry.node);
        rows[entry.index] = behind;
    }
    rows
}

fn row_before(behind: Row, node: u16) -> Row {
    let mut row = [NOBODY; PREFERENCE_LEN];
    let others = behind.into_iter().filter(|&other| other != node);
    for (place, node) in row.iter_mut().zip(std::iter::once(node).chain(others)) {
        *place = node;
    }
    row
}

/// What is looked up on the ring.
struct Place(u64);

impl Hash for Place {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.0);
    }
}

/// Takes the one number that entries and places feed it: they are hashes already, and the ring's
/// own hash is no contract between machines.
#[derive(Clone, Copy, Debug, Default)]
struct AsIs;

impl BuildHasher for AsIs {
    type Hasher = Number;
    fn build_hasher(&self) -> Number {
        Number(0)
    }
}

struct Number(u64);

impl Hasher for Number {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0 << 8 | u64::from(*byte);
        }
    }
    fn write_u64(&mut self, number: u64) {
        self.0 = number;
    }
    fn finish(&self) -> u64 {
        self.0
    }
}
