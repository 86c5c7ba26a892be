//! Again and again the owner of a channel goes, and its heir loses its power while it claims what it
//! inherits: somebody else has to. The owner leaves, or, where a third node has a copy, it loses its
//! power, too.
use std::time::Duration;

use anyhow::ensure;
use rand::Rng;
use tokio::time::sleep;

use super::kill_owner::nobody_lost_track;
use crate::cluster::Cluster;

/// Until so many were killed while they claimed, but not for ever.
const WANTED: u32 = 2;
const ROUNDS_MAX: u32 = 8;
/// A claim begins up to 20 ms after the change of view that calls for it, and takes a round trip.
const AMID_MS: u64 = 15;

pub(super) async fn play(cluster: &mut Cluster) -> anyhow::Result<()> {
    let mut amid = 0;
    for _ in 0..ROUNDS_MAX {
        let busy = cluster.random.random_range(1_000..=2_000);
        sleep(Duration::from_millis(busy)).await;
        let channel = cluster.random.random_range(0..cluster.setup.channels);
        let channel = cluster.setup.channel(channel);
        let (owner, heir) = cluster.owner_and_heir_of(channel.as_str()).await?;
        let crash = cluster.setup.copies > 2 && cluster.random.random_bool(0.7);
        let leaving = match crash {
            true => cluster.kill(owner).map(|()| None),
            false => cluster.begin_drain(owner).map(Some),
        }?;
        cluster.view_changes(heir).await?;
        let wait = cluster.random.random_range(0..=AMID_MS);
        sleep(Duration::from_millis(wait)).await;
        amid += u32::from(cluster.kill_claimant(heir).await? > 0);
        if let Some(leaving) = leaving {
            cluster.end_drain(leaving).await?;
        }
        cluster.agree().await?;
        cluster.start_node(owner, true).await?;
        cluster.start_node(heir, true).await?;
        cluster.ready().await?;
        if amid == WANTED {
            break;
        }
    }
    cluster.rest().await?;
    ensure!(amid > 0, "nobody was killed while it claimed");
    nobody_lost_track(cluster)
}
