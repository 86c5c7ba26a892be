//! Leases: an owner answers reads as current only if another node has confirmed a moment ago that
//! it promised the slot to nobody else since. A paused or cut off owner asks first, and hears that
//! its time is over. Writes need none: they are held by others before they are answered. But what an
//! owner would take that goes on after a pause it asks for, too, lest the next owner has it already.
use std::collections::{BTreeMap, BTreeSet};

use super::out::Out;
use super::owner::Ownership;
use super::parked::PARKED_MS;
use crate::mutant::{Rule, without};
use crate::protocol::ids::{Epoch, Incarnation, Slot};
use crate::protocol::peer::{Lane, PeerFrame};
use crate::protocol::time::Millis;

/// How long a confirmation holds, from when it was asked for.
pub(super) const LEASE_MS: u64 = 500;
/// Pause before an unanswered question is asked again.
const ASK_AGAIN_MS: u64 = 100;
/// Nothing handled for so long: this process was held up, and another may own what it owns.
const STALL_MS: u64 = 300;
/// Nodes asked; the first answer counts.
const ASKED_NODES: usize = 2;
/// Slots named in one frame.
const SLOTS_PER_FRAME: usize = 2_048;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Leases {
    /// When the last confirmation was asked for.
    confirmed: BTreeMap<Slot, Millis>,
    asked: BTreeMap<Slot, Millis>,
    due: BTreeSet<Slot>,
    /// When each question was asked, by its number; kept for as long as an answer is worth anything.
    questions: BTreeMap<u64, Millis>,
    numbers: u64,
    /// When something was handled last.
    handled: Option<Millis>,
    /// Slots that were owned when this process was held up, and when that was noticed, as long as nobody
    /// has confirmed since that they still are.
    unsure: BTreeMap<Slot, Millis>,
}

impl Ownership {
    /// Something is handled: notes whether this process was held up.
    pub(super) fn note_time(&mut self, now: Millis) {
        let last = self.leases.handled.replace(now);
        if last.is_some_and(|last| now.since(last) >= STALL_MS) {
            self.leases.confirmed.clear();
            self.leases.asked.clear();
            for slot in self.table.all().filter(|slot| self.table.owns(*slot)) {
                // Who is held up again and again is sure once one question was answered.
                self.leases.unsure.entry(slot).or_insert(now);
            }
        }
    }

    /// Whether operations on an owned slot may be taken.
    pub(super) fn takes_operations(&mut self, slot: Slot, now: Millis) -> bool {
        if self.leases.unsure.contains_key(&slot) && self.is_current(slot, now) {
            self.leases.unsure.remove(&slot);
        }
        !self.leases.unsure.contains_key(&slot)
    }

    /// Whether an owned slot's content may be shown as current; if not, others are asked, and what
    /// is parked for the slot is handled when one has answered.
    pub(super) fn is_current(&mut self, slot: Slot, now: Millis) -> bool {
        // What was taken over with the slot may have been acknowledged: it is shown, once it is safe.
        if self.logs.get(&slot).is_some_and(|log| !log.is_settled()) && !without(Rule::SettleFirst)
        {
            return false;
        }
        let alone = self.world.members.iter().all(|node| *node == self.me);
        if alone || without(Rule::ReadLease) {
            return true;
        }
        let leases = &mut self.leases;
        if leases.confirmed.get(&slot).is_some_and(|at| now.since(*at) < LEASE_MS) {
            return true;
        }
        if leases.asked.get(&slot).is_none_or(|at| now.since(*at) >= ASK_AGAIN_MS) {
            leases.asked.insert(slot, now);
            leases.due.insert(slot);
        }
        false
    }

    /// Asks for what is due.
    pub(super) fn ask_for_leases(&mut self, now: Millis, out: &mut Out) {
        let mut asked: BTreeMap<Incarnation, Vec<(Slot, u64)>> = BTreeMap::new();
        for slot in std::mem::take(&mut self.leases.due) {
            let term = self.table.promised(slot).term;
            let nodes = self.world.placement.preference(slot).filter(|node| *node != self.me);
            for node in nodes.take(ASKED_NODES) {
                asked.entry(node).or_default().push((slot, term));
            }
        }
        for (node, slots) in asked {
            for slots in slots.chunks(SLOTS_PER_FRAME) {
                self.leases.numbers += 1;
                let number = self.leases.numbers;
                self.leases.questions.insert(number, now);
                let slots = slots.to_vec();
                out.send(node, Lane::Control, PeerFrame::Confirm { number, slots });
            }
        }
    }

    /// Asks again where reads still wait, and forgets what is over.
    pub(super) fn check_leases(&mut self, now: Millis) {
        self.leases.questions.retain(|_, at| now.since(*at) < PARKED_MS);
        self.leases.confirmed.retain(|_, at| now.since(*at) < LEASE_MS);
        let again: Vec<Slot> = self
            .leases
            .asked
            .iter()
            .filter(|(_, at)| now.since(**at) >= ASK_AGAIN_MS)
            .map(|(slot, _)| *slot)
            .collect();
        for slot in again {
            self.leases.asked.remove(&slot);
            if self.table.owns(slot) && self.parked.waits(slot) {
                self.is_current(slot, now);
            }
        }
    }

    /// Forgets what was confirmed of a slot that is owned no more.
    pub(super) fn end_lease(&mut self, slot: Slot) {
        self.leases.confirmed.remove(&slot);
        self.leases.asked.remove(&slot);
        self.leases.unsure.remove(&slot);
    }

    /// Says which epochs are still the highest promised here.
    pub(super) fn handle_confirm(
        &mut self,
        owner: Incarnation,
        (number, slots): (u64, Vec<(Slot, u64)>),
        now: Millis,
        out: &mut Out,
    ) {
        let mut confirmed = Vec::new();
        for (slot, term) in slots {
            match self.promise_to(slot, Epoch { term, owner }, now) {
                None => confirmed.push((slot, term)),
                Some(higher) => self.owe_fence(owner, slot, higher),
            }
        }
        if !confirmed.is_empty() {
            let slots = confirmed;
            out.send(owner, Lane::Control, PeerFrame::Confirmed { number, slots });
        }
    }

    /// Notes a confirmation, and handles the reads that waited for it.
    pub(super) fn handle_confirmed(
        &mut self,
        number: u64,
        slots: Vec<(Slot, u64)>,
        now: Millis,
        out: &mut Out,
    ) {
        let Some(at) = self.leases.questions.get(&number).copied() else { return };
        for (slot, term) in slots {
            let epoch = Epoch { term, owner: self.me };
            if !self.table.owns(slot) || self.table.promised(slot) != epoch {
                continue;
            }
            if self.leases.unsure.get(&slot).is_some_and(|since| at >= *since) {
                self.leases.unsure.remove(&slot);
            }
            if now.since(at) < LEASE_MS {
                self.leases.confirmed.insert(slot, at);
            }
            self.leases.asked.remove(&slot);
            self.replay(slot, now, out);
        }
    }
}
