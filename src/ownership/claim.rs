//! The claim: the one procedure by which a node becomes owner of slots, be it for a start, a crash,
//! a join or a leave. Promise to oneself, ask every live node to promise and to say what it has,
//! pull what is lacking, then serve. Also the answering side: promising and being pulled from.
use std::collections::{BTreeMap, BTreeSet};

use super::audience::Audience;
use super::out::Out;
use super::owner::{INCOMPLETE_MS, Ownership};
use super::table::{Role, ranges};
use crate::protocol::channel::Channel;
use crate::protocol::ids::{Epoch, Incarnation, Position, Slot};
use crate::protocol::peer::{ChannelInterest, Lane, PeerFrame, SlotCopy, SlotInterest, SlotRange};
use crate::protocol::time::Millis;

/// A node that has been silent for this long, while asked or while its copies are awaited, is
/// missing: the claim goes on without it.
pub const SILENT_MS: u64 = 1_000;
/// Slots named in one part of an answer, which keeps parts under some 100 KiB.
const ANSWER_SLOTS: usize = 2_048;
/// Channels named in one part of an answer.
const ANSWER_CHANNELS: usize = 256;

/// One claim of many slots.
#[derive(Debug)]
pub(super) struct Claim {
    /// The slots not lost meanwhile.
    slots: BTreeSet<Slot>,
    /// What every node was asked.
    prepare: Vec<(SlotRange, u64)>,
    asked: BTreeMap<Incarnation, Asked>,
    interest: BTreeMap<Slot, Vec<(Incarnation, Vec<ChannelInterest>)>>,
    /// When the slots were won; answers that come later complete them.
    won: Option<Millis>,
}

/// How far a node is with its answer.
#[derive(Clone, Copy, Debug)]
struct Asked {
    heard: Millis,
    promised: bool,
    pulls: u32,
    missing: bool,
}

impl Asked {
    fn done(&self) -> bool {
        self.promised && self.pulls == 0
    }
}

/// The parts of `PeerFrame::Promise` beside the claim's number.
pub(super) struct PromiseAnswer {
    pub(super) rejected: Vec<(Slot, Epoch)>,
    pub(super) digests: Vec<(Slot, u64)>,
    pub(super) interest: Vec<SlotInterest>,
    pub(super) live: Vec<Incarnation>,
    pub(super) last: bool,
}

// The claimant.
impl Ownership {
    /// Claims all slots that belong here, aren't owned here, and aren't backing off.
    pub(super) fn claim_due_slots(&mut self, now: Millis, out: &mut Out) {
        if !self.world.serving {
            return;
        }
        let due: BTreeSet<Slot> = self
            .table
            .all()
            .filter(|slot| {
                self.table.role(*slot) == Role::Idle
                    && self.world.placement.owner(*slot) == Some(self.me)
                    && self.backoffs.get(slot).is_none_or(|backoff| backoff.until <= now)
            })
            .collect();
        if due.is_empty() {
            return;
        }
        self.claims_begun += 1;
        let number = self.claims_begun;
        let mut terms: BTreeMap<u64, Vec<Slot>> = BTreeMap::new();
        for slot in &due {
            let epoch = self.table.begin_claim(*slot, number);
            terms.entry(epoch.term).or_default().push(*slot);
        }
        let in_ranges = |(term, slots)| ranges(slots).into_iter().map(move |range| (range, term));
        let prepare: Vec<(SlotRange, u64)> = terms.into_iter().flat_map(in_ranges).collect();
        let claim = Claim {
            slots: due,
            prepare: prepare.clone(),
            asked: BTreeMap::new(),
            interest: BTreeMap::new(),
            won: None,
        };
        self.claims.insert(number, claim);
        let mut live = self.world.live.clone();
        if !live.contains(&self.me) {
            live.push(self.me);
        }
        for node in live {
            self.ask(number, node, now, out);
        }
    }

    fn ask(&mut self, number: u64, node: Incarnation, now: Millis, out: &mut Out) {
        let Some(claim) = self.claims.get_mut(&number) else { return };
        claim.asked.insert(node, Asked { heard: now, promised: false, pulls: 0, missing: false });
        let slots = claim.prepare.clone();
        out.send(node, Lane::Control, PeerFrame::Prepare { claim: number, slots });
    }

