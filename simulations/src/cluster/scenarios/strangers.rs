//! Another cluster starts, with another secret and nodes of the same names, and each cluster's nodes are
//! told to join those of the other, too. Nodes of both are killed and come back. The two never mix, and
//! nobody misses anything.
use std::time::Duration;

use anyhow::ensure;
use rand::Rng;
use tokio::time::sleep;

use super::kill_owner::nobody_lost_track;
use crate::cluster::Cluster;

const ROUNDS: usize = 2;

pub(super) async fn play(cluster: &mut Cluster) -> anyhow::Result<()> {
    for machine in cluster.setup.strangers() {
        cluster.start_stranger(machine).await?;
    }
    cluster.keep_apart().await?;
    for _ in 0..ROUNDS {
        let busy = cluster.random.random_range(1_000..=2_000);
        sleep(Duration::from_millis(busy)).await;
        let owner = cluster.some_owner().await?;
        let stranger = cluster.random.random_range(cluster.setup.strangers());
        cluster.kill(owner)?;
        cluster.kill_stranger(stranger)?;
        cluster.agree().await?;
        cluster.start_stranger(stranger).await?;
        cluster.start_node(owner, true).await?;
        cluster.ready().await?;
        cluster.keep_apart().await?;
    }
    cluster.rest().await?;
    cluster.keep_apart().await?;
    ensure!(cluster.have_met(), "the clusters never met: nothing was shown of it");
    nobody_lost_track(cluster)
}
