//! Strays: copies of slots that their holder doesn't own. Nothing is dropped because the ring moved,
//! so a holder keeps showing what it has to the owner, fingerprint first, and the owner pulls what
//! it lacks. That is how what was acknowledged on the far side of a false alarm comes home.
//!
//! Until the owner of the slot's present epoch has said that it has what is held here, this may be
//! the only copy: it is counted as astray. What came from that owner itself it has.
use std::collections::BTreeMap;

use super::claim::NO_CLAIM;
use super::following::Following;
use super::holding::Holding;
use super::log::Log;
use super::out::Out;
use super::owner::Ownership;
use crate::mutant::{Rule, without};
use crate::protocol::ids::{Epoch, Incarnation, Slot};
use crate::protocol::peer::{Lane, PeerFrame};
use crate::protocol::time::Millis;

/// How often strays are shown while nothing changes.
pub const SHOW_STRAYS_MS: u64 = 5_000;
/// How long after a change they are; then, as long as any are astray, again after twice as long each
/// time, up to the most.
const AFTER_CHANGE_MS: u64 = 500;
const ASTRAY_SHOW_MS_MAX: u64 = 2_000;
/// How often a leaving node shows what it holds: it stays until others have it.
const LEAVING_SHOW_MS: u64 = 200;
/// Slots in one frame.
const SLOTS_PER_FRAME: usize = 2_048;

/// When strays are to be shown.
#[derive(Clone, Copy, Debug)]
pub(super) struct Show {
    due: Millis,
    wait_ms: u64,
}

impl Default for Show {
    fn default() -> Self {
        Self { due: Millis(0), wait_ms: AFTER_CHANGE_MS }
    }
}

impl Show {
    fn soon(&mut self, now: Millis) {
        *self = Self { due: self.due.min(now + AFTER_CHANGE_MS), wait_ms: AFTER_CHANGE_MS };
    }

    fn again(&mut self, now: Millis, (astray, leaving): (bool, bool)) {
        let wait_ms = match (leaving, astray) {
            (true, _) => LEAVING_SHOW_MS,
            (false, true) => self.wait_ms,
            (false, false) => SHOW_STRAYS_MS,
        };
        *self = Self { due: now + wait_ms, wait_ms: (2 * self.wait_ms).min(ASTRAY_SHOW_MS_MAX) };
    }
}

/// What a node knows of whether others need its copy of a slot that it doesn't own.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shown {
    /// The promise under which this holds: what was held then and what has come from its owner since.
    epoch: Epoch,
    /// Fingerprint of what was held then.
    digest: u64,
    /// The owner has that, too.
    at_home: bool,
}

/// What an owner has pulled of a stray.
#[derive(Clone, Copy, Debug)]
pub(super) struct TakenIn {
    /// Fingerprint of the stray as it was asked for.
    digest: u64,
    /// Where the log stood when all of it was here: the log's term and index.
    term: u64,
    index: u64,
}

/// What is shown of a slot under an epoch: what was held when it was shown first. What has come since
/// has come from the owner.
fn show(shown: &mut BTreeMap<Slot, Shown>, slot: Slot, (epoch, digest): (Epoch, u64)) -> u64 {
    let first = shown.entry(slot).or_insert(Shown { epoch, digest, at_home: false });
    if first.epoch != epoch {
        *first = Shown { epoch, digest, at_home: false };
    }
    first.digest
}

// Who holds.
impl Ownership {
    /// Strays are to be shown: others own their slots now, or may not have heard of them. Not at once,
    /// since who is to own slots may have to claim them first.
    pub(super) fn show_strays_soon(&mut self, now: Millis) {
        self.show.soon(now);
    }

    /// A slot was promised to another node: what is held of it here may be news to that.
    pub(super) fn go_astray(&mut self, slot: Slot, now: Millis) {
        if self.holds(slot) {
            self.show_strays_soon(now);
        }
    }

    /// Whether anything is held of a slot.
    pub(super) fn holds(&self, slot: Slot) -> bool {
        self.holdings.get(&slot).is_some_and(|holding| !holding.is_empty())
    }

