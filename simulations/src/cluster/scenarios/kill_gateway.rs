//! Again and again the node of some clients loses its power and is back at once, as a new holder: its
//! clients go elsewhere. It is the node that owns fewest of the channels.
use std::time::Duration;

use rand::Rng;
use tokio::time::sleep;

use super::kill_owner::nobody_lost_track;
use crate::cluster::Cluster;

const ROUNDS: usize = 3;
/// How long a process may take to be started again, in milliseconds.
const AWAY_MS: u64 = 700;

pub(super) async fn play(cluster: &mut Cluster) -> anyhow::Result<()> {
    for _ in 0..ROUNDS {
        let busy = cluster.random.random_range(1_000..=2_000);
        sleep(Duration::from_millis(busy)).await;
        let gateway = least_owner(cluster).await?;
        cluster.kill(gateway)?;
        let away = cluster.random.random_range(0..=AWAY_MS);
        sleep(Duration::from_millis(away)).await;
        cluster.start_node(gateway, true).await?;
        cluster.ready().await?;
    }
    cluster.rest().await?;
    nobody_lost_track(cluster)
}

async fn least_owner(cluster: &Cluster) -> anyhow::Result<usize> {
    let mut owners = Vec::new();
    for channel in 0..cluster.setup.channels {
        owners.push(cluster.owner_of(cluster.setup.channel(channel).as_str()).await?);
    }
    let owned = |node: &usize| owners.iter().filter(|owner| *owner == node).count();
    Ok(cluster.running().into_iter().min_by_key(owned).unwrap_or_default())
}
