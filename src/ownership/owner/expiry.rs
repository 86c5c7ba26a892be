//! What time takes from holdings: expired publications, idle streams, tombstones of users, and
//! whole holdings with nothing left in them. A few slots a tick; what an owner forgets, followers
//! are told.
use std::collections::BTreeSet;

use super::Ownership;
use crate::ownership::table::Role;
use crate::protocol::channel::Channel;
use crate::protocol::ids::{Position, Slot};
use crate::protocol::peer::Change;
use crate::protocol::time::Millis;

/// Holdings looked at for expired publications in one tick, at most.
const EXPIRED_PER_TICK: usize = 64;
/// In how many ticks all are looked at, unless they are too many for it.
const EXPIRY_TICKS: usize = 50;

impl Ownership {
    pub(super) fn expire_some(&mut self, now: Millis) {
        let looked_at = self.holdings.len().div_ceil(EXPIRY_TICKS).min(EXPIRED_PER_TICK);
        let range = self.holdings.range(self.expire_from..).take(looked_at);
        let followed: BTreeSet<Slot> =
            range.map(|(slot, _)| *slot).filter(|slot| self.follows(*slot)).collect();
        let (world, copies) = (&self.world, usize::from(self.copies));
        let mut next = Slot(0);
        let (mut empty, mut idle, mut tombstones) = (Vec::new(), Vec::new(), Vec::new());
        let mut owned = Vec::new();
        let holdings = self.holdings.range_mut(self.expire_from..);
        for (seen, (slot, holding)) in holdings.enumerate() {
            if seen == looked_at {
                next = *slot;
                break;
            }
            let audience = self.audiences.get(slot);
            // What an owner still has is followed, as far as its followers can know; and who claims
            // decides nothing before it owns.
            let role = self.table.role(*slot);
            let kept = followed.contains(slot) || matches!(role, Role::Claiming(_));
            holding.expire(now);
            holding.forget_gateways(|gateway| world.lives(gateway));
            if let Some(log) = self.logs.get_mut(slot) {
                log.forget_gateways(|gateway| world.lives(gateway));
                log.shrink();
            }
            if let Some(following) = self.following.get_mut(slot) {
                following.shrink();
            }
            let mut preference = world.placement.preference(*slot).take(copies);
            let mine = role != Role::Idle || preference.any(|node| node == self.me);
            match (mine, self.kept.get(slot)) {
                (true, _) => holding.touch_users(now),
                // Its owner has it, as have those who are to hold it.
                (false, Some(kept)) if *kept == holding.digest() => holding.forget_stale_users(now),
                _ => {}
            }
            owned.extend(matches!(role, Role::Owner { .. }).then_some(*slot));
            if !kept {
                let users = holding.idle_users(now).into_iter();
                tombstones.extend(users.map(|(user, upto)| (*slot, user, upto)));
            }
            for (channel, position) in holding.idle(now) {
                match kept || audience.is_some_and(|a| a.wants(&channel)) {
                    true => holding.touch(&channel, now),
                    false => idle.push((*slot, channel, position)),
                }
            }
            if holding.is_empty() {
                empty.push(*slot);
            }
        }
        self.expire_from = next;
        for (slot, channel, position) in idle {
            self.forget_stream(slot, channel, position, now);
        }
        for (slot, user, upto) in tombstones {
            self.forget_user(slot, user, upto, now);
        }
        for slot in owned {
            self.attend_all(slot, now);
            self.end_sessions(slot, now);
        }
        for slot in empty.into_iter().filter(|slot| !self.table.owns(*slot)) {
            self.holdings.remove(&slot);
            self.shown.remove(&slot);
        }
    }

    /// Forgets a stream in which nobody can resume. Its owner decides that; its followers are told.
    fn forget_stream(&mut self, slot: Slot, channel: Channel, position: Position, now: Millis) {
        if self.table.owns(slot) {
            if !self.takes_changes(slot) || self.world.required == 0 {
                return;
            }
            let Some((_, index)) = self.table.next_index(slot) else { return };
            let holding = self.holdings.entry(slot).or_default();
            holding.forget(&channel, position);
            self.log_change(slot, index, Change::Forget { channel, position }, None, now);
        } else if let Some(holding) = self.holdings.get_mut(&slot) {
            holding.forget(&channel, position);
        }
    }
}
