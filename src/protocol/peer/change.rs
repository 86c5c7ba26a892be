//! Changes of what is held of a slot, made by its owner alone, and how far its followers hold them.
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::copy::EntryCopy;
use crate::protocol::channel::{Channel, ChannelOptions};
use crate::protocol::ids::{Position, Slot, StreamEpoch};
use crate::protocol::message::OperationId;
use crate::protocol::user::{Stamp, Stamped};

/// Changes of one slot, in order.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct SlotTail {
    /// The slot.
    pub slot: Slot,
    /// The term of the owner's epoch.
    pub term: u64,
    /// The receiver holds changes behind this index, and what was before them once it has followed.
    pub from: u64,
    /// The index of the change before the first of these.
    pub after: u64,
    /// The changes.
    pub changes: Vec<Arc<Change>>,
    /// Changes up to this index are committed.
    pub committed: u64,
}

/// How far a node holds the changes of a slot.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct TailAck {
    /// The slot.
    pub slot: Slot,
    /// The term of the owner's epoch.
    pub term: u64,
    /// As in the tail that is answered.
    pub from: u64,
    /// It holds all changes from there to this index.
    pub index: u64,
    /// Whether changes were missing before those that came.
    pub behind: bool,
}

/// A slot that a node is to hold a whole copy of.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct FollowedSlot {
    /// The slot.
    pub slot: Slot,
    /// The term of the owner's epoch.
    pub term: u64,
    /// The owner's number for the copy; a later one replaces it.
    pub number: u64,
    /// The fingerprint of what the owner holds.
    pub digest: u64,
    /// Whether all of it is committed.
    pub settled: bool,
}

/// One change of what is held of a slot. Only the owner makes changes, each with an index.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub enum Change {
    /// A publication in its place.
    Publish {
        /// The channel.
        channel: Channel,
        /// Its configuration.
        options: ChannelOptions,
        /// The position that it follows; `None` if the one before it in the same epoch.
        follows: Option<Position>,
        /// The publication with its identity.
        entry: EntryCopy,
        /// The idempotency key that it used.
        key: Option<Arc<str>>,
    },
    /// A stream is made, empty.
    Begin {
        /// The channel.
        channel: Channel,
        /// Its configuration.
        options: ChannelOptions,
        /// Its first epoch.
        epoch: StreamEpoch,
    },
    /// A stream is forgotten: it was empty for long.
    Forget {
        /// The channel.
        channel: Channel,
        /// Where it stood.
        position: Position,
    },
    /// A user's record is changed.
    User {
        /// The user's inbox.
        user: Channel,
        /// What a record of it is kept for, in milliseconds.
        ttl_ms: u64,
        /// The operation, unless it was noted before.
        operation: Option<OperationId>,
        /// The change.
        stamped: Stamped,
    },
    /// What was deleted of a user's record up to a stamp is forgotten.
    ForgetUser {
        /// The user's inbox.
        user: Channel,
        /// The last one.
        upto: Stamp,
    },
}
