//! Pulls: a claimant asks a holder for what it lacks of slots, and gets it in parts within a byte
//! budget, so that a large copy neither overflows a link nor delays what else is on it.
use std::collections::{BTreeMap, BTreeSet, HashSet, VecDeque};

use super::claim::NO_CLAIM;
use super::holding::Pieces;
use super::out::Out;
use super::owner::Ownership;
use crate::protocol::channel::Channel;
use crate::protocol::ids::{Incarnation, Position, Slot};
use crate::protocol::peer::{Lane, PeerFrame, SlotCopy};
use crate::protocol::time::Millis;

/// Parts sent to one node and not acknowledged; the byte budget is this times
/// [`COPY_BYTES`](super::holding::COPY_BYTES).
pub const PARTS_IN_FLIGHT: u64 = 16;
/// The same if copies are sent that nobody waits for: they leave room for those that claims wait for.
pub const IDLE_PARTS_IN_FLIGHT: u64 = 4;
/// Pulls served at once; a claimant whose pull isn't taken asks again.
pub const PULLS_MAX: usize = 1_024;
/// Acknowledged in place of a part: no more of the pull is wanted.
pub const NOT_WANTED: u64 = 0;
/// A pull whose parts nobody acknowledges is given up; the claimant asks again.
const ABANDONED_MS: u64 = 5_000;
/// A pull of which nothing has come for so long, and of which nothing moves on the other side, is lost:
/// more than a question and its answer take. One that has begun isn't given up so soon: its next part
/// may be on a slow link.
const LOST_MS: u64 = 1_000;
/// A pull of which nothing comes for so long is given up though the holder sends parts of others: it
/// may wait behind them, or never have been asked for.
const BEHIND_OTHERS_MS: u64 = 15_000;

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

impl Pulling {
    fn is_lost(&self, now: Millis) -> bool {
        self.received == 0 && now.since(self.progress) >= LOST_MS
    }
}

/// One pull, as the holder serves it.
#[derive(Debug)]
pub(super) struct Pull {
    claim: u64,
    of: Vec<Slot>,
    slots: VecDeque<(Slot, Vec<(Channel, Position)>)>,
    parts: VecDeque<SlotCopy>,
    sent: u64,
    acknowledged: u64,
    /// The last part is sent.
    ended: bool,
    progress: Millis,
}

impl Pull {
    fn in_flight(&self) -> u64 {
        self.sent - self.acknowledged
    }

