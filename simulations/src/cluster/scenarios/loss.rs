//! A bad network: datagrams are lost, come twice, overtake each other and take long. Links carry on
//! all the same, and nobody is taken for dead.
use std::time::Duration;

use anyhow::ensure;
use rand::Rng;
use tokio::time::sleep;

use crate::cluster::Cluster;
use crate::cluster::conditions::Weather;

/// How long the weather lasts.
const STORM: Duration = Duration::from_secs(10);

pub(super) async fn play(cluster: &mut Cluster) -> anyhow::Result<()> {
    let random = &mut cluster.random;
    let storm = Weather {
        latency_ms: (1, random.random_range(5..=20)),
        loss: random.random_range(50..=300),
        twice: random.random_range(0..=200),
        overtaking: random.random_range(0..=500),
    };
    cluster.set_weather(storm);
    sleep(STORM).await;
    cluster.set_weather(cluster.setup.weather);
    cluster.rest().await?;
    let history = cluster.history.borrow();
    let (sent, acknowledged) = (history.sent.len(), history.acknowledged());
    ensure!(sent == acknowledged, "I1: {acknowledged} of {sent} publications are acknowledged");
    ensure!(history.gaps() == 0, "I1: {} gaps were announced", history.gaps());
    Ok(())
}
