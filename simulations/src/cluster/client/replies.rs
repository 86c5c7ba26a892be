//! What servers of the Centrifuge protocol say in JSON, as far as the virtual clients listen.
use std::collections::BTreeMap;

use orbweb::protocol::ids::StreamEpoch;
use serde::{Deserialize, Deserializer, Serialize};

/// A reply, a push, or (with neither) a ping.
#[derive(Deserialize)]
pub(super) struct Reply {
    #[serde(default)]
    pub(super) id: u32,
    pub(super) error: Option<Refused>,
    pub(super) connect: Option<Connected>,
    pub(super) subscribe: Option<Subscribed>,
    pub(super) presence: Option<Presence>,
    pub(super) rpc: Option<Rpc>,
    pub(super) push: Option<Push>,
}

#[derive(Default, Deserialize)]
pub(super) struct Connected {
    /// What the server subscribes to, by channel.
    #[serde(default)]
    pub(super) subs: BTreeMap<String, Subscribed>,
}

/// Who is there, by connection.
#[derive(Deserialize)]
pub(super) struct Presence {
    #[serde(default)]
    presence: BTreeMap<String, Present>,
}

impl Presence {
    /// The user of each connection, in order; nothing for nobody's.
    pub(super) fn users(self) -> Vec<String> {
        let mut users: Vec<String> = self.presence.into_values().map(|here| here.user).collect();
        users.sort_unstable();
        users
    }
}

/// What a method returned.
#[derive(Deserialize)]
pub(super) struct Rpc {
    pub(super) data: Attributes,
}

/// Attributes by key, if the method was to read them.
#[derive(Deserialize)]
pub(super) struct Attributes {
    #[serde(default)]
    pub(super) attributes: BTreeMap<String, u64>,
}

#[derive(Deserialize)]
struct Present {
    #[serde(default)]
    user: String,
}

#[derive(Deserialize)]
pub(super) struct Refused {
    pub(super) code: u32,
    #[serde(default)]
    pub(super) temporary: bool,
}

#[derive(Deserialize)]
pub(super) struct Subscribed {
    #[serde(default, deserialize_with = "epoch")]
    pub(super) epoch: Option<StreamEpoch>,
    #[serde(default)]
    pub(super) offset: u64,
    #[serde(default)]
    pub(super) was_recovering: bool,
    #[serde(default)]
    pub(super) recovered: bool,
    #[serde(default)]
    pub(super) publications: Vec<Publication>,
}

#[derive(Deserialize)]
pub(super) struct Push {
    pub(super) channel: String,
    #[serde(rename = "pub")]
    pub(super) publication: Option<Publication>,
    pub(super) subscribe: Option<Subscribed>,
    pub(super) unsubscribe: Option<Unsubscribed>,
}

#[derive(Deserialize)]
pub(super) struct Publication {
    pub(super) data: Payload,
    #[serde(default)]
    pub(super) offset: u64,
    #[serde(default, deserialize_with = "epoch")]
    pub(super) epoch: Option<StreamEpoch>,
}

/// What is published.
#[derive(Deserialize, Serialize)]
#[serde(untagged)]
pub(super) enum Payload {
    /// The publication's number in the run.
    Number(u64),
    /// The same with something that makes it large.
    Padded(u64, String),
}

impl Payload {
    pub(super) fn new(number: u64, padding: usize) -> Self {
        match padding {
            0 => Self::Number(number),
            padding => Self::Padded(number, "x".repeat(padding)),
        }
    }

    pub(super) fn number(&self) -> u64 {
        match self {
            Self::Number(number) | Self::Padded(number, _) => *number,
        }
    }
}

#[derive(Deserialize)]
pub(super) struct Unsubscribed {
    pub(super) code: u32,
}

fn epoch<'de, D: Deserializer<'de>>(from: D) -> Result<Option<StreamEpoch>, D::Error> {
    let text = String::deserialize(from)?;
    text.parse().map(Some).map_err(serde::de::Error::custom)
}
