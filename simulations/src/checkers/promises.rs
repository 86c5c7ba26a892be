//! I5: a node's promise for a slot never decreases, an owner has promised to itself, and only who may
//! serve claims.
use std::collections::BTreeMap;

use anyhow::ensure;
use orbweb::ownership::owner::Ownership;
use orbweb::ownership::serving::Serving;
use orbweb::protocol::ids::{Epoch, Incarnation, Slot};

/// All promises seen, asked after every event: since when each was the highest.
#[derive(Default)]
pub(crate) struct Promises {
    /// By node, then by slot.
    seen: BTreeMap<Incarnation, Vec<Vec<(u64, Epoch)>>>,
}

impl Promises {
    pub(crate) fn check(
        &mut self,
        (node, ownership): (Incarnation, &Ownership),
        slots: u16,
        claimed_while: Option<Serving>,
        now: u64,
    ) -> anyhow::Result<()> {
        ensure!(
            claimed_while.is_none_or(Serving::allowed),
            "I5: {node:?} claims though it may not serve"
        );
        let all = self.seen.entry(node).or_insert_with(|| vec![vec![]; slots.into()]);
        for (slot, seen) in (0..slots).map(Slot).zip(all) {
            let promised = ownership.promised(slot);
            let before = seen.last().map_or(Epoch::NONE, |(_, epoch)| *epoch);
            ensure!(
                promised >= before,
                "I5: {node:?} promised {before:?} for {slot:?} and now only {promised:?}"
            );
            ensure!(
                !ownership.owns(slot) || promised.owner == node,
                "I5: {node:?} owns {slot:?} but promised it to {promised:?}"
            );
            if promised > before {
                seen.push((now, promised));
            }
        }
        Ok(())
    }

    /// The last ownership of a slot that a node had.
    pub(crate) fn last_own(&self, slot: Slot, node: Incarnation) -> Option<Epoch> {
        let own = self.of(slot, node).iter().filter(|(_, epoch)| epoch.owner == node);
        own.map(|(_, epoch)| *epoch).next_back()
    }

    /// The highest promise of a node at a time.
    pub(crate) fn at(&self, slot: Slot, node: Incarnation, time: u64) -> Epoch {
        let seen = self.of(slot, node);
        let until = seen.partition_point(|(at, _)| *at <= time);
        seen[..until].last().map_or(Epoch::NONE, |(_, epoch)| *epoch)
    }

    fn of(&self, slot: Slot, node: Incarnation) -> &[(u64, Epoch)] {
        self.seen.get(&node).and_then(|all| all.get(slot.index())).map_or(&[], |seen| seen)
    }
}
