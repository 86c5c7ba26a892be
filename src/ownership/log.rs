//! The log of one owned slot: its changes in order, who holds them, and what waits for them to be
//! committed. Pure bookkeeping of the owner; it sends nothing.
use std::collections::VecDeque;
use std::sync::Arc;

use smallvec::SmallVec;

use super::holding::ENTRY_BYTES;
use super::parked::Request;
use crate::protocol::channel::Channel;
use crate::protocol::ids::{Incarnation, Position};
use crate::protocol::message::OperationId;
use crate::protocol::peer::Change;
use crate::protocol::time::Millis;
use crate::protocol::user::{Field, Stamped};
use crate::small_map::SmallMap;

/// Committed changes kept for followers that lag, a slot; who lags more pulls a copy instead.
pub(super) const KEPT_MAX: usize = 8_192;
/// Payload bytes of the same.
pub(super) const KEPT_BYTES_MAX: usize = 8 << 20;
/// Changes that may wait to be committed, a slot; over it operations are refused for now.
pub const UNCOMMITTED_MAX: usize = 8_192;
/// Bytes of such changes: four seconds of what one link carries to a slow follower.
pub const UNCOMMITTED_BYTES_MAX: usize = 32 << 20;
/// Operations that may wait for one change: what is published with one key again and again. Over it
/// they are sent again later.
pub(super) const RESULTS_MAX: usize = 1_024;
/// Changes sent to a follower beyond what it acknowledged.
const WINDOW: u64 = 1_024;
/// Changes sent again at once to a follower that is silent: the link may have lost them, but a
/// follower that is merely slow isn't helped by more to read.
const AGAIN: u64 = 64;

/// Whom to tell once a change is committed: the gateway and its number for the operation.
pub(super) type Results = SmallVec<[(Incarnation, u64); 1]>;

/// What a change is about, for when it is committed.
#[derive(Clone, Debug)]
pub(super) enum Place {
    /// A publication, or the beginning of a stream.
    Stream(Channel, Position),
    /// A change of the record of the user whose inbox this is.
    User(Channel, Stamped),
}

/// A change that isn't committed yet, and what waits for it.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) index: u64,
    /// What is to be shown then.
    pub(super) place: Option<Place>,
    pub(super) results: Results,
    /// Requests to be served then.
    pub(super) asks: Vec<Request>,
}

impl Waiting {
    /// Who sent an operation is told then, once. False if too many are.
    pub(super) fn tell(&mut self, gateway: Incarnation, number: u64) -> bool {
        let waits = self.results.contains(&(gateway, number));
        if !waits && self.results.len() >= RESULTS_MAX {
            return false;
        }
        if !waits {
            self.results.push((gateway, number));
        }
        true
    }
}

/// What the owner knows of a node that holds copies of the slot.
#[derive(Clone, Debug)]
pub(super) struct Follower {
    /// It holds the changes behind this index up to `acked`; and all before if it is whole.
    pub(super) from: u64,
    pub(super) acked: u64,
    pub(super) sent: u64,
    /// The number of the copy that it is asked to have, and of the one that it has. No number is used
    /// twice in a log: who died and is back may still answer to what it was asked before.
    pub(super) number: u64,
    pub(super) followed: u64,
    /// When it was asked for the copy.
    pub(super) asked: Option<Millis>,
    /// Since when it acknowledges nothing of what was sent.
    pub(super) since: Millis,
    /// When it was sent again what it is silent about, and the pause until the next time; 0 = it
    /// isn't silent.
    pub(super) tried: Millis,
    pub(super) retry_ms: u64,
    /// It stands in for one that is silent.
    pub(super) spare: bool,
}

impl Follower {
    /// Whether it holds everything before its tail.
    pub(super) fn is_whole(&self) -> bool {
        !self.spare && self.followed == self.number
    }

    /// How long it has been silent about what was sent; 0 if nothing is outstanding.
    pub(super) fn silent_ms(&self, now: Millis) -> u64 {
        if self.acked < self.sent { now.since(self.since) } else { 0 }
    }

