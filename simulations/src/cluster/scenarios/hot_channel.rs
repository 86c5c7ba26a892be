//! All clients are in one channel and publish to it twice as often as elsewhere, while as many nodes as
//! there are join at once: its owner changes in half of the runs. Nobody notices.
use std::time::Duration;

use tokio::time::sleep;

use super::smoke::nobody_noticed;
use crate::cluster::Cluster;

/// How long clients publish before the join, and after it.
const TRAFFIC: Duration = Duration::from_secs(2);

pub(super) async fn play(cluster: &mut Cluster) -> anyhow::Result<()> {
    sleep(TRAFFIC).await;
    let first = cluster.setup.nodes;
    for node in first..first + 5 {
        cluster.start_node(node, true).await?;
    }
    cluster.ready().await?;
    sleep(TRAFFIC).await;
    cluster.rest().await?;
    nobody_noticed(cluster)
}
