//! Strays: copies of slots that their holder doesn't own. Nothing is dropped because the ring moved,
//! so a holder keeps showing what it has to the owner, fingerprint first, and the owner pulls what
//! it lacks. That is how what was acknowledged on the far side of a false alarm comes home.
use std::collections::BTreeMap;

use super::claim::NO_CLAIM;
use super::out::Out;
use super::owner::Ownership;
use crate::mutant::{Rule, without};
use crate::protocol::ids::{Incarnation, Slot};
use crate::protocol::peer::{Lane, PeerFrame};
use crate::protocol::time::Millis;

/// How often strays are shown without a change of the world.
pub const SHOW_STRAYS_MS: u64 = 5_000;
/// How long after such a change they are.
const AFTER_CHANGE_MS: u64 = 500;
/// How often a leaving node shows what it holds: it stays until others have it.
const LEAVING_SHOW_MS: u64 = 200;
/// Slots in one frame.
const SLOTS_PER_FRAME: usize = 2_048;

impl Ownership {
    /// Strays are to be shown: others own their slots now, or may not have heard of them. Not at once,
    /// since who is to own slots may have to claim them first.
    pub(super) fn show_strays_soon(&mut self, now: Millis) {
        self.strays_due = self.strays_due.min(now + AFTER_CHANGE_MS);
    }

    /// Shows strays to the homes of their slots.
    pub(super) fn show_strays(&mut self, now: Millis, out: &mut Out) {
        if now < self.strays_due {
            return;
        }
        self.strays_due = now + if self.leaving { LEAVING_SHOW_MS } else { SHOW_STRAYS_MS };
        let mut homes: BTreeMap<Incarnation, Vec<(Slot, u64)>> = BTreeMap::new();
        for (slot, holding) in &self.holdings {
            let home = self.world.placement.owner(*slot).filter(|home| *home != self.me);
            let Some(home) = home.filter(|_| !self.table.owns(*slot)) else { continue };
            let digest = holding.digest();
            if !holding.is_empty() && self.kept.get(slot) != Some(&digest) {
                homes.entry(home).or_default().push((*slot, digest));
            }
        }
        for (home, slots) in homes {
            for slots in slots.chunks(SLOTS_PER_FRAME) {
                let slots = slots.to_vec();
                out.send(home, Lane::Control, PeerFrame::Stray { slots });
            }
        }
    }

    /// Notes that an owner has what is held here.
    pub(super) fn handle_kept(&mut self, slots: Vec<(Slot, u64)>) {
        self.kept.extend(slots);
    }

    /// This node leaves: it shows what it holds until others have it.
    pub fn leave(&mut self) {
        self.leaving = true;
        self.strays_due = Millis(0);
    }

    /// Whether others have all that is held here.
    pub fn is_covered(&self) -> bool {
        let mut held = self.holdings.iter().filter(|(_, holding)| !holding.is_empty());
        without(Rule::StayUntilCovered)
            || held.all(|(slot, holding)| self.kept.get(slot) == Some(&holding.digest()))
    }

    /// Notes fingerprints of what another holds and this node has.
    pub(super) fn take_in(&mut self, from: Incarnation, slots: Vec<(Slot, u64)>) {
        self.taken_in.extend(slots.into_iter().map(|(slot, digest)| ((from, slot), digest)));
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
        for (slot, digest) in slots.into_iter().filter(|(slot, _)| self.table.owns(*slot)) {
            let holding = self.holdings.get(&slot);
            let equal = || holding.map(|holding| holding.digest()) == Some(digest);
            if self.taken_in.get(&(from, slot)) == Some(&digest) || equal() {
                // Its copy is needed until enough others have what is in it.
                if self.is_replicated(slot) {
                    kept.push((slot, digest));
                }
            } else if !self.is_pulling(from, (slot, digest)) {
                lacking.push((slot, self.tops(slot)));
                strays.push((slot, digest));
            }
        }
        if !kept.is_empty() {
            out.send(from, Lane::Control, PeerFrame::Kept { slots: kept });
        }
        if !lacking.is_empty() {
            let pull = self.begin_pull(from, NO_CLAIM, lacking, now, out);
            self.pull_strays(pull, strays);
        }
    }
}
