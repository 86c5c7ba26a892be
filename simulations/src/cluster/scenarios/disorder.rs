//! Nothing is lost, but many datagrams come twice, and many overtake those before them. Nobody notices.
use std::time::Duration;

use rand::Rng;
use tokio::time::sleep;

use super::smoke::nobody_noticed;
use crate::cluster::Cluster;
use crate::cluster::conditions::Weather;

/// How long it lasts.
const DISORDER: Duration = Duration::from_secs(10);

pub(super) async fn play(cluster: &mut Cluster) -> anyhow::Result<()> {
    let random = &mut cluster.random;
    let disorder = Weather {
        latency_ms: (1, random.random_range(5..=20)),
        loss: 0,
        twice: random.random_range(500..=3_000),
        overtaking: random.random_range(500..=3_000),
    };
    cluster.set_weather(disorder);
    sleep(DISORDER).await;
    cluster.set_weather(cluster.setup.weather);
    cluster.rest().await?;
    nobody_noticed(cluster)
}