    /// Takes a part of an answer.
    pub(super) fn handle_promise(
        &mut self,
        from: Incarnation,
        number: u64,
        answer: PromiseAnswer,
        now: Millis,
        out: &mut Out,
    ) {
        if !self.claims.contains_key(&number) {
            return;
        }
        for (slot, higher) in answer.rejected {
            self.lose(number, slot, higher, now, out);
        }
        self.learn_of(number, &answer.live, now, out);
        let lacking = self.lacking(from, number, &answer.digests);
        let Some(claim) = self.claims.get_mut(&number) else { return };
        let Some(asked) = claim.asked.get_mut(&from) else { return };
        asked.heard = now;
        asked.promised |= answer.last;
        if !lacking.is_empty() {
            asked.pulls += 1;
            out.send(from, Lane::Control, PeerFrame::Pull { claim: number, slots: lacking });
        }
        if claim.won.is_some() {
            for SlotInterest { slot, channels } in answer.interest {
                self.adopt_interest(from, slot, channels, now, out);
            }
        } else {
            for SlotInterest { slot, channels } in answer.interest {
                claim.interest.entry(slot).or_default().push((from, channels));
            }
        }
        self.check_claim(number, now, out);
    }

    /// Gives up a slot for which somebody holds a higher promise.
    fn lose(&mut self, number: u64, slot: Slot, higher: Epoch, now: Millis, out: &mut Out) {
        if higher <= self.table.promised(slot) {
            return;
        }
        self.counts.rejected += 1;
        self.leave_claim(number, slot);
        let was = self.table.role(slot);
        self.promise_to(slot, higher, now);
        self.table.give_up(slot);
        if !matches!(was, Role::Claiming(_)) {
            self.back_off(slot, now);
        }
        self.replay(slot, now, out);
    }

    pub(super) fn leave_claim(&mut self, number: u64, slot: Slot) {
        if let Some(claim) = self.claims.get_mut(&number) {
            claim.slots.remove(&slot);
            claim.interest.remove(&slot);
        }
    }

    /// Asks live nodes that this node doesn't know of; those that it saw vanish stay unasked.
    fn learn_of(&mut self, number: u64, live: &[Incarnation], now: Millis, out: &mut Out) {
        let Some(claim) = self.claims.get(&number) else { return };
        if claim.won.is_some() {
            return;
        }
        let unknown: Vec<Incarnation> = live
            .iter()
            .filter(|node| !claim.asked.contains_key(node) && !self.departed.contains_key(node))
            .copied()
            .collect();
        for node in unknown {
            self.ask(number, node, now, out);
        }
    }

    /// The slots of which a node has something else than this one, with what this one has.
    fn lacking(
        &self,
        from: Incarnation,
        number: u64,
        digests: &[(Slot, u64)],
    ) -> Vec<(Slot, Vec<(Channel, Position)>)> {
        let Some(claim) = self.claims.get(&number) else { return vec![] };
        if from == self.me || cfg!(mutant = "no_pull") {
            return vec![];
        }
        let differs = |slot: &Slot, digest: u64| {
            let ours = self.holdings.get(slot).map(|holding| holding.digest());
            claim.slots.contains(slot) && ours != Some(digest)
        };
        let lacking = digests.iter().filter(|(slot, digest)| differs(slot, *digest));
        let tops = |slot| self.holdings.get(slot).map(|h| h.tops()).unwrap_or_default();
        lacking.map(|(slot, _)| (*slot, tops(slot))).collect()
    }

    /// Takes a part of what was pulled.
    pub(super) fn handle_pulled(
        &mut self,
        from: Incarnation,
        number: u64,
        copies: Vec<SlotCopy>,
        last: bool,
        now: Millis,
        out: &mut Out,
    ) {
        let slots: BTreeSet<Slot> = copies.iter().map(|copy| copy.slot).collect();
        for copy in copies.into_iter().filter(|copy| self.table.contains(copy.slot)) {
            // A part that doesn't fit is asked for again by the next claim's digest.
            self.holdings.entry(copy.slot).or_default().merge(copy, now);
        }
        let Some(claim) = self.claims.get_mut(&number) else { return };
        if let Some(asked) = claim.asked.get_mut(&from) {
            asked.heard = now;
            asked.pulls -= u32::from(last && asked.pulls > 0);
        }
        if claim.won.is_some() {
            for slot in slots {
                self.adopt_orphans(slot, now, out);
            }
        }
        self.check_claim(number, now, out);
    }

