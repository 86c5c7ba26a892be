//! I4: as many nodes as an acknowledgement states hold what it is of when it is given, or held it
//! until they died a moment ago, and that are as many as are configured unless the owner said that it
//! serves with fewer.
use std::collections::BTreeMap;

use anyhow::ensure;
use orbweb::delivery::core::Core;
use orbweb::ownership::serving::Serving;
use orbweb::protocol::channel::Channel;
use orbweb::protocol::ids::{Incarnation, Position, Slot};
use orbweb::protocol::user::{Stamp, UserChange};

/// What is acknowledged.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Held<'a> {
    /// A publication to a channel, by its data, which is another for each message: who has merged a
    /// split since may know it by another name than this, and even by another operation with the
    /// same idempotency key.
    Publication(&'a Channel, Position, &'a [u8]),
    /// A change of the record of the user whose inbox this is, or a later change of the same field; of
    /// what isn't a value, any change of it.
    Change(&'a Channel, &'a UserChange),
}

/// The publication at a position, as its owner holds it. None: of a channel that isn't looked at,
/// since its publications expire.
pub(crate) fn publication<'a>(
    owner: &'a Core,
    channels: &'a BTreeMap<Slot, Vec<Channel>>,
    (slot, position): (Slot, Position),
) -> Option<Held<'a>> {
    let held = owner.ownership().holding(slot)?;
    channels.get(&slot)?.iter().find_map(|channel| {
        let (_, entry) = held.stream(channel)?.entry(position.offset)?;
        let here = entry.publication.epoch == position.epoch;
        here.then(|| Held::Publication(channel, position, &entry.publication.message.data))
    })
}

/// At least as many of these nodes as are stated hold it.
pub(crate) fn check(
    nodes: &[(Incarnation, &Core)],
    slot: Slot,
    held: Held<'_>,
    copies: u8,
) -> anyhow::Result<()> {
    let stamp = match held {
        Held::Publication(..) => None,
        Held::Change(user, change) => stamp(nodes, slot, (user, change)),
    };
    let holds = |core: &Core| {
        let Some(holding) = core.ownership().holding(slot) else { return false };
        match held {
            Held::Publication(channel, position, data) => {
                let named = holding.stream(channel).and_then(|s| s.entry(position.offset));
                named.is_some_and(|(_, entry)| entry.publication.message.data == *data)
                    || holding
                        .publications()
                        .any(|(other, _, message)| other == channel && message.data == *data)
            }
            Held::Change(user, change) => {
                let last = holding.user(user).and_then(|record| record.last(&change.field()));
                last.is_some_and(|last| Some(last.stamp) >= stamp)
            }
        }
    };
    let holders: Vec<Incarnation> =
        nodes.iter().filter(|(_, core)| holds(core)).map(|(node, _)| *node).collect();
    ensure!(
        holders.len() >= usize::from(copies),
        "I4: {copies} nodes are said to hold {held:?}, and {holders:?} do"
    );
    Ok(())
}

/// When a change was made, if it is told from all others, and if later ones haven't replaced it
/// everywhere: only values are never written twice.
fn stamp(
    nodes: &[(Incarnation, &Core)],
    slot: Slot,
    (user, change): (&Channel, &UserChange),
) -> Option<Stamp> {
    let field = matches!(change, UserChange::Set { .. }).then(|| change.field())?;
    let records = nodes.iter().filter_map(|(_, core)| core.ownership().holding(slot)?.user(user));
    let mut last = records.filter_map(|record| record.last(&field));
    last.find(|last| last.change == *change).map(|last| last.stamp)
}

/// Fewer copies than are configured are acknowledged only by who said that it does that.
pub(crate) fn check_enough(
    owner: Incarnation,
    serving: Option<Serving>,
    configured: u8,
    copies: u8,
) -> anyhow::Result<()> {
    ensure!(
        copies >= configured || matches!(serving, Some(Serving::Standalone | Serving::Degraded)),
        "I4: {owner:?} acknowledges with {copies} of {configured} copies while {serving:?}"
    );
    Ok(())
}
