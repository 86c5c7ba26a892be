//! Learners: a joining node gets copies of what it will own before it owns it, so that its claim
//! carries a small delta only. The owner sends a snapshot of each slot, then its tail, within a
//! byte budget; the learner counts owners that say it has everything.
use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::holding::COPY_BYTES;
use super::out::Out;
use super::owner::Ownership;
use crate::protocol::channel::Channel;
use crate::protocol::ids::{Incarnation, Slot};
use crate::protocol::peer::{Lane, PeerFrame, SlotCopy};
use crate::protocol::time::Millis;

/// Copies sent to a learner and not acknowledged: the byte budget is this times [`COPY_BYTES`].
pub const COPIES_IN_FLIGHT: u64 = 16;
/// Tail publications that wait behind a snapshot; above it the learner is told everything anew.
pub const TAIL_LEN_MAX: usize = 4 * COPY_BYTES / 64;
/// How often a learner is told that it has everything, until it is no longer one.
const COVERED_MS: u64 = 1_000;
/// A learner that acknowledges nothing for this long is told everything anew.
const STUCK_MS: u64 = 1_000;

/// An owner's side of one learner.
#[derive(Debug, Default)]
pub(super) struct Learner {
    slots: BTreeSet<Slot>,
    untold: VecDeque<Slot>,
    tailing: BTreeSet<Slot>,
    waiting: VecDeque<SlotCopy>,
    /// The next copy starts over.
    restart: bool,
    sent: u64,
    acknowledged: u64,
    progress: Millis,
    covered: Option<Millis>,
}

/// Joining nodes that see nobody in the view for this long, and always the same others, found a
/// cluster.
pub const FOUND_MS: u64 = 500;

/// A learner's own side.
#[derive(Debug, Default)]
pub(super) struct Learning {
    /// The live nodes while the view is empty, and since when they are these.
    founding: Option<(Vec<Incarnation>, Millis)>,
    received: BTreeMap<Incarnation, u64>,
    covered_by: BTreeSet<Incarnation>,
    announced: bool,
}

// The owner.
impl Ownership {
    /// Starts or changes what each joining node is taught.
    pub(super) fn plan_learners(&mut self, now: Millis, out: &mut Out) {
        let joining = self.world.joining.clone();
        self.learners.retain(|node, _| joining.binary_search(node).is_ok());
        for node in joining {
            if node == self.me {
                continue;
            }
            let planned = &self.world.planned;
            let owned = self.table.all().filter(|slot| self.table.owns(*slot));
            let slots: BTreeSet<Slot> =
                owned.filter(|slot| planned.owner(*slot) == Some(node)).collect();
            let learner = self.learners.entry(node).or_default();
            if learner.progress == Millis(0) || learner.slots != slots {
                let (sent, acknowledged) = (learner.sent, learner.acknowledged);
                *learner = Learner { sent, acknowledged, restart: true, ..Learner::default() };
                learner.untold = slots.iter().copied().collect();
                learner.slots = slots;
                learner.progress = now;
            }
            self.pump(node, now, out);
        }
    }

    /// Sends a learner as much as the budget allows.
    fn pump(&mut self, node: Incarnation, now: Millis, out: &mut Out) {
        let Some(learner) = self.learners.get_mut(&node) else { return };
        while learner.sent - learner.acknowledged < COPIES_IN_FLIGHT {
            if let Some(copy) = learner.waiting.pop_front() {
                learner.sent += 1;
                let (number, copies) = (learner.sent, vec![copy]);
                let restart = std::mem::take(&mut learner.restart);
                out.send(node, Lane::Bulk, PeerFrame::Copy { number, restart, copies });
                continue;
            }
            let Some(slot) = learner.untold.pop_front() else { break };
            learner.tailing.insert(slot);
            if let Some(holding) = self.holdings.get(&slot).filter(|h| !h.is_empty()) {
                learner.waiting.extend(holding.copies(slot, &[], now));
            }
        }
        let idle = learner.waiting.is_empty() && learner.untold.is_empty();
        if idle && learner.covered.is_none_or(|at| now.since(at) >= COVERED_MS) {
            // Behind all copies on their lane; a tail may go on for ever.
            learner.covered = Some(now);
            out.send(node, Lane::Bulk, PeerFrame::Covered);
        }
    }

