//! What a gateway wants of an owner: channels of a slot with the clients that are present in them,
//! whole or by spans.
use serde::{Deserialize, Serialize};

use crate::protocol::channel::{Channel, ChannelOptions};
use crate::protocol::ids::{ClientId, Incarnation, Position, Slot};
use crate::protocol::message::ClientInfo;

/// A member that isn't alive any more, as somebody saw it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Vanished {
    /// Which start of it.
    pub node: Incarnation,
    /// Milliseconds since.
    pub ago_ms: u32,
}

/// A gateway's interest in one slot.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct SlotInterest {
    /// The slot.
    pub slot: Slot,
    /// Its channels that have subscribers at the gateway.
    pub channels: Vec<ChannelInterest>,
}

impl SlotInterest {
    /// About its bytes.
    pub fn bytes(&self) -> usize {
        let present = |c: &ChannelInterest| c.present.iter().map(ClientInfo::bytes).sum::<usize>();
        self.channels.iter().map(|c| c.channel.as_str().len() + present(c)).sum()
    }
}

/// A place in a gateway's interest in a slot: channels in their order, each followed by the clients
/// present in it, in theirs.
pub type Mark = (Channel, Option<ClientId>);

/// A part of a gateway's interest in a slot.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Span {
    /// It begins behind this mark; `None` = with the first.
    pub after: Option<Mark>,
    /// It ends with this mark; `None` = with the last.
    pub up_to: Option<Mark>,
}

impl Span {
    /// Whether a channel (`None`) or a client in it lies in the span.
    pub fn covers(&self, channel: &Channel, client: Option<ClientId>) -> bool {
        let mark = (channel, client);
        let begun = self.after.as_ref().is_none_or(|(c, k)| (c, *k) < mark);
        begun && self.up_to.as_ref().is_none_or(|(c, k)| mark <= (c, *k))
    }
}

/// A gateway's interest in one channel.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct ChannelInterest {
    /// The channel.
    pub channel: Channel,
    /// Its configuration at the gateway.
    pub options: ChannelOptions,
    /// How far the gateway has delivered; `None` for ephemeral channels.
    pub position: Option<Position>,
    /// The clients that are present.
    pub present: Vec<ClientInfo>,
}
