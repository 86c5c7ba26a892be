//! I1, I3 and I9 at the end: what was acknowledged is in the owner's stream, once, and nothing that was
//! never sent; every subscriber has seen all of it since it subscribed, and in runs in which no two
//! owned a slot at once, once and in the stream's order, and of a brief channel nothing twice; else what
//! was acknowledged, in some order. I7: who published behind a subscription sees it, and what one node
//! sent keeps its order.
use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, ensure};
use orbweb::delivery::core::Core;
use orbweb::protocol::channel::Channel;
use orbweb::protocol::ids::Incarnation;
use orbweb::protocol::message::History;

use crate::clients::{Clients, Subscriber};

/// The payloads of a channel's stream, in order, read where the slot is owned.
pub(crate) fn stream(
    nodes: &[(Incarnation, &Core)],
    channel: &Channel,
    slots: u16,
) -> anyhow::Result<Vec<u64>> {
    let slot = channel.slot(slots);
    let owner = nodes.iter().find(|(_, core)| core.ownership().owns(slot));
    let (_, core) = owner.with_context(|| format!("nobody owns {slot:?}"))?;
    let stream = core.ownership().holding(slot).and_then(|h| h.stream(channel));
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

/// What was acknowledged is held by one of these nodes at least.
pub(crate) fn check_held(
    nodes: &[(Incarnation, &Core)],
    clients: &Clients,
    slots: u16,
) -> anyhow::Result<()> {
    for (channel, acknowledged) in &clients.acknowledged {
        let slot = channel.slot(slots);
        let holdings = nodes.iter().filter_map(|(_, core)| core.ownership().holding(slot));
        let publications = holdings.flat_map(|holding| holding.publications());
        let held = publications.filter(|(other, ..)| *other == channel);
        let held: anyhow::Result<BTreeSet<u64>> =
            held.map(|(.., message)| payload(&message.data)).collect();
        let held = held?;
        let gone: Vec<&u64> = acknowledged.iter().filter(|p| !held.contains(p)).take(5).collect();
        ensure!(gone.is_empty(), "I1: no living node holds {gone:?} of {channel}");
    }
    Ok(())
}

/// What was acknowledged is in the owner's stream, once. Returns the streams.
pub(crate) fn check_kept(
    nodes: &[(Incarnation, &Core)],
    clients: &Clients,
    slots: u16,
) -> anyhow::Result<BTreeMap<Channel, Vec<u64>>> {
    let mut streams: BTreeMap<Channel, Vec<u64>> = BTreeMap::new();
    // Also those of which nothing was acknowledged: its publisher's node may have died before that.
    let followed = clients.followers().map(|(_, subscriber)| &subscriber.channel);
    let channels: BTreeSet<&Channel> = clients.acknowledged.keys().chain(followed).collect();
    for channel in channels {
        let kept = stream(nodes, channel, slots)?;
        let mut once = kept.clone();
        once.sort_unstable();
        let again = once.windows(2).find(|pair| pair[0] == pair[1]);
        ensure!(again.is_none(), "I9: {channel} has a publication twice: {again:?}");
        ensure!(once.last() <= Some(&clients.sent), "I9: {channel} has what nobody sent");
        for payload in clients.acknowledged.get(channel).into_iter().flatten() {
            ensure!(
                once.binary_search(payload).is_ok(),
                "I1: publication {payload} to {channel} was acknowledged and is gone"
            );
        }
        streams.insert(channel.clone(), kept);
    }
    Ok(streams)
}

/// Every subscriber has seen everything since the first that it saw.
pub(crate) fn check_seen(
    streams: &BTreeMap<Channel, Vec<u64>>,
    clients: &Clients,
) -> anyhow::Result<()> {
    for (client, subscriber) in clients.followers() {
        let kept = streams.get(&subscriber.channel).map_or(&[][..], |kept| kept);
        let Some(first) =
            subscriber.seen.iter().filter_map(|s| kept.iter().position(|k| k == s)).min()
        else {
            continue;
        };
        let seen: BTreeSet<u64> = subscriber.seen.iter().copied().collect();
        let missed: Vec<&u64> = kept[first..].iter().filter(|k| !seen.contains(k)).collect();
        ensure!(
            missed.is_empty(),
            "I1: {client:?} on {:?} never saw {missed:?} of {}, whose stream is {:?}; it saw {:?}",
            subscriber.node,
            subscriber.channel,
            &kept[first..],
            subscriber.seen
        );
    }
    Ok(())
}

/// Every subscriber has seen what was acknowledged of all that was sent since it subscribed, or since it
/// was last told that it may have missed something: in whatever order, where two owned a slot at once.
pub(crate) fn check_delivered(clients: &Clients) -> anyhow::Result<()> {
    let lasting = clients.followers().map(|follower| (follower, &clients.acknowledged));
    let brief = clients.brief_followers().map(|follower| (follower, &clients.acknowledged_briefly));
    for ((client, subscriber), acknowledged) in lasting.chain(brief) {
        let Some(began) = subscriber.began else { continue };
        let seen: BTreeSet<u64> = subscriber.seen.iter().copied().collect();
        let acknowledged = acknowledged.get(&subscriber.channel).into_iter().flatten();
        let since = |payload: &&u64| clients.sent_at[**payload as usize] > began;
        let missed: Vec<&u64> = acknowledged.filter(since).filter(|p| !seen.contains(p)).collect();
        ensure!(
            missed.is_empty(),
            "I1: {client:?} on {:?} follows {} since {began} and never saw {missed:?}",
            subscriber.node,
            subscriber.channel
        );
    }
    Ok(())
}

/// Whoever published in one breath with a subscription was told its own publication by that
/// subscription, if the slot had one owner all the time.
pub(crate) fn check_own(clients: &Clients) -> anyhow::Result<()> {
    for (client, subscriber) in clients.followers() {
        let seen: BTreeSet<u64> = subscriber.seen.iter().copied().collect();
        let acknowledged = clients.acknowledged.get(&subscriber.channel);
        let own = acknowledged.into_iter().flatten().filter(|own| subscriber.own.contains(own));
        let missed: Vec<&u64> = own.filter(|own| !seen.contains(own)).collect();
        ensure!(
            missed.is_empty(),
            "I7: {client:?} on {:?} published {missed:?} behind its subscription to {} and never saw it",
            subscriber.node,
            subscriber.channel
        );
    }
    Ok(())
}

/// Every subscriber has seen the stream since it subscribed, once and in its order.
pub(crate) fn check_in_order(
    streams: &BTreeMap<Channel, Vec<u64>>,
    clients: &Clients,
) -> anyhow::Result<()> {
    for (client, subscriber) in clients.followers() {
        let kept = streams.get(&subscriber.channel).map_or(&[][..], |kept| kept);
        let seen = &subscriber.seen;
        ensure!(
            kept.ends_with(seen),
            "I3: {client:?} on {:?} saw {seen:?} of {}, whose stream is {kept:?}",
            subscriber.node,
            subscriber.channel
        );
    }
    Ok(())
}

/// What one node sent to a channel, every subscriber sees in the order in which it was sent, but for
/// what was published more than once.
pub(crate) fn check_sender_order(clients: &Clients) -> anyhow::Result<()> {
    let fleeting = |s: &Subscriber| s.channel.as_str().starts_with('x');
    for (client, subscriber) in clients.subscribers.iter().filter(|(_, s)| !fleeting(s)) {
        let mut last: BTreeMap<Incarnation, u64> = BTreeMap::new();
        for payload in &subscriber.seen {
            let Some(Some(sender)) = clients.sent_by.get(*payload as usize) else { continue };
            let before = last.insert(*sender, *payload);
            ensure!(
                before < Some(*payload),
                "I7: {client:?} on {:?} saw {payload} of {} behind {before:?}, both sent by {sender:?}",
                subscriber.node,
                subscriber.channel
            );
        }
    }
    Ok(())
}

/// Nobody has seen a publication of a brief channel twice, though what was seen may be gone there.
pub(crate) fn check_brief(clients: &Clients) -> anyhow::Result<()> {
    let brief = clients.subscribers.iter().filter(|(_, s)| s.channel.as_str().starts_with('b'));
    for (client, subscriber) in brief {
        let mut once = BTreeSet::new();
        let twice: Vec<&u64> = subscriber.seen.iter().filter(|s| !once.insert(**s)).collect();
        ensure!(
            twice.is_empty(),
            "I9: {client:?} on {:?} saw {twice:?} of {} twice",
            subscriber.node,
            subscriber.channel
        );
    }
    Ok(())
}
