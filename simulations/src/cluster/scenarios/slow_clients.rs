//! Some clients stand still for a while, as on a phone without reception, and publications are large.
//! What waits for them is bounded, so nodes end their connections; nobody else lacks anything
//! meanwhile, and they come back with their positions.
use std::time::Duration;

use anyhow::ensure;
use rand::Rng;
use tokio::time::sleep;

use super::kill_owner::nobody_lost_track;
use crate::cluster::Cluster;

const ROUNDS: u64 = 2;
/// For how long: until more waits than a node keeps for them, and longer.
const STILL_MS: (u64, u64) = (3_000, 6_000);

pub(super) async fn play(cluster: &mut Cluster) -> anyhow::Result<()> {
    for _ in 0..ROUNDS {
        let busy = cluster.random.random_range(500..=1_500);
        sleep(Duration::from_millis(busy)).await;
        cluster.still_clients();
        cluster.hold_ms(STILL_MS.0..=STILL_MS.1).await;
        cluster.wake_clients();
    }
    cluster.rest().await?;
    let (closed, refused) = {
        let history = cluster.history.borrow();
        (history.closed, history.refused)
    };
    // Nothing else ends any here.
    ensure!(closed > 0, "nobody was too slow: nothing was shown of it");
    ensure!(refused == 0, "{refused} publications were refused");
    nobody_lost_track(cluster)
}
