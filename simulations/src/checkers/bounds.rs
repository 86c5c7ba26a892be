//! I10: what waits in a node stays within its named bounds.
use anyhow::ensure;
use orbweb::delivery::core::Core;
use orbweb::delivery::operations::OPERATIONS_MAX;
use orbweb::delivery::router::QUESTIONS_MAX;
use orbweb::ownership::parked::PARKED_MAX;
use orbweb::protocol::ids::Incarnation;

pub(crate) fn check(node: Incarnation, core: &Core) -> anyhow::Result<()> {
    let status = core.status();
    let waits_max = (OPERATIONS_MAX + QUESTIONS_MAX) as u64;
    ensure!(status.pending <= waits_max, "I10: {} requests wait on {node:?}", status.pending);
    ensure!(status.parked <= PARKED_MAX as u64, "I10: {} parked on {node:?}", status.parked);
    let most = core.ownership().most_uncommitted();
    ensure!(
        most <= orbweb::ownership::UNCOMMITTED_MAX + OPERATIONS_MAX,
        "I10: {most} changes of one slot wait for their commit on {node:?}"
    );
    Ok(())
}
