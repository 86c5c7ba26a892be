//! Who is to hold an owned slot: its followers by the placement, a spare for one that is silent,
//! and joining nodes. They are asked to have whole copies, and told when they have all they need.
use std::collections::BTreeMap;

use super::SLOTS_PER_FRAME;
use crate::ownership::log::Log;
use crate::ownership::out::Out;
use crate::ownership::owner::Ownership;
use crate::ownership::pull::serves;
use crate::protocol::ids::{Epoch, Incarnation, Slot};
use crate::protocol::peer::{FollowedSlot, Lane, PeerFrame};
use crate::protocol::time::Millis;

/// A follower that acknowledges nothing for so long, while a commit waits, is stood in for.
pub const SILENT_FOLLOWER_MS: u64 = 250;
/// A spare is given a whole copy once the follower was silent for so long.
const SPARE_FOLLOWS_MS: u64 = 3_000;
/// Longest pause between two attempts at a silent follower.
const RETRY_MS_MAX: u64 = 2_000;
/// How often followers that have no whole copy yet are asked again to have one.
const FOLLOW_AGAIN_MS: u64 = 1_000;
/// How often joining nodes are looked at, whether they hold what they will need.
const COVERED_MS: u64 = 200;

impl Ownership {
    /// The nodes that are to hold copies of an owned slot: by the placement, and by the placement
    /// with all joining nodes.
    pub(super) fn targets(&self, slot: Slot) -> Vec<Incarnation> {
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
    pub(in crate::ownership) fn plan_all_followers(&mut self, now: Millis) {
        for slot in self.logs.keys().copied().collect::<Vec<_>>() {
            self.plan_followers(slot, now);
        }
    }

    pub(super) fn plan_followers(&mut self, slot: Slot, now: Millis) {
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

    /// Sends again to followers that are silent while somebody waits, and lets the next node of the
    /// ring stand in for them.
    pub(super) fn check_silent_followers(&mut self, now: Millis) {
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
    pub(super) fn ask_to_follow(&mut self, now: Millis, out: &mut Out) {
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
                let lately = follower.asked.is_some_and(|at| now.since(at) < FOLLOW_AGAIN_MS);
                if lately || serves(&self.pulls, (*node, *slot), now) {
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
    pub(in crate::ownership) fn handle_followed(
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

    /// Tells joining nodes that they hold whole copies of all that they will need.
    pub(super) fn tell_covered(&mut self, now: Millis, out: &mut Out) {
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
}
