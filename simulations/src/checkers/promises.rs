//! I5: a node's promise for a slot never decreases, an owner has promised to itself, and only who may
//! serve claims.
use std::collections::BTreeMap;

use anyhow::ensure;
use orbweb::ownership::owner::Ownership;
use orbweb::ownership::serving::Serving;
use orbweb::protocol::ids::{Epoch, Incarnation, Slot};

/// The highest promises seen, asked after every event.
#[derive(Default)]
pub(crate) struct Promises {
    seen: BTreeMap<(Incarnation, Slot), Epoch>,
}

impl Promises {
    pub(crate) fn check(
        &mut self,
        node: Incarnation,
        ownership: &Ownership,
        slots: u16,
        claimed_while: Option<Serving>,
    ) -> anyhow::Result<()> {
        ensure!(
            claimed_while.is_none_or(Serving::allowed),
            "I5: {node:?} claims though it may not serve"
        );
        for slot in (0..slots).map(Slot) {
            let promised = ownership.promised(slot);
            let before = self.seen.entry((node, slot)).or_insert(promised);
            ensure!(
                promised >= *before,
                "I5: {node:?} promised {before:?} for {slot:?} and now only {promised:?}"
            );
            ensure!(
                !ownership.owns(slot) || promised.owner == node,
                "I5: {node:?} owns {slot:?} but promised it to {promised:?}"
            );
            *before = promised;
        }
        Ok(())
    }
}