    /// Something is held of a slot that came from a node; `held` is whether anything was before.
    pub(super) fn note_source(&mut self, slot: Slot, from: Incarnation, held: bool, now: Millis) {
        let epoch = self.table.promised(slot);
        if epoch.owner != from {
            self.shown.remove(&slot);
            self.show_strays_soon(now);
        } else if !held {
            self.shown.insert(slot, Shown { epoch, digest: 0, at_home: true });
        }
    }

    /// To whom a slot belongs that this node neither owns nor is to own.
    fn home_elsewhere(&self, slot: Slot) -> Option<Incarnation> {
        let home = self.world.placement.owner(slot).filter(|home| *home != self.me);
        home.filter(|_| !self.table.owns(slot))
    }

    /// Whether the home of a slot may lack what is held of it here.
    fn is_astray(&self, slot: Slot) -> bool {
        let Some(home) = self.home_elsewhere(slot) else { return false };
        let promised = self.table.promised(slot);
        !self.is_at_home(slot) || promised.owner != home || !self.world.lives(home)
    }

    /// Whether the owner of the present epoch has what was held of a slot here.
    pub(super) fn is_at_home(&self, slot: Slot) -> bool {
        let promised = self.table.promised(slot);
        self.shown.get(&slot).is_some_and(|shown| shown.at_home && shown.epoch == promised)
    }

    /// How many slots are held here and may not be where they belong.
    pub(super) fn astray(&self) -> u32 {
        let held = self.holdings.iter().filter(|(_, holding)| !holding.is_empty());
        held.filter(|(slot, _)| self.is_astray(**slot)).count() as u32
    }

    /// Shows strays to the homes of their slots: those that may lack what is in them, and those that
    /// go once nobody needs them.
    pub(super) fn show_strays(&mut self, now: Millis, out: &mut Out) {
        if now < self.show.due {
            return;
        }
        let mut homes: BTreeMap<Incarnation, Vec<(Slot, u64)>> = BTreeMap::new();
        let (mut astray, served) = (false, self.served(now));
        for (slot, holding) in self.holdings.iter().filter(|(_, holding)| !holding.is_empty()) {
            let Some(home) = self.home_elsewhere(*slot) else { continue };
            let mut digest = holding.digest();
            if self.is_astray(*slot) {
                astray = true;
                digest = show(&mut self.shown, *slot, (self.table.promised(*slot), digest));
            } else if self.kept.get(slot) == Some(&digest) || self.is_needed(*slot) {
                continue;
            }
            // What is on its way there isn't shown.
            if !served.contains(&(home, *slot)) {
                homes.entry(home).or_default().push((*slot, digest));
            }
        }
        self.show.again(now, (astray, self.leaving));
        for (home, slots) in homes {
            for slots in slots.chunks(SLOTS_PER_FRAME) {
                let slots = slots.to_vec();
                out.send(home, Lane::Control, PeerFrame::Stray { slots });
            }
        }
    }

    /// A claimant is told what is held here of a slot.
    pub(super) fn note_told(&mut self, slot: Slot, digest: u64) {
        show(&mut self.shown, slot, (self.table.promised(slot), digest));
    }

    /// Whether this node is to hold a copy of what another one owns.
    fn is_needed(&self, slot: Slot) -> bool {
        let mut holders = self.world.placement.preference(slot).take(self.copies.into());
        !self.leaving && holders.any(|node| node == self.me)
    }

    /// Notes that an owner has what is held here.
    pub(super) fn handle_kept(&mut self, from: Incarnation, slots: Vec<(Slot, u64, bool)>) {
        for (slot, digest, whole) in slots {
            let promised = self.table.promised(slot);
            if promised.owner != from {
                continue;
            }
            if let Some(shown) = self.shown.get_mut(&slot)
                && (shown.epoch, shown.digest) == (promised, digest)
            {
                shown.at_home = true;
                if whole {
                    self.drop_taken_over(slot);
                }
            }
            self.kept.insert(slot, digest);
        }
    }

