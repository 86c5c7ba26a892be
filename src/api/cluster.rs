//! The methods of the server API that concern nodes: `info` in `cent`'s words, and our own `status`
//! and `owner`, which the command line asks.
use serde::{Deserialize, Serialize};

use super::Api;
use super::error::ApiError;
use super::report::{Located, NodeReport};
use super::words;
use crate::protocol::channel::Channel;

/// Result of `status`.
#[derive(Serialize, Deserialize, Debug)]
pub struct ClusterStatus {
    /// The node that answered first, then all others that it knows.
    pub nodes: Vec<NodeReport>,
}

/// Result of `info`.
#[derive(Serialize)]
pub(super) struct InfoResult {
    nodes: Vec<NodeInfo>,
}

/// A node in `cent`'s words.
#[derive(Serialize)]
struct NodeInfo {
    uid: String,
    name: String,
    version: String,
    num_clients: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    num_users: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    num_subs: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    num_channels: Option<u64>,
    uptime: u64,
}

impl From<NodeReport> for NodeInfo {
    fn from(node: NodeReport) -> Self {
        Self {
            uid: node.incarnation.to_string(),
            name: node.name.to_string(),
            version: node.version,
            num_clients: node.connections,
            num_users: node.users,
            num_subs: node.subscriptions,
            num_channels: node.channels,
            uptime: node.uptime_s,
        }
    }
}

impl Api {
    pub(super) async fn info(&self, _: words::Nothing) -> Result<InfoResult, ApiError> {
        let nodes = self.facts.cluster().await;
        Ok(InfoResult { nodes: nodes.into_iter().map(NodeInfo::from).collect() })
    }

    pub(super) async fn status(&self, _: words::Nothing) -> Result<ClusterStatus, ApiError> {
        Ok(ClusterStatus { nodes: self.facts.cluster().await })
    }

    /// Where a user or a channel lives; `#user` means the user.
    pub(super) async fn owner(&self, call: words::Owner) -> Result<Located, ApiError> {
        let channel = Channel::parse(&call.key)
            .map_err(|_| ApiError::BadRequest("`key` must have 1 to 255 bytes".to_owned()))?;
        Ok(self.facts.locate(channel.key()).await)
    }
}
