//! What two nodes say to each other takes long, but arrives. Another node joins and leaves meanwhile, so
//! that the two claim slots, of each other too. Nobody is taken for dead, and all is acknowledged.
use std::time::Duration;

use rand::Rng;
use tokio::time::sleep;

use super::smoke::nobody_noticed;
use crate::cluster::Cluster;

/// How long the link is slow before and after each move.
const STEADY: Duration = Duration::from_secs(3);
/// How much longer each way takes, in milliseconds.
const MORE_MS: (u64, u64) = (30, 400);

pub(super) async fn play(cluster: &mut Cluster) -> anyhow::Result<()> {
    let (one, other) = cluster.two();
    let (least, most) = MORE_MS;
    let more = cluster.random.random_range(least..=most);
    cluster.slow_link(one, other, more);
    sleep(STEADY).await;
    let guest = cluster.setup.nodes;
    cluster.start_node(guest, true).await?;
    cluster.ready().await?;
    sleep(STEADY).await;
    cluster.drain(guest).await?;
    sleep(STEADY).await;
    cluster.heal();
    cluster.rest().await?;
    nobody_noticed(cluster)
}
