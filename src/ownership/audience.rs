//! The audience of one slot: which gateways want which channel, and who is present there. Soft
//! state of the owner, told by the gateways and told again to each new owner.
use std::collections::{BTreeMap, BTreeSet};

use smallvec::SmallVec;
use xxhash_rust::xxh3::Xxh3;

use super::holding::update_position;
use crate::protocol::channel::Channel;
use crate::protocol::ids::{ClientId, Incarnation, Position};
use crate::protocol::message::ClientInfo;
use crate::protocol::peer::{ChannelInterest, FRAME_BYTES_MAX, Mark, Span};
use crate::small_map::SmallMap;

/// Clients that a channel's presence holds at most; further ones are subscribed, but not shown.
pub const PRESENT_MAX: usize = 20_000;
/// Bytes of what a channel's presence shows: a question about it is answered in one frame.
pub const PRESENT_BYTES_MAX: usize = 20 << 20;
/// Clients of a channel that presence doesn't show for want of room, and that are known all the same.
const UNSHOWN_MAX: usize = 1_000_000;
const _: () = assert!(PRESENT_BYTES_MAX + (1 << 20) <= FRAME_BYTES_MAX, "a frame has room for it");
/// Bytes of one part of a gateway's interest, about: no frame holds up others for long.
pub(super) const PART_BYTES: usize = 256 * 1024;

/// Bytes that a channel takes in it beside its name and its clients.
const CHANNEL_BYTES: usize = 128;

/// A list of gateways.
pub type Gateways = SmallVec<[Incarnation; 4]>;

/// One channel's audience.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct ChannelAudience {
    /// Gateways with subscribers, in the order of their incarnations.
    pub gateways: Gateways,
    /// Whether subscribers are told of others.
    pub join_leave: bool,
    present: SmallMap<ClientId, Box<(Incarnation, ClientInfo)>>,
    present_bytes: usize,
    /// Clients for whom presence had no room.
    unshown: BTreeMap<ClientId, Incarnation>,
}

/// Somebody came or left: whom to tell.
#[derive(Clone, PartialEq, Debug)]
pub struct Change {
    /// The channel.
    pub channel: Channel,
    /// The gateways to tell.
    pub gateways: Gateways,
    /// Who.
    pub info: ClientInfo,
}

/// See the module.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Audience {
    channels: SmallMap<Channel, Box<ChannelAudience>>,
}

impl Audience {
    /// The gateways that want a channel.
    pub fn gateways(&self, channel: &Channel) -> &[Incarnation] {
        self.channels.get(channel).map_or(&[], |audience| &audience.gateways)
    }

    /// Whether anybody wants the channel.
    pub fn wants(&self, channel: &Channel) -> bool {
        !self.gateways(channel).is_empty()
    }

    /// Adds a gateway to a channel, and a client to its presence. Returns whom to tell of the
    /// client, if it is new and the channel announces.
    pub fn subscribe(
        &mut self,
        gateway: Incarnation,
        channel: &Channel,
        join_leave: bool,
        info: Option<ClientInfo>,
    ) -> Option<Change> {
        let audience = self.channels.get_or_default(channel.clone());
        audience.join_leave = join_leave;
        if let Err(at) = audience.gateways.binary_search(&gateway) {
            audience.gateways.insert(at, gateway);
        }
        let info = info?;
        let known = audience.hide(info.client).is_some();
        if audience.present.len() >= PRESENT_MAX
            || audience.present_bytes + info.bytes() > PRESENT_BYTES_MAX
        {
            if audience.unshown.len() < UNSHOWN_MAX {
                audience.unshown.insert(info.client, gateway);
            }
            return None;
        }
        audience.present_bytes += info.bytes();
        audience.present.insert(info.client, Box::new((gateway, info.clone())));
        (join_leave && !known).then(|| audience.change(channel, info))
    }

