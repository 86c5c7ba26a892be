//! What nodes tell each other of who owns slots: after a claim, to who comes, and once in a while
//! to the home of a slot that is owned elsewhere. Two owners of one slot find out here.
use std::collections::BTreeMap;

use super::NO_CLAIM;
use crate::mutant::{Rule, without};
use crate::ownership::out::Out;
use crate::ownership::owner::Ownership;
use crate::ownership::table::ranges_by_term;
use crate::protocol::ids::{Epoch, Incarnation, Slot};
use crate::protocol::peer::{Lane, PeerFrame, SlotRange};
use crate::protocol::time::Millis;

/// How often a node says that it owns slots that belong elsewhere, if its view doesn't change.
const ANNOUNCE_STRAYS_MS: u64 = 1_000;

impl Ownership {
    /// Tells nodes that this one owns slots.
    pub(in crate::ownership) fn announce_owned(
        &self,
        to: &[Incarnation],
        slots: impl Iterator<Item = Slot>,
        out: &mut Out,
    ) {
        self.say_owned(Lane::Data, to, (slots, false), out);
    }

    /// The same ahead of what follows on the control lane.
    pub(in crate::ownership) fn tell_owned(
        &self,
        to: Incarnation,
        slots: impl Iterator<Item = Slot>,
        out: &mut Out,
    ) {
        self.say_owned(Lane::Control, &[to], (slots, false), out);
    }

    fn say_owned(
        &self,
        lane: Lane,
        to: &[Incarnation],
        (slots, yours): (impl Iterator<Item = Slot>, bool),
        out: &mut Out,
    ) {
        let slots = ranges_by_term(slots.map(|slot| (slot, self.table.promised(slot).term)));
        if !slots.is_empty() {
            out.send_all(to, lane, PeerFrame::Owned { slots, yours });
        }
    }

    /// Notes who owns slots: a promise, so that the next claim here starts above it.
    pub fn handle_owned(
        &mut self,
        from: Incarnation,
        (slots, yours): (&[(SlotRange, u64)], bool),
        now: Millis,
        out: &mut Out,
    ) {
        if from == self.me {
            return;
        }
        // Whoever owns them can take in what is held of them here.
        self.show_strays_soon(now);
        let mut mine = Vec::new();
        for (range, term) in slots {
            for slot in range.iter() {
                let refused = self.promise_to(slot, Epoch { term: *term, owner: from }, now);
                if let Some(higher) = refused {
                    if self.table.owns(slot) {
                        mine.push(slot);
                    } else {
                        // To somebody who didn't win, perhaps: the owner claims above that.
                        self.owe_fence(from, slot, higher);
                    }
                }
                let again = yours && !without(Rule::ClaimAgain);
                if again && self.backoffs.remove(&slot).is_some() {
                    // Both see the same: it won't go to and fro.
                    self.look_for_claims(now);
                }
            }
        }
        if !mine.is_empty() {
            // Two owned a slot, each out of the other's sight: the lesser steps down when it hears
            // of this, and what it has is taken over.
            self.tell_owned(from, mine.iter().copied(), out);
            let tops = |slot| self.tops(slot);
            let slots = mine.into_iter().map(|slot| (slot, tops(slot))).collect();
            self.begin_pull(from, NO_CLAIM, slots, now, out);
        }
    }

    /// Tells the home of slots that are owned here though they belong elsewhere: it either never
    /// heard of this node's ownership, or this node never heard of its.
    pub(in crate::ownership) fn announce_strays(&mut self, now: Millis, out: &mut Out) {
        if now.since(self.announced_strays) < ANNOUNCE_STRAYS_MS {
            return;
        }
        self.announced_strays = now;
        let mut homes: BTreeMap<Incarnation, Vec<Slot>> = BTreeMap::new();
        for slot in self.table.all().filter(|slot| self.table.owns(*slot)) {
            match self.world.placement.owner(slot) {
                Some(home) if home != self.me => homes.entry(home).or_default().push(slot),
                _ => {}
            }
        }
        for (home, slots) in homes {
            self.say_owned(Lane::Data, &[home], (slots.into_iter(), true), out);
        }
    }
}
