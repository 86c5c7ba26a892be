//! How well slots are held: whether all who are to hold them do, and numbers for status and
//! checkers. It only looks.
use crate::ownership::log::Log;
use crate::ownership::owner::Ownership;
use crate::protocol::ids::{Incarnation, Slot};

/// How well slots are held: those that a node owns, and what it has of others'.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Copies {
    /// Nodes that must hold what is acknowledged now; 0 = nothing is acknowledged.
    pub required: u32,
    /// Owned slots held by fewer nodes than the cluster keeps copies.
    pub under_replicated: u32,
    /// Those of them that could be held by more now.
    pub unrepaired: u32,
    /// Changes that aren't committed.
    pub uncommitted: u64,
    /// Slots of others of which this node may hold what their owners lack.
    pub astray: u32,
}

impl Copies {
    /// Whether no node is needed more than another: as many hold everything as the cluster keeps
    /// copies.
    pub fn is_whole(&self) -> bool {
        self.under_replicated == 0 && self.astray == 0
    }
}

impl Ownership {
    /// Whether a slot is held, up to this change, by all that are to hold it.
    pub(in crate::ownership) fn is_replicated(&self, slot: Slot, index: u64) -> bool {
        let Some(log) = self.logs.get(&slot) else { return true };
        let targets = self.targets(slot);
        let holds = |node: &Incarnation| {
            log.followers.get(node).is_some_and(|f| f.is_whole() && f.acked >= index)
        };
        log.is_settled()
            && log.committed() >= index
            && targets.iter().all(holds)
            && log.committed_copies() >= self.world.required
    }

    /// Whether a node holds all of an owned slot that this one has.
    pub(in crate::ownership) fn is_followed_by(&self, node: Incarnation, slot: Slot) -> bool {
        let follower = self.logs.get(&slot).and_then(|log| log.followers.get(&node));
        follower.is_some_and(|follower| follower.is_whole() && !follower.spare)
    }

    /// How well slots are held.
    pub fn copies(&self) -> Copies {
        let required = self.world.required as u32;
        let mut copies = Copies { required, astray: self.astray(), ..Copies::default() };
        for log in self.logs.values() {
            let whole = log.committed_copies();
            copies.under_replicated += u32::from(whole < usize::from(self.copies));
            let reachable = self.world.members.len().min(usize::from(self.copies));
            copies.unrepaired += u32::from(whole < reachable);
            copies.uncommitted += log.uncommitted() as u64;
        }
        copies
    }

    /// Who holds an owned slot, for somebody who looks for a reason.
    pub fn describe_holders(&self, slot: Slot) -> String {
        let Some(log) = self.logs.get(&slot) else { return "no log".to_owned() };
        let (last, committed) = (log.last(), log.committed());
        format!("changes {committed}/{last}, followers {:?}", log.followers)
    }

    /// The most changes of one slot that wait to be committed.
    pub fn most_uncommitted(&self) -> usize {
        self.logs.values().map(Log::uncommitted).max().unwrap_or(0)
    }
}
