//! I8: once faults have stopped for a while, every slot has one owner, the one that the placement
//! says, its successors hold exactly what it holds (but may not know yet that the last of it is
//! committed), and nothing waits.
use anyhow::{Context as _, ensure};
use orbweb::delivery::core::Core;
use orbweb::ownership::placement::Placement;
use orbweb::protocol::ids::{Incarnation, Slot};

pub(crate) fn check(
    nodes: &[(Incarnation, &Core)],
    placement: &Placement,
    slots: u16,
    copies: u8,
) -> anyhow::Result<()> {
    for slot in (0..slots).map(Slot) {
        let owners: Vec<Incarnation> = nodes
            .iter()
            .filter(|(_, core)| core.ownership().owns(slot))
            .map(|(node, _)| *node)
            .collect();
        let expected = placement.owner(slot).context("the last view is not empty")?;
        ensure!(owners == [expected], "I8: {slot:?} belongs to {expected:?}, owned by {owners:?}");
        check_copies(nodes, placement, slot, copies)?;
    }
    for (node, core) in nodes {
        let status = core.status();
        ensure!(status.parked == 0, "I8: {} frames parked on {node:?}", status.parked);
        ensure!(status.pending == 0, "I8: {} requests wait on {node:?}", status.pending);
        ensure!(status.slots_claiming == 0, "I8: {node:?} still claims");
        let copies = status.copies;
        ensure!(copies.uncommitted == 0, "I8: {node:?} waits for commits: {copies:?}");
        ensure!(copies.under_replicated == 0, "I8: {node:?} has too few copies: {copies:?}");
    }
    Ok(())
}

/// A little later nobody holds what an owner may lack: a node shows what it holds once others own it,
/// and again some times.
pub(crate) fn check_home(nodes: &[(Incarnation, &Core)]) -> anyhow::Result<()> {
    for (node, core) in nodes {
        let astray = core.status().copies.astray;
        ensure!(astray == 0, "I8: {node:?} holds what the owners of {astray} slots may lack");
    }
    Ok(())
}

/// Those who are to hold a slot hold the same.
fn check_copies(
    nodes: &[(Incarnation, &Core)],
    placement: &Placement,
    slot: Slot,
    copies: u8,
) -> anyhow::Result<()> {
    let holder = |node: Incarnation| nodes.iter().find(|(n, _)| *n == node);
    let holders = placement.preference(slot).take(copies.into()).filter_map(holder);
    let held: Vec<(Incarnation, Vec<String>)> = holders
        .map(|(node, core)| {
            let holding = core.ownership().holding(slot);
            let streams = holding.into_iter().flat_map(|holding| holding.streams());
            // Fleeting ones expire, on each node in its own time.
            let lasting = streams.filter(|(channel, _)| !channel.as_str().starts_with('x'));
            let mut all: Vec<String> = Vec::new();
            for (channel, stream) in lasting {
                all.push(format!("{channel} at {:?}", stream.position()));
                all.extend(stream.lineage().iter().map(|turn| format!("{channel}: {turn:?}")));
                all.extend(
                    stream.side_positions().map(|name| format!("{channel}: aside {name:?}")),
                );
                all.extend(stream.entries().map(|entry| {
                    let (position, operation) = (entry.publication.position(), entry.operation);
                    let data = &entry.publication.message.data;
                    format!("{channel}: {position:?} {operation:?} {data:?}")
                }));
            }
            let users = holding.into_iter().flat_map(|holding| holding.users());
            all.extend(users.map(|(user, record)| {
                let changes: Vec<_> = record.changes().collect();
                format!("{user}: {changes:?}")
            }));
            let loose = holding.map_or(0, |holding| holding.loose());
            all.push(format!("{loose} without a place"));
            (*node, all)
        })
        .collect();
    for (node, all) in &held[1..] {
        let (owner, of_owner) = &held[0];
        if let Some((theirs, ours)) = all.iter().zip(of_owner).find(|(one, other)| one != other) {
            let owner_core = nodes.iter().find(|(n, _)| n == owner).map(|(_, core)| core);
            let holders = owner_core.map(|core| core.ownership().describe_holders(slot));
            anyhow::bail!(
                "I8: {holders:?}: {node:?} holds of {slot:?}\n{theirs}\nand its owner {owner:?}\n{ours}"
            );
        }
        ensure!(
            all.len() == of_owner.len(),
            "I8: {node:?} and {owner:?} differ in how much they hold of {slot:?}"
        );
    }
    Ok(())
}
