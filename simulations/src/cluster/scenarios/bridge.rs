//! Two halves can't reach each other, but one node reaches both. Everybody keeps half of the links that
//! there are, so all stay, and what the halves have to tell each other goes over the bridge; nobody
//! notices.
use rand::seq::SliceRandom as _;
use tokio::time::sleep;

use super::smoke::nobody_noticed;
use crate::cluster::{Cluster, SETTLED};

pub(super) async fn play(cluster: &mut Cluster) -> anyhow::Result<()> {
    sleep(SETTLED).await;
    let mut nodes = cluster.running();
    nodes.shuffle(&mut cluster.random);
    let half = nodes.len() / 2;
    // The last is the bridge.
    for one in &nodes[..half] {
        for other in &nodes[half..2 * half] {
            cluster.cut_link(*one, *other);
        }
    }
    cluster.hold_ms(1_500..=6_000).await;
    cluster.heal();
    cluster.rest().await?;
    nobody_noticed(cluster)
}
