//! I4: as many nodes as an acknowledgement states hold the publication when it is given, or held it
//! until they died a moment ago, and
//! that are as many as are configured unless the owner said that it serves with fewer.
use std::collections::BTreeMap;

use anyhow::ensure;
use orbweb::delivery::core::Core;
use orbweb::ownership::serving::Serving;
use orbweb::protocol::channel::Channel;
use orbweb::protocol::ids::{Incarnation, Position, Slot};

/// What an owner is about to acknowledge.
#[derive(Clone, Copy)]
pub(crate) struct Acknowledged {
    pub(crate) owner: Incarnation,
    pub(crate) slot: Slot,
    pub(crate) position: Position,
    pub(crate) copies: u8,
}

pub(crate) fn check<'a>(
    nodes: impl Iterator<Item = (Incarnation, &'a Core)>,
    channels: &BTreeMap<Slot, Vec<Channel>>,
    serving: Option<Serving>,
    configured: u8,
    acknowledged: Acknowledged,
) -> anyhow::Result<()> {
    let Acknowledged { owner, slot, position, copies } = acknowledged;
    let nodes: Vec<(Incarnation, &Core)> = nodes.collect();
    let of_owner = nodes.iter().find(|(node, _)| *node == owner);
    let of_owner = of_owner.and_then(|(_, core)| core.ownership().holding(slot));
    let acknowledged = channels.get(&slot).into_iter().flatten().find_map(|channel| {
        let (_, entry) = of_owner?.stream(channel)?.entry(position.offset)?;
        (entry.publication.epoch == position.epoch).then_some((channel, entry))
    });
    // None: of a channel that isn't looked at, since its publications expire.
    let Some((channel, entry)) = acknowledged else { return Ok(()) };
    // By its payload, which is another for each message: who has merged a split since may know it by
    // another name, and even by another operation with the same idempotency key.
    let data = &entry.publication.message.data;
    let holds = |core: &Core| {
        let held = core.ownership().holding(slot).into_iter();
        let mut held = held.flat_map(|holding| holding.publications());
        held.any(|(other, _, message)| other == channel && message.data == *data)
    };
    let holders: Vec<Incarnation> =
        nodes.iter().filter(|(_, core)| holds(core)).map(|(node, _)| *node).collect();
    ensure!(
        holders.len() >= usize::from(copies),
        "I4: {owner:?} says that {copies} nodes hold {position:?} of {channel}, and {holders:?} do"
    );
    ensure!(
        copies >= configured || matches!(serving, Some(Serving::Standalone | Serving::Degraded)),
        "I4: {owner:?} acknowledges {position:?} with {copies} of {configured} copies while {serving:?}"
    );
    Ok(())
}