    /// Removes a client from a channel's presence, and with `detach` its gateway from the channel, with
    /// whoever else was there. Returns whom to tell of who left.
    pub fn unsubscribe(
        &mut self,
        gateway: Incarnation,
        channel: &Channel,
        client: ClientId,
        detach: bool,
    ) -> Vec<Change> {
        let Some(audience) = self.channels.get_mut(channel) else { return vec![] };
        let left = match detach {
            true => audience.clients_of(gateway),
            false => Some(client).filter(|c| audience.is_at(*c, gateway)).into_iter().collect(),
        };
        if detach {
            audience.gateways.retain(|g| *g != gateway);
        }
        let left: Vec<ClientInfo> = left.into_iter().filter_map(|c| audience.hide(c)).collect();
        let told = left.into_iter().filter(|_| audience.join_leave);
        let changes = told.map(|info| audience.change(channel, info)).collect();
        if audience.gateways.is_empty() {
            self.channels.remove(channel);
        }
        changes
    }

    /// Replaces all that a gateway told before of a span. Returns whom to tell of who came and who
    /// left.
    pub fn replace(
        &mut self,
        gateway: Incarnation,
        interest: Vec<ChannelInterest>,
        span: &Span,
    ) -> (Vec<Change>, Vec<Change>) {
        let mut came = Vec::new();
        let kept: BTreeMap<Channel, BTreeSet<ClientId>> = interest
            .iter()
            .map(|c| (c.channel.clone(), c.present.iter().map(|info| info.client).collect()))
            .collect();
        let left = self.retain(gateway, |channel, client| {
            if !span.covers(channel, client) {
                return Some(true);
            }
            kept.get(channel).map(|clients| client.is_none_or(|c| clients.contains(&c)))
        });
        for ChannelInterest { channel, options, present, .. } in interest {
            came.extend(self.subscribe(gateway, &channel, options.join_leave, None));
            for info in present {
                came.extend(self.subscribe(gateway, &channel, options.join_leave, Some(info)));
            }
        }
        (came, left)
    }

    /// Forgets a gateway. Returns whom to tell of who left.
    pub fn forget(&mut self, gateway: Incarnation) -> Vec<Change> {
        self.retain(gateway, |_, _| None)
    }

    /// Keeps of a gateway only what `keep` says: `None` = not the channel, else for each client.
    fn retain(
        &mut self,
        gateway: Incarnation,
        keep: impl Fn(&Channel, Option<ClientId>) -> Option<bool>,
    ) -> Vec<Change> {
        let mut left = Vec::new();
        self.channels.retain(|channel, audience| {
            if keep(channel, None).is_none() {
                audience.gateways.retain(|g| *g != gateway);
            }
            let gone: Vec<ClientId> = audience
                .present
                .iter()
                .filter(|(client, present)| {
                    present.0 == gateway && !keep(channel, Some(**client)).unwrap_or(false)
                })
                .map(|(client, _)| *client)
                .collect();
            audience.unshown.retain(|client, at| {
                *at != gateway || keep(channel, Some(*client)).unwrap_or(false)
            });
            for client in gone {
                if let Some(info) = audience.hide(client)
                    && audience.join_leave
                {
                    left.push(audience.change(channel, info));
                }
            }
            !audience.gateways.is_empty()
        });
        left
    }

    /// Who is present in a channel.
    pub fn present(&self, channel: &Channel) -> impl Iterator<Item = &ClientInfo> {
        let present = self.channels.get(channel).map(|audience| &audience.present);
        present.into_iter().flatten().map(|(_, present)| &present.1)
    }

    /// Fingerprint of a gateway's interest; equal to [`interest_digest`] of what the gateway has. Not
    /// if presence has room again for who isn't shown: then the gateway is to tell once more.
    pub fn digest(&self, gateway: Incarnation) -> u64 {
        let channels = self.channels.iter().filter(|(_, a)| a.gateways.contains(&gateway));
        interest_digest(channels.map(|(channel, audience)| {
            let here = audience.present.iter().filter(|(_, present)| present.0 == gateway);
            let unshown = audience.unshown.iter().filter(|(_, at)| **at == gateway);
            let unshown = unshown.filter(|_| audience.is_full()).map(|(client, _)| *client);
            let mut clients: Vec<_> = here.map(|(client, _)| *client).chain(unshown).collect();
            clients.sort_unstable();
            (channel, clients)
        }))
    }

