//! Copies of what a node holds of a slot, for a node that lacks it. Times in them are what is left
//! or has passed: clocks are not compared.
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::protocol::channel::{Channel, ChannelOptions};
use crate::protocol::ids::{Incarnation, Position, Slot, StreamEpoch};
use crate::protocol::message::{OperationId, Publication};
use crate::protocol::user::Stamped;

/// A copy of (a part of) what a node holds of a slot.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct SlotCopy {
    /// The slot.
    pub slot: Slot,
    /// The highest operation number applied of each gateway.
    pub applied: Vec<(Incarnation, u64)>,
    /// Its streams.
    pub streams: Vec<StreamCopy>,
    /// Publications without a place on their channel's line: their turn comes, or theirs parted.
    pub loose: Vec<(Channel, LooseCopy)>,
    /// What idempotency keys stand for.
    pub keys: Vec<KeyCopy>,
    /// Records of users.
    pub users: Vec<UserCopy>,
}

/// A copy of (a part of) a user's record.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct UserCopy {
    /// The user's inbox.
    pub user: Channel,
    /// What it is kept for, in milliseconds.
    pub ttl_ms: u64,
    /// Its fields.
    pub fields: Vec<FieldCopy>,
}

/// The last change of a field of a record.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct FieldCopy {
    /// The change.
    pub stamped: Stamped,
    /// Whether it is committed.
    pub committed: bool,
    /// Milliseconds since it was made.
    pub age_ms: u64,
}

/// A publication beside its channel's line.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct LooseCopy {
    /// The channel's configuration when it was published.
    pub options: ChannelOptions,
    /// The position that it follows on its own line.
    pub follows: Position,
    /// The publication.
    pub entry: EntryCopy,
}

/// An idempotency key that was used.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct KeyCopy {
    /// In which channel.
    pub channel: Channel,
    /// The key.
    pub key: Arc<str>,
    /// The operation that used it first.
    pub operation: OperationId,
    /// Milliseconds until it is forgotten.
    pub ttl_ms: u64,
}

/// A copy of (the end of) a stream.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct StreamCopy {
    /// The channel.
    pub channel: Channel,
    /// Its configuration as of the last publication.
    pub options: ChannelOptions,
    /// Its epochs, oldest first.
    pub lineage: Vec<Turn>,
    /// The offset of its last publication.
    pub top: u64,
    /// Publications up to here are gone.
    pub low: u64,
    /// Publications up to here are committed.
    pub committed: u64,
    /// Milliseconds since something was published or the stream was followed.
    pub idle_ms: u64,
    /// `entries` starts behind this offset.
    pub after: u64,
    /// The publications behind `after`, in order.
    pub entries: Vec<EntryCopy>,
    /// The next part begins with more of them: a stream may be longer than a part.
    pub goes_on: bool,
    /// Lines that parted from this one.
    pub sides: SidesCopy,
    /// No position before this offset resumes: other lines had more, and have dropped it, and which
    /// they were is forgotten.
    pub gap: u64,
}

/// Lines that parted from a stream's own.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct SidesCopy {
    /// Their epochs.
    pub epochs: Vec<(StreamEpoch, Side)>,
    /// What their names stand for.
    pub names: Vec<(Position, OperationId)>,
    /// Up to where each has dropped what isn't known here, with the offset of the stream before which
    /// nobody resumes who hasn't been there.
    pub gone: Vec<(Position, u64)>,
    /// Up to which of its offsets each epoch is on the stream, or announced as gone.
    pub taken: Vec<(StreamEpoch, u64)>,
}

/// Where an epoch of a side begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Side {
    /// Its first offset.
    pub first: u64,
    /// What its first publication follows; nothing if the channel began with it.
    pub follows: Option<Position>,
}

/// An epoch of a stream and the first offset that it names.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Turn {
    /// The epoch.
    pub epoch: StreamEpoch,
    /// Its first offset.
    pub first: u64,
}

/// A publication with its identity and what is left of its time.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct EntryCopy {
    /// The publication under its name.
    pub publication: Publication,
    /// Its identity.
    pub operation: OperationId,
    /// Milliseconds until it expires.
    pub ttl_ms: u64,
}
