//! What this node's clients want: channels with their subscribers, and how far each stream has been
//! handed on. Kept by the router, told to owners.
use std::collections::BTreeMap;

use smallvec::SmallVec;

use super::event::ShardId;
use crate::ownership::audience::{interest_digest, tops_digest};
use crate::ownership::user::{user_digest, with_users};
use crate::protocol::channel::{Channel, ChannelOptions};
use crate::protocol::ids::{ClientId, Position, Slot};
use crate::protocol::message::ClientInfo;
use crate::protocol::peer::ChannelInterest;
use crate::protocol::user::UserState;
use crate::small_map::SmallMap;

/// Shards with subscribers.
pub type Shards = SmallVec<[ShardId; 4]>;

/// A local subscriber.
#[derive(Clone, Debug)]
pub struct Subscriber {
    /// Where its connection is.
    pub shard: ShardId,
    /// What presence shows of it.
    pub info: Option<Box<ClientInfo>>,
}

/// A client whose subscription the owner hasn't answered.
#[derive(Clone, Debug)]
pub struct Joining {
    /// The number of the question.
    pub question: u64,
    /// What presence is to show of it.
    pub info: Option<Box<ClientInfo>>,
}

/// One channel that local clients want.
#[derive(Debug, Default)]
pub struct Interest {
    /// The channel's configuration.
    pub options: ChannelOptions,
    /// Who gets its deliveries.
    pub subscribers: SmallMap<ClientId, Subscriber>,
    /// Subscriptions that the owner hasn't answered, by the number of the question.
    pub joining: SmallMap<ClientId, Joining>,
    /// How far the stream has been handed on; `None` for ephemeral channels and before the first
    /// answer.
    pub position: Option<Position>,
    /// Who learns epochs from publications may not hold the position's.
    pub turns: bool,
    /// The question by which the place in the stream is being found again.
    pub catching_up: Option<u64>,
    /// Of an inbox or a status channel: what local subscribers were told of its user.
    pub user: UserState,
    /// The question by which that is being asked for.
    pub asking: Option<u64>,
    shards: SmallVec<[(ShardId, u32); 2]>,
}

impl Interest {
    /// Adds a subscriber.
    pub fn add(&mut self, client: ClientId, subscriber: Subscriber) {
        let shard = subscriber.shard;
        if self.subscribers.insert(client, subscriber).is_some() {
            return;
        }
        match self.shards.iter_mut().find(|(id, _)| *id == shard) {
            Some((_, count)) => *count += 1,
            None => self.shards.push((shard, 1)),
        }
    }

    /// Removes a subscriber.
    pub fn remove(&mut self, client: ClientId) {
        let Some(gone) = self.subscribers.remove(&client) else { return };
        if let Some((_, count)) = self.shards.iter_mut().find(|(id, _)| *id == gone.shard) {
            *count -= 1;
        }
        self.shards.retain(|(_, count)| *count > 0);
    }

    /// Removes a client that is on its way in.
    pub fn remove_joining(&mut self, client: ClientId) -> Option<Joining> {
        self.joining.remove(&client)
    }

    /// The shards that have subscribers.
    pub fn shards(&self) -> Shards {
        self.shards.iter().map(|(shard, _)| *shard).collect()
    }

    /// Whether nobody wants the channel any more.
    pub fn is_empty(&self) -> bool {
        self.subscribers.is_empty() && self.joining.is_empty()
    }

    /// Whom presence shows, those on their way in included: what an owner is told may overtake the
    /// answer to them, but not the question.
    fn shown(&self) -> BTreeMap<ClientId, &ClientInfo> {
        let here = self.subscribers.iter().filter_map(|(c, s)| Some((*c, s.info.as_deref()?)));
        let joining = self.joining.iter().filter_map(|(c, j)| Some((*c, j.info.as_deref()?)));
        here.chain(joining).collect()
    }

    fn present(&self) -> Vec<ClientId> {
        self.shown().into_keys().collect()
    }
}

/// All channels that local clients want, by slot.
#[derive(Debug, Default)]
pub struct Interests {
    slots: BTreeMap<Slot, SmallMap<Channel, Box<Interest>>>,
    channels: u64,
}

impl Interests {
    /// A channel's interest, if there is any.
    pub fn get_mut(&mut self, slot: Slot, channel: &Channel) -> Option<&mut Interest> {
        self.slots.get_mut(&slot)?.get_mut(channel).map(Box::as_mut)
    }

    /// A channel's interest, made if there is none.
    pub fn entry(&mut self, slot: Slot, channel: &Channel) -> &mut Interest {
        let slot = self.slots.entry(slot).or_default();
        if !slot.contains_key(channel) {
            self.channels += 1;
        }
        slot.get_or_default(channel.clone())
    }

    /// Forgets a channel.
    pub fn remove(&mut self, slot: Slot, channel: &Channel) {
        let Some(channels) = self.slots.get_mut(&slot) else { return };
        self.channels -= u64::from(channels.remove(channel).is_some());
        if channels.is_empty() {
            self.slots.remove(&slot);
        }
    }

    /// How many channels have local subscribers.
    pub fn channels(&self) -> u64 {
        self.channels
    }

    /// Whether nobody here wants anything of a slot.
    pub fn is_empty(&self, slot: Slot) -> bool {
        !self.slots.contains_key(&slot)
    }

    /// The channels of a slot whose streams are followed and not being caught up with.
    pub fn followed(&self, slot: Slot) -> Vec<Channel> {
        let channels = self.slots.get(&slot).into_iter().flatten();
        let followed = channels.filter(|(_, i)| i.position.is_some() && i.catching_up.is_none());
        followed.map(|(channel, _)| channel.clone()).collect()
    }

    /// What owners are told of a slot.
    pub fn of(&self, slot: Slot) -> Vec<ChannelInterest> {
        let attached = self.attached(slot);
        attached
            .map(|(channel, interest)| ChannelInterest {
                channel: channel.clone(),
                options: interest.options,
                position: interest.position,
                present: interest.shown().into_values().cloned().collect(),
            })
            .collect()
    }

    /// The fingerprint of [`Interests::of`] without positions.
    pub fn digest(&self, slot: Slot) -> u64 {
        interest_digest(self.attached(slot).map(|(channel, i)| (channel, i.present())))
    }

    /// The inboxes and status channels of a slot.
    pub fn of_users(&self, slot: Slot) -> Vec<Channel> {
        let channels = self.attached(slot).map(|(channel, _)| channel);
        let of_users = channels.filter(|channel| channel.user().is_some());
        of_users.cloned().collect()
    }

    /// The fingerprint of the positions and of what was told of users; `None` while a position is
    /// being found again.
    pub fn tops(&self, slot: Slot) -> Option<u64> {
        if self.attached(slot).any(|(_, interest)| interest.catching_up.is_some()) {
            return None;
        }
        let positions = self.attached(slot).filter_map(|(c, i)| Some((c, i.position?)));
        let users = self.attached(slot);
        let users = users.map(|(c, i)| (c, user_digest(&i.user)));
        Some(with_users(tops_digest(positions), users))
    }

    fn attached(&self, slot: Slot) -> impl Iterator<Item = (&Channel, &Interest)> {
        let channels = self.slots.get(&slot).into_iter().flatten();
        channels.map(|(channel, interest)| (channel, &**interest))
    }
}
