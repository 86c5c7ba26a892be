//! A process gets little of the CPU for a while: it is stopped for most of each half second. What it hears
//! then comes late and in bursts, which is no news about the others: it takes nothing from them.
use std::time::Duration;

use anyhow::ensure;
use rand::Rng;
use tokio::time::{Instant, sleep};

use crate::cluster::{Cluster, SETTLED};

const ROUNDS: usize = 3;
/// How long it is stopped, and how long it runs then, in milliseconds.
const STOPPED_MS: std::ops::RangeInclusive<u64> = 250..=700;
const RUNS_MS: std::ops::RangeInclusive<u64> = 20..=120;

pub(super) async fn play(cluster: &mut Cluster) -> anyhow::Result<()> {
    let first = cluster.random.random_range(0..cluster.setup.nodes);
    for round in 0..ROUNDS {
        sleep(SETTLED).await;
        let node = (first + round) % cluster.setup.nodes;
        let before = cluster.slots_of(node)?;
        let until =
            Instant::now() + Duration::from_millis(cluster.random.random_range(2_000..=6_000));
        while Instant::now() < until {
            cluster.stop(node);
            cluster.hold_ms(STOPPED_MS).await;
            cluster.heal();
            cluster.hold_ms(RUNS_MS).await;
            let slots = cluster.slots_of(node)?;
            ensure!(
                slots <= before,
                "I8: n{node} had {before} slots, and wants {slots}: nobody died"
            );
        }
        cluster.agree().await?;
    }
    cluster.rest().await?;
    let gaps = cluster.history.borrow().gaps();
    ensure!(gaps == 0, "I1: {gaps} gaps were announced");
    Ok(())
}