    /// Passes a publication on to the learners that have had the slot's snapshot.
    pub(super) fn teach(
        &mut self,
        slot: Slot,
        channel: &Channel,
        after: u64,
        now: Millis,
        out: &mut Out,
    ) {
        let taught = self.learners.iter().filter(|(_, l)| l.tailing.contains(&slot));
        let taught: Vec<Incarnation> = taught.map(|(node, _)| *node).collect();
        for node in taught {
            let Some(stream) = self.holdings.get(&slot).and_then(|h| h.streams.get(channel)) else {
                continue;
            };
            let copy = stream.copy(channel, after, now);
            let Some(learner) = self.learners.get_mut(&node) else { continue };
            if learner.waiting.len() >= TAIL_LEN_MAX {
                learner.start_over(now);
            } else {
                // The number applied is in the entry.
                let applied = Vec::new();
                learner.waiting.push_back(SlotCopy {
                    slot,
                    applied,
                    streams: vec![copy],
                    orphans: vec![],
                });
            }
            self.pump(node, now, out);
        }
    }

    /// Counts what a learner has.
    pub(super) fn handle_copy_ack(
        &mut self,
        from: Incarnation,
        number: u64,
        now: Millis,
        out: &mut Out,
    ) {
        if let Some(learner) = self.learners.get_mut(&from)
            && number > learner.acknowledged
            && number <= learner.sent
        {
            learner.acknowledged = number;
            learner.progress = now;
            self.pump(from, now, out);
        }
    }

    /// Tells learners that are stuck everything anew.
    pub(super) fn check_learners(&mut self, now: Millis, out: &mut Out) {
        let stuck = self.learners.iter_mut().filter(|(_, learner)| {
            learner.sent > learner.acknowledged && now.since(learner.progress) > STUCK_MS
        });
        let mut again = Vec::new();
        for (node, learner) in stuck {
            learner.start_over(now);
            again.push(*node);
        }
        for node in again {
            self.pump(node, now, out);
        }
        let due = self
            .learners
            .iter()
            .filter(|(_, learner)| learner.covered.is_some_and(|at| now.since(at) >= COVERED_MS));
        for node in due.map(|(node, _)| *node).collect::<Vec<_>>() {
            self.pump(node, now, out);
        }
    }
}

impl Learner {
    fn start_over(&mut self, now: Millis) {
        self.waiting.clear();
        self.tailing.clear();
        self.untold = self.slots.iter().copied().collect();
        self.acknowledged = self.sent;
        self.restart = true;
        self.covered = None;
        self.progress = now;
    }
}

// The learner.
impl Ownership {
    /// Takes copies from an owner.
    pub(super) fn handle_copy(
        &mut self,
        from: Incarnation,
        (number, restart): (u64, bool),
        copies: Vec<SlotCopy>,
        now: Millis,
        out: &mut Out,
    ) {
        let last = self.learning.received.entry(from).or_insert(0);
        if !restart && number != *last + 1 {
            // One was lost on the way: the owner starts over when nothing is acknowledged.
            return;
        }
        *last = number;
        for copy in copies.into_iter().filter(|copy| self.table.contains(copy.slot)) {
            self.holdings.entry(copy.slot).or_default().merge(copy, now);
        }
        out.send(from, Lane::Control, PeerFrame::CopyAck { number });
    }

    /// Notes that an owner has told everything.
    pub(super) fn handle_covered(&mut self, from: Incarnation, out: &mut Out) {
        self.learning.covered_by.insert(from);
        self.check_caught_up(out);
    }

    /// Says, once, that every member of the view has told this joining node everything.
    pub(super) fn check_caught_up(&mut self, out: &mut Out) {
        let joining = self.world.joining.binary_search(&self.me).is_ok();
        let members = &self.world.members;
        let all = members.iter().all(|node| self.learning.covered_by.contains(node));
        if joining && !members.is_empty() && all && !self.learning.announced {
            self.learning.announced = true;
            out.caught_up = true;
        }
    }

    /// Nodes that join nobody but each other have nothing to be told: they found the cluster.
    pub(super) fn check_founding(&mut self, now: Millis, out: &mut Out) {
        let joining = self.world.joining.binary_search(&self.me).is_ok();
        let others = self.world.live.len() > 1;
        if !joining || !others || !self.world.members.is_empty() || self.learning.announced {
            self.learning.founding = None;
            return;
        }
        match &self.learning.founding {
            Some((live, since)) if *live == self.world.live => {
                if now.since(*since) >= FOUND_MS {
                    self.learning.announced = true;
                    out.caught_up = true;
                }
            }
            _ => self.learning.founding = Some((self.world.live.clone(), now)),
        }
    }
}
