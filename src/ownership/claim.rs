//! The claim: the one procedure by which a node becomes owner of slots, be it for a start, a crash,
//! a join or a leave. Promise to oneself, ask every live node to promise and to say what it has,
//! pull what is lacking, then serve. Also the answering side: promising and being pulled from.
use std::collections::{BTreeMap, BTreeSet};

use super::audience::{self, Audience, in_parts};
use super::log::Log;
use super::out::Out;
use super::owner::{Departed, INCOMPLETE_MS, Ownership};
use super::pull::Lacking;
use super::table::{Missing, Role, ranges_by_term};
use crate::mutant::{Rule, without};
use crate::protocol::channel::Channel;
use crate::protocol::ids::{Epoch, Incarnation, Position, Slot};
use crate::protocol::peer::{ChannelInterest, Lane, PeerFrame, SlotInterest, SlotRange};
use crate::protocol::time::Millis;

/// A node that has been silent for this long, while asked or while its copies are awaited, is
/// missing: the claim goes on without it.
pub const SILENT_MS: u64 = 1_000;
/// Pause before a node that is silent is asked again.
const ASK_AGAIN_MS: u64 = 250;
/// Questions to one node whose answers may get lost in the middle before the claim goes on without it.
const ATTEMPTS_MAX: u32 = 16;
/// A slot that was not lost again for so long after a pause starts with a short pause the next time.
const FORGIVEN_MS: u64 = 20_000;
/// The number of a pull that belongs to no claim.
pub(super) const NO_CLAIM: u64 = 0;
/// How often a node says that it owns slots that belong elsewhere.
const ANNOUNCE_STRAYS_MS: u64 = 1_000;
/// Slots named in one part of an answer, which keeps parts under some 100 KiB.
const ANSWER_SLOTS: usize = 2_048;
/// Streams named in one question for copies, which keeps it under some 3 MB.
const PULL_NAMES: usize = 10_000;

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
#[derive(Clone, Debug)]
struct Asked {
    heard: Millis,
    /// Questions since then.
    tries: u64,
    /// The last question.
    attempt: u32,
    /// The parts of the answer to it that have come, and how many it has.
    parts: BTreeSet<u32>,
    parts_total: Option<u32>,
    promised: bool,
    pulls: BTreeSet<u64>,
    missing: bool,
}

impl Asked {
    fn done(&self) -> bool {
        self.promised && self.pulls.is_empty()
    }

    /// The number of one more question; what came of the answer to the last one doesn't count.
    fn ask_again(&mut self) -> u32 {
        self.attempt += 1;
        self.parts.clear();
        self.parts_total = None;
        self.attempt
    }

    /// The same for a node that had promised: what it was asked before is lost.
    fn begin_again(&mut self) -> u32 {
        self.pulls.clear();
        self.promised = false;
        self.ask_again()
    }

    /// Notes a part of an answer. A node has promised once all parts of one answer are here.
    fn note_part(&mut self, attempt: u32, part: u32, last: bool) {
        if attempt != self.attempt {
            return;
        }
        self.parts.insert(part);
        if last {
            self.parts_total = Some(part.saturating_add(1));
        }
        let whole = |total: u32| self.parts.range(..total).count() == total as usize;
        self.promised |= self.parts_total.is_some_and(whole);
    }
}

/// The parts of `PeerFrame::Promise` beside the claim's number.
pub(super) struct PromiseAnswer {
    pub(super) rejected: Vec<(Slot, Epoch)>,
    pub(super) digests: Vec<(Slot, u64)>,
    pub(super) interest: Vec<SlotInterest>,
    pub(super) live: Vec<Incarnation>,
    pub(super) attempt: u32,
    pub(super) part: u32,
    pub(super) last: bool,
}

