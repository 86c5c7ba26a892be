//! Gateways that die: what they wanted is forgotten, and others are told who left with them. Those
//! whose death nobody told are found by looking.
use std::collections::BTreeSet;

use super::Ownership;
use crate::ownership::audience::{self, Audience};
use crate::ownership::out::Out;
use crate::ownership::parked::Request;
use crate::protocol::ids::{Incarnation, Slot};
use crate::protocol::peer::{Lane, PeerFrame};
use crate::protocol::time::Millis;

/// How often audiences are looked through for gateways that died.
const SWEEP_MS: u64 = 5_000;

impl Ownership {
    /// Whether who asked has vanished since: that isn't taken up any more. If it lives, it asks again.
    pub(in crate::ownership) fn is_left_behind(&self, request: &Request) -> bool {
        self.departed.get(&request.from).is_some_and(|departed| request.since <= departed.at)
    }

    /// Tells gateways who came or left.
    pub(in crate::ownership) fn announce(
        &self,
        slot: Slot,
        change: audience::Change,
        here: bool,
        out: &mut Out,
    ) {
        let audience::Change { channel, gateways, info } = change;
        out.send_all(&gateways, Lane::Data, PeerFrame::Presence { slot, channel, info, here });
    }

    /// Forgets gateways that aren't alive: what they sent may have come after they were forgotten.
    pub(super) fn sweep_audiences(&mut self, now: Millis, out: &mut Out) {
        if now < self.sweep_due {
            return;
        }
        self.sweep_due = now + SWEEP_MS;
        let gateways = self.audiences.values().flat_map(Audience::all_gateways);
        let unseen: BTreeSet<Incarnation> =
            gateways.filter(|g| !self.world.lives(*g) && *g != self.me).collect();
        // Who isn't seen may be new: only the second time in a row it counts as dead.
        for gateway in self.unseen.intersection(&unseen).copied().collect::<Vec<_>>() {
            self.forget_gateway(gateway, now, out);
        }
        self.unseen = unseen;
    }

    pub(super) fn forget_gateway(&mut self, gateway: Incarnation, now: Millis, out: &mut Out) {
        let followed = self.inboxes_of(gateway, None);
        let mut left = Vec::new();
        for (slot, audience) in &mut self.audiences {
            left.extend(audience.forget(gateway).into_iter().map(|change| (*slot, change)));
        }
        for (slot, change) in left {
            self.announce(slot, change, false, out);
        }
        for (slot, user) in followed {
            self.attend(slot, &user, now);
        }
    }
}
