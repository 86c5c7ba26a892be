//! One more node joins while clients publish, and another. Slots go to them; nobody notices.
use std::time::Duration;

use anyhow::ensure;
use tokio::time::sleep;

use super::smoke::nobody_noticed;
use crate::cluster::Cluster;

/// How long clients publish before each join, and after the last.
const TRAFFIC: Duration = Duration::from_secs(2);

pub(super) async fn play(cluster: &mut Cluster) -> anyhow::Result<()> {
    let first = cluster.setup.nodes;
    for node in first..first + 2 {
        sleep(TRAFFIC).await;
        cluster.start_node(node, true).await?;
        cluster.ready().await?;
        ensure!(!cluster.owned(node)?.is_empty(), "nothing moved: nothing was shown of it");
    }
    sleep(TRAFFIC).await;
    cluster.rest().await?;
    nobody_noticed(cluster)
}
