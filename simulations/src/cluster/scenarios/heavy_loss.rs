//! A very bad network: up to three of ten datagrams are lost, and nodes are taken for dead that live. Nobody
//! misses anything.
use anyhow::ensure;
use rand::Rng;
use tokio::time::sleep;

use crate::cluster::conditions::Weather;
use crate::cluster::{Cluster, SETTLED};

pub(super) async fn play(cluster: &mut Cluster) -> anyhow::Result<()> {
    sleep(SETTLED).await;
    let random = &mut cluster.random;
    let storm = Weather {
        latency_ms: (1, random.random_range(5..=20)),
        loss: random.random_range(300..=3_000),
        twice: 0,
        overtaking: 0,
    };
    cluster.set_weather(storm);
    cluster.hold_ms(1_000..=6_000).await;
    cluster.set_weather(cluster.setup.weather);
    cluster.ready().await?;
    cluster.rest().await?;
    let gaps = cluster.history.borrow().gaps();
    ensure!(gaps == 0, "I1: {gaps} gaps were announced");
    Ok(())
}
