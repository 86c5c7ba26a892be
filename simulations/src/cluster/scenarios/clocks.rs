//! The machines' clocks differ: those that nodes measure time with are up to a tenth fast or slow, and
//! wall clocks are up to an hour off. Again and again an owner is gone, with or without a word, its
//! machine's wall clock is set anew, and it comes back at once or after repair. Nobody misses anything.
use std::time::Duration;

use rand::Rng;
use tokio::time::sleep;

use super::kill_owner::nobody_lost_track;
use super::records::goes_and_returns;
use crate::cluster::Cluster;

const ROUNDS: usize = 4;

pub(super) async fn play(cluster: &mut Cluster) -> anyhow::Result<()> {
    for _ in 0..ROUNDS {
        let busy = cluster.random.random_range(1_000..=2_000);
        sleep(Duration::from_millis(busy)).await;
        let owner = cluster.some_owner().await?;
        goes_and_returns(owner, cluster, |cluster| cluster.set_wall_clock(owner)).await?;
    }
    cluster.rest().await?;
    nobody_lost_track(cluster)
}
