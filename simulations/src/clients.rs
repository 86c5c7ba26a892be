//! Virtual clients: what they publish, what is acknowledged to them, what they see.
use std::collections::{BTreeMap, BTreeSet};

use orbweb::delivery::event::RequestId;
use orbweb::protocol::channel::{Channel, ChannelOptions};
use orbweb::protocol::ids::{ClientId, Incarnation, Position};

/// The one configuration of all channels of a run: histories that outlast it.
pub(crate) const STREAM: ChannelOptions = ChannelOptions {
    history_size: 100_000,
    history_ttl_ms: 600_000,
    presence: true,
    join_leave: true,
};

/// What became of a request.
#[derive(Clone, Debug)]
pub(crate) enum Asked {
    /// A publication of this payload.
    Publish { channel: Channel, payload: u64 },
    /// A subscription.
    Subscribe { client: ClientId },
    /// Who is in a channel.
    Presence { channel: Channel },
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
}

/// Everything that clients know.
#[derive(Default)]
pub(crate) struct Clients {
    pub(crate) waiting: BTreeMap<(Incarnation, RequestId), Asked>,
    pub(crate) subscribers: BTreeMap<ClientId, Subscriber>,
    pub(crate) acknowledged: BTreeMap<Channel, BTreeSet<u64>>,
    pub(crate) sent: u64,
    pub(crate) failed: u64,
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

    /// The clients of a node are gone with it.
    pub(crate) fn forget_node(&mut self, node: Incarnation) {
        self.waiting.retain(|(at, _), _| *at != node);
        self.subscribers.retain(|_, subscriber| subscriber.node != node);
    }
}
