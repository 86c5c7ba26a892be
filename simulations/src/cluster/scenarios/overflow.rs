//! The cluster is split in two, both sides serve, and each takes more than a channel keeps: when they meet,
//! what is gone can't be shown to those who weren't there. They are told so, all of them.
use anyhow::ensure;
use rand::seq::SliceRandom as _;
use tokio::time::sleep;

use crate::cluster::conditions::Cut;
use crate::cluster::{Cluster, SETTLED};

pub(super) async fn play(cluster: &mut Cluster) -> anyhow::Result<()> {
    sleep(SETTLED).await;
    let mut nodes = cluster.running();
    nodes.shuffle(&mut cluster.random);
    cluster.cut(&nodes[..nodes.len() / 2], Cut::BothWays);
    cluster.hold_ms(4_000..=8_000).await;
    let before = cluster.history.borrow().gaps();
    cluster.heal();
    cluster.rest().await?;
    let gaps = cluster.history.borrow().gaps() - before;
    ensure!(gaps > 0, "nothing was gone when the two met");
    Ok(())
}
