//! Virtual clients: what they publish, what is acknowledged to them, what they see.
use std::collections::{BTreeMap, BTreeSet};

use orbweb::delivery::event::RequestId;
use orbweb::protocol::channel::{Channel, ChannelOptions};
use orbweb::protocol::ids::{ClientId, Epoch, Incarnation, Position};
use orbweb::protocol::user::UserChange;

use crate::checkers::attendance::Person;
use crate::checkers::users::Writes;

/// The configuration of most channels of a run: histories that outlast it.
pub(crate) const STREAM: ChannelOptions = ChannelOptions {
    history_size: 100_000,
    history_ttl_ms: 600_000,
    presence: true,
    join_leave: true,
};

/// The configuration of brief channels: as busy as others, but what is old goes.
pub(crate) const BRIEF: ChannelOptions = ChannelOptions { history_size: 30, ..STREAM };

/// The configuration of fleeting channels: short histories, forgotten when idle for a moment.
pub(crate) const FLEETING: ChannelOptions =
    ChannelOptions { history_size: 3, history_ttl_ms: 300, presence: false, join_leave: false };

/// What became of a request.
#[derive(Clone, Debug)]
pub(crate) enum Asked {
    /// A publication of this payload, with an idempotency key or without.
    Publish { channel: Channel, payload: u64, keyed: bool },
    /// A subscription.
    Subscribe { client: ClientId },
    /// Who is in a channel.
    Presence { channel: Channel },
    /// The change of this number of a field of a user's record.
    Change { user: Channel, change: UserChange, number: usize },
    /// A user's attributes.
    Attributes { user: Channel, at: u64 },
    /// A connection of somebody who comes and goes.
    Attend { person: usize, client: ClientId },
    /// To be told when somebody comes or goes.
    Watch { person: usize, client: ClientId },
    /// Whether somebody is connected.
    Status { person: usize },
    /// What is in a channel: at least the first `acknowledged` of those acknowledged there.
    Read { channel: Channel, acknowledged: usize, at: u64 },
}

/// A subscriber on one node that keeps its position as SDKs do.
#[derive(Clone, Debug)]
pub(crate) struct Subscriber {
    pub(crate) node: Incarnation,
    pub(crate) channel: Channel,
    pub(crate) position: Option<Position>,
    pub(crate) subscribed: bool,
    /// Payloads in the order seen since the last start without recovery.
    pub(crate) seen: Vec<u64>,
    /// When that start was; `None` before it.
    pub(crate) began: Option<u64>,
    /// What it published in one breath with its last subscription, which isn't answered, and the
    /// ownership in which that was.
    pub(crate) behind: Option<(u64, Epoch)>,
    /// What of that it must see if it is acknowledged.
    pub(crate) own: BTreeSet<u64>,
}

impl Subscriber {
    pub(crate) fn new(node: Incarnation, channel: Channel) -> Self {
        let (seen, began, behind, own) = <_>::default();
        Self { node, channel, position: None, subscribed: false, seen, began, behind, own }
    }

    /// It begins anew where the channel is now.
    pub(crate) fn forget(&mut self) {
        self.seen.clear();
        self.began = None;
        self.own.clear();
    }
}

/// Whom the end of a node concerns.
pub(crate) struct Gone {
    pub(crate) subscribers: Vec<ClientId>,
    /// Publications with idempotency keys of which nobody knows whether they were applied.
    pub(crate) unknown: Vec<(Channel, u64)>,
}

/// Everything that clients know.
#[derive(Default)]
pub(crate) struct Clients {
    pub(crate) waiting: BTreeMap<(Incarnation, RequestId), Asked>,
    pub(crate) subscribers: BTreeMap<ClientId, Subscriber>,
    /// In the order of the acknowledgements.
    pub(crate) acknowledged: BTreeMap<Channel, Vec<u64>>,
    /// The same of brief channels.
    pub(crate) acknowledged_briefly: BTreeMap<Channel, Vec<u64>>,
    pub(crate) sent: u64,
    /// When each payload was first sent.
    pub(crate) sent_at: Vec<u64>,
    /// Which node was asked to publish each payload, if that was done once and didn't fail: of what
    /// failed nobody knows when it is applied.
    pub(crate) sent_by: Vec<Option<Incarnation>>,
    /// The ownership under which each was acknowledged first.
    pub(crate) acknowledged_under: BTreeMap<u64, Epoch>,
    /// Users who come and go.
    pub(crate) people: Vec<Person>,
    /// What was changed of users' records.
    pub(crate) writes: Writes,
    /// Publications of which nobody knows whether they were applied.
    pub(crate) failed: u64,
    /// Acknowledged publications that were published with an idempotency key.
    pub(crate) keyed: BTreeSet<u64>,
    pub(crate) repeated: u64,
    pub(crate) unrecovered: u64,
    pub(crate) recovered: u64,
    /// Who was in each channel when asked at the end.
    pub(crate) present: BTreeMap<Channel, BTreeSet<ClientId>>,
    numbers: u64,
}

impl Clients {
    pub(crate) fn number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }

    pub(crate) fn acknowledged_count(&self) -> u64 {
        self.acknowledged.values().map(|payloads| payloads.len() as u64).sum()
    }

    pub(crate) fn own_count(&self) -> u64 {
        self.subscribers.values().map(|subscriber| subscriber.own.len() as u64).sum()
    }

    /// Who is subscribed to a channel that outlasts the run.
    pub(crate) fn followers(&self) -> impl Iterator<Item = (&ClientId, &Subscriber)> {
        let lasting = |s: &Subscriber| s.channel.as_str().starts_with('c');
        self.subscribers.iter().filter(move |(_, s)| s.subscribed && lasting(s))
    }

    /// Who is subscribed to a brief channel.
    pub(crate) fn brief_followers(&self) -> impl Iterator<Item = (&ClientId, &Subscriber)> {
        let brief = |s: &Subscriber| s.channel.as_str().starts_with('b');
        self.subscribers.iter().filter(move |(_, s)| s.subscribed && brief(s))
    }

    /// The connections of a node are gone with it; its subscribers must look for another. What they
    /// asked is unknown.
    pub(crate) fn forget_node(&mut self, node: Incarnation) -> Gone {
        let mut unknown = Vec::new();
        self.waiting.retain(|(at, _), asked| {
            if let Asked::Publish { channel, payload, keyed: true } = asked
                && *at == node
            {
                unknown.push((channel.clone(), *payload));
            }
            *at != node
        });
        let here = self.subscribers.iter_mut().filter(|(_, s)| s.node == node);
        let subscribers = here.map(|(client, subscriber)| {
            subscriber.subscribed = false;
            subscriber.behind = None;
            *client
        });
        Gone { subscribers: subscribers.collect(), unknown }
    }
}
