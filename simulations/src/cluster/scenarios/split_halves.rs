//! The cluster is split in two for a while, with clients on both sides. Where each side has as many
//! nodes as it keeps copies, both serve, and nothing is promised of positions in what both took: those
//! may be called lost, but nobody misses anything unsaid.
use rand::seq::SliceRandom as _;
use tokio::time::sleep;

use crate::cluster::conditions::Cut;
use crate::cluster::{Cluster, SETTLED};

pub(super) async fn play(cluster: &mut Cluster) -> anyhow::Result<()> {
    sleep(SETTLED).await;
    let mut nodes = cluster.running();
    nodes.shuffle(&mut cluster.random);
    cluster.cut(&nodes[..nodes.len() / 2], Cut::BothWays);
    cluster.hold_ms(1_500..=6_000).await;
    cluster.heal();
    cluster.rest().await
}
