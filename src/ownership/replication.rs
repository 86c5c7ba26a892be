//! Replication, the owner's side: what it changes goes to followers, and is answered and delivered
//! once as many nodes hold it as the cluster promises.
mod changes;
mod copies;
mod followers;

use std::collections::{BTreeMap, BTreeSet};

use super::holding::COPY_BYTES;
use super::log::{Log, Place, Waiting, size_of};
use super::out::Out;
use super::owner::Ownership;
use super::requests::deliver;
use crate::mutant::{Rule, without};
use crate::protocol::ids::{Epoch, Incarnation, Slot};
use crate::protocol::peer::{Lane, Outcome, PeerFrame, SlotTail, TailAck};
use crate::protocol::time::Millis;
pub use copies::Copies;
pub use followers::SILENT_FOLLOWER_MS;

/// How often followers are told of commits behind which nothing came.
const COMMITS_TOLD_MS: u64 = 100;
/// Slots named in one frame.
const SLOTS_PER_FRAME: usize = 2_048;

/// What is due for owned slots.
#[derive(Debug, Default)]
pub(super) struct Due {
    /// Slots with changes that followers haven't been sent.
    unsent: BTreeSet<Slot>,
    /// Slots with changes that a follower hasn't acknowledged.
    unheld: BTreeSet<Slot>,
    /// Slots whose followers don't know the last commit.
    untold: BTreeSet<Slot>,
    told: Millis,
    /// Slots with followers that have no whole copy.
    unfollowed: BTreeSet<Slot>,
    covered: Millis,
}

impl Ownership {
    /// Sends followers what they lack. Done once all that happened at one time was handled.
    pub(super) fn send_tails(&mut self, now: Millis, out: &mut Out) {
        let mut tails: BTreeMap<Incarnation, Vec<SlotTail>> = BTreeMap::new();
        for slot in std::mem::take(&mut self.due.unsent) {
            let term = self.table.promised(slot).term;
            let Some(log) = self.logs.get_mut(&slot) else { continue };
            let committed = log.committed();
            for node in log.followers.keys().copied().collect::<Vec<_>>() {
                let (after, changes) = log.next(node, now);
                let Some(follower) = log.followers.get(&node) else { continue };
                if changes.is_empty() {
                    continue;
                }
                let from = follower.from;
                let tail = SlotTail { slot, term, from, after, changes, committed };
                tails.entry(node).or_default().push(tail);
            }
            self.due.untold.insert(slot);
            self.try_commit(slot, now, out);
        }
        for (node, tails) in tails {
            send_in_parts(node, tails, out);
        }
    }

    /// Notes what a follower holds.
    pub(super) fn handle_replicated(
        &mut self,
        from: Incarnation,
        acks: Vec<TailAck>,
        now: Millis,
        out: &mut Out,
    ) {
        for ack in acks {
            let epoch = Epoch { term: ack.term, owner: self.me };
            if !self.table.owns(ack.slot) || self.table.promised(ack.slot) != epoch {
                continue;
            }
            let Some(log) = self.logs.get_mut(&ack.slot) else { continue };
            let last = log.last();
            let Some(follower) = log.followers.get_mut(&from) else { continue };
            if follower.from != ack.from || ack.index > last {
                continue;
            }
            if ack.index > follower.acked {
                // It may hold more than it was sent again.
                follower.sent = follower.sent.max(ack.index);
                (follower.acked, follower.since, follower.retry_ms) = (ack.index, now, 0);
                self.due.unsent.insert(ack.slot);
            }
            if ack.behind && now.since(follower.since) >= COMMITS_TOLD_MS {
                // What was sent is lost: from there again, once in a while.
                (follower.sent, follower.since) = (follower.acked, now);
                self.due.unsent.insert(ack.slot);
            }
            log.shorten();
            self.try_commit(ack.slot, now, out);
        }
    }

