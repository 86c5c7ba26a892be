//! What is kept of a user beside the inbox: the words of its changes. A record is, for each field,
//! the last change of it.
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::channel::Channel;
use super::ids::Epoch;

/// Bytes of an attribute's key: a name, not content.
pub const ATTRIBUTE_KEY_BYTES_MAX: usize = 128;
/// Bytes of an attribute's value. With [`ATTRIBUTES_MAX`] it keeps a record below the 256 KiB that
/// one part of a copy carries.
pub const ATTRIBUTE_VALUE_BYTES_MAX: usize = 4 * 1024;
/// Attributes of a user.
pub const ATTRIBUTES_MAX: usize = 48;
/// Server-side subscriptions of a user: what one connection has room for beside its inbox and some
/// of its own.
pub const USER_SUBSCRIPTIONS_MAX: usize = 100;

/// When a change was made: the owner's epoch and the index of the change in it. No two changes of a
/// slot share one, so of two the later is known on every node without a clock.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct Stamp {
    /// The owner's epoch.
    pub epoch: Epoch,
    /// The owner's index of the change.
    pub index: u64,
}

/// One change of a user's record.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub enum UserChange {
    /// All connections of the user are subscribed to a channel.
    Subscribe(Channel),
    /// They are no longer.
    Unsubscribe(Channel),
    /// An attribute has this value.
    Set {
        /// Its key.
        key: Arc<str>,
        /// JSON on one line.
        value: Bytes,
    },
    /// An attribute is gone.
    Delete {
        /// Its key.
        key: Arc<str>,
    },
    /// The user has a connection. Made by the owner, as is the next.
    Online,
    /// The user has none any more.
    Offline {
        /// For how long already when the change was made, in milliseconds.
        ago_ms: u64,
    },
}

/// Whether a user is connected anywhere.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Status {
    /// Somewhere.
    Online,
    /// Nowhere for so many milliseconds.
    Offline(u64),
    /// Nothing is known: never connected, or long ago.
    Unknown,
}

impl Status {
    /// Whether the user is connected.
    pub fn is_online(self) -> bool {
        self == Self::Online
    }

    /// As clients and callers of the API are told: `online`, and `last_seen_ms_ago` if it is known
    /// since when the user isn't.
    pub fn to_json(self) -> String {
        match self {
            Self::Online => r#"{"online":true}"#.to_owned(),
            Self::Offline(ago_ms) => {
                format!(r#"{{"online":false,"last_seen_ms_ago":{ago_ms}}}"#)
            }
            Self::Unknown => r#"{"online":false}"#.to_owned(),
        }
    }
}

/// What the subscribers of a user's channel are told of the user beside what is published there.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub enum UserState {
    /// Nothing: it is another channel, or the owner of the inbox doesn't know yet.
    #[default]
    None,
    /// Of an inbox: the channels that its user is subscribed to.
    Subscriptions(Vec<Channel>),
    /// Of a status channel.
    Status(Status),
}

/// What a change is about: of two changes of one field the later counts.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Field {
    /// The subscription to a channel.
    Subscription(Channel),
    /// The attribute of a key.
    Attribute(Arc<str>),
    /// Whether the user is connected.
    Status,
}

/// A change with its stamp.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct Stamped {
    /// When it was made.
    pub stamp: Stamp,
    /// What.
    pub change: UserChange,
}

/// A key or value over its limit. Nothing was changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum UserLimit {
    /// Of a key.
    #[error("the key has {0} bytes; 1 to {ATTRIBUTE_KEY_BYTES_MAX} are allowed")]
    Key(usize),
    /// Of a value.
    #[error("the value has {0} bytes; at most {ATTRIBUTE_VALUE_BYTES_MAX} are allowed")]
    Value(usize),
}

impl UserChange {
    /// The field that it changes.
    pub fn field(&self) -> Field {
        match self {
            Self::Subscribe(channel) | Self::Unsubscribe(channel) => {
                Field::Subscription(channel.clone())
            }
            Self::Set { key, .. } | Self::Delete { key } => Field::Attribute(key.clone()),
            Self::Online | Self::Offline { .. } => Field::Status,
        }
    }

    /// Whether it leaves nothing but the knowledge that something is gone.
    pub fn is_tombstone(&self) -> bool {
        matches!(self, Self::Unsubscribe(_) | Self::Delete { .. } | Self::Offline { .. })
    }

    /// About its bytes.
    pub fn len(&self) -> usize {
        match self {
            Self::Subscribe(channel) | Self::Unsubscribe(channel) => channel.as_str().len(),
            Self::Set { key, value } => key.len() + value.len(),
            Self::Delete { key } => key.len(),
            Self::Online | Self::Offline { .. } => 1,
        }
    }

    /// Whether it has no bytes, which no sound change has.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether keys and values are within their limits.
    pub fn check(&self) -> Result<(), UserLimit> {
        match self {
            Self::Set { key, .. } | Self::Delete { key }
                if key.is_empty() || key.len() > ATTRIBUTE_KEY_BYTES_MAX =>
            {
                Err(UserLimit::Key(key.len()))
            }
            Self::Set { value, .. } if value.len() > ATTRIBUTE_VALUE_BYTES_MAX => {
                Err(UserLimit::Value(value.len()))
            }
            _ => Ok(()),
        }
    }
}
