//! What nodes are asked over HTTP, as an operator would.
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context as _;
use orbweb::api::{ClusterStatus, NodeReport};
use serde::Deserialize;
use tokio::task::spawn_blocking;
use ureq::Agent;

use super::hosts::client_address;
use super::setup::API_KEY;

/// How long a node may take to answer; it asks all others meanwhile.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(3);

/// See the module.
#[derive(Clone)]
pub(super) struct Questions(Agent);

#[derive(Deserialize)]
struct Reply {
    result: ClusterStatus,
}

impl Questions {
    pub(super) fn new() -> Self {
        let config = Agent::config_builder()
            .timeout_global(Some(ANSWER_TIMEOUT))
            // What was kept open to a node that was killed since answers nothing.
            .max_idle_connections(0)
            .build();
        Self(config.new_agent())
    }

    /// Whether clients may be sent to a node.
    pub(super) async fn ready(&self, node: usize) -> anyhow::Result<()> {
        let (agent, url) = (self.0.clone(), url(client_address(node), "/readyz"));
        spawn_blocking(move || agent.get(url).call().map(drop)).await?.context("not ready")
    }

    /// What a node says of itself and of all others that it knows.
    pub(super) async fn status(&self, node: usize) -> anyhow::Result<Vec<NodeReport>> {
        let (agent, url) = (self.0.clone(), url(client_address(node), "/api/status"));
        let ask = move || -> anyhow::Result<Reply> {
            let mut response = agent.get(url).header("X-API-Key", API_KEY).call()?;
            Ok(response.body_mut().read_json()?)
        };
        Ok(spawn_blocking(ask).await??.result.nodes)
    }
}

fn url(address: SocketAddr, path: &str) -> String {
    format!("http://{address}{path}")
}
