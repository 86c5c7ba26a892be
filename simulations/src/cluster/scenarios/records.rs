//! Clients keep attributes of their users. Again and again the owner of a user loses its power or leaves,
//! and comes back at once or after repair. Each attribute is what it was set to last.
use std::time::Duration;

use anyhow::ensure;
use rand::Rng;
use tokio::time::sleep;

use super::kill_owner::nobody_lost_track;
use crate::cluster::Cluster;
use crate::cluster::setup::inbox;

const ROUNDS: usize = 4;
/// How long a process may take to be started again at once, in milliseconds.
const AWAY_MS: u64 = 700;

pub(super) async fn play(cluster: &mut Cluster) -> anyhow::Result<()> {
    let users: Vec<String> =
        (0..cluster.setup.clients).filter_map(|c| cluster.setup.user(c)).collect();
    for _ in 0..ROUNDS {
        let busy = cluster.random.random_range(1_000..=2_000);
        sleep(Duration::from_millis(busy)).await;
        let user = &users[cluster.random.random_range(0..users.len())];
        let owner = cluster.owner_of(inbox(user).as_str()).await?;
        goes_and_returns(owner, cluster, |_| {}).await?;
    }
    cluster.rest().await?;
    let set = cluster.history.borrow().kept.values().filter(|kept| kept.last().is_some()).count();
    ensure!(set > 0, "no attribute was set: nothing was shown of it");
    nobody_lost_track(cluster)
}

/// A node loses its power or leaves, something happens to its machine, and it comes back at once or after
/// repair.
pub(super) async fn goes_and_returns(
    node: usize,
    cluster: &mut Cluster,
    meanwhile: impl FnOnce(&mut Cluster),
) -> anyhow::Result<()> {
    if cluster.random.random_bool(0.3) {
        cluster.drain(node).await?;
    } else {
        cluster.kill(node)?;
    }
    meanwhile(cluster);
    if cluster.random.random_bool(0.5) {
        cluster.agree().await?;
    } else {
        let away = cluster.random.random_range(0..=AWAY_MS);
        sleep(Duration::from_millis(away)).await;
    }
    cluster.start_node(node, true).await?;
    cluster.ready().await
}
