//! What owners believe of this node's interest: they are told when it ends, and fingerprints are
//! compared from time to time. It never begins interest: that is what a question does.
use std::collections::BTreeMap;

use super::{QUESTION_MS, Router, Turn};
use crate::ownership::audience::in_parts;
use crate::protocol::channel::Channel;
use crate::protocol::ids::{ClientId, Epoch, Incarnation, Slot};
use crate::protocol::peer::{Lane, PeerFrame, SlotInterest, UNASKED};
use crate::protocol::time::Millis;

/// How long a question may still come before an owner after its answer: on its way, and parked.
const STRAYING_MS: u64 = 2 * QUESTION_MS;
/// How often interest is compared with its owner, in milliseconds.
const COMPARE_MS: u64 = 5_000;
/// Slots compared in one frame.
const COMPARED_PER_TICK: usize = 1_024;

impl Router {
    pub(super) fn unsubscribe(
        &mut self,
        slot: Slot,
        channel: Channel,
        client: ClientId,
        turn: &mut Turn<'_>,
    ) {
        let Some(interest) = self.interests.get_mut(slot, &channel) else { return };
        let shown = interest.subscribers.get(&client).is_some_and(|s| s.info.is_some());
        interest.remove(client);
        let asked = interest.remove_joining(client);
        if let Some(joining) = &asked {
            self.questions.remove(joining.question);
        }
        let detach = interest.is_empty();
        if detach {
            for number in [interest.catching_up, interest.asking].into_iter().flatten() {
                self.questions.remove(number);
            }
            self.drop_interest(slot, &channel, turn.now);
        }
        if (shown || detach || asked.is_some())
            && let Some(owner) = turn.ownership.world().placement.owner(slot)
        {
            let frame = PeerFrame::Unsubscribe { slot, channel, client, detach };
            turn.out.send(owner, Lane::Data, frame);
        }
    }

    /// A subscription that came to nothing: the owner may have heard of it all the same.
    pub(super) fn forget_joining(
        &mut self,
        slot: Slot,
        channel: &Channel,
        client: ClientId,
        turn: &mut Turn<'_>,
    ) {
        let Some(interest) = self.interests.get_mut(slot, channel) else { return };
        interest.remove_joining(client);
        let detach = interest.is_empty();
        if detach {
            self.drop_interest(slot, channel, turn.now);
        }
        if let Some(owner) = turn.ownership.world().placement.owner(slot) {
            let channel = channel.clone();
            let frame = PeerFrame::Unsubscribe { slot, channel, client, detach };
            turn.out.send(owner, Lane::Data, frame);
        }
    }

    /// Nobody here wants the channel any more.
    pub(super) fn drop_interest(&mut self, slot: Slot, channel: &Channel, now: Millis) {
        self.interests.remove(slot, channel);
        self.straying.insert(slot, now + STRAYING_MS);
    }

    pub(super) fn compare(
        &mut self,
        from: Incarnation,
        slot: Slot,
        equal: bool,
        tops: u64,
        turn: &mut Turn<'_>,
    ) {
        let promised = turn.ownership.promised(slot);
        if equal && tops != UNASKED && self.interests.is_empty(slot) {
            // Another owner may have taken over what this node wanted when it was asked, or may
            // hear a question late.
            let known = promised == Epoch::NONE || promised.owner == from;
            let straying = self.straying.get(&slot).is_some_and(|until| turn.now < *until);
            if known && !straying {
                self.told.remove(&slot);
                self.straying.remove(&slot);
            }
        } else if !equal {
            for (channels, span) in in_parts(self.interests.of(slot)) {
                let interest = SlotInterest { slot, channels };
                turn.out.send(from, Lane::Data, PeerFrame::Interest { interest, span });
            }
        } else if self.interests.tops(slot).is_some_and(|ours| ours != tops) {
            for channel in self.interests.followed(slot) {
                self.catch_up(slot, &channel, turn);
            }
            for channel in self.interests.of_users(slot) {
                self.ask_user(slot, &channel, turn);
            }
        }
    }

    /// Every [`COMPARE_MS`] tells each owner the fingerprint of this node's interest.
    pub(super) fn compare_some(&mut self, turn: &mut Turn<'_>) {
        if self.compare_from == Slot(0) && turn.now.since(self.compared) < COMPARE_MS {
            return;
        }
        let told = self.told.range(self.compare_from..).take(COMPARED_PER_TICK);
        let slots: Vec<Slot> = told.copied().collect();
        self.compare_from = match slots.last() {
            Some(last) if slots.len() == COMPARED_PER_TICK => Slot(last.0.saturating_add(1)),
            _ => Slot(0),
        };
        if self.compare_from == Slot(0) {
            self.compared = turn.now;
        }
        let mut digests: BTreeMap<Incarnation, Vec<(Slot, u64)>> = BTreeMap::new();
        for slot in slots {
            if let Some(owner) = turn.ownership.world().placement.owner(slot) {
                digests.entry(owner).or_default().push((slot, self.interests.digest(slot)));
            }
        }
        for (owner, slots) in digests {
            turn.out.send(owner, Lane::Data, PeerFrame::Digest { slots });
        }
    }
}
