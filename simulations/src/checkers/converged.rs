//! I8, as far as there are no copies yet: once faults have stopped for a while, every slot has one
//! owner, the one that the placement says, and nothing waits.
use anyhow::{Context as _, ensure};
use orbweb::delivery::core::Core;
use orbweb::ownership::placement::Placement;
use orbweb::protocol::ids::{Incarnation, Slot};

pub(crate) fn check(
    nodes: &[(Incarnation, &Core)],
    placement: &Placement,
    slots: u16,
) -> anyhow::Result<()> {
    for slot in (0..slots).map(Slot) {
        let owners: Vec<Incarnation> = nodes
            .iter()
            .filter(|(_, core)| core.ownership().owns(slot))
            .map(|(node, _)| *node)
            .collect();
        let expected = placement.owner(slot).context("the last view is not empty")?;
        ensure!(owners == [expected], "I8: {slot:?} belongs to {expected:?}, owned by {owners:?}");
    }
    for (node, core) in nodes {
        let status = core.status();
        ensure!(status.parked == 0, "I8: {} frames parked on {node:?}", status.parked);
        ensure!(status.pending == 0, "I8: {} requests wait on {node:?}", status.pending);
        ensure!(status.slots_claiming == 0, "I8: {node:?} still claims");
    }
    Ok(())
}
