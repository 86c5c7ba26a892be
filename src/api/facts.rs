//! What the API needs to know of the node that it runs in. The composition root implements it.
use std::sync::Arc;

use async_trait::async_trait;
use prometheus_client::registry::Registry;

use super::report::{Located, NodeReport};

/// Facts of a node and its cluster, fresh at each call.
#[async_trait]
pub trait NodeFacts: Send + Sync + 'static {
    /// Whether clients should be sent here; else the reasons why not, each a short phrase.
    async fn ready(&self) -> Result<(), Vec<String>>;

    /// What this node says of itself.
    fn report(&self) -> NodeReport;

    /// This node first, then every other node that gossip knows. Peers are asked, within about a
    /// second; one that doesn't answer is reported as silent.
    async fn cluster(&self) -> Vec<NodeReport>;

    /// Where a key lives: a user id, or a channel's name.
    async fn locate(&self, key: &str) -> Located;

    /// The metrics, with those that are copied from elsewhere brought up to date.
    fn metrics(&self) -> Arc<Registry>;
}
