//! I1: no position is called lost for good by an owner that may still hear from somebody who knows it.
use anyhow::ensure;
use orbweb::delivery::core::Core;
use orbweb::protocol::channel::Channel;
use orbweb::protocol::ids::{Incarnation, Position, Slot};
use orbweb::protocol::time::Millis;

/// Called when a client on `node` is told so; looks at what that node itself owns, since others may
/// have gone on while their word was on its way.
pub(crate) fn check(
    node: Incarnation,
    core: &Core,
    (channel, position, slot): (&Channel, Position, Slot),
    now: u64,
) -> anyhow::Result<()> {
    let incomplete = core.ownership().is_incomplete(slot, Millis(now));
    let stream = core.ownership().holding(slot).and_then(|holding| holding.stream(channel));
    // One that is known may be too far back for one answer.
    let known = stream.is_some_and(|stream| stream.knows(position));
    ensure!(
        known || !incomplete,
        "I1: {node:?} calls a position lost while its {slot:?} is incomplete"
    );
    Ok(())
}

/// Nor is one whose line came home, or is still to: somebody knows it, as long as nobody dies.
pub(crate) fn check_known<'a>(
    mut cores: impl Iterator<Item = &'a Core>,
    (channel, position, slot): (&Channel, Position, Slot),
) -> anyhow::Result<()> {
    let knows = |core: &Core| {
        let stream = core.ownership().holding(slot).and_then(|holding| holding.stream(channel));
        stream.is_some_and(|stream| stream.knows(position))
    };
    ensure!(
        cores.any(knows),
        "I1: {position:?} of {channel} is called lost, and nobody remembers its line"
    );
    Ok(())
}
