//! One node after the other leaves and comes back in a build that speaks a further version of peer
//! frames: links between old and new speak the old one, those between new ones the new one, and no
//! client is told of an error. One that speaks only the new version can't join before that, and says so.
use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::ensure;
use orbweb::protocol::link::PROTOCOL_MAX;
use tokio::time::sleep;

use super::kill_owner::nobody_lost_track;
use crate::cluster::Cluster;

/// Between a process that has ended and the next of its name.
const PAUSE: Duration = Duration::from_millis(300);
/// The version of the next build.
const NEXT: u16 = PROTOCOL_MAX + 1;

pub(super) async fn play(cluster: &mut Cluster) -> anyhow::Result<()> {
    let (nodes, newcomer) = (cluster.running(), cluster.setup.nodes);
    cluster.setup.versions = NEXT..=NEXT;
    let why = cluster.turn_away(newcomer, cluster.setup.config(newcomer, true)).await?;
    ensure!(why.contains("protocol versions"), "who speaks only the next version is told: {why}");
    cluster.setup.versions = PROTOCOL_MAX..=NEXT;
    for (number, node) in nodes.iter().copied().enumerate() {
        cluster.drain(node).await?;
        sleep(PAUSE).await;
        cluster.start_node(node, true).await?;
        cluster.ready().await?;
        let spoken = spoken(cluster)?;
        let expected = match (number, nodes.len() - 1 - number) {
            // The first that is new, and nobody else.
            (0, _) => BTreeSet::from([PROTOCOL_MAX]),
            (_, 0) => BTreeSet::from([NEXT]),
            _ => BTreeSet::from([PROTOCOL_MAX, NEXT]),
        };
        ensure!(spoken == expected, "with {} new nodes links speak {spoken:?}", number + 1);
    }
    cluster.rest().await?;
    let refused = cluster.history.borrow().refused;
    ensure!(refused == 0, "{refused} publications were refused");
    nobody_lost_track(cluster)
}

/// The versions that links speak.
fn spoken(cluster: &Cluster) -> anyhow::Result<BTreeSet<u16>> {
    let mut spoken = BTreeSet::new();
    for node in cluster.running() {
        spoken.extend(cluster.facts(node)?.report().link_versions.into_keys());
    }
    Ok(spoken)
}
