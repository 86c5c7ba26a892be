//! Again and again the owner of a channel loses its power, and comes back when the others have
//! repaired what it held.
use std::time::Duration;

use anyhow::ensure;
use rand::Rng;
use tokio::time::sleep;

use crate::cluster::Cluster;

const ROUNDS: usize = 3;

pub(super) async fn play(cluster: &mut Cluster) -> anyhow::Result<()> {
    for _ in 0..ROUNDS {
        let busy = cluster.random.random_range(1_000..=2_000);
        sleep(Duration::from_millis(busy)).await;
        let owner = cluster.some_owner().await?;
        cluster.kill(owner)?;
        cluster.agree().await?;
        cluster.start_node(owner, true).await?;
        cluster.ready().await?;
    }
    cluster.rest().await?;
    nobody_lost_track(cluster)
}

/// Clients came back with their positions, and each of these was known.
pub(super) fn nobody_lost_track(cluster: &Cluster) -> anyhow::Result<()> {
    let history = cluster.history.borrow();
    ensure!(history.gaps() == 0, "I1: {} gaps were announced", history.gaps());
    ensure!(history.resumed > 0, "no position was resumed: nothing was shown of it");
    Ok(())
}
