//! A node's sockets to the others stand still for a while, and then it reads at once what has waited
//! for it, and what it has sent meanwhile goes out: late, but not lost. Nobody misses anything.
use anyhow::ensure;
use rand::Rng;
use tokio::time::sleep;

use crate::cluster::conditions::Conditions;
use crate::cluster::{Cluster, SETTLED};

pub(super) async fn play(cluster: &mut Cluster) -> anyhow::Result<()> {
    sleep(SETTLED).await;
    let one = cluster.random.random_range(0..cluster.setup.nodes);
    let mut still = Conditions::fair(cluster.setup.weather);
    still.still.insert(one);
    cluster.set_conditions(still);
    cluster.hold_ms(200..=6_000).await;
    cluster.heal();
    cluster.rest().await?;
    let gaps = cluster.history.borrow().gaps();
    ensure!(gaps == 0, "I1: {gaps} gaps were announced");
    Ok(())
}
