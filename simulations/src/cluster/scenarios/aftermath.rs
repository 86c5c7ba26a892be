//! One node after the other is cut off for a while, and when what was published then is about to be forgotten
//! an owner loses its power. Nobody misses anything, and nobody is told so.
use std::time::Duration;

use anyhow::ensure;
use rand::Rng;
use tokio::time::sleep;

use crate::cluster::conditions::Cut;
use crate::cluster::{Cluster, SETTLED};

const ROUNDS: usize = 3;

pub(super) async fn play(cluster: &mut Cluster) -> anyhow::Result<()> {
    sleep(SETTLED).await;
    let first = cluster.random.random_range(0..cluster.setup.nodes);
    for round in 0..ROUNDS {
        let one = (first + round) % cluster.setup.nodes;
        cluster.cut(&[one], Cut::BothWays);
        cluster.hold_ms(500..=6_000).await;
        cluster.heal();
        cluster.agree().await?;
        let kept_ms = cluster.setup.kept_for.as_millis() as u64;
        let later = cluster.random.random_range(kept_ms / 2..=kept_ms * 5 / 4);
        sleep(Duration::from_millis(later)).await;
        let owner = cluster.some_owner().await?;
        cluster.kill(owner)?;
        cluster.agree().await?;
        cluster.start_node(owner, true).await?;
        cluster.ready().await?;
    }
    cluster.rest().await?;
    let gaps = cluster.history.borrow().gaps();
    ensure!(gaps == 0, "I1: {gaps} gaps were announced");
    Ok(())
}
