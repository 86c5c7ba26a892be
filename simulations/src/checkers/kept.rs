//! I1 and I9 where nobody crashes: what was acknowledged is in the owner's stream, once, and every
//! subscriber that stayed has seen all of it since it subscribed, once and in the stream's order.
use std::collections::BTreeMap;

use anyhow::{Context as _, ensure};
use orbweb::delivery::core::Core;
use orbweb::protocol::channel::Channel;
use orbweb::protocol::ids::Incarnation;
use orbweb::protocol::message::History;

use crate::clients::Clients;

/// The payloads of a channel's stream, in order, read where the slot is owned.
pub(crate) fn stream(
    nodes: &[(Incarnation, &Core)],
    channel: &Channel,
    slots: u16,
) -> anyhow::Result<Vec<u64>> {
    let slot = channel.slot(slots);
    let owner = nodes.iter().find(|(_, core)| core.ownership().owns(slot));
    let (_, core) = owner.with_context(|| format!("nobody owns {slot:?}"))?;
    let stream = core.ownership().holding(slot).and_then(|h| h.streams.get(channel));
    let Some(stream) = stream else { return Ok(vec![]) };
    let mut payloads = Vec::new();
    let mut since = None;
    loop {
        let part = stream.read(History { limit: 300, since, reverse: false });
        let Some(last) = part.last() else { return Ok(payloads) };
        since = Some(last.position());
        for publication in &part {
            payloads.push(payload(&publication.message.data)?);
        }
    }
}

pub(crate) fn payload(data: &[u8]) -> anyhow::Result<u64> {
    std::str::from_utf8(data)?.parse().context("a payload of this run")
}

/// What was acknowledged is in the owner's stream, once. Returns the streams.
pub(crate) fn check_kept(
    nodes: &[(Incarnation, &Core)],
    clients: &Clients,
    slots: u16,
) -> anyhow::Result<BTreeMap<Channel, Vec<u64>>> {
    let mut streams: BTreeMap<Channel, Vec<u64>> = BTreeMap::new();
    for (channel, acknowledged) in &clients.acknowledged {
        let kept = stream(nodes, channel, slots)?;
        let mut once = kept.clone();
        once.sort_unstable();
        once.dedup();
        ensure!(once.len() == kept.len(), "I9: {channel} has a publication twice");
        for payload in acknowledged {
            ensure!(
                once.binary_search(payload).is_ok(),
                "I1: publication {payload} to {channel} was acknowledged and is gone"
            );
        }
        streams.insert(channel.clone(), kept);
    }
    Ok(streams)
}

pub(crate) fn check(
    nodes: &[(Incarnation, &Core)],
    clients: &Clients,
    slots: u16,
) -> anyhow::Result<()> {
    let streams = check_kept(nodes, clients, slots)?;
    for (client, subscriber) in &clients.subscribers {
        if !subscriber.subscribed {
            continue;
        }
        let kept = streams.get(&subscriber.channel).map_or(&[][..], |kept| kept);
        let seen = &subscriber.seen;
        ensure!(
            kept.ends_with(seen),
            "I3: {client:?} saw {seen:?} of {}, whose stream is {kept:?}",
            subscriber.channel
        );
    }
    Ok(())
}
