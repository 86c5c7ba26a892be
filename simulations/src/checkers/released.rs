//! I6: nobody drops a copy within its time and size: in channels whose streams outlast the run, what
//! a node once held it holds for as long as it lives.
use std::collections::{BTreeMap, BTreeSet};

use anyhow::ensure;
use orbweb::delivery::core::Core;
use orbweb::protocol::ids::{Incarnation, Slot};
use orbweb::protocol::message::OperationId;

/// What each node held when it was looked at last.
#[derive(Default)]
pub(crate) struct Released {
    held: BTreeMap<Incarnation, BTreeSet<(Slot, OperationId)>>,
}

impl Released {
    pub(crate) fn check(
        &mut self,
        node: Incarnation,
        core: &Core,
        slots: u16,
    ) -> anyhow::Result<()> {
        let mut held = BTreeSet::new();
        for slot in (0..slots).map(Slot) {
            let operations = core.ownership().holding(slot).into_iter();
            let lasting = operations
                .flat_map(|holding| holding.operations())
                .filter(|(channel, _)| channel.as_str().starts_with('c'));
            held.extend(lasting.map(|(_, operation)| (slot, operation)));
        }
        let before = self.held.insert(node, held.clone()).unwrap_or_default();
        let gone: Vec<_> = before.difference(&held).take(3).collect();
        ensure!(gone.is_empty(), "I6: {node:?} held {gone:?} and dropped it");
        Ok(())
    }
}
