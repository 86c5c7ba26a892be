//! Requests and results of the server API in JSON, in the shapes that PyPI `cent` sends and expects.
//! Fields that aren't known are refused, not ignored.
use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::protocol::ids::Position;
use crate::protocol::message;

/// `publish`.
#[derive(Deserialize, Debug)]
#[serde(deny_unknown_fields)]
pub(super) struct Publish {
    pub(super) channel: String,
    pub(super) data: Option<Box<RawValue>>,
    pub(super) b64data: Option<String>,
    #[serde(default)]
    pub(super) tags: BTreeMap<String, String>,
    #[serde(default)]
    pub(super) skip_history: bool,
    pub(super) idempotency_key: Option<String>,
}

/// `broadcast`.
#[derive(Deserialize, Debug)]
#[serde(deny_unknown_fields)]
pub(super) struct Broadcast {
    pub(super) channels: Vec<String>,
    pub(super) data: Option<Box<RawValue>>,
    pub(super) b64data: Option<String>,
    #[serde(default)]
    pub(super) tags: BTreeMap<String, String>,
    #[serde(default)]
    pub(super) skip_history: bool,
    pub(super) idempotency_key: Option<String>,
}

/// `presence` and `presence_stats`.
#[derive(Deserialize, Debug)]
#[serde(deny_unknown_fields)]
pub(super) struct OfChannel {
    pub(super) channel: String,
}

/// `history`.
#[derive(Deserialize, Debug)]
#[serde(deny_unknown_fields)]
pub(super) struct History {
    pub(super) channel: String,
    #[serde(default)]
    pub(super) limit: i64,
    pub(super) since: Option<Since>,
    #[serde(default)]
    pub(super) reverse: bool,
}

/// A position as callers write it; without an epoch it is one of the current epoch.
#[derive(Deserialize, Debug)]
#[serde(deny_unknown_fields)]
pub(super) struct Since {
    #[serde(default)]
    pub(super) offset: u64,
    #[serde(default)]
    pub(super) epoch: String,
}

/// `subscribe` and `unsubscribe`.
#[derive(Deserialize, Debug)]
#[serde(deny_unknown_fields)]
pub(super) struct OfUserAndChannel {
    pub(super) user: String,
    pub(super) channel: String,
}

/// `session_set`.
#[derive(Deserialize, Debug)]
#[serde(deny_unknown_fields)]
pub(super) struct SessionSet {
    pub(super) user: String,
    pub(super) key: String,
    pub(super) value: Box<RawValue>,
}

/// `session_get`.
#[derive(Deserialize, Debug)]
#[serde(deny_unknown_fields)]
pub(super) struct SessionGet {
    pub(super) user: String,
    pub(super) key: Option<String>,
}

/// `session_delete`.
#[derive(Deserialize, Debug)]
#[serde(deny_unknown_fields)]
pub(super) struct SessionDelete {
    pub(super) user: String,
    pub(super) key: String,
}

/// `user_status`.
#[derive(Deserialize, Debug)]
#[serde(deny_unknown_fields)]
pub(super) struct OfUser {
    pub(super) user: String,
}

/// `info` and `status`.
#[derive(Deserialize, Debug)]
#[serde(deny_unknown_fields)]
pub(super) struct Nothing {}

/// `owner`.
#[derive(Deserialize, Debug)]
#[serde(deny_unknown_fields)]
pub(super) struct Owner {
    pub(super) key: String,
}

/// `batch`. Each command is an object of one field, the method's name.
#[derive(Deserialize, Debug)]
#[serde(deny_unknown_fields)]
pub(super) struct Batch {
    pub(super) commands: Vec<BTreeMap<String, Box<RawValue>>>,
    #[serde(default)]
    pub(super) parallel: bool,
}

/// A reply that consists of a result.
#[derive(Serialize)]
pub(super) struct ResultReply<T> {
    pub(super) result: T,
}

/// Where a publication is in its stream, and how safe it is there; empty for ephemeral channels.
#[derive(Serialize, Default)]
pub(super) struct Place {
    #[serde(skip_serializing_if = "Option::is_none")]
    offset: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    epoch: Option<String>,
    /// Nodes that hold it.
    #[serde(skip_serializing_if = "Option::is_none")]
    copies: Option<u8>,
}

impl Place {
    /// The place of a publication that so many nodes hold; 0 = it isn't kept.
    pub(super) fn new(position: Option<Position>, copies: u8) -> Self {
        Self {
            offset: position.map(|at| at.offset),
            epoch: position.map(|at| at.epoch.to_string()),
            copies: (copies > 0).then_some(copies),
        }
    }
}

/// Result of `history`.
#[derive(Serialize)]
pub(super) struct HistoryResult {
    pub(super) publications: Vec<Publication>,
    pub(super) offset: u64,
    pub(super) epoch: String,
}

/// One publication of a history.
#[derive(Serialize)]
pub(super) struct Publication {
    data: Box<RawValue>,
    offset: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    info: Option<ClientInfo>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    tags: BTreeMap<String, String>,
}

impl From<message::Publication> for Publication {
    fn from(publication: message::Publication) -> Self {
        let message = &publication.message;
        Self {
            data: json(&message.data).unwrap_or_else(|| RawValue::NULL.to_owned()),
            offset: publication.offset,
            info: message.info.clone().map(ClientInfo::from),
            tags: message.tags.clone(),
        }
    }
}

/// Who published, or who is there.
#[derive(Serialize)]
pub(super) struct ClientInfo {
    client: String,
    user: Arc<str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    conn_info: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    chan_info: Option<Box<RawValue>>,
}

impl From<message::ClientInfo> for ClientInfo {
    fn from(info: message::ClientInfo) -> Self {
        Self {
            client: info.client.to_string(),
            user: info.user,
            conn_info: json(&info.conn_info),
            chan_info: json(&info.chan_info),
        }
    }
}

/// Result of `presence`.
#[derive(Serialize)]
pub(super) struct PresenceResult {
    presence: BTreeMap<String, ClientInfo>,
}

impl From<Vec<message::ClientInfo>> for PresenceResult {
    fn from(clients: Vec<message::ClientInfo>) -> Self {
        let named = clients.into_iter().map(|info| (info.client.to_string(), info.into()));
        Self { presence: named.collect() }
    }
}

/// Result of `presence_stats`.
#[derive(Serialize)]
pub(super) struct StatsResult {
    pub(super) num_clients: u64,
    pub(super) num_users: u64,
}

/// How many nodes hold a change of a user's record.
#[derive(Serialize)]
pub(super) struct Held {
    pub(super) copies: u8,
}

/// Result of `session_get`.
#[derive(Serialize)]
pub(super) struct AttributesResult {
    attributes: BTreeMap<String, Box<RawValue>>,
}

impl From<Vec<(Arc<str>, bytes::Bytes)>> for AttributesResult {
    fn from(attributes: Vec<(Arc<str>, bytes::Bytes)>) -> Self {
        let pairs = attributes.into_iter();
        let pairs = pairs.filter_map(|(key, value)| Some((key.to_string(), json(&value)?)));
        Self { attributes: pairs.collect() }
    }
}

/// Bytes that are JSON text; `None` for no bytes and for others.
fn json(bytes: &[u8]) -> Option<Box<RawValue>> {
    serde_json::from_slice(bytes).ok()
}
