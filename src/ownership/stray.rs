//! Strays: copies of slots that their holder doesn't own. Nothing is dropped because the ring moved,
//! so a holder keeps showing what it has to the owner, fingerprint first, and the owner pulls what
//! it lacks. That is how what was acknowledged on the far side of a false alarm comes home.
use std::collections::BTreeMap;

use super::claim::NO_CLAIM;
use super::out::Out;
use super::owner::Ownership;
use crate::protocol::ids::{Incarnation, Slot};
use crate::protocol::peer::{Lane, PeerFrame};
use crate::protocol::time::Millis;

/// How often strays are shown without a change of the world.
pub const SHOW_STRAYS_MS: u64 = 5_000;
/// Slots in one frame.
const SLOTS_PER_FRAME: usize = 2_048;

impl Ownership {
    /// Shows strays to the homes of their slots.
    pub(super) fn show_strays(&mut self, now: Millis, out: &mut Out) {
        if now < self.strays_due {
            return;
        }
        self.strays_due = now + SHOW_STRAYS_MS;
        let mut homes: BTreeMap<Incarnation, Vec<(Slot, u64)>> = BTreeMap::new();
        for (slot, holding) in &self.holdings {
            let home = self.world.placement.owner(*slot).filter(|home| *home != self.me);
            let Some(home) = home.filter(|_| !self.table.owns(*slot)) else { continue };
            if !holding.streams.is_empty() {
                homes.entry(home).or_default().push((*slot, holding.digest()));
            }
        }
        for (home, slots) in homes {
            for slots in slots.chunks(SLOTS_PER_FRAME) {
                let slots = slots.to_vec();
                out.send(home, Lane::Control, PeerFrame::Stray { slots });
            }
        }
    }

    /// Pulls what strays have and this owner lacks, once for each state of a stray.
    pub(super) fn handle_stray(
        &mut self,
        from: Incarnation,
        slots: Vec<(Slot, u64)>,
        now: Millis,
        out: &mut Out,
    ) {
        let (mut lacking, mut strays) = (Vec::new(), Vec::new());
        for (slot, digest) in slots {
            if !self.table.owns(slot) || self.taken_in.get(&(from, slot)) == Some(&digest) {
                continue;
            }
            let holding = self.holdings.get(&slot);
            if holding.map(|holding| holding.digest()) != Some(digest) {
                lacking.push((slot, holding.map(|h| h.tops()).unwrap_or_default()));
                strays.push((slot, digest));
            }
        }
        if !lacking.is_empty() {
            let pull = self.begin_pull(from, NO_CLAIM, lacking, now, out);
            self.pull_strays(pull, strays);
        }
    }
}
