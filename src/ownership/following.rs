//! Following: a node holds copies of slots that another owns. It takes the owner's changes as they
//! come, pulls what was before them, and says what it holds; never once it promised a higher epoch.
use std::collections::{BTreeMap, HashSet, VecDeque};

use super::claim::NO_CLAIM;
use super::log::Place;
use super::out::Out;
use super::owner::Ownership;
use crate::protocol::channel::Channel;
use crate::protocol::ids::{Epoch, Incarnation, Position, Slot};
use crate::protocol::peer::{Change, FollowedSlot, Lane, PeerFrame, SlotTail, TailAck};
use crate::protocol::time::Millis;

/// Pulls of whole copies at once: with their byte budget, what a node takes in at most while the
/// ring moves, and what the copies that a claim waits for are behind of.
const FOLLOW_PULLS_MAX: usize = 2;
/// Slots in one of these pulls.
const SLOTS_PER_PULL: usize = 64;
/// Changes remembered until their commit is known, a slot. Above it the oldest are forgotten: who
/// claims takes them for uncommitted and has them held anew before it shows them.
const PENDING_MAX: usize = 16_384;

/// How far this node holds the changes of a slot.
#[derive(Debug)]
pub(super) struct Following {
    epoch: Epoch,
    from: u64,
    index: u64,
    committed: u64,
    /// What isn't known to be committed, by the index of its change.
    pending: VecDeque<(u64, Place)>,
}

impl Following {
    pub(super) fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Gives back room in which nothing waits.
    pub(super) fn shrink(&mut self) {
        if self.pending.is_empty() {
            self.pending = VecDeque::new();
        }
    }

    /// Publications of the owner's log that may not have their places yet.
    pub(super) fn unplaced(&self) -> HashSet<(&Channel, Position)> {
        let places = self.pending.iter().filter_map(|(_, place)| match place {
            Place::Stream(channel, position) => Some((channel, *position)),
            Place::User(..) => None,
        });
        places.collect()
    }
}

/// A copy that this node is to pull.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted {
    owner: Incarnation,
    term: u64,
    number: u64,
    /// Whether the owner had all that was held here when it asked.
    at_home: bool,
    /// Changes up to this index are in the copy, since they were committed when it was asked for.
    copied: u64,
    /// The pull that brings it.
    pull: Option<u64>,
}

/// What is owed to owners, sent once all that happened at one time was handled.
#[derive(Debug, Default)]
pub(super) struct Owed {
    acks: BTreeMap<Incarnation, BTreeMap<Slot, TailAck>>,
    fenced: BTreeMap<Incarnation, Vec<(Slot, Epoch)>>,
}

impl Ownership {
    /// Takes changes from an owner.
    pub(super) fn handle_replicate(
        &mut self,
        from: Incarnation,
        tails: Vec<SlotTail>,
        now: Millis,
    ) {
        for tail in tails {
            self.take_tail(from, tail, now);
        }
    }

    fn take_tail(&mut self, owner: Incarnation, tail: SlotTail, now: Millis) {
        let SlotTail { slot, term, from, after, changes, committed } = tail;
        let epoch = Epoch { term, owner };
        if let Some(higher) = self.promise_to(slot, epoch, now) {
            return self.owe_fence(owner, slot, higher);
        }
        if !changes.is_empty() {
            self.note_source(slot, owner, self.holds(slot), now);
        }
        let new = |pending| Following { epoch, from, index: from, committed: 0, pending };
        let following = self.following.entry(slot).or_insert_with(|| new(VecDeque::new()));
        if following.epoch == epoch && from < following.from {
            // From before the owner began anew with this node: it only ever moves on.
            return;
        }
        if following.epoch != epoch {
            *following = new(VecDeque::new());
        } else if following.from != from {
            *following = new(std::mem::take(&mut following.pending));
        }
        let behind = after > following.index;
        if !behind {
            let known = (following.index - after) as usize;
            for change in changes.iter().skip(known) {
                self.holdings.entry(slot).or_default().apply(change, now);
                following.index += 1;
                let place = match &**change {
                    Change::Publish { channel, entry, .. } => {
                        Place::Stream(channel.clone(), entry.publication.position())
                    }
                    Change::User { user, stamped, .. } => {
                        Place::User(user.clone(), stamped.clone())
                    }
                    _ => continue,
                };
                following.pending.push_back((following.index, place));
            }
        }
        following.committed = following.committed.max(committed);
        self.note_commits(slot);
        let Some(following) = self.following.get(&slot) else { return };
        let ack = TailAck { slot, term, from, index: following.index, behind };
        // Commits alone are answered only where something was missed.
        if behind || !changes.is_empty() {
            self.owed.acks.entry(owner).or_default().insert(slot, ack);
        }
    }