    /// All that the owner of the present epoch has of a slot is here, and all that was here the owner
    /// has: what was made before and found no place on its lines it has appended anew, and dropped by
    /// their size since. Not what has come of its log and waits for its place: that counts as held.
    pub(super) fn drop_taken_over(&mut self, slot: Slot) {
        let Some(holding) = self.holdings.get_mut(&slot).filter(|h| h.loose() > 0) else { return };
        let epoch = self.table.promised(slot);
        let following = self.following.get(&slot).filter(|following| following.epoch() == epoch);
        let logged = following.map(Following::unplaced).unwrap_or_default();
        holding.drop_loose(|channel, name| {
            name.epoch.epoch < epoch && !logged.contains(&(channel, name))
        });
    }

    /// This node leaves: it shows what it holds until others have it.
    pub fn leave(&mut self) {
        self.leaving = true;
        self.show = Show::default();
    }

    /// Whether others have all that is held here.
    pub fn is_covered(&self) -> bool {
        let mut held = self.holdings.iter().filter(|(_, holding)| !holding.is_empty());
        without(Rule::StayUntilCovered)
            || held.all(|(slot, holding)| self.kept.get(slot) == Some(&holding.digest()))
    }
}

// Who owns.
impl Ownership {
    /// Notes fingerprints of what another holds and this node has.
    pub(super) fn take_in(&mut self, from: Incarnation, slots: Vec<(Slot, u64)>) {
        for (slot, digest) in slots {
            let (term, index) = self.logged(slot);
            self.taken_in.insert((slot, from), TakenIn { digest, term, index });
        }
    }

    /// The same of what another holds and this node holds, too.
    pub(super) fn take_in_equal(&mut self, from: Incarnation, slots: BTreeMap<Slot, u64>) {
        if from == self.me {
            return;
        }
        let ours = |slot: &Slot| self.holdings.get(slot).map(Holding::digest);
        let equal = slots.into_iter().filter(|(slot, digest)| ours(slot) == Some(*digest));
        self.take_in(from, equal.collect());
    }

    /// Where the log of a slot stands: its term, and the index of its last change.
    fn logged(&self, slot: Slot) -> (u64, u64) {
        (self.table.promised(slot).term, self.logs.get(&slot).map_or(0, Log::last))
    }

    /// Whether what a stray, or another one of the same fingerprint, has is held by all who are to
    /// hold it; `None` if it isn't here.
    fn has_taken_in(&mut self, (slot, digest): (Slot, u64)) -> Option<bool> {
        let (term, last) = self.logged(slot);
        if self.holdings.get(&slot).map(Holding::digest) == Some(digest) {
            return Some(self.is_replicated(slot, last));
        }
        let of_slot = (slot, Incarnation(0))..=(slot, Incarnation(u128::MAX));
        let mut taken = self.taken_in.range_mut(of_slot).map(|(_, taken)| taken);
        let taken = taken.find(|taken| taken.digest == digest)?;
        if taken.term != term {
            // In the log of this term it is among what was there before.
            (taken.term, taken.index) = (term, last);
        }
        let index = taken.index;
        Some(self.is_replicated(slot, index))
    }

    /// Pulls what strays have and this owner lacks, once for each state of a stray.
    pub(super) fn handle_stray(
        &mut self,
        from: Incarnation,
        slots: Vec<(Slot, u64)>,
        now: Millis,
        out: &mut Out,
    ) {
        let (mut lacking, mut strays, mut kept) = (Vec::new(), Vec::new(), Vec::new());
        for stray in slots {
            if !self.table.owns(stray.0) {
                continue;
            }
            self.drop_lost_pull(from, stray, now);
            match self.has_taken_in(stray) {
                Some(true) => kept.push((stray.0, stray.1, self.is_followed_by(from, stray.0))),
                // Its copy is needed until enough others have what is in it.
                Some(false) => {}
                None if self.is_pulling(from, stray) => {}
                None => {
                    lacking.push((stray.0, self.tops(stray.0)));
                    strays.push(stray);
                }
            }
        }
        if !kept.is_empty() {
            // Who hasn't heard yet whose word this is takes the next one.
            self.tell_owned(from, kept.iter().map(|(slot, ..)| *slot), out);
            out.send(from, Lane::Control, PeerFrame::Kept { slots: kept });
        }
        if !lacking.is_empty() {
            let pull = self.begin_pull(from, NO_CLAIM, lacking, now, out);
            self.pull_strays(pull, strays);
        }
    }
}
