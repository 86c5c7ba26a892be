//! Again and again a node leaves and loses its power before it has left, at any moment of that. It is
//! back when the others have repaired what it held.
use std::time::Duration;

use anyhow::ensure;
use rand::Rng;
use tokio::time::sleep;

use super::kill_owner::nobody_lost_track;
use crate::cluster::Cluster;

const ROUNDS: usize = 3;
/// How long leaving takes at least: connections are closed at the end of it.
const AMID_MS: u64 = 300;

pub(super) async fn play(cluster: &mut Cluster) -> anyhow::Result<()> {
    let mut amid = 0;
    for _ in 0..ROUNDS {
        let busy = cluster.random.random_range(1_000..=2_000);
        sleep(Duration::from_millis(busy)).await;
        let node = cluster.random.random_range(0..cluster.setup.nodes);
        let leaving = cluster.begin_drain(node)?;
        let wait = cluster.random.random_range(0..=AMID_MS);
        sleep(Duration::from_millis(wait)).await;
        amid += usize::from(cluster.kill_leaving(&leaving));
        cluster.agree().await?;
        cluster.start_node(node, true).await?;
        cluster.ready().await?;
    }
    cluster.rest().await?;
    ensure!(amid > 0, "nobody was killed while it left: nothing was shown of it");
    nobody_lost_track(cluster)
}
