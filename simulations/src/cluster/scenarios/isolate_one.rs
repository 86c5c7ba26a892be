//! One node is cut off from all others for a while, both ways or one way, with its clients. Nobody
//! misses anything, on either side.
use anyhow::ensure;
use rand::Rng;
use tokio::time::sleep;

use crate::cluster::conditions::Cut;
use crate::cluster::{Cluster, SETTLED};

pub(super) async fn play(cluster: &mut Cluster) -> anyhow::Result<()> {
    sleep(SETTLED).await;
    let one = cluster.random.random_range(0..cluster.setup.nodes);
    let cut = [Cut::BothWays, Cut::Deaf, Cut::Mute][cluster.random.random_range(0..3)];
    cluster.cut(&[one], cut);
    cluster.hold_ms(500..=6_000).await;
    cluster.heal();
    cluster.rest().await?;
    let gaps = cluster.history.borrow().gaps();
    ensure!(gaps == 0, "I1: {gaps} gaps were announced");
    Ok(())
}
