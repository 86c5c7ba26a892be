//! What a node says of itself: the rows of `orbweb status`. Travels between nodes and as JSON.
use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::ownership::serving::Serving;
use crate::protocol::ids::{Incarnation, NodeId, NodeName, Slot};

/// One node of the cluster.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct NodeReport {
    /// The operator's name.
    pub name: NodeName,
    /// Which start of it, as 32 hexadecimal digits.
    #[serde(with = "hex")]
    pub incarnation: Incarnation,
    /// Where it is in its life.
    pub state: NodeState,
    /// Whether and how it acknowledges.
    pub serving: ServingState,
    /// Its HTTP side, as it tells others.
    pub client_url: String,
    /// Its address for peers; `None` for a node alone.
    pub link_address: Option<String>,
    /// Slots owned.
    pub slots_owned: u32,
    /// Slots that it is to own and does not yet.
    pub slots_claiming: u32,
    /// Owned slots of which fewer nodes hold everything than the cluster keeps copies.
    #[serde(default)]
    pub slots_under_replicated: u32,
    /// Those of them that more nodes could hold now: the rest waits for more nodes.
    #[serde(default)]
    pub slots_unrepaired: u32,
    /// Slots of others of which this node holds what their owners haven't said to have: they may lack
    /// it.
    #[serde(default)]
    pub slots_astray: u32,
    /// Changes of owned slots that too few nodes hold to be acknowledged.
    #[serde(default)]
    pub changes_uncommitted: u64,
    /// Peers with a working link.
    pub links: u32,
    /// How many of the links speak each version of peer frames: more than one while a cluster is
    /// brought to another version.
    #[serde(default)]
    pub link_versions: BTreeMap<u16, u32>,
    /// Client connections.
    pub connections: u64,
    /// Different users among them, where counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub users: Option<u64>,
    /// Subscriptions of them, where counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subscriptions: Option<u64>,
    /// Channels with subscribers there, where counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub channels: Option<u64>,
    /// Seconds since its start.
    pub uptime_s: u64,
    /// Version of the software.
    pub version: String,
    /// Hash of its view as 16 hexadecimal digits: nodes with equal views have equal hashes.
    pub view_hash: String,
}

/// Where a node is in its life.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NodeState {
    /// Catching up; owns nothing yet.
    Joining,
    /// In the ring.
    Up,
    /// Handing over.
    Leaving,
    /// Known by gossip, but it didn't answer when asked for this: its numbers are 0.
    Silent,
}

/// [`Serving`] as a word.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ServingState {
    /// With all copies.
    Full,
    /// Alone, with fewer copies.
    Standalone,
    /// With fewer copies.
    Degraded,
    /// Not.
    No,
}

impl From<Serving> for ServingState {
    fn from(serving: Serving) -> Self {
        match serving {
            Serving::Full => Self::Full,
            Serving::Standalone => Self::Standalone,
            Serving::Degraded => Self::Degraded,
            Serving::No => Self::No,
        }
    }
}

impl fmt::Display for NodeState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Joining => "joining",
            Self::Up => "up",
            Self::Leaving => "leaving",
            Self::Silent => "silent",
        })
    }
}

impl fmt::Display for ServingState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Full => "full",
            Self::Standalone => "standalone",
            Self::Degraded => "degraded",
            Self::No => "no",
        })
    }
}

/// Where a key lives.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Located {
    /// The slot of the key.
    pub slot: Slot,
    /// Who owns it by this node's view; `None` if the view is empty.
    pub owner: Option<NodeRef>,
    /// Who comes next on the ring.
    pub successors: Vec<NodeRef>,
}

/// A [`NodeId`] as JSON.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct NodeRef {
    /// The operator's name.
    pub name: NodeName,
    /// Which start of it, as 32 hexadecimal digits.
    #[serde(with = "hex")]
    pub incarnation: Incarnation,
}

impl From<NodeId> for NodeRef {
    fn from(node: NodeId) -> Self {
        Self { name: node.name, incarnation: node.incarnation }
    }
}

impl fmt::Display for NodeRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{:?}", self.name, self.incarnation)
    }
}

/// Incarnations as text: JSON has no 128-bit numbers.
mod hex {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    use crate::protocol::ids::Incarnation;

    pub(super) fn serialize<S: Serializer>(id: &Incarnation, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(id)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Incarnation, D::Error> {
        String::deserialize(from)?.parse().map_err(D::Error::custom)
    }
}
