//! One node after the other leaves and comes back, as an operator would bring in a new version: no
//! client is told of an error.
use std::time::Duration;

use anyhow::ensure;
use tokio::time::sleep;

use super::kill_owner::nobody_lost_track;
use crate::cluster::Cluster;

/// Between a process that has ended and the next of its name.
const PAUSE: Duration = Duration::from_millis(300);

pub(super) async fn play(cluster: &mut Cluster) -> anyhow::Result<()> {
    for node in cluster.running() {
        cluster.drain(node).await?;
        sleep(PAUSE).await;
        cluster.start_node(node, true).await?;
        cluster.ready().await?;
    }
    cluster.rest().await?;
    let refused = cluster.history.borrow().refused;
    ensure!(refused == 0, "{refused} publications were refused");
    nobody_lost_track(cluster)
}
