//! Replication, the owner's side: what it changes goes to followers, and is answered and delivered
//! once as many nodes hold it as the cluster promises.
use std::collections::{BTreeMap, BTreeSet};

use super::holding::COPY_BYTES;
use super::log::{Log, Place, UNCOMMITTED_MAX, Waiting, size_of};
use super::out::Out;
use super::owner::Ownership;
use super::requests::deliver;
use crate::mutant::{Rule, without};
use crate::protocol::channel::Channel;
use crate::protocol::ids::{Epoch, Incarnation, Position, Slot};
use crate::protocol::message::OperationId;
use crate::protocol::peer::{Change, FollowedSlot, Lane, Outcome, PeerFrame, SlotTail, TailAck};
use crate::protocol::time::Millis;

/// A follower that acknowledges nothing for so long, while a commit waits, is stood in for.
pub const SILENT_FOLLOWER_MS: u64 = 250;
/// A spare is given a whole copy once the follower was silent for so long.
const SPARE_FOLLOWS_MS: u64 = 3_000;
/// Longest pause between two attempts at a silent follower.
const RETRY_MS_MAX: u64 = 2_000;
/// How often followers that have no whole copy yet are asked again to have one.
const FOLLOW_AGAIN_MS: u64 = 1_000;
/// How often followers are told of commits behind which nothing came.
const COMMITS_TOLD_MS: u64 = 100;
/// How often joining nodes are looked at, whether they hold what they will need.
const COVERED_MS: u64 = 200;
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

/// How well owned slots are held.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Copies {
    /// Slots held by fewer nodes than the cluster keeps copies.
    pub under_replicated: u32,
    /// Those of them that could be held by more now.
    pub unrepaired: u32,
    /// Changes that aren't committed.
    pub uncommitted: u64,
}

// Changes.
impl Ownership {
    /// Logs the next change of an owned slot; `place` is what is to be shown when it is committed. What it changes must have been changed already, under the index that
    /// [`SlotTable::next_index`](super::table::SlotTable::next_index) gave.
    pub(super) fn log_change(
        &mut self,
        slot: Slot,
        index: u64,
        change: Change,
        place: Option<Place>,
        now: Millis,
    ) {
        if !self.logs.contains_key(&slot) {
            // The first change of a slot of which nothing was held.
            self.open_log(slot, true, now);
        }
        if let Some(log) = self.logs.get_mut(&slot) {
            log.push(index, change, place);
            self.due.unsent.insert(slot);
            self.due.unheld.insert(slot);
        }
    }

    /// Begins the log of a slot that was won.
    pub(super) fn open_log(&mut self, slot: Slot, founded: bool, now: Millis) {
        self.logs.insert(slot, Log::new(founded));
        self.plan_followers(slot, now);
    }

    /// Logs what is held of an owned slot and isn't known to be committed: it counts as new.
    pub(super) fn log_uncommitted(&mut self, slot: Slot, now: Millis) {
        let held = self.holdings.get(&slot).map(|holding| holding.uncommitted());
        for (channel, position) in held.into_iter().flatten() {
            self.log_again(slot, &channel, position, now);
        }
        let held = self.holdings.get(&slot).map(|holding| holding.uncommitted_users());
        for (user, stamped) in held.into_iter().flatten() {
            self.log_user_again(slot, &user, stamped, now);
        }
    }

    /// Logs a publication under the name that it has, unless it is waiting to be committed.
    pub(super) fn log_again(
        &mut self,
        slot: Slot,
        channel: &Channel,
        position: Position,
        now: Millis,
    ) {
        let log = self.logs.get_mut(&slot);
        if log.is_some_and(|log| log.waiting_for(position).is_some()) {
            return;
        }
        let stream = self.holdings.get(&slot).and_then(|holding| holding.stream(channel));
        let Some(stream) = stream else { return };
        let Some((follows, entry)) = stream.entry(position.offset) else { return };
        let (options, follows, entry) = (stream.options(), Some(follows), entry.copy(now));
        let Some((_, index)) = self.table.next_index(slot) else { return };
        let place = Some(Place::Stream(channel.clone(), position));
        let channel = channel.clone();
        let change = Change::Publish { channel, options, follows, entry, key: None };
        self.log_change(slot, index, change, place, now);
    }

    /// What an owned slot holds has grown beside its log.
    pub(super) fn outdate_followers(&mut self, slot: Slot, now: Millis) {
        self.log_uncommitted(slot, now);
        if let Some(log) = self.logs.get_mut(&slot) {
            log.outdate();
        } else if self.holdings.get(&slot).is_some_and(|holding| !holding.is_empty()) {
            self.open_log(slot, false, now);
        }
        self.due.unfollowed.insert(slot);
    }

