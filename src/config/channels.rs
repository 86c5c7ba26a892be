//! Options of channels: of those without a namespace, of each namespace, and of inboxes.
use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::protocol::channel::{Channel, ChannelOptions};

/// What clients may do in a group of channels, and what the cluster keeps for it. The defaults
/// allow nothing and keep nothing.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Namespace {
    /// Publications kept a channel; 0 (default) = ephemeral, at most once.
    pub history_size: u32,
    /// How long they are kept; needs `history_size`.
    #[serde(with = "humantime_serde")]
    pub history_ttl: Duration,
    /// Whether clients can continue from a position; needs history.
    pub recovery: bool,
    /// Whether the owner keeps who is subscribed.
    pub presence: bool,
    /// Whether subscribers are told of others joining and leaving.
    pub join_leave: bool,
    /// Whether clients may subscribe.
    pub allow_subscribe: bool,
    /// Whether clients may publish; they must be subscribed to it.
    pub allow_publish: bool,
    /// Whether subscribed clients may ask who is there; needs `presence`.
    pub allow_presence: bool,
    /// Whether subscribed clients may read history; needs history.
    pub allow_history: bool,
}

impl Namespace {
    /// The part that owners need.
    pub fn options(&self) -> ChannelOptions {
        ChannelOptions {
            history_size: self.history_size,
            history_ttl_ms: u64::try_from(self.history_ttl.as_millis()).unwrap_or(u64::MAX),
            presence: self.presence,
            join_leave: self.join_leave,
        }
    }
}

/// All channel options of a node.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Channels {
    /// Channels without a namespace.
    pub plain: Namespace,
    /// `namespace:name`.
    pub namespaces: BTreeMap<String, Namespace>,
    /// `#user`.
    pub inbox: Namespace,
    /// `@user`: keeps nothing, and only owners publish there.
    pub status: Namespace,
    /// Turns every `allow_*` on: for development only.
    pub dev: bool,
}

impl Default for Channels {
    fn default() -> Self {
        Self {
            plain: Namespace::default(),
            namespaces: BTreeMap::new(),
            inbox: Namespace {
                history_size: 100,
                history_ttl: Duration::from_secs(120),
                recovery: true,
                ..Namespace::default()
            },
            status: Namespace::default(),
            dev: false,
        }
    }
}

impl Channels {
    /// The namespace that development mode brings along, for the demo page.
    pub fn dev_chat() -> Namespace {
        Namespace {
            history_size: 100,
            history_ttl: Duration::from_secs(300),
            recovery: true,
            presence: true,
            join_leave: true,
            ..Namespace::default()
        }
    }

    /// The options that hold for a channel; `None` if it names an unknown namespace.
    pub fn of(&self, channel: &Channel) -> Option<&Namespace> {
        match channel.namespace() {
            _ if channel.inbox_user().is_some() => Some(&self.inbox),
            _ if channel.status_user().is_some() => Some(&self.status),
            None => Some(&self.plain),
            Some(name) => self.namespaces.get(name),
        }
    }
}
