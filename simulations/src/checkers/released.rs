//! I6: nobody drops a copy within its time and size: in channels whose streams outlast the run, what
//! a node once held it holds for as long as it lives; or what was published with the same idempotency
//! key, which is the same message.
use std::collections::{BTreeMap, BTreeSet};

use anyhow::ensure;
use orbweb::delivery::core::Core;
use orbweb::protocol::channel::Channel;
use orbweb::protocol::ids::{Incarnation, Slot};
use orbweb::protocol::message::OperationId;
use orbweb::protocol::time::Millis;

/// What each node held when it was looked at last.
#[derive(Default)]
pub(crate) struct Released {
    held: BTreeMap<Incarnation, BTreeSet<(Slot, Channel, OperationId)>>,
}

impl Released {
    pub(crate) fn check(
        &mut self,
        node: Incarnation,
        core: &Core,
        slots: u16,
        now: u64,
    ) -> anyhow::Result<()> {
        let mut held = BTreeSet::new();
        for slot in (0..slots).map(Slot) {
            let held_now = core.ownership().holding(slot).into_iter();
            let lasting = held_now
                .flat_map(|holding| holding.publications())
                .filter(|(channel, ..)| channel.as_str().starts_with('c'));
            held.extend(lasting.map(|(channel, operation, _)| (slot, channel.clone(), operation)));
        }
        let before = self.held.insert(node, held.clone()).unwrap_or_default();
        let holds_by_key = |(slot, channel, operation): &&(Slot, Channel, OperationId)| {
            let holding = core.ownership().holding(*slot);
            let key = holding.and_then(|holding| holding.key_of(*operation));
            let other = holding.zip(key).and_then(|(h, key)| h.key(channel, &key, Millis(now)));
            other.is_some_and(|other| held.contains(&(*slot, channel.clone(), other)))
        };
        let gone: Vec<_> =
            before.difference(&held).filter(|one| !holds_by_key(one)).take(3).collect();
        ensure!(gone.is_empty(), "I6: {node:?} held {gone:?} and dropped it");
        Ok(())
    }
}
