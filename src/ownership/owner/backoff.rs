//! Slots left to others: what a promise to another node ends here, and the pause for which the slot
//! isn't claimed back, lest it go to and fro.
use rand::Rng;

use super::Ownership;
use crate::mutant::{Rule, without};
use crate::ownership::table::{Promised, Role};
use crate::protocol::ids::{Epoch, Incarnation, Slot};
use crate::protocol::time::Millis;

/// How long an owner that stepped down leaves a slot that is its own, as it sees the view, to a
/// living claimant at least: until it sees what the other sees.
const LEFT_MS: u64 = 500;

/// What keeps a slot from being claimed for a while.
#[derive(Clone, Copy, Debug)]
pub(in crate::ownership) struct Backoff {
    pub(in crate::ownership) until: Millis,
    step_ms: u64,
}

impl Ownership {
    /// Promises a slot to another node, and ends this node's role in it. Gives back the higher
    /// promise for which it can't.
    pub(in crate::ownership) fn promise_to(
        &mut self,
        slot: Slot,
        epoch: Epoch,
        now: Millis,
    ) -> Option<Epoch> {
        let before = self.table.promised(slot);
        match self.table.promise(slot, epoch) {
            Promised::Refused(higher) => Some(higher),
            Promised::Given { was } => {
                if epoch.owner == self.me || epoch == before {
                    return None;
                }
                if before != Epoch::NONE {
                    // It may not be asked itself: from now on it can't show what it has as current.
                    self.owe_fence(before.owner, slot, epoch);
                }
                self.close_log((slot, before), epoch.owner, now);
                self.end_lease(slot);
                self.go_astray(slot, now);
                self.wanted.remove(&slot);
                self.audiences.remove(&slot);
                self.attendance.forget(slot);
                self.look_for_claims(now);
                // Who lives may see a view that this node is about to see, in which the slot isn't
                // its own any more: claimed at once it would go back and forth.
                let early = self.world.placement.owner(slot) == Some(self.me)
                    && self.world.lives(epoch.owner);
                match was {
                    Role::Owner { .. } if early => self.back_off_for(LEFT_MS, slot, now),
                    Role::Owner { won, .. } if now.since(won) < 10_000 => self.back_off(slot, now),
                    Role::Claiming(claim) => {
                        self.leave_claim(claim, slot);
                        self.back_off(slot, now);
                    }
                    _ => {}
                }
                None
            }
        }
    }

    /// Who claimed a slot that belongs here, while this node leaves it to them.
    pub(in crate::ownership) fn claimant(&self, slot: Slot, now: Millis) -> Option<Incarnation> {
        let claimant = self.table.promised(slot).owner;
        let waits = self.backoffs.get(&slot).is_some_and(|backoff| backoff.until > now);
        (waits && claimant != self.me && self.world.lives(claimant)).then_some(claimant)
    }

    /// Keeps a slot from being claimed for 0.2 to 10 s, doubling, with jitter.
    pub(in crate::ownership) fn back_off(&mut self, slot: Slot, now: Millis) {
        self.back_off_for(0, slot, now);
    }

    /// The same for `least_ms` at least.
    fn back_off_for(&mut self, least_ms: u64, slot: Slot, now: Millis) {
        let step = self.backoffs.get(&slot).map_or(200, |last| (last.step_ms * 2).min(10_000));
        let jitter = self.random.random_range(0..=step / 2);
        let pause = if without(Rule::ClaimAgain) { u64::MAX } else { step / 2 + jitter };
        let until = now + pause.max(least_ms);
        self.backoffs.insert(slot, Backoff { until, step_ms: step });
        self.claims_due = Some(self.claims_due.map_or(until, |due| due.min(until)));
    }
}
