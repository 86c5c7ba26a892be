//! Operations: what gateways ask owners to change, and what became of it. Each is numbered by its
//! gateway, and applied once.
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::protocol::channel::{Channel, ChannelOptions};
use crate::protocol::codes::ErrorCode;
use crate::protocol::ids::{Epoch, Incarnation, Position, Slot};
use crate::protocol::message::Message;
use crate::protocol::user::UserChange;

/// An operation on a slot, numbered by the gateway that sends it.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Operation {
    /// The slot.
    pub slot: Slot,
    /// The highest epoch of the slot that the sender promised.
    pub epoch: Epoch,
    /// The lowest number that the sender still wants applied.
    pub lowest: u64,
    /// This operation's number.
    pub number: u64,
    /// The channel; the inbox for what concerns a user.
    pub channel: Channel,
    /// The channel's configuration at the sender.
    pub options: ChannelOptions,
    /// What to do.
    pub body: Body,
}

/// What an operation does.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub enum Body {
    /// Publish to the channel.
    Publish {
        /// What.
        message: Arc<Message>,
        /// Publications of one channel with one key are one publication.
        key: Option<Arc<str>>,
    },
    /// Change the record of the user whose inbox the channel is.
    User(UserChange),
}

impl Body {
    /// About its bytes.
    pub fn len(&self) -> usize {
        match self {
            Self::Publish { message, .. } => message.bytes(),
            Self::User(change) => change.len(),
        }
    }

    /// Whether it carries nothing.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// What became of an operation.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
pub enum Outcome {
    /// Applied, now or before, and held by `copies` nodes; the position is unknown if the stream has
    /// dropped it since.
    Published {
        /// Its place.
        position: Option<Position>,
        /// Nodes that are known to hold it, the owner included.
        copies: u8,
    },
    /// A user's record was changed, now or before, and so many nodes hold that.
    Changed {
        /// Nodes that are known to hold it, the owner included.
        copies: u8,
    },
    /// Earlier numbers are missing: send again from this one.
    Expected(u64),
    /// Not here.
    NotOwner(Option<Incarnation>),
    /// Not applied.
    Failed(ErrorCode),
}