    /// Notes who is silent, and asks silent nodes again once the claim went on without them.
    pub(super) fn check_silent_claims(&mut self, now: Millis, out: &mut Out) {
        let numbers: Vec<u64> = self.claims.keys().copied().collect();
        for number in numbers {
            let Some(claim) = self.claims.get_mut(&number) else { continue };
            let mut again = Vec::new();
            for (node, asked) in &mut claim.asked {
                if asked.done() || now.since(asked.heard) < SILENT_MS {
                    continue;
                }
                asked.missing = true;
                asked.heard = now;
                again.push(*node);
            }
            let slots = claim.prepare.clone();
            if !again.is_empty() {
                out.send_all(&again, Lane::Control, PeerFrame::Prepare { claim: number, slots });
            }
            self.check_claim(number, now, out);
        }
    }

    /// Stops waiting for nodes that are gone.
    pub(super) fn drop_departed_from_claims(&mut self, now: Millis, out: &mut Out) {
        let numbers: Vec<u64> = self.claims.keys().copied().collect();
        for number in numbers {
            if let Some(claim) = self.claims.get_mut(&number) {
                claim.asked.retain(|node, _| !self.departed.contains_key(node));
            }
            self.check_claim(number, now, out);
        }
    }

    /// Wins the claim once everybody asked has answered or is missing; ends it once nobody is.
    fn check_claim(&mut self, number: u64, now: Millis, out: &mut Out) {
        let Some(claim) = self.claims.get(&number) else { return };
        let complete = claim.asked.values().all(Asked::done);
        let ready = claim.asked.values().all(|asked| asked.done() || asked.missing);
        match claim.won {
            _ if claim.slots.is_empty() => drop(self.claims.remove(&number)),
            None if ready => self.win(number, complete, now, out),
            Some(_) if complete => self.finish(number),
            Some(won) if now.since(won) > INCOMPLETE_MS => drop(self.claims.remove(&number)),
            _ => {}
        }
    }

    fn win(&mut self, number: u64, complete: bool, now: Millis, out: &mut Out) {
        let Some(claim) = self.claims.get_mut(&number) else { return };
        let slots = claim.slots.clone();
        let mut interest = std::mem::take(&mut claim.interest);
        claim.won = Some(now);
        if complete {
            self.claims.remove(&number);
        }
        // Who vanished a moment ago may come back with what nobody here has.
        let vanished = self.departed.values().max().map_or(Millis(0), |at| *at + INCOMPLETE_MS);
        let silent = if complete { Millis(0) } else { now + INCOMPLETE_MS };
        let incomplete_until = vanished.max(silent);
        self.counts.won += slots.len() as u64;
        self.counts.incomplete += if complete { 0 } else { slots.len() as u64 };
        for slot in &slots {
            self.table.win(*slot, now, incomplete_until);
            let mut audience = Audience::default();
            for (gateway, channels) in interest.remove(slot).into_iter().flatten() {
                self.audiences.entry(*slot).or_default();
                self.bring_up_to_date(gateway, *slot, &channels, now, out);
                if !cfg!(mutant = "no_interest") {
                    for channel in channels {
                        adopt(&mut audience, gateway, channel);
                    }
                }
            }
            if audience != Audience::default() {
                self.audiences.insert(*slot, audience);
            }
            self.adopt_orphans(*slot, now, out);
        }
        let owned = PeerFrame::Owned { slots: ranges(slots.iter().copied()) };
        let live = self.world.live.clone();
        out.send_all(&live, Lane::Data, owned);
        for slot in slots {
            self.replay(slot, now, out);
        }
    }

    /// Everybody has answered: what isn't known here isn't known anywhere.
    fn finish(&mut self, number: u64) {
        let Some(claim) = self.claims.remove(&number) else { return };
        for slot in claim.slots {
            self.table.complete(slot);
        }
    }

    fn adopt_interest(
        &mut self,
        gateway: Incarnation,
        slot: Slot,
        channels: Vec<ChannelInterest>,
        now: Millis,
        out: &mut Out,
    ) {
        if !self.table.owns(slot) {
            return;
        }
        self.bring_up_to_date(gateway, slot, &channels, now, out);
        let audience = self.audiences.entry(slot).or_default();
        for channel in channels {
            adopt(audience, gateway, channel);
        }
    }

    /// Appends anew what a merge left without a name.
    fn adopt_orphans(&mut self, slot: Slot, now: Millis, out: &mut Out) {
        let orphans = self.holdings.get_mut(&slot).map(|holding| holding.take_orphans());
        for (channel, entry) in orphans.into_iter().flatten() {
            let holding = self.holdings.entry(slot).or_default();
            let Some(stream) = holding.streams.get(&channel) else { continue };
            let options = stream.options();
            if stream.find(entry.operation).is_none() {
                let message = entry.publication.message;
                self.append(slot, &channel, options, entry.operation, message, now, out);
            }
        }
    }
}

