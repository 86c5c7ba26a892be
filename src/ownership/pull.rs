//! Pulls: a claimant asks a holder for what it lacks of slots, and gets it in parts within a byte
//! budget, so that a large copy neither overflows a link nor delays what else is on it.
use std::collections::VecDeque;

use super::claim::NO_CLAIM;
use super::holding::Pieces;
use super::out::Out;
use super::owner::Ownership;
use crate::protocol::channel::Channel;
use crate::protocol::ids::{Incarnation, Position, Slot};
use crate::protocol::peer::{Lane, PeerFrame, SlotCopy};
use crate::protocol::time::Millis;

/// Parts sent for a claim and not acknowledged; the byte budget is this times
/// [`COPY_BYTES`](super::holding::COPY_BYTES).
pub const PARTS_IN_FLIGHT: u64 = 16;
/// The same for copies that nobody waits for: they leave room for those.
pub const IDLE_PARTS_IN_FLIGHT: u64 = 4;
/// Pulls served at once; a claimant whose pull isn't taken asks again.
pub const PULLS_MAX: usize = 1_024;
/// A pull whose parts nobody acknowledges is given up; the claimant asks again.
const ABANDONED_MS: u64 = 5_000;

/// Slots, and for each the streams that the claimant has and up to where.
pub type Lacking = Vec<(Slot, Vec<(Channel, Position)>)>;

/// One pull, as the claimant sees it.
#[derive(Debug)]
pub(super) struct Pulling {
    from: Incarnation,
    slots: Vec<Slot>,
    received: u64,
    pieces: Pieces,
    /// Fingerprints of the strays that it was begun for.
    strays: Vec<(Slot, u64)>,
    progress: Millis,
}

/// One pull, as the holder serves it.
#[derive(Debug)]
pub(super) struct Pull {
    claim: u64,
    slots: VecDeque<(Slot, Vec<(Channel, Position)>)>,
    parts: VecDeque<SlotCopy>,
    sent: u64,
    acknowledged: u64,
    progress: Millis,
}

impl Ownership {
    /// Asks a holder for what is lacking here. Returns the pull's number.
    pub(super) fn begin_pull(
        &mut self,
        from: Incarnation,
        claim: u64,
        slots: Lacking,
        now: Millis,
        out: &mut Out,
    ) -> u64 {
        self.pulls_begun += 1;
        let pull = self.pulls_begun;
        let wanted = slots.iter().map(|(slot, _)| *slot).collect();
        let new = Pulling {
            from,
            slots: wanted,
            received: 0,
            pieces: Pieces::default(),
            strays: vec![],
            progress: now,
        };
        self.pulling.insert(pull, new);
        out.send(from, Lane::Control, PeerFrame::Pull { claim, pull, slots });
        pull
    }

    /// Starts to send what a claimant lacks.
    pub(super) fn handle_pull(
        &mut self,
        from: Incarnation,
        (claim, pull): (u64, u64),
        slots: Lacking,
        now: Millis,
        out: &mut Out,
    ) {
        if self.pulls.len() >= PULLS_MAX {
            return;
        }
        let (slots, parts) = (slots.into(), VecDeque::new());
        let new = Pull { claim, slots, parts, sent: 0, acknowledged: 0, progress: now };
        self.pulls.insert((from, pull), new);
        self.send_parts(from, pull, now, out);
    }

    /// Notes what has arrived, and sends more.
    pub(super) fn handle_pulled_ack(
        &mut self,
        from: Incarnation,
        (pull, number): (u64, u64),
        now: Millis,
        out: &mut Out,
    ) {
        let Some(served) = self.pulls.get_mut(&(from, pull)) else { return };
        if number > served.acknowledged && number <= served.sent {
            (served.acknowledged, served.progress) = (number, now);
            self.send_parts(from, pull, now, out);
        }
    }

