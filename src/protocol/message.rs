//! Publications and the people behind them, as they travel between nodes and to clients.
use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::ids::{ClientId, Incarnation, Position, StreamEpoch};

/// Bytes of a publication's payload: what a message of a client has room for.
pub const DATA_BYTES_MAX: usize = 64 * 1024;

/// Bytes of all tags of a publication together.
pub const TAG_BYTES_MAX: usize = 4096;
/// Bytes that a publication takes in a frame beside its content at most: names, times, lengths.
pub const PUBLICATION_BYTES: usize = 160;

/// Who is behind a publication or a presence entry.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ClientInfo {
    /// The user id; empty for anonymous.
    pub user: Arc<str>,
    /// The connection.
    pub client: ClientId,
    /// JSON given by the connect token's `info`; empty = none.
    pub conn_info: Bytes,
    /// JSON given for the channel; empty = none.
    pub chan_info: Bytes,
}

impl ClientInfo {
    /// Bytes that it takes in a frame, at most.
    pub fn bytes(&self) -> usize {
        self.user.len() + self.conn_info.len() + self.chan_info.len() + 48
    }
}

/// The identity of an operation for ever: which gateway sent it, and its number among those that
/// the gateway sent to the slot.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct OperationId {
    /// The sender's incarnation.
    pub gateway: Incarnation,
    /// Counts from 1 in each slot.
    pub number: u64,
}

/// What was published, without its place in a stream.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, Default)]
pub struct Message {
    /// The payload: JSON text from JSON clients, carried as it came.
    pub data: Bytes,
    /// The publishing client, absent for the server API.
    pub info: Option<ClientInfo>,
    /// Tags given by the server API.
    pub tags: BTreeMap<String, String>,
    /// Wall-clock milliseconds at the gateway that took it; for display only.
    pub time_ms: u64,
}

impl Message {
    /// Bytes of its content.
    pub fn bytes(&self) -> usize {
        let tags = self.tags.iter().map(|(name, value)| name.len() + value.len() + 10);
        self.data.len() + self.info.as_ref().map_or(0, ClientInfo::bytes) + tags.sum::<usize>()
    }
}

/// One publication of a stream with its name there.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Publication {
    /// The epoch that named it.
    pub epoch: StreamEpoch,
    /// Its offset, from 1, counting on across epochs.
    pub offset: u64,
    /// What was published; shared, never copied on the way to clients.
    pub message: Arc<Message>,
}

impl Publication {
    /// Bytes that it takes in a frame, at most.
    pub fn bytes(&self) -> usize {
        self.message.bytes() + PUBLICATION_BYTES
    }

    /// Its name in the stream.
    pub fn position(&self) -> Position {
        Position { epoch: self.epoch, offset: self.offset }
    }
}

/// What a subscribing client has seen.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Recover {
    /// It starts now.
    No,
    /// Everything up to here.
    From(Position),
    /// It names a position that no node of this cluster gave: it isn't recovered.
    Unknown,
}

/// Which part of a stream to read.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct History {
    /// Most publications to return; 0 = only the position.
    pub limit: u32,
    /// Start behind this position (before it if reversed).
    pub since: Option<Position>,
    /// Newest first.
    pub reverse: bool,
}