/// Adds to an audience what a gateway told in its answer; nobody is told of clients that were there
/// before.
fn adopt(audience: &mut Audience, gateway: Incarnation, interest: ChannelInterest) {
    let ChannelInterest { channel, options, present, .. } = interest;
    audience.subscribe(gateway, &channel, options.join_leave, None);
    for info in present {
        audience.subscribe(gateway, &channel, options.join_leave, Some(info));
    }
}

// The answering side.
impl Ownership {
    /// Promises what can be promised and answers with what is held here. `interest` is this node's
    /// own interest in the slots.
    pub fn handle_prepare(
        &mut self,
        from: Incarnation,
        claim: u64,
        slots: &[(SlotRange, u64)],
        interest: impl Fn(Slot) -> Vec<ChannelInterest>,
        now: Millis,
        out: &mut Out,
    ) {
        let mut rejected = Vec::new();
        let mut digests = Vec::new();
        let mut wanted = Vec::new();
        for (range, term) in slots {
            for slot in range.iter().filter(|slot| self.table.contains(*slot)).collect::<Vec<_>>() {
                let epoch = Epoch { term: *term, owner: from };
                if let Some(higher) = self.promise_to(slot, epoch, now) {
                    rejected.push((slot, higher));
                    continue;
                }
                let holding = self.holdings.get(&slot).filter(|holding| !holding.is_empty());
                digests.extend(holding.map(|holding| (slot, holding.digest())));
                for channels in interest(slot).chunks(ANSWER_CHANNELS) {
                    wanted.push(SlotInterest { slot, channels: channels.to_vec() });
                }
                if from != self.me {
                    // What waited for this node's claim goes on to the new claimant.
                    self.replay_elsewhere(slot, from, out);
                }
            }
        }
        let live = self.world.live.clone();
        for frame in parts(claim, rejected, digests, wanted, live) {
            out.send(from, Lane::Data, frame);
        }
    }

    fn replay_elsewhere(&mut self, slot: Slot, owner: Incarnation, out: &mut Out) {
        for waiting in self.parked.take(slot) {
            self.bounce(waiting.from, waiting.frame, Some(owner), out);
        }
    }

    /// Sends what a claimant lacks.
    pub(super) fn handle_pull(
        &mut self,
        from: Incarnation,
        claim: u64,
        slots: &[(Slot, Vec<(Channel, Position)>)],
        now: Millis,
        out: &mut Out,
    ) {
        for (slot, have) in slots {
            let Some(holding) = self.holdings.get(slot) else { continue };
            for copy in holding.copies(*slot, have, now) {
                let copies = vec![copy];
                let frame = PeerFrame::Pulled { claim, copies, last: false };
                out.send(from, Lane::Bulk, frame);
            }
        }
        out.send(from, Lane::Bulk, PeerFrame::Pulled { claim, copies: vec![], last: true });
    }
}

/// An answer in parts, the last of which says so.
fn parts(
    claim: u64,
    rejected: Vec<(Slot, Epoch)>,
    digests: Vec<(Slot, u64)>,
    wanted: Vec<SlotInterest>,
    live: Vec<Incarnation>,
) -> Vec<PeerFrame> {
    let mut frames = Vec::new();
    let mut push =
        |rejected: &[(Slot, Epoch)], digests: &[(Slot, u64)], interest: &[SlotInterest]| {
            frames.push(PeerFrame::Promise {
                claim,
                rejected: rejected.to_vec(),
                digests: digests.to_vec(),
                interest: interest.to_vec(),
                live: vec![],
                last: false,
            });
        };
    rejected.chunks(ANSWER_SLOTS).for_each(|chunk| push(chunk, &[], &[]));
    digests.chunks(ANSWER_SLOTS).for_each(|chunk| push(&[], chunk, &[]));
    let mut first = 0;
    let mut channels = 0;
    for (at, slot) in wanted.iter().enumerate() {
        if channels + slot.channels.len() > ANSWER_CHANNELS && at > first {
            push(&[], &[], &wanted[first..at]);
            (first, channels) = (at, 0);
        }
        channels += slot.channels.len();
    }
    push(&[], &[], &wanted[first..]);
    if let Some(PeerFrame::Promise { live: all, last, .. }) = frames.last_mut() {
        (*all, *last) = (live, true);
    }
    frames
}
