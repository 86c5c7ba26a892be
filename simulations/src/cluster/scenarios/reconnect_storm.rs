//! All clients lose their connections at the same moment, again and again, and all come back with
//! their positions. The nodes see the connections end, or (half open) they don't.
use std::time::Duration;

use anyhow::ensure;
use rand::Rng;
use tokio::time::sleep;

use super::kill_owner::nobody_lost_track;
use crate::cluster::Cluster;

const ROUNDS: u64 = 3;

pub(super) async fn play(cluster: &mut Cluster) -> anyhow::Result<()> {
    for _ in 0..ROUNDS {
        let busy = cluster.random.random_range(1_000..=3_000);
        sleep(Duration::from_millis(busy)).await;
        let half_open = cluster.random.random_bool(0.5);
        cluster.cut_clients(half_open);
    }
    cluster.rest().await?;
    let (connections, refused) = {
        let history = cluster.history.borrow();
        (history.connections, history.refused)
    };
    let least = cluster.setup.clients as u64 * (1 + ROUNDS);
    ensure!(connections >= least / 2, "{connections} connections: nothing was shown of storms");
    ensure!(refused == 0, "{refused} publications were refused");
    nobody_lost_track(cluster)
}