    /// The gateways that want any channel, some more than once.
    pub fn all_gateways(&self) -> impl Iterator<Item = Incarnation> {
        self.channels.values().flat_map(|audience| audience.gateways.iter().copied())
    }

    /// The channels that anybody wants.
    pub fn channels(&self) -> impl Iterator<Item = &Channel> {
        self.channels.keys()
    }

    /// The channels that a gateway wants.
    pub fn channels_of(&self, gateway: Incarnation) -> impl Iterator<Item = &Channel> {
        let wanted = self.channels.iter().filter(move |(_, a)| a.gateways.contains(&gateway));
        wanted.map(|(channel, _)| channel)
    }
}

impl ChannelAudience {
    /// Whether presence has no room worth telling everything again.
    fn is_full(&self) -> bool {
        self.present.len() >= PRESENT_MAX / 10 * 9
            || self.present_bytes >= PRESENT_BYTES_MAX / 10 * 9
    }

    fn is_at(&self, client: ClientId, gateway: Incarnation) -> bool {
        self.present.get(&client).is_some_and(|present| present.0 == gateway)
            || self.unshown.get(&client) == Some(&gateway)
    }

    /// Who is there at a gateway, shown or not.
    fn clients_of(&self, gateway: Incarnation) -> Vec<ClientId> {
        let shown = self.present.iter().filter(|(_, present)| present.0 == gateway);
        let unshown = self.unshown.iter().filter(|(_, at)| **at == gateway);
        shown.map(|(client, _)| *client).chain(unshown.map(|(client, _)| *client)).collect()
    }

    fn hide(&mut self, client: ClientId) -> Option<ClientInfo> {
        self.unshown.remove(&client);
        let (_, info) = *self.present.remove(&client)?;
        self.present_bytes -= info.bytes();
        Some(info)
    }

    fn change(&self, channel: &Channel, info: ClientInfo) -> Change {
        Change { channel: channel.clone(), gateways: self.gateways.clone(), info }
    }
}

/// Cuts a gateway's interest in a slot, in its order, into parts of about `PART_BYTES`, each with
/// the span of which it is all.
pub fn in_parts(interest: Vec<ChannelInterest>) -> Vec<(Vec<ChannelInterest>, Span)> {
    let mut parts = Vec::new();
    let mut part: Vec<ChannelInterest> = Vec::new();
    let mut bytes = 0;
    let mut after = None;
    for ChannelInterest { channel, options, position, present } in interest {
        let begun = |position| {
            let (channel, present) = (channel.clone(), vec![]);
            ChannelInterest { channel, options, position, present }
        };
        let mut cut = |part: &mut Vec<ChannelInterest>, bytes: &mut usize, more: usize| {
            if *bytes > 0 && *bytes + more > PART_BYTES {
                let up_to = part.last().map(end_of);
                let span = Span { after: std::mem::replace(&mut after, up_to.clone()), up_to };
                parts.push((std::mem::take(part), span));
                *bytes = 0;
            }
            *bytes += more;
        };
        cut(&mut part, &mut bytes, channel.as_str().len() + CHANNEL_BYTES);
        part.push(begun(position));
        for info in present {
            cut(&mut part, &mut bytes, info.bytes());
            if part.is_empty() {
                // Its place in the stream was told before.
                part.push(begun(None));
            }
            part.last_mut().into_iter().for_each(|channel| channel.present.push(info.clone()));
        }
    }
    parts.push((part, Span { after, up_to: None }));
    parts
}

/// Bytes that interest takes in a frame, about.
pub(super) fn bytes(interest: &[ChannelInterest]) -> usize {
    let channels = interest.iter().map(|it| {
        let present = it.present.iter().map(ClientInfo::bytes);
        it.channel.as_str().len() + CHANNEL_BYTES + present.sum::<usize>()
    });
    channels.sum()
}

