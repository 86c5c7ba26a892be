//! The view: the sorted set of nodes that this node believes in now.
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

use crate::protocol::ids::{Incarnation, NodeId, NodeName};

#[cfg(test)]
mod tests;

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

/// A name in the lists of links that members gossip: short, since every node carries the list of
/// every other.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct NameHash(pub u32);

impl NameHash {
    /// The hash of a name: a contract of the cluster.
    pub fn of(name: &NodeName) -> Self {
        Self(xxh3_64(name.as_str().as_bytes()) as u32)
    }
}

/// An incarnation in the lists of those whom members wait for: short, as names are in lists of links.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Awaited(pub u32);

impl Awaited {
    /// The short form of an incarnation: a contract of the cluster.
    pub fn of(node: Incarnation) -> Self {
        Self(xxh3_64(&node.0.to_le_bytes()) as u32)
    }
}

/// What gossip says of a member that is live and `up`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Candidate {
    /// Who it is.
    pub member: Member,
    /// The peers that it has a working link to, sorted.
    pub links: Vec<NameHash>,
    /// Whom it saw leave the view and waits for, sorted.
    pub awaits: Vec<Awaited>,
}

impl Candidate {
    fn lists(&self, name: NameHash) -> bool {
        self.links.binary_search(&name).is_ok()
    }
}

impl View {
    /// The candidates that list at least half of the others as linked and are listed by at least
    /// half of them: a deaf or a mute node isn't among them, however long others call it live.
    /// At most one candidate a name is expected. Equal gossip gives equal views, in any order.
    pub fn qualified(candidates: &[Candidate]) -> Self {
        let names: Vec<NameHash> =
            candidates.iter().map(|c| NameHash::of(&c.member.id.name)).collect();
        let others = candidates.len().saturating_sub(1);
        let qualifies = |index: usize| {
            let one = (&candidates[index], names[index]);
            let rest = || (0..candidates.len()).filter(move |&other| other != index);
            let lists = rest().filter(|&other| one.0.lists(names[other])).count();
            let listed = rest().filter(|&other| candidates[other].lists(one.1)).count();
            2 * lists >= others && 2 * listed >= others
        };
        let members = (0..candidates.len()).filter(|&index| qualifies(index));
        Self::new(members.map(|index| candidates[index].member.clone()))
    }

    /// The members of this view but those for whom more than half of them wait, by what the candidates
    /// gossip. `own` is this node's list, later than what it has gossiped. After a split the greater part
    /// is the view on both sides at once, and the rest comes back on all nodes together.
    pub fn agreed(&self, candidates: &[Candidate], own: (Incarnation, &[Awaited])) -> Self {
        let (me, mine) = own;
        let voters = candidates.iter().filter(|c| self.contains(c.member.id.incarnation));
        let lists: Vec<&[Awaited]> = voters
            .map(|c| if c.member.id.incarnation == me { mine } else { &c.awaits })
            .filter(|list| !list.is_empty())
            .collect();
        let waiting = |member: &Member| {
            let node = Awaited::of(member.id.incarnation);
            lists.iter().filter(|list| list.binary_search(&node).is_ok()).count()
        };
        Self::new(self.members.iter().filter(|m| 2 * waiting(m) <= self.len()).cloned())
    }

    /// The qualified candidates; if there is none, all of them.
    pub fn eligible(candidates: &[Candidate]) -> Self {
        let qualified = Self::qualified(candidates);
        if qualified.is_empty() {
            return Self::new(candidates.iter().map(|c| c.member.clone()));
        }
        qualified
    }
}