    fn send_parts(&mut self, to: Incarnation, pull: u64, now: Millis, out: &mut Out) {
        let Some(served) = self.pulls.get_mut(&(to, pull)) else { return };
        let most = if served.claim == NO_CLAIM { IDLE_PARTS_IN_FLIGHT } else { PARTS_IN_FLIGHT };
        while served.sent - served.acknowledged < most {
            if let Some(copy) = served.parts.pop_front() {
                served.sent += 1;
                let last = served.parts.is_empty() && served.slots.is_empty();
                let (claim, number, copies) = (served.claim, served.sent, vec![copy]);
                let frame = PeerFrame::Pulled { claim, pull, number, copies, last };
                out.send(to, Lane::Bulk, frame);
                if last {
                    self.pulls.remove(&(to, pull));
                    return;
                }
                continue;
            }
            match served.slots.pop_front() {
                Some((slot, have)) => {
                    if let Some(holding) = self.holdings.get(&slot) {
                        served.parts.extend(holding.copies(slot, &have, now));
                    }
                }
                None => {
                    // Nothing is held any more of what was asked for last.
                    let (claim, number) = (served.claim, served.sent + 1);
                    let (copies, last) = (vec![], true);
                    let frame = PeerFrame::Pulled { claim, pull, number, copies, last };
                    out.send(to, Lane::Bulk, frame);
                    self.pulls.remove(&(to, pull));
                    return;
                }
            }
        }
    }

    /// Notes for which strays a pull was begun: once it has ended, they are known.
    pub(super) fn pull_strays(&mut self, pull: u64, strays: Vec<(Slot, u64)>) {
        if let Some(pulling) = self.pulling.get_mut(&pull) {
            pulling.strays = strays;
        }
    }

    /// Whether a stray as it is now is on its way.
    pub(super) fn is_pulling(&self, from: Incarnation, stray: (Slot, u64)) -> bool {
        self.pulling.values().any(|pull| pull.from == from && pull.strays.contains(&stray))
    }

    /// Gives up pulls that nobody takes, and those that nobody serves.
    pub(super) fn expire_pulls(&mut self, now: Millis) {
        self.pulls.retain(|_, pull| now.since(pull.progress) < ABANDONED_MS);
        self.pulling.retain(|_, pull| now.since(pull.progress) < ABANDONED_MS);
    }

    /// Up to where this node has the streams of a slot, for who is to send the rest.
    pub(super) fn tops(&self, slot: Slot) -> Vec<(Channel, Position)> {
        let known = self.holdings.get(&slot).filter(|_| !self.misfits.contains(&slot));
        known.map(|holding| holding.tops()).unwrap_or_default()
    }

    /// Takes a part of what was pulled.
    pub(super) fn handle_pulled(
        &mut self,
        from: Incarnation,
        claim: u64,
        (pull, number): (u64, u64),
        (copies, last): (Vec<SlotCopy>, bool),
        now: Millis,
        out: &mut Out,
    ) {
        let expected = |p: &&mut Pulling| p.from == from && number > p.received;
        let Some(pulling) = self.pulling.get_mut(&pull).filter(expected) else { return };
        if number > pulling.received + 1 {
            // A part was lost: the pull is begun anew from what is here.
            self.pulling.remove(&pull);
            return;
        }
        (pulling.received, pulling.progress) = (number, now);
        let joined: Option<Vec<SlotCopy>> =
            copies.into_iter().map(|copy| pulling.pieces.join(copy)).collect();
        let Some(joined) = joined else {
            self.pulling.remove(&pull);
            return;
        };
        self.note_transfer(from, now);
        for copy in joined {
            let slot = copy.slot;
            if !self.table.contains(slot) {
                continue;
            }
            let streams = copy.streams.iter().map(|stream| &stream.channel);
            let users = copy.users.iter().map(|user| &user.user);
            let channels: Vec<Channel> = streams.chain(users).cloned().collect();
            let holding = self.holdings.entry(slot).or_default();
            let before = holding.digest();
            let whole = holding.merge(copy, now);
            let changed = holding.digest() != before;
            if !whole {
                // What this part continues isn't here any more: another copy's line has taken its
                // place meanwhile. Next time all is asked for.
                self.misfits.insert(slot);
                self.pulling.remove(&pull);
                return;
            }
            let holding = self.holdings.entry(slot).or_default();
            // An owner appends under an epoch above all that are in its streams, or claims again.
            if let Some(higher) = holding.epoch_of(&channels)
                && higher > self.table.promised(slot)
            {
                self.promise_to(slot, higher, now);
            }
            if changed && self.table.owns(slot) {
                self.outdate_followers(slot, now);
                self.adopt_loose(slot, now);
            }
        }
        if last && let Some(ended) = self.pulling.remove(&pull) {
            self.misfits.retain(|slot| !ended.slots.contains(slot));
            self.take_in(from, ended.strays);
            self.note_followed(from, pull, now, out);
        }
        out.send(from, Lane::Control, PeerFrame::PulledAck { pull, number });
        if last && claim != NO_CLAIM {
            self.note_pulled(from, claim, pull, now, out);
        }
    }
}