/// Where a part that ends with this channel ends.
fn end_of(last: &ChannelInterest) -> Mark {
    (last.channel.clone(), last.present.last().map(|info| info.client))
}

/// Fingerprint of channels, in their order, with the clients present in each, in theirs.
pub fn interest_digest<'a>(channels: impl Iterator<Item = (&'a Channel, Vec<ClientId>)>) -> u64 {
    let mut hash = Xxh3::new();
    for (channel, present) in channels {
        hash.update(channel.as_str().as_bytes());
        hash.update(&[0]);
        for client in present {
            hash.update(&client.0.to_le_bytes());
        }
    }
    hash.digest()
}

/// Fingerprint of where streams stand, in the order of their channels.
pub fn tops_digest<'a>(tops: impl Iterator<Item = (&'a Channel, Position)>) -> u64 {
    let mut hash = Xxh3::new();
    for (channel, position) in tops {
        hash.update(channel.as_str().as_bytes());
        update_position(&mut hash, position);
    }
    hash.digest()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::protocol::channel::ChannelOptions;

    const LEFT: Incarnation = Incarnation(1);
    const RIGHT: Incarnation = Incarnation(2);
    const ALL: Span = Span { after: None, up_to: None };

    fn channel(name: &str) -> Channel {
        Channel::parse(name).expect("a name")
    }

    fn info(client: u128) -> ClientInfo {
        let (conn_info, chan_info) = (Bytes::new(), Bytes::new());
        ClientInfo { user: "u".into(), client: ClientId(client), conn_info, chan_info }
    }

    fn interest(name: &str, present: &[u128]) -> ChannelInterest {
        ChannelInterest {
            channel: channel(name),
            options: ChannelOptions { join_leave: true, ..ChannelOptions::default() },
            position: None,
            present: present.iter().map(|c| info(*c)).collect(),
        }
    }

    #[test]
    fn a_client_is_announced_once() {
        let mut audience = Audience::default();
        let room = channel("room");
        assert!(audience.subscribe(LEFT, &room, true, Some(info(7))).is_some());
        assert_eq!(audience.subscribe(LEFT, &room, true, Some(info(7))), None);
        let left = audience.unsubscribe(LEFT, &room, ClientId(7), false);
        assert_eq!(left.into_iter().map(|c| c.info).collect::<Vec<_>>(), [info(7)]);
        assert_eq!(audience.unsubscribe(LEFT, &room, ClientId(7), true), []);
        assert_eq!(audience, Audience::default());
    }

    #[test]
    fn who_detaches_has_nobody_there() {
        let mut audience = Audience::default();
        audience.replace(RIGHT, vec![interest("a", &[9])], &ALL);
        audience.replace(LEFT, vec![interest("a", &[1, 2])], &ALL);
        // Somebody left of whom this owner was never told, or not yet.
        let left = audience.unsubscribe(LEFT, &channel("a"), ClientId(1), true);
        assert_eq!(left.iter().map(|c| c.info.client.0).collect::<Vec<_>>(), [1, 2]);
        assert!(left.iter().all(|change| change.gateways[..] == [RIGHT]));
        assert_eq!(audience.present(&channel("a")).count(), 1);
    }

    #[test]
    fn what_a_gateway_tells_anew_replaces_what_it_told() {
        let mut audience = Audience::default();
        audience.replace(RIGHT, vec![interest("a", &[9])], &ALL);
        audience.replace(LEFT, vec![interest("a", &[1, 2]), interest("b", &[])], &ALL);
        let (came, left) = audience.replace(LEFT, vec![interest("a", &[2, 3])], &ALL);
        assert_eq!(came.iter().map(|c| c.info.client.0).collect::<Vec<_>>(), [3]);
        assert_eq!(left.iter().map(|c| c.info.client.0).collect::<Vec<_>>(), [1]);
        assert_eq!(audience.gateways(&channel("a")), [LEFT, RIGHT]);
        assert!(!audience.wants(&channel("b")));
        assert_eq!(audience.forget(RIGHT).len(), 1);
        assert_eq!(audience.gateways(&channel("a")), [LEFT]);
    }

    #[test]
    fn interest_in_parts_replaces_the_same_as_in_one() {
        let crowd: Vec<u128> = (0..12_000).map(|n| n * 7).collect();
        let before =
            [interest("a", &[1]), interest("gone", &[5]), interest("room", &crowd[..6_000])];
        let now = vec![interest("a", &[]), interest("room", &crowd[3_000..]), interest("z", &[3])];
        let (mut whole, mut told) = (Audience::default(), Audience::default());
        for audience in [&mut whole, &mut told] {
            audience.replace(RIGHT, vec![interest("room", &[1])], &ALL);
            audience.replace(LEFT, before.to_vec(), &ALL);
        }
        let (came, left) = whole.replace(LEFT, now.clone(), &ALL);
        let parts = in_parts(now);
        assert!(parts.len() > 1, "{}", parts.len());
        let (mut came_in_parts, mut left_in_parts) = (vec![], vec![]);
        for (part, span) in parts {
            let (came, left) = told.replace(LEFT, part, &span);
            came_in_parts.extend(came);
            left_in_parts.extend(left);
        }
        assert!(told == whole && came_in_parts == came);
        let clients = |left: &[Change]| -> BTreeSet<u128> {
            left.iter().map(|change| change.info.client.0).collect()
        };
        assert_eq!(clients(&left_in_parts), clients(&left));
        assert_eq!(clients(&left).len(), 3_000 + 2);
    }

    #[test]
    fn presence_is_bounded_in_bytes() {
        let mut audience = Audience::default();
        let room = channel("room");
        let large = |client: u128| {
            let conn_info = Bytes::from(vec![b' '; PRESENT_BYTES_MAX / 4]);
            ClientInfo { conn_info, ..info(client) }
        };
        for client in [1, 2, 3, 4, 4] {
            audience.subscribe(LEFT, &room, false, Some(large(client)));
        }
        assert_eq!(audience.present(&room).count(), 3);
        audience.unsubscribe(LEFT, &room, ClientId(1), false);
        audience.subscribe(LEFT, &room, false, Some(large(5)));
        assert_eq!(audience.present(&room).count(), 3);
    }

    #[test]
    fn a_full_presence_is_told_again_only_once_there_is_room() {
        let mut audience = Audience::default();
        let room = channel("room");
        let all: Vec<u128> = (1..=PRESENT_MAX as u128 + 2).collect();
        audience.replace(LEFT, vec![interest("room", &all)], &ALL);
        assert_eq!(audience.present(&room).count(), PRESENT_MAX);
        let digest_of = |clients: &[u128]| {
            let clients = clients.iter().map(|client| ClientId(*client)).collect();
            interest_digest([(&room, clients)].into_iter())
        };
        assert_eq!(audience.digest(LEFT), digest_of(&all));
        let (gone, rest) = all.split_at(PRESENT_MAX / 5);
        for client in gone.iter().chain(&[all[all.len() - 1]]) {
            audience.unsubscribe(LEFT, &room, ClientId(*client), false);
        }
        let rest = &rest[..rest.len() - 1];
        assert_ne!(audience.digest(LEFT), digest_of(rest));
        audience.replace(LEFT, vec![interest("room", rest)], &ALL);
        assert_eq!(audience.digest(LEFT), digest_of(rest));
        assert_eq!(audience.present(&room).count(), rest.len());
    }

    #[test]
    fn both_sides_compute_one_digest() {
        let mut audience = Audience::default();
        audience.replace(RIGHT, vec![interest("a", &[9])], &ALL);
        audience.replace(LEFT, vec![interest("a", &[2, 1]), interest("b", &[])], &ALL);
        let (a, b) = (channel("a"), channel("b"));
        let here = [(&a, vec![ClientId(1), ClientId(2)]), (&b, vec![])];
        assert_eq!(audience.digest(LEFT), interest_digest(here.into_iter()));
        assert_ne!(audience.digest(LEFT), audience.digest(RIGHT));
    }
}
