//! The link between two nodes comes and goes. Others reach both, so both stay, and what they have to
//! tell each other goes around; nobody notices.
use std::time::Duration;

use rand::Rng;
use tokio::time::{Instant, sleep};

use super::smoke::nobody_noticed;
use crate::cluster::Cluster;

/// How long it flaps.
const FLAPPING: Duration = Duration::from_secs(15);
/// How long it stays as it is, in milliseconds.
const STEADY_MS: (u64, u64) = (100, 3_000);

pub(super) async fn play(cluster: &mut Cluster) -> anyhow::Result<()> {
    let (one, other) = cluster.two();
    let (least, most) = STEADY_MS;
    let until = Instant::now() + FLAPPING;
    while Instant::now() < until {
        cluster.cut_link(one, other);
        let cut = cluster.random.random_range(least..=most);
        sleep(Duration::from_millis(cut)).await;
        cluster.heal();
        let whole = cluster.random.random_range(least..=most);
        sleep(Duration::from_millis(whole)).await;
    }
    cluster.rest().await?;
    nobody_noticed(cluster)
}