    /// Ends the log of a slot that is owned no more. Who waits is to ask the new owner.
    pub(super) fn close_log(
        &mut self,
        (slot, ended): (Slot, Epoch),
        owner: Incarnation,
        now: Millis,
    ) {
        let Some(log) = self.logs.remove(&slot) else { return };
        self.counts.fenced += log.uncommitted() as u64;
        for waiting in log.waiting {
            let Waiting { place, results, asks, .. } = waiting;
            if matches!(place, Some(Place::User(..))) {
                let (lost, doubtful) = self.doubtful.entry(slot).or_default();
                *lost = now;
                for &(gateway, number) in &results {
                    doubtful.entry(OperationId { gateway, number }).or_insert(ended);
                }
            }
            self.bounced.extend(results.into_iter().map(|(gateway, number)| {
                let outcome = Outcome::NotOwner(Some(owner));
                (gateway, PeerFrame::Result { slot, number, outcome })
            }));
            self.bounced.extend(asks.into_iter().filter_map(|ask| match ask.frame {
                PeerFrame::Ask { number, .. } => {
                    Some((ask.from, PeerFrame::NotOwner { number, owner: Some(owner) }))
                }
                _ => None,
            }));
        }
    }
}

// Followers.
impl Ownership {
    /// The nodes that are to hold copies of an owned slot: by the placement, and by the placement
    /// with all joining nodes.
    fn targets(&self, slot: Slot) -> Vec<Incarnation> {
        let others = |node: &Incarnation| *node != self.me && self.world.lives(*node);
        let copies = usize::from(self.copies);
        let mut targets: Vec<Incarnation> =
            self.world.placement.preference(slot).filter(others).take(copies - 1).collect();
        let planned = self.world.planned.preference(slot).take(copies).filter(others);
        let joining = planned.filter(|node| self.world.joining.binary_search(node).is_ok());
        targets.extend(joining);
        targets
    }

    /// Follows the world for all owned slots that hold something.
    pub(super) fn plan_all_followers(&mut self, now: Millis) {
        for slot in self.logs.keys().copied().collect::<Vec<_>>() {
            self.plan_followers(slot, now);
        }
    }

    fn plan_followers(&mut self, slot: Slot, now: Millis) {
        let targets = self.targets(slot);
        let world = &self.world;
        let Some(log) = self.logs.get_mut(&slot) else { return };
        // Whoever died holds nothing any more, whatever it acknowledged.
        log.followers.retain(|node, _| world.lives(*node));
        for node in &targets {
            match log.followers.get_mut(node) {
                Some(follower) if follower.spare => {
                    log.promote(*node);
                    self.due.unfollowed.insert(slot);
                }
                Some(_) => {}
                None => {
                    log.add_follower(*node, false, now);
                    self.due.unfollowed.insert(slot);
                }
            }
        }
        // Who held copies before counts until those who are to hold them do.
        let whole = |node: &Incarnation| log.followers.get(node).is_some_and(|f| f.is_whole());
        if targets.iter().all(whole) {
            log.followers.retain(|node, follower| targets.contains(node) || follower.spare);
        }
        self.due.unsent.insert(slot);
        self.due.unheld.insert(slot);
    }

    /// Whether a slot is held by all that are to hold it, and nothing waits.
    pub(super) fn is_replicated(&self, slot: Slot) -> bool {
        let Some(log) = self.logs.get(&slot) else { return true };
        let targets = self.targets(slot);
        let holds = |node: &Incarnation| {
            log.followers.get(node).is_some_and(|f| f.is_whole() && f.acked == log.last())
        };
        log.uncommitted() == 0
            && targets.iter().all(holds)
            && log.committed_copies() >= self.world.required
    }

    /// How well owned slots are held.
    pub fn copies(&self) -> Copies {
        let mut copies = Copies::default();
        for log in self.logs.values() {
            let whole = log.committed_copies();
            copies.under_replicated += u32::from(whole < usize::from(self.copies));
            let reachable = self.world.members.len().min(usize::from(self.copies));
            copies.unrepaired += u32::from(whole < reachable);
            copies.uncommitted += log.uncommitted() as u64;
        }
        copies
    }

    /// Who holds an owned slot, for somebody who looks for a reason.
    pub fn describe_holders(&self, slot: Slot) -> String {
        let Some(log) = self.logs.get(&slot) else { return "no log".to_owned() };
        let (last, committed) = (log.last(), log.committed());
        format!("changes {committed}/{last}, followers {:?}", log.followers)
    }

    /// The most changes of one slot that wait to be committed.
    pub fn most_uncommitted(&self) -> usize {
        self.logs.values().map(Log::uncommitted).max().unwrap_or(0)
    }

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

// What depends on time.
impl Ownership {
    /// Does what is due for copies.
    pub(super) fn check_copies(&mut self, now: Millis, out: &mut Out) {
        self.check_silent_followers(now);
        self.ask_to_follow(now, out);
        self.tell_commits(now, out);
        self.tell_covered(now, out);
    }