// The claimant.
impl Ownership {
    /// Claims all slots that belong here, aren't owned here, and aren't backing off.
    pub(super) fn claim_due_slots(&mut self, now: Millis, out: &mut Out) {
        if (self.world.required == 0 && !without(Rule::ClaimWhenServing))
            || self.claims_due.is_none_or(|due| now < due)
        {
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
        self.backoffs.retain(|_, backoff| now < backoff.until + FORGIVEN_MS);
        let waiting = self.backoffs.values().map(|backoff| backoff.until);
        self.claims_due = waiting.filter(|until| *until > now).min();
        if due.is_empty() {
            return;
        }
        self.claims_begun += 1;
        let number = self.claims_begun;
        let mut claimed = Vec::new();
        for slot in &due {
            let before = self.table.promised(*slot);
            let epoch = self.table.begin_claim(*slot, number);
            claimed.push((*slot, epoch.term));
            if before != Epoch::NONE && !self.world.lives(before.owner) {
                // It isn't asked, and may live all the same.
                self.owe_fence(before.owner, *slot, epoch);
            }
        }
        let prepare = ranges_by_term(claimed);
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
        let asked = Asked {
            heard: now,
            tries: 0,
            attempt: 0,
            parts: BTreeSet::new(),
            parts_total: None,
            promised: false,
            pulls: BTreeSet::new(),
            missing: false,
        };
        claim.asked.insert(node, asked);
        let (attempt, slots) = (0, claim.prepare.clone());
        out.send(node, Lane::Control, PeerFrame::Prepare { claim: number, attempt, slots });
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
        let digests: BTreeMap<Slot, u64> = answer.digests.iter().copied().collect();
        let mut pulls = Vec::new();
        for lacking in in_pulls(self.lacking(from, number, &answer.digests)) {
            let unknown = lacking.iter().map(|(slot, _)| *slot);
            let unknown = unknown.filter_map(|slot| Some((slot, *digests.get(&slot)?))).collect();
            let pull = self.begin_pull(from, number, lacking, now, out);
            self.pull_strays(pull, unknown);
            pulls.push(pull);
        }
        let Some(claim) = self.claims.get_mut(&number) else { return };
        let Some(asked) = claim.asked.get_mut(&from) else { return };
        (asked.heard, asked.tries) = (now, 0);
        asked.note_part(answer.attempt, answer.part, answer.last);
        asked.pulls.extend(pulls);
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
        if higher <= self.table.promised(slot) || higher.owner == self.me {
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
        if from == self.me || without(Rule::PullBeforeServing) {
            return vec![];
        }
        let differs = |slot: &Slot, digest: u64| {
            let ours = self.holdings.get(slot).map(|holding| holding.digest());
            claim.slots.contains(slot) && ours != Some(digest)
        };
        let lacking = digests.iter().filter(|(slot, digest)| differs(slot, *digest));
        lacking.map(|(slot, _)| (*slot, self.tops(*slot))).collect()
    }

    /// Notes that a part of a copy has come from a node: it isn't silent, and what claims wait for
    /// may be behind others of its copies.
    pub(super) fn note_transfer(&mut self, from: Incarnation, now: Millis) {
        if without(Rule::TransferIsAnswer) {
            return;
        }
        let asked = self.claims.values_mut().filter_map(|claim| claim.asked.get_mut(&from));
        for asked in asked.filter(|asked| asked.promised) {
            (asked.heard, asked.tries) = (now, 0);
        }
    }

    /// Notes that all has come that a node was asked for in one pull.
    pub(super) fn note_pulled(
        &mut self,
        from: Incarnation,
        number: u64,
        pull: u64,
        now: Millis,
        out: &mut Out,
    ) {
        if let Some(asked) = self.claims.get_mut(&number).and_then(|c| c.asked.get_mut(&from)) {
            asked.pulls.remove(&pull);
        }
        self.check_claim(number, now, out);
    }

    /// Notes who is silent, and asks silent nodes again: the question, or the answer, may be lost. So
    /// may be a part of what is pulled.
    pub(super) fn check_silent_claims(&mut self, now: Millis, out: &mut Out) {
        let numbers: Vec<u64> = self.claims.keys().copied().collect();
        for number in numbers {
            let Some(claim) = self.claims.get_mut(&number) else { continue };
            let mut again = Vec::new();
            for (node, asked) in &mut claim.asked {
                let silent_ms = now.since(asked.heard);
                if asked.promised && asked.pulls.iter().any(|pull| !self.pulling.contains_key(pull))
                {
                    // Parts of its answer are lost, or don't fit. Not for ever: what it has is a stray
                    // then.
                    asked.missing |= asked.attempt >= ATTEMPTS_MAX;
                    again.extend((!asked.missing).then(|| (*node, asked.begin_again())));
                    continue;
                }
                if asked.done() || silent_ms < (asked.tries + 1) * ASK_AGAIN_MS {
                    continue;
                }
                asked.tries += 1;
                if silent_ms < SILENT_MS {
                    // Copies may be long on their way.
                    again.extend((!asked.promised).then(|| (*node, asked.ask_again())));
                    continue;
                }
                asked.missing = true;
                (asked.heard, asked.tries) = (now, 0);
                again.push((*node, asked.begin_again()));
            }
            let slots = claim.prepare.clone();
            for (node, attempt) in again {
                let (claim, slots) = (number, slots.clone());
                out.send(node, Lane::Control, PeerFrame::Prepare { claim, attempt, slots });
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
            Some(_) if complete => self.complete(number),
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
        let mut missing = self.vanished();
        if !complete {
            // Whoever is silent lives, and may hold what was acknowledged with fewer copies.
            let until = now + INCOMPLETE_MS;
            missing = Missing { incomplete_until: until, short_until: until };
        }
        self.counts.won += slots.len() as u64;
        self.counts.incomplete += if complete { 0 } else { slots.len() as u64 };
        for slot in &slots {
            self.table.win(*slot, now, missing);
            let wanted = interest.remove(slot).into_iter().flatten();
            // Nodes that this one doesn't know yet have a say; those that it saw vanish don't.
            let wanted = wanted.filter(|(gateway, _)| !self.departed.contains_key(gateway));
            self.begin_ownership(*slot, wanted.collect(), now, out);
        }
        let live = self.world.live.clone();
        self.announce_owned(&live, slots.iter().copied(), out);
        for slot in slots {
            self.replay(slot, now, out);
        }
    }

    /// Who vanished a moment ago may come back with what nobody here has; and if as many did as there
    /// are copies, with what was acknowledged. Who left in order had nothing that others lack.
    fn vanished(&self) -> Missing {
        let until = |departed: &Departed| departed.at + INCOMPLETE_MS;
        let all = self.departed.values();
        let mut members: Vec<Millis> = all.clone().filter(|d| d.member).map(until).collect();
        members.sort_unstable_by(|one, other| other.cmp(one));
        let short = members.get(usize::from(self.copies) - 1);
        Missing {
            incomplete_until: all.map(until).max().unwrap_or_default(),
            short_until: short.copied().unwrap_or_default(),
        }
    }

    /// Takes up a slot with what is held of it and the interest that gateways told.
    fn begin_ownership(
        &mut self,
        slot: Slot,
        wanted: Vec<(Incarnation, Vec<ChannelInterest>)>,
        now: Millis,
        out: &mut Out,
    ) {
        self.note_seen(slot, wanted.iter().flat_map(|(_, channels)| channels));
        if self.holdings.get(&slot).is_some_and(|holding| !holding.is_empty()) {
            self.open_log(slot, false, now);
            self.log_uncommitted(slot, now);
            self.adopt_loose(slot, now);
            self.logs.get_mut(&slot).into_iter().for_each(Log::take_over);
        }
        let mut audience = Audience::default();
        for (gateway, channels) in wanted {
            self.bring_up_to_date(gateway, slot, &channels, now, out);
            if !without(Rule::InterestInClaims) {
                for channel in channels {
                    adopt(&mut audience, gateway, channel);
                }
            }
        }
        if audience != Audience::default() {
            self.audiences.insert(slot, audience);
        }
        self.attend_all(slot, now);
    }

    /// What a gateway has delivered was committed.
    fn note_seen<'a>(&mut self, slot: Slot, channels: impl Iterator<Item = &'a ChannelInterest>) {
        let Some(holding) = self.holdings.get_mut(&slot) else { return };
        for ChannelInterest { channel, position, .. } in channels {
            if let Some(position) = position {
                holding.commit_seen(channel, *position);
            }
        }
    }

    /// Everybody who is here has answered: what isn't known here isn't known to any of them.
    fn complete(&mut self, number: u64) {
        let Some(claim) = self.claims.remove(&number) else { return };
        let missing = self.vanished();
        for slot in claim.slots {
            self.table.complete(slot, missing);
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
        self.note_seen(slot, channels.iter());
        self.bring_up_to_date(gateway, slot, &channels, now, out);
        let audience = self.audiences.entry(slot).or_default();
        for channel in channels {
            adopt(audience, gateway, channel);
        }
        self.attend_all(slot, now);
    }

    /// Appends anew what found no place on its channel's line.
    pub(super) fn adopt_loose(&mut self, slot: Slot, now: Millis) {
        let loose = self.holdings.get_mut(&slot).map(|holding| holding.take_loose(now));
        let mut adopted = BTreeSet::new();
        for (channel, options, entry) in loose.into_iter().flatten() {
            // It may have had two names.
            if adopted.insert(entry.operation) && entry.expires > now {
                self.counts.adopted += 1;
                let message = entry.publication.message;
                self.append(slot, &channel, options, (entry.operation, None), message, now);
            }
        }
    }
}

/// Cuts what is lacking so that no question about it is too long.
fn in_pulls(lacking: Lacking) -> Vec<Lacking> {
    let mut pulls: Vec<Lacking> = Vec::new();
    let mut names = 0;
    for (slot, mut tops) in lacking {
        // Of more streams than that in one slot the rest is sent whole.
        tops.truncate(PULL_NAMES);
        names += tops.len() + 1;
        match pulls.last_mut().filter(|_| names <= PULL_NAMES) {
            Some(pull) => pull.push((slot, tops)),
            None => {
                names = tops.len() + 1;
                pulls.push(vec![(slot, tops)]);
            }
        }
    }
    pulls
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

// What is known of owners.
impl Ownership {
    /// Tells nodes that this one owns slots.
    pub(super) fn announce_owned(
        &self,
        to: &[Incarnation],
        slots: impl Iterator<Item = Slot>,
        out: &mut Out,
    ) {
        self.announce_owned_on(Lane::Data, to, slots, out);
    }

    fn announce_owned_on(
        &self,
        lane: Lane,
        to: &[Incarnation],
        slots: impl Iterator<Item = Slot>,
        out: &mut Out,
    ) {
        let slots = ranges_by_term(slots.map(|slot| (slot, self.table.promised(slot).term)));
        if !slots.is_empty() {
            out.send_all(to, lane, PeerFrame::Owned { slots });
        }
    }

    /// Notes who owns slots: a promise, so that the next claim here starts above it.
    pub fn handle_owned(
        &mut self,
        from: Incarnation,
        slots: &[(SlotRange, u64)],
        now: Millis,
        out: &mut Out,
    ) {
        if from == self.me {
            return;
        }
        let mut mine = Vec::new();
        for (range, term) in slots {
            for slot in range.iter() {
                let refused = self.promise_to(slot, Epoch { term: *term, owner: from }, now);
                if refused.is_some() && self.table.owns(slot) {
                    mine.push(slot);
                }
            }
        }
        if !mine.is_empty() {
            // Two owned a slot, each out of the other's sight: the lesser steps down when it hears
            // of this, and what it has is taken over.
            self.announce_owned_on(Lane::Control, &[from], mine.iter().copied(), out);
            let tops = |slot| self.tops(slot);
            let slots = mine.into_iter().map(|slot| (slot, tops(slot))).collect();
            self.begin_pull(from, NO_CLAIM, slots, now, out);
        }
    }

    /// Tells the home of slots that are owned here though they belong elsewhere: it either never
    /// heard of this node's ownership, or this node never heard of its.
    pub(super) fn announce_strays(&mut self, now: Millis, out: &mut Out) {
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
            self.announce_owned(&[home], slots.into_iter(), out);
        }
    }
}

// The answering side.
impl Ownership {
    /// Promises what can be promised and answers with what is held here. `interest` is this node's
    /// own interest in the slots.
    pub fn handle_prepare(
        &mut self,
        from: Incarnation,
        (claim, attempt): (u64, u32),
        slots: &[(SlotRange, u64)],
        interest: impl Fn(Slot) -> Vec<ChannelInterest>,
        now: Millis,
        out: &mut Out,
    ) {
        let mut rejected = Vec::new();
        let mut digests = Vec::new();
        let mut wanted = Vec::new();
        // Gateways that this owner serves may be unknown to the claimant: they must be asked, too.
        let mut live: BTreeSet<Incarnation> = self.world.live.iter().copied().collect();
        for (range, term) in slots {
            for slot in range.iter().filter(|slot| self.table.contains(*slot)).collect::<Vec<_>>() {
                let epoch = Epoch { term: *term, owner: from };
                live.extend(self.audiences.get(&slot).into_iter().flat_map(Audience::all_gateways));
                if let Some(higher) = self.promise_to(slot, epoch, now) {
                    rejected.push((slot, higher));
                    continue;
                }
                // The next owner takes in what this one made before it serves.
                if let Some((_, doubtful)) = self.doubtful.get_mut(&slot) {
                    doubtful.retain(|_, ended| *term > ended.term + 1);
                }
                let holding = self.holdings.get(&slot).filter(|holding| !holding.is_empty());
                digests.extend(holding.map(|holding| (slot, holding.digest())));
                let interest = in_parts(interest(slot));
                let interest = interest.into_iter().filter(|(channels, _)| !channels.is_empty());
                wanted.extend(interest.map(|(channels, _)| SlotInterest { slot, channels }));
                if from != self.me {
                    // What waited for this node's claim goes on to the new claimant.
                    self.replay_elsewhere(slot, from, out);
                }
            }
        }
        let live = live.into_iter().collect();
        for frame in parts((claim, attempt), rejected, digests, wanted, live) {
            out.send(from, Lane::Data, frame);
        }
    }

    fn replay_elsewhere(&mut self, slot: Slot, owner: Incarnation, out: &mut Out) {
        for waiting in self.parked.take(slot) {
            self.bounce(waiting, Some(owner), out);
        }
    }
}

/// An answer in parts, the last of which says so.
fn parts(
    (claim, attempt): (u64, u32),
    rejected: Vec<(Slot, Epoch)>,
    digests: Vec<(Slot, u64)>,
    wanted: Vec<SlotInterest>,
    live: Vec<Incarnation>,
) -> Vec<PeerFrame> {
    let mut frames = Vec::new();
    let mut push =
        |rejected: &[(Slot, Epoch)], digests: &[(Slot, u64)], interest: &[SlotInterest]| {
            let part = frames.len() as u32;
            frames.push(PeerFrame::Promise {
                claim,
                attempt,
                part,
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
    let mut bytes = 0;
    for (at, slot) in wanted.iter().enumerate() {
        let more = audience::bytes(&slot.channels);
        if bytes + more > audience::PART_BYTES && at > first {
            push(&[], &[], &wanted[first..at]);
            (first, bytes) = (at, 0);
        }
        bytes += more;
    }
    push(&[], &[], &wanted[first..]);
    if let Some(PeerFrame::Promise { live: all, last, .. }) = frames.last_mut() {
        (*all, *last) = (live, true);
    }
    frames
}