    fn holds(&self, index: u64) -> bool {
        self.acked >= index && (self.is_whole() || self.from < index)
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Log {
    /// The index of the first change that is kept.
    first: u64,
    changes: VecDeque<Arc<Change>>,
    bytes: usize,
    committed: u64,
    /// Bytes of the changes behind it.
    uncommitted_bytes: usize,
    /// Changes up to here were taken over with the slot: some may have been acknowledged.
    base: u64,
    /// Nothing is held but what was logged.
    founded: bool,
    /// Whole copies that followers were asked to have.
    copies: u64,
    outdated: bool,
    pub(super) waiting: VecDeque<Waiting>,
    pub(super) followers: SmallMap<Incarnation, Follower>,
    /// The highest number of each gateway's operations that changed nothing, since what they ask for
    /// was done before under another number: such stand in no log, and yet what follows them is next.
    needless: SmallMap<Incarnation, u64>,
    /// The last change when room was last given back.
    last_before: u64,
}

impl Log {
    /// The log of a slot that was just won, or nothing of which was ever held if `founded`.
    pub(super) fn new(founded: bool) -> Self {
        Self {
            first: 1,
            changes: VecDeque::new(),
            bytes: 0,
            committed: 0,
            uncommitted_bytes: 0,
            base: 0,
            founded,
            copies: 0,
            outdated: false,
            waiting: VecDeque::new(),
            followers: SmallMap::default(),
            needless: SmallMap::default(),
            last_before: 0,
        }
    }

    /// Notes that an operation changes nothing.
    pub(super) fn note_needless(&mut self, operation: OperationId) {
        let last = self.needless.get_or_default(operation.gateway);
        *last = operation.number.max(*last);
    }

    /// The highest number of a gateway's operations that changed nothing; 0 = none.
    pub(super) fn needless(&self, gateway: Incarnation) -> u64 {
        self.needless.get(&gateway).copied().unwrap_or(0)
    }

    /// Gives back room that isn't used, if nothing has come since the last time and nothing waits.
    pub(super) fn shrink(&mut self) {
        let last = self.last();
        let idle = std::mem::replace(&mut self.last_before, last) == last;
        if idle && self.waiting.is_empty() {
            self.waiting = VecDeque::new();
            self.changes.shrink_to_fit();
        }
    }

    /// Forgets the numbers of gateways that are not `live`.
    pub(super) fn forget_gateways(&mut self, live: impl Fn(Incarnation) -> bool) {
        self.needless.retain(|gateway, _| live(*gateway));
    }

    /// The index of the last change; 0 = none.
    pub(super) fn last(&self) -> u64 {
        self.first + self.changes.len() as u64 - 1
    }

    /// Changes up to this index are committed.
    pub(super) fn committed(&self) -> u64 {
        self.committed
    }

    /// What was logged so far was taken over with the slot.
    pub(super) fn take_over(&mut self) {
        self.base = self.last();
    }

    /// Whether all that was taken over is committed, and so can be shown.
    pub(super) fn is_settled(&self) -> bool {
        self.committed >= self.base
    }

    /// Changes that aren't committed.
    pub(super) fn uncommitted(&self) -> usize {
        (self.last() - self.committed) as usize
    }

    /// Whether there is room for more changes that aren't committed.
    pub(super) fn has_room(&self) -> bool {
        self.uncommitted() < UNCOMMITTED_MAX && self.uncommitted_bytes < UNCOMMITTED_BYTES_MAX
    }

    /// Takes the next change.
    pub(super) fn push(&mut self, index: u64, change: Change, place: Option<Place>) {
        debug_assert_eq!(index, self.last() + 1, "each index is one change");
        let bytes = size_of(&change);
        (self.bytes, self.uncommitted_bytes) = (self.bytes + bytes, self.uncommitted_bytes + bytes);
        self.changes.push_back(Arc::new(change));
        let (results, asks) = (Results::new(), Vec::new());
        self.waiting.push_back(Waiting { index, place, results, asks });
    }

    /// What waits for a publication to be committed.
    pub(super) fn waiting_for(&mut self, position: Position) -> Option<&mut Waiting> {
        let at = |w: &Waiting| matches!(&w.place, Some(Place::Stream(_, at)) if *at == position);
        self.waiting.iter_mut().rev().find(|waiting| at(waiting))
    }

    /// What waits for the last change of a field of a user's record to be committed.
    pub(super) fn waiting_for_field(
        &mut self,
        user: &Channel,
        field: &Field,
    ) -> Option<&mut Waiting> {
        let of = |w: &Waiting| match &w.place {
            Some(Place::User(other, stamped)) => other == user && stamped.change.field() == *field,
            _ => false,
        };
        self.waiting.iter_mut().rev().find(|waiting| of(waiting))
    }

    /// Whether a change of a user's record waits to be committed.
    pub(super) fn waits_for_change(&self, user: &Channel, change: &Stamped) -> bool {
        let is = |w: &Waiting| match &w.place {
            Some(Place::User(other, stamped)) => other == user && stamped == change,
            _ => false,
        };
        self.waiting.iter().any(is)
    }

    /// A node is to hold copies from now on: of what isn't committed at once, of the rest when it
    /// has followed, unless it is a `spare`.
    pub(super) fn add_follower(&mut self, node: Incarnation, spare: bool, now: Millis) {
        let from = self.committed;
        let number = if self.founded && from == 0 { 0 } else { self.next_copy() };
        let new = Follower {
            from,
            acked: from,
            sent: from,
            number,
            followed: 0,
            asked: None,
            since: now,
            tried: now,
            retry_ms: 0,
            spare,
        };
        self.followers.insert(node, new);
    }

    fn next_copy(&mut self) -> u64 {
        self.copies += 1;
        self.copies
    }

    /// Who stood in for another is to hold a whole copy.
    pub(super) fn promote(&mut self, node: Incarnation) {
        let number = self.next_copy();
        if let Some(follower) = self.followers.get_mut(&node) {
            (follower.spare, follower.number, follower.asked) = (false, number, None);
        }
    }

    /// What a follower is to be sent now: the index before it, and the changes. What is silent for
    /// long gets little.
    pub(super) fn next(&mut self, node: Incarnation, now: Millis) -> (u64, Vec<Arc<Change>>) {
        let (first, last) = (self.first, self.last());
        let Some(follower) = self.followers.get_mut(&node) else { return (0, vec![]) };
        let after = follower.sent;
        let upto = last.min(follower.acked + if follower.retry_ms > 0 { AGAIN } else { WINDOW });
        if upto <= after {
            return (after, vec![]);
        }
        if follower.sent == follower.acked && follower.retry_ms == 0 {
            follower.since = now;
        }
        follower.sent = upto;
        let range = (after + 1 - first) as usize..(upto + 1 - first) as usize;
        (after, self.changes.range(range).cloned().collect())
    }

    /// The index up to which `required` nodes hold everything, this one included.
    pub(super) fn committable(&self, required: usize) -> u64 {
        let mut committed = self.committed;
        loop {
            let holders = self.followers.values().filter(|f| f.is_whole() || f.from <= committed);
            let mut acked: SmallVec<[u64; 6]> = holders.map(|f| f.acked).collect();
            acked.push(self.last());
            acked.sort_unstable_by(|one, other| other.cmp(one));
            match acked.get(required.saturating_sub(1)) {
                Some(next) if *next > committed => committed = *next,
                _ => return committed,
            }
        }
    }

    /// How many nodes hold a change, this one included.
    pub(super) fn copies(&self, index: u64) -> u8 {
        let holders = self.followers.values().filter(|follower| follower.holds(index));
        1 + holders.count().min(254) as u8
    }

    /// Lets go of who stands in for another, once all that are to hold the slot hold it.
    pub(super) fn drop_spares(&mut self) {
        let last = self.last();
        if self.followers.values().all(|f| f.spare || f.is_whole() && f.acked == last) {
            self.followers.retain(|_, follower| !follower.spare);
        }
    }

    /// Whether all followers hold all changes.
    pub(super) fn is_held(&self) -> bool {
        let last = self.last();
        self.followers.values().all(|follower| follower.acked == last)
    }

    /// Nodes that hold what is committed, this one included: of that which the fewest hold. Who lags
    /// behind holds the first part, who stands in for it the last.
    pub(super) fn committed_copies(&self) -> usize {
        let ends = self.followers.values().flat_map(|f| [f.from + 1, f.acked + 1]);
        let fewest = ends.chain([0, self.committed]).filter(|index| *index <= self.committed);
        let fewest = fewest.map(|index| self.followers.values().filter(|f| f.holds(index)).count());
        1 + fewest.min().unwrap_or(0)
    }

    /// Notes that changes up to `index` are committed, and takes what waited for that.
    pub(super) fn commit(&mut self, index: u64) -> Vec<Waiting> {
        // What isn't committed is all kept.
        let before = (self.committed + 1 - self.first) as usize;
        let end = (index.min(self.last()).max(self.committed) + 1 - self.first) as usize;
        let newly = self.changes.range(before..end);
        self.uncommitted_bytes -= newly.map(|change| size_of(change)).sum::<usize>();
        self.committed = self.committed.max(index);
        let ready = self.waiting.iter().take_while(|waiting| waiting.index <= index).count();
        let ready = self.waiting.drain(..ready).collect();
        self.shorten();
        ready
    }

    /// Drops committed changes that all have, or that are too many. Who lacks them then pulls a copy
    /// again.
    pub(super) fn shorten(&mut self) {
        let acked = self.followers.values().map(|f| f.acked).min().unwrap_or(self.committed);
        let needed = acked.min(self.committed);
        while self.first <= self.committed
            && (self.first <= needed
                || self.changes.len() > KEPT_MAX
                || self.bytes > KEPT_BYTES_MAX)
        {
            let Some(change) = self.changes.pop_front() else { break };
            (self.first, self.bytes) = (self.first + 1, self.bytes - size_of(&change));
        }
        for follower in self.followers.values_mut().filter(|f| f.acked + 1 < self.first) {
            let from = self.committed;
            (follower.from, follower.acked, follower.sent) = (from, from, from);
            self.copies += 1;
            (follower.number, follower.asked) = (self.copies, None);
            self.outdated = true;
        }
    }

    /// Whether somebody was left behind by [`Log::shorten`] since this was asked last.
    pub(super) fn take_outdated(&mut self) -> bool {
        std::mem::take(&mut self.outdated)
    }

    /// What is held has grown beside the log: followers need a new copy, and who comes later needs one.
    pub(super) fn outdate(&mut self) {
        self.founded = false;
        for follower in self.followers.values_mut() {
            self.copies += 1;
            (follower.number, follower.asked) = (self.copies, None);
        }
    }
}

/// About the bytes of a change.
pub(super) fn size_of(change: &Change) -> usize {
    match change {
        Change::Publish { entry, .. } => entry.publication.message.bytes() + ENTRY_BYTES,
        Change::User { stamped, .. } => stamped.change.len() + ENTRY_BYTES,
        Change::Begin { .. } | Change::Forget { .. } | Change::ForgetUser { .. } => ENTRY_BYTES,
    }
}

#[cfg(test)]
mod tests;