    /// Notes what is committed, publications as far as they have their places.
    fn note_commits(&mut self, slot: Slot) {
        let Some(following) = self.following.get_mut(&slot) else { return };
        let Some(holding) = self.holdings.get_mut(&slot) else { return };
        let committed = following.committed;
        following.pending.retain(|(index, place)| match place {
            _ if *index > committed => true,
            Place::Stream(channel, position) => holding.commit(channel, *position).is_none(),
            Place::User(user, stamped) => {
                holding.commit_user(user, stamped);
                false
            }
        });
        let most = following.pending.len().saturating_sub(PENDING_MAX);
        following.pending.drain(..most);
    }

    pub(super) fn owe_fence(&mut self, owner: Incarnation, slot: Slot, promised: Epoch) {
        if owner != self.me && promised.owner != owner {
            self.owed.fenced.entry(owner).or_default().push((slot, promised));
        }
    }

    /// Sends what is owed to owners.
    pub(super) fn pay(&mut self, out: &mut Out) {
        let Owed { acks, fenced } = std::mem::take(&mut self.owed);
        // Fences go first: nothing behind them is taken for the word of one who is still bound.
        for (owner, slots) in fenced {
            out.send(owner, Lane::Control, PeerFrame::Fenced { slots });
        }
        for (owner, slots) in acks {
            let slots = slots.into_values().collect();
            out.send(owner, Lane::Control, PeerFrame::Replicated { slots });
        }
    }

    /// Takes the word of a node that promised slots of this owner to others.
    pub(super) fn handle_fenced(&mut self, slots: &[(Slot, Epoch)], now: Millis, out: &mut Out) {
        for (slot, epoch) in slots {
            if *epoch > self.table.promised(*slot) && epoch.owner != self.me {
                self.promise_to(*slot, *epoch, now);
                self.replay(*slot, now, out);
            }
        }
    }

    /// What a pull brings has no place on the lines of who sends it: it isn't their owner any more, or not
    /// yet.
    pub(super) fn note_loose(&mut self, slot: Slot, pull: u64) {
        let wanted = self.wanted.get_mut(&slot).filter(|wanted| wanted.pull == Some(pull));
        wanted.into_iter().for_each(|wanted| wanted.at_home = false);
    }

    /// Notes of which slots an owner wants this node to hold whole copies.
    pub(super) fn handle_follow(
        &mut self,
        owner: Incarnation,
        slots: &[FollowedSlot],
        now: Millis,
        out: &mut Out,
    ) {
        let mut held = Vec::new();
        for FollowedSlot { slot, term, number, digest, settled } in slots.iter().copied() {
            let epoch = Epoch { term, owner };
            if let Some(higher) = self.promise_to(slot, epoch, now) {
                self.owe_fence(owner, slot, higher);
            } else if let Some(holding) = self.holdings.get_mut(&slot)
                && holding.digest() == digest
                && settled
            {
                holding.commit_all();
                self.wanted.remove(&slot);
                held.push((slot, term, number));
            } else if let Some(wanted) = self.wanted.get(&slot)
                && (wanted.term, wanted.number) == (term, number)
            {
                // Asked again: the owner isn't sending it.
                if let Some(pull) = wanted.pull {
                    self.drop_if_lost(pull, now);
                }
            } else {
                let at_home = self.is_at_home(slot);
                let (pull, copied) = (None, 0);
                self.wanted.insert(slot, Wanted { owner, term, number, at_home, copied, pull });
            }
        }
        if !held.is_empty() {
            out.send(owner, Lane::Control, PeerFrame::Followed { slots: held });
        }
        self.pull_wanted(now, out);
    }