    /// Commits what enough nodes hold, answers for it and delivers it.
    pub(super) fn try_commit(&mut self, slot: Slot, now: Millis, out: &mut Out) {
        let required = self.world.required;
        let required = if without(Rule::AllCopies) { required.min(1) } else { required };
        let Some(log) = self.logs.get_mut(&slot).filter(|_| required > 0) else { return };
        let committable = log.committable(required);
        if committable > log.committed() {
            self.counts.committed += committable - log.committed();
            let copies = log.copies(committable);
            let unsettled = !log.is_settled();
            let ready = log.commit(committable);
            let settled = unsettled && log.is_settled();
            self.due.untold.insert(slot);
            for mut waiting in ready {
                let mut asks = std::mem::take(&mut waiting.asks);
                asks.retain(|ask| !self.is_left_behind(ask));
                self.answer_for(slot, waiting, copies, out);
                // Before what is committed next: who subscribes before it is told of it.
                asks.sort_unstable_by_key(|ask| ask.order);
                asks.into_iter().for_each(|ask| self.take_turn(ask, now, out));
            }
            if settled {
                self.replay(slot, now, out);
            }
        }
        let Some(log) = self.logs.get_mut(&slot) else { return };
        log.drop_spares();
        if log.take_outdated() {
            self.due.unfollowed.insert(slot);
        }
        if log.uncommitted() == 0 && log.is_held() {
            self.due.unheld.remove(&slot);
        }
    }

    fn answer_for(&mut self, slot: Slot, waiting: Waiting, copies: u8, out: &mut Out) {
        let Waiting { place, results, .. } = waiting;
        let outcome = match place {
            Some(Place::Stream(channel, position)) => {
                let holding = self.holdings.get_mut(&slot);
                let done = holding.and_then(|holding| holding.commit(&channel, position));
                if let Some((follows, publication)) = done {
                    let gateways = self.gateways(slot, &channel);
                    let frame = deliver(slot, &channel, follows, publication);
                    out.send_all(&gateways, Lane::Data, frame);
                }
                Outcome::Published { position: Some(position), copies }
            }
            Some(Place::User(user, stamped)) => {
                self.show_user(slot, user, &stamped, out);
                Outcome::Changed { copies }
            }
            None => Outcome::Published { position: None, copies },
        };
        for (gateway, number) in results {
            out.send(gateway, Lane::Data, PeerFrame::Result { slot, number, outcome });
        }
    }
}

fn send_in_parts(node: Incarnation, tails: Vec<SlotTail>, out: &mut Out) {
    let mut part = Vec::new();
    let mut bytes = 0;
    for mut tail in tails {
        let mut rest = std::mem::take(&mut tail.changes).into_iter().peekable();
        while rest.peek().is_some() {
            let mut now = SlotTail { changes: vec![], ..tail.clone() };
            while let Some(change) = rest.next_if(|_| bytes < COPY_BYTES) {
                bytes += size_of(&change);
                now.changes.push(change);
            }
            tail.after += now.changes.len() as u64;
            part.push(now);
            if bytes >= COPY_BYTES {
                let tails = std::mem::take(&mut part);
                out.send(node, Lane::Data, PeerFrame::Replicate { tails });
                bytes = 0;
            }
        }
    }
    if !part.is_empty() {
        out.send(node, Lane::Data, PeerFrame::Replicate { tails: part });
    }
}

impl Ownership {
    /// Does what is due for copies.
    pub(super) fn check_copies(&mut self, now: Millis, out: &mut Out) {
        self.check_silent_followers(now);
        self.ask_to_follow(now, out);
        self.tell_commits(now, out);
        self.tell_covered(now, out);
    }

    /// Tells followers of commits behind which nothing came: they must know of them should the owner
    /// die.
    fn tell_commits(&mut self, now: Millis, out: &mut Out) {
        if now.since(self.due.told) < COMMITS_TOLD_MS {
            return;
        }
        self.due.told = now;
        let mut told: BTreeMap<Incarnation, Vec<SlotTail>> = BTreeMap::new();
        for slot in std::mem::take(&mut self.due.untold) {
            let term = self.table.promised(slot).term;
            let Some(log) = self.logs.get(&slot) else { continue };
            for (node, follower) in log.followers.iter().filter(|(_, f)| f.retry_ms == 0) {
                let (from, after) = (follower.from, follower.sent);
                let (changes, committed) = (vec![], log.committed());
                let tail = SlotTail { slot, term, from, after, changes, committed };
                told.entry(*node).or_default().push(tail);
            }
        }
        for (node, tails) in told {
            for tails in tails.chunks(SLOTS_PER_FRAME) {
                let tails = tails.to_vec();
                out.send(node, Lane::Data, PeerFrame::Replicate { tails });
            }
        }
    }

    /// Whether a slot takes one more change.
    pub(super) fn takes_changes(&self, slot: Slot) -> bool {
        let log = self.logs.get(&slot);
        log.is_none_or(Log::has_room)
    }
}