    /// Sends again to followers that are silent while somebody waits, and lets the next node of the
    /// ring stand in for them.
    fn check_silent_followers(&mut self, now: Millis) {
        for slot in self.due.unheld.iter().copied().collect::<Vec<_>>() {
            let Some(log) = self.logs.get_mut(&slot) else {
                self.due.unheld.remove(&slot);
                continue;
            };
            let mut silent = 0;
            let mut spare = None;
            for (node, follower) in &mut log.followers {
                let silent_ms = follower.silent_ms(now);
                if follower.spare {
                    spare = Some(*node);
                } else {
                    silent = silent.max(silent_ms);
                }
                if silent_ms >= SILENT_FOLLOWER_MS && now.since(follower.tried) >= follower.retry_ms
                {
                    (follower.sent, follower.tried) = (follower.acked, now);
                    let doubled = follower.retry_ms.max(SILENT_FOLLOWER_MS / 2) * 2;
                    follower.retry_ms = doubled.min(RETRY_MS_MAX);
                    self.due.unsent.insert(slot);
                }
            }
            if silent < SILENT_FOLLOWER_MS || log.uncommitted() == 0 {
                continue;
            }
            match spare {
                None => {
                    let placement = &self.world.placement;
                    let free = |node: &Incarnation| {
                        *node != self.me
                            && self.world.lives(*node)
                            && !log.followers.contains_key(node)
                    };
                    if let Some(node) = placement.preference(slot).find(free) {
                        log.add_follower(node, true, now);
                        self.counts.spares += 1;
                        self.due.unsent.insert(slot);
                    }
                }
                Some(node) => {
                    if silent >= SPARE_FOLLOWS_MS {
                        log.promote(node);
                        self.due.unfollowed.insert(slot);
                    }
                }
            }
        }
    }

    /// Asks followers to have whole copies.
    fn ask_to_follow(&mut self, now: Millis, out: &mut Out) {
        let mut asked: BTreeMap<Incarnation, Vec<FollowedSlot>> = BTreeMap::new();
        let mut done = Vec::new();
        for slot in &self.due.unfollowed {
            let Some(log) = self.logs.get_mut(slot) else {
                done.push(*slot);
                continue;
            };
            let uncommitted = log.uncommitted();
            let mut lacking = log.followers.iter_mut().filter(|(_, f)| !f.is_whole() && !f.spare);
            let mut all = true;
            for (node, follower) in &mut lacking {
                all = false;
                if follower.asked.is_some_and(|at| now.since(at) < FOLLOW_AGAIN_MS) {
                    continue;
                }
                follower.asked = Some(now);
                let Some(holding) = self.holdings.get(slot) else { continue };
                let term = self.table.promised(*slot).term;
                let (number, digest) = (follower.number, holding.digest());
                let settled = uncommitted == 0;
                let followed = FollowedSlot { slot: *slot, term, number, digest, settled };
                asked.entry(*node).or_default().push(followed);
            }
            if all {
                done.push(*slot);
            }
        }
        for slot in done {
            self.due.unfollowed.remove(&slot);
        }
        for (node, slots) in asked {
            for slots in slots.chunks(SLOTS_PER_FRAME) {
                out.send(node, Lane::Control, PeerFrame::Follow { slots: slots.to_vec() });
            }
        }
    }

    /// Notes which slots a follower has whole copies of.
    pub(super) fn handle_followed(
        &mut self,
        from: Incarnation,
        slots: &[(Slot, u64, u64)],
        now: Millis,
        out: &mut Out,
    ) {
        for (slot, term, number) in slots {
            let epoch = Epoch { term: *term, owner: self.me };
            if !self.table.owns(*slot) || self.table.promised(*slot) != epoch {
                continue;
            }
            let Some(log) = self.logs.get_mut(slot) else { continue };
            let Some(follower) = log.followers.get_mut(&from) else { continue };
            if follower.number == *number && !follower.spare {
                follower.followed = *number;
                self.try_commit(*slot, now, out);
                self.plan_followers(*slot, now);
            }
        }
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

    /// Tells joining nodes that they hold whole copies of all that they will need.
    fn tell_covered(&mut self, now: Millis, out: &mut Out) {
        if now.since(self.due.covered) < COVERED_MS {
            return;
        }
        self.due.covered = now;
        let (copies, world) = (usize::from(self.copies), &self.world);
        for node in world.joining.iter().filter(|node| **node != self.me) {
            let covers = |(slot, log): (&Slot, &Log)| {
                let needs = world.planned.preference(*slot).take(copies).any(|n| n == *node);
                !needs || log.followers.get(node).is_some_and(|follower| follower.is_whole())
            };
            if self.logs.iter().all(covers) {
                out.send(*node, Lane::Control, PeerFrame::Covered);
            }
        }
    }

    /// Whether a slot takes one more change.
    pub(super) fn takes_changes(&self, slot: Slot) -> bool {
        let log = self.logs.get(&slot);
        log.is_none_or(|log| log.uncommitted() < UNCOMMITTED_MAX)
    }
}