    /// Pulls what is wanted, as far as the budget allows.
    pub(super) fn pull_wanted(&mut self, now: Millis, out: &mut Out) {
        let going = |wanted: &Wanted| wanted.pull.is_some_and(|p| self.pulling.contains_key(&p));
        let mut pulls: Vec<u64> =
            self.wanted.values().filter(|w| going(w)).filter_map(|w| w.pull).collect();
        pulls.sort_unstable();
        pulls.dedup();
        for _ in pulls.len()..FOLLOW_PULLS_MAX {
            let going = |w: &Wanted| w.pull.is_some_and(|p| self.pulling.contains_key(&p));
            let mut idle = self.wanted.iter().filter(|(_, wanted)| !going(wanted));
            let Some((_, first)) = idle.next() else { return };
            let owner = first.owner;
            let of_owner = self.wanted.iter().filter(|(_, w)| !going(w) && w.owner == owner);
            let slots: Vec<Slot> = of_owner.map(|(slot, _)| *slot).take(SLOTS_PER_PULL).collect();
            let tops = |slot: &Slot| self.tops(*slot);
            let lacking = slots.iter().map(|slot| (*slot, tops(slot))).collect();
            let pull = self.begin_pull(owner, NO_CLAIM, lacking, now, out);
            for slot in slots {
                if let Some(wanted) = self.wanted.get_mut(&slot) {
                    let epoch = Epoch { term: wanted.term, owner };
                    let following = self.following.get(&slot).filter(|f| f.epoch == epoch);
                    wanted.copied = following.map_or(0, |following| following.committed);
                    wanted.pull = Some(pull);
                }
            }
        }
    }

    /// A pull has ended: what it was to bring is here.
    pub(super) fn note_followed(
        &mut self,
        owner: Incarnation,
        pull: u64,
        now: Millis,
        out: &mut Out,
    ) {
        let brought = self.wanted.iter().filter(|(_, wanted)| wanted.pull == Some(pull));
        let brought: Vec<(Slot, Wanted)> = brought.map(|(slot, w)| (*slot, *w)).collect();
        let mut held = Vec::new();
        for (slot, Wanted { term, number, at_home, copied, .. }) in brought {
            self.wanted.remove(&slot);
            // Whoever has claimed meanwhile was told what was here before.
            if self.table.promised(slot) == (Epoch { term, owner }) {
                self.note_commits(slot);
                if let Some(following) = self.following.get_mut(&slot) {
                    following.pending.retain(|(index, _)| *index > copied);
                }
                if let Some(holding) = self.holdings.get_mut(&slot) {
                    holding.drop_known(now);
                }
                if at_home && self.is_at_home(slot) {
                    self.drop_taken_over(slot);
                }
                held.push((slot, term, number));
            }
        }
        self.counts.copied += held.len() as u64;
        if !held.is_empty() {
            out.send(owner, Lane::Control, PeerFrame::Followed { slots: held });
        }
        self.pull_wanted(now, out);
    }

    /// Whether a living owner keeps this node's copy of a slot up to date: it decides what is
    /// forgotten.
    pub(super) fn follows(&self, slot: Slot) -> bool {
        let promised = self.table.promised(slot);
        promised.owner != self.me
            && self.world.lives(promised.owner)
            && self.following.get(&slot).is_some_and(|following| following.epoch == promised)
    }
}