    fn moves(&self, now: Millis) -> bool {
        now.since(self.progress) < LOST_MS
    }
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
        let of = slots.iter().map(|(slot, _)| *slot).collect();
        let (slots, parts) = (slots.into(), VecDeque::new());
        let (sent, acknowledged, ended) = (0, 0, false);
        let new = Pull { claim, of, slots, parts, sent, acknowledged, ended, progress: now };
        self.pulls.insert((from, pull), new);
        self.send_parts(from, now, out);
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
        if number == NOT_WANTED {
            self.pulls.remove(&(from, pull));
        } else if number > served.acknowledged && number <= served.sent {
            (served.acknowledged, served.progress) = (number, now);
            if served.ended && served.in_flight() == 0 {
                self.pulls.remove(&(from, pull));
            }
        } else {
            return;
        }
        // The others waited for this.
        let waiting = self.pulls_of(from).filter(|(_, served)| served.in_flight() == 0);
        waiting.for_each(|(_, served)| served.progress = now);
        self.send_parts(from, now, out);
    }

    fn pulls_of(&mut self, node: Incarnation) -> impl Iterator<Item = (u64, &mut Pull)> {
        self.pulls
            .range_mut((node, 0)..=(node, u64::MAX))
            .map(|((_, pull), served)| (*pull, served))
    }

    /// Sends a node what it pulls, as far as the budget allows: first what its claims wait for, and
    /// of that what it asked for first.
    fn send_parts(&mut self, to: Incarnation, now: Millis, out: &mut Out) {
        let mut in_flight: u64 = self.pulls_of(to).map(|(_, served)| served.in_flight()).sum();
        let pulls = self.pulls.range((to, 0)..=(to, u64::MAX));
        let pulls = pulls.filter(|(_, served)| !served.ended);
        let mut pulls: Vec<(bool, u64)> =
            pulls.map(|((_, pull), served)| (served.claim == NO_CLAIM, *pull)).collect();
        pulls.sort_unstable();
        for (idle, pull) in pulls {
            let most = if idle { IDLE_PARTS_IN_FLIGHT } else { PARTS_IN_FLIGHT };
            let room = most.saturating_sub(in_flight);
            in_flight += self.send_parts_of((to, pull), room, now, out);
        }
    }

    /// Sends at most so many parts more of one pull. Returns how many.
    fn send_parts_of(
        &mut self,
        (to, pull): (Incarnation, u64),
        most: u64,
        now: Millis,
        out: &mut Out,
    ) -> u64 {
        let Some(served) = self.pulls.get_mut(&(to, pull)) else { return 0 };
        let before = served.sent;
        let most = before + most;
        while served.sent < most && !served.ended {
            while served.parts.is_empty()
                && let Some((slot, have)) = served.slots.pop_front()
            {
                let holding = self.holdings.get(&slot);
                let copies = holding.map(|holding| holding.copies(slot, &have, now));
                served.parts.extend(copies.into_iter().flatten());
            }
            // None if nothing is held any more of what was asked for last.
            let copies: Vec<SlotCopy> = served.parts.pop_front().into_iter().collect();
            served.sent += 1;
            served.ended = served.parts.is_empty() && served.slots.is_empty();
            let (claim, number, last) = (served.claim, served.sent, served.ended);
            out.send(to, Lane::Bulk, PeerFrame::Pulled { claim, pull, number, copies, last });
        }
        if served.sent > before {
            served.progress = now;
        }
        served.sent - before
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

    /// Gives up the pull of a stray that its holder shows, and so doesn't serve.
    pub(super) fn drop_lost_pull(&mut self, from: Incarnation, stray: (Slot, u64), now: Millis) {
        let of = |pull: &Pulling| pull.from == from && pull.strays.contains(&stray);
        self.pulling.retain(|_, pull| !of(pull) || !pull.is_lost(now));
    }

    /// Gives up a pull whose holder doesn't serve it, by what it says.
    pub(super) fn drop_if_lost(&mut self, pull: u64, now: Millis) {
        if self.pulling.get(&pull).is_some_and(|pull| pull.is_lost(now)) {
            self.pulling.remove(&pull);
        }
    }

    /// What is being sent to nodes, slot by slot.
    pub(super) fn served(&self, now: Millis) -> BTreeSet<(Incarnation, Slot)> {
        let pulls = self.pulls.iter().filter(|(_, pull)| pull.moves(now));
        pulls.flat_map(|((to, _), pull)| pull.of.iter().map(|slot| (*to, *slot))).collect()
    }

    /// What is on its way in these pulls: slots, as they were when they were asked for.
    pub(super) fn coming<'a>(&self, pulls: impl Iterator<Item = &'a u64>) -> HashSet<(Slot, u64)> {
        let pulls = pulls.filter_map(|pull| self.pulling.get(pull));
        pulls.flat_map(|pull| &pull.strays).copied().collect()
    }

    /// The link to a node is another one: what was on the one before is lost. What is pulled from the
    /// node is asked for anew, and who pulls from here is told that parts are lost.
    pub fn renew_link(&mut self, node: Incarnation, now: Millis, out: &mut Out) {
        self.pulling.retain(|_, pulling| pulling.from != node);
        self.show_strays_soon(now);
        for pull in self.pulls_of(node).map(|(pull, _)| pull).collect::<Vec<_>>() {
            let Some(Pull { claim, sent, .. }) = self.pulls.remove(&(node, pull)) else { continue };
            // At least one is missing before it.
            let (number, copies, last) = (sent + 2, vec![], true);
            out.send(node, Lane::Bulk, PeerFrame::Pulled { claim, pull, number, copies, last });
        }
    }

    /// Gives up pulls that nobody takes, and those that nobody serves.
    pub(super) fn expire_pulls(&mut self, now: Millis, out: &mut Out) {
        let mut made_room = BTreeSet::new();
        self.pulls.retain(|(node, _), pull| {
            let abandoned = now.since(pull.progress) >= ABANDONED_MS;
            made_room.extend(abandoned.then_some(*node));
            !abandoned
        });
        for node in made_room {
            self.send_parts(node, now, out);
        }
        let mut heard: BTreeMap<Incarnation, Millis> = BTreeMap::new();
        for pull in self.pulling.values() {
            let last = heard.entry(pull.from).or_default();
            *last = pull.progress.max(*last);
        }
        self.pulling.retain(|_, pull| {
            let silent_ms = now.since(pull.progress);
            let waits = heard.get(&pull.from).is_some_and(|at| now.since(*at) < ABANDONED_MS);
            silent_ms < if waits { BEHIND_OTHERS_MS } else { ABANDONED_MS }
        });
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
        // Also of a pull that was given up: what is waited for may be behind it.
        self.note_transfer(from, now);
        let Some(pulling) = self.pulling.get_mut(&pull).filter(|p| p.from == from) else {
            return refuse(from, pull, out);
        };
        if number <= pulling.received {
            return;
        }
        if number > pulling.received + 1 {
            // A part was lost: the pull is begun anew from what is here.
            self.pulling.remove(&pull);
            return refuse(from, pull, out);
        }
        (pulling.received, pulling.progress) = (number, now);
        let joined: Option<Vec<SlotCopy>> =
            copies.into_iter().map(|copy| pulling.pieces.join(copy)).collect();
        let Some(joined) = joined else {
            self.pulling.remove(&pull);
            return refuse(from, pull, out);
        };
        for copy in joined {
            let slot = copy.slot;
            if !self.table.contains(slot) {
                continue;
            }
            if !copy.loose.is_empty() {
                self.note_loose(slot, pull);
            }
            let streams = copy.streams.iter().map(|stream| &stream.channel);
            let users = copy.users.iter().map(|user| &user.user);
            let channels: Vec<Channel> = streams.chain(users).cloned().collect();
            let owner = self.table.promised(slot).owner == from;
            let holding = self.holdings.entry(slot).or_default();
            let (held, before) = (!holding.is_empty(), holding.digest());
            let whole = holding.merge_from(copy, owner, now);
            let changed = holding.digest() != before;
            // An owner appends under an epoch above all that are in its streams, or claims again.
            if let Some(higher) = holding.epoch_of(&channels)
                && higher > self.table.promised(slot)
            {
                self.promise_to(slot, higher, now);
            }
            if changed && self.table.owns(slot) {
                self.outdate_followers(slot, now);
                self.adopt_loose(slot, now);
            } else if changed {
                self.note_source(slot, from, held, now);
            }
            if !whole {
                // What this part continues isn't here any more: another copy's line has taken its
                // place meanwhile. Next time all is asked for; what did fit, dealt with above, is
                // no news then.
                self.misfits.insert(slot);
                self.pulling.remove(&pull);
                return refuse(from, pull, out);
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

/// Whether a slot is being sent to a node.
pub(super) fn serves(
    pulls: &BTreeMap<(Incarnation, u64), Pull>,
    (to, slot): (Incarnation, Slot),
    now: Millis,
) -> bool {
    let mut pulls = pulls.range((to, 0)..=(to, u64::MAX)).filter(|(_, pull)| pull.moves(now));
    pulls.any(|(_, pull)| pull.of.contains(&slot))
}

/// Tells a holder that no more of a pull is wanted.
fn refuse(holder: Incarnation, pull: u64, out: &mut Out) {
    out.send(holder, Lane::Control, PeerFrame::PulledAck { pull, number: NOT_WANTED });
}
