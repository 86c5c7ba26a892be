//! The cluster is split in three for a while: two nodes, two, and one. What is promised is what is
//! promised of two halves.
use rand::seq::SliceRandom as _;
use tokio::time::sleep;

use crate::cluster::conditions::Cut;
use crate::cluster::{Cluster, SETTLED};

/// Nodes of each part but the last.
const PART: usize = 2;

pub(super) async fn play(cluster: &mut Cluster) -> anyhow::Result<()> {
    sleep(SETTLED).await;
    let mut nodes = cluster.running();
    nodes.shuffle(&mut cluster.random);
    for part in nodes.chunks(PART).take(2) {
        cluster.cut(part, Cut::BothWays);
    }
    cluster.hold_ms(1_500..=6_000).await;
    cluster.heal();
    cluster.rest().await
}
