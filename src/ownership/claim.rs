//! The claim: the one procedure by which a node becomes owner of slots, be it for a start, a crash,
//! a join or a leave. Promise to oneself, ask every live node to promise and to say what it has,
//! pull what is lacking, then serve. Here is the claimant; who is asked answers in `promise`.
mod asked;
mod owned;
mod promise;
mod silence;
mod won;

use std::collections::{BTreeMap, BTreeSet};

use super::out::Out;
use super::owner::{INCOMPLETE_MS, Ownership};
use super::pull::Lacking;
use super::table::{Role, ranges_by_term};
use crate::mutant::{Rule, without};
use crate::protocol::channel::Channel;
use crate::protocol::ids::{Epoch, Incarnation, Position, Slot};
use crate::protocol::peer::{ChannelInterest, Lane, PeerFrame, SlotInterest, SlotRange};
use crate::protocol::time::Millis;
use asked::Asked;
pub(super) use promise::PromiseAnswer;
pub use silence::SILENT_MS;

/// A slot that was not lost again for so long after a pause starts with a short pause the next time.
const FORGIVEN_MS: u64 = 20_000;
/// The number of a pull that belongs to no claim.
pub(super) const NO_CLAIM: u64 = 0;
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

impl Claim {
    /// How many nodes have promised, this one included.
    fn promised(&self) -> usize {
        self.asked.values().filter(|asked| asked.promised).count()
    }
}

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
        claim.asked.insert(node, Asked::new(now));
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
        self.hear_vanished(&answer.vanished, now);
        let digests: BTreeMap<Slot, u64> = answer.digests.iter().copied().collect();
        let mut pulls = Vec::new();
        for lacking in in_pulls(self.lacking(from, number, &answer.digests)) {
            let unknown = lacking.iter().map(|(slot, _)| *slot);
            let unknown = unknown.filter_map(|slot| Some((slot, *digests.get(&slot)?))).collect();
            let pull = self.begin_pull(from, number, lacking, now, out);
            self.pull_strays(pull, unknown);
            pulls.push(pull);
        }
        self.take_in_equal(from, digests);
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

    /// The slots of which a node has something else than this one, and which aren't on their way
    /// for an earlier answer, with what this one has.
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
        let pulls = claim.asked.get(&from).into_iter().flat_map(|asked| &asked.pulls);
        let coming = self.coming(pulls);
        let differs = |slot: &Slot, digest: u64| {
            let ours = self.holdings.get(slot).map(|holding| holding.digest());
            claim.slots.contains(slot) && ours != Some(digest) && !coming.contains(&(*slot, digest))
        };
        let lacking = digests.iter().filter(|(slot, digest)| differs(slot, *digest));
        lacking.map(|(slot, _)| (*slot, self.tops(*slot))).collect()
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

    /// Whether as many nodes have promised as must hold what is acknowledged. Who is heard by fewer
    /// could acknowledge nothing, and would take slots from an owner whose audience it doesn't know.
    fn may_win(&self, claim: &Claim) -> bool {
        let required = self.world.required;
        let serves = required > 0 || without(Rule::ClaimWhenServing);
        serves && claim.promised() >= required
    }

    /// Wins the claim once everybody asked has answered or is missing; ends it once nobody is.
    fn check_claim(&mut self, number: u64, now: Millis, out: &mut Out) {
        let Some(claim) = self.claims.get(&number) else { return };
        let complete = claim.asked.values().all(Asked::done);
        let ready = claim.asked.values().all(|asked| asked.done() || asked.missing);
        match claim.won {
            _ if claim.slots.is_empty() => drop(self.claims.remove(&number)),
            None if ready && self.may_win(claim) => self.win(number, complete, now, out),
            Some(_) if complete => self.complete(number),
            Some(won) if now.since(won) > INCOMPLETE_MS => drop(self.claims.remove(&number)),
            _ => {}
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
