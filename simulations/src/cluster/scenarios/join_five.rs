//! As many nodes as there are join at once while clients publish. Half of the slots move; nobody
//! notices.
use std::time::Duration;

use anyhow::ensure;
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
    for node in first..first + 5 {
        ensure!(!cluster.owned(node)?.is_empty(), "nothing moved: nothing was shown of it");
    }
    sleep(TRAFFIC).await;
    cluster.rest().await?;
    nobody_noticed(cluster)
}
