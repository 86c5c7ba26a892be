//! The view: the sorted set of nodes that this node believes in now.
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::Xxh3;

use crate::protocol::ids::{Incarnation, NodeId};

/// A node in a view.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct Member {
    /// Name and incarnation; at most one incarnation of a name is in a view.
    pub id: NodeId,
    /// Share of the ring in units of 256 virtual entries; 1 to 64.
    pub weight: u16,
}

/// A sorted set of members. Equal sets have equal hashes.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct View {
    members: Vec<Member>,
}

impl View {
    /// Sorts and keeps one incarnation a name: the greater id, so that every node keeps the same.
    pub fn new(members: impl IntoIterator<Item = Member>) -> Self {
        let mut members: Vec<Member> = members.into_iter().collect();
        members.sort();
        members.reverse();
        members.dedup_by(|a, b| a.id.name == b.id.name);
        members.reverse();
        Self { members }
    }

    /// The members in order of their names.
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// Whether this incarnation is a member.
    pub fn contains(&self, node: Incarnation) -> bool {
        self.members.iter().any(|m| m.id.incarnation == node)
    }

    /// Identifies the set in logs, status and frames.
    pub fn hash(&self) -> u64 {
        let mut hash = Xxh3::new();
        for member in &self.members {
            hash.update(member.id.name.as_str().as_bytes());
            hash.update(&member.id.incarnation.0.to_le_bytes());
            hash.update(&member.weight.to_le_bytes());
        }
        hash.digest()
    }
}
