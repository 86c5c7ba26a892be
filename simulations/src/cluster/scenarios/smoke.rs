//! Nothing bad happens: everything is acknowledged, and nobody is ever told of a gap.
use std::time::Duration;

use anyhow::ensure;
use tokio::time::sleep;

use crate::cluster::Cluster;

/// How long clients publish.
const TRAFFIC: Duration = Duration::from_secs(10);

pub(super) async fn play(cluster: &mut Cluster) -> anyhow::Result<()> {
    sleep(TRAFFIC).await;
    cluster.rest().await?;
    nobody_noticed(cluster)
}

/// Everything was acknowledged, nobody lost a connection or was told of a gap.
pub(super) fn nobody_noticed(cluster: &Cluster) -> anyhow::Result<()> {
    let history = cluster.history.borrow();
    let (sent, acknowledged) = (history.sent.len(), history.acknowledged());
    ensure!(sent == acknowledged, "I1: {acknowledged} of {sent} publications are acknowledged");
    let clients = cluster.setup.clients as u64;
    let connections = history.connections;
    ensure!(connections == clients, "I1: {clients} clients connected {connections} times");
    ensure!(history.gaps() == 0, "I1: {} gaps were announced", history.gaps());
    Ok(())
}
