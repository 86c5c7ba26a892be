//! Nodes come that can't be part of the cluster: with other copies or slots, of a cluster with another
//! name, or under a name that is taken. Each is told why, and ends; nobody else notices. Configured
//! rightly it joins.
use std::time::Duration;

use anyhow::ensure;
use orbweb::config::Config;
use tokio::time::sleep;

use super::smoke::nobody_noticed;
use crate::cluster::Cluster;
use crate::cluster::setup::name;

/// How long clients publish before each.
const TRAFFIC: Duration = Duration::from_secs(1);

pub(super) async fn play(cluster: &mut Cluster) -> anyhow::Result<()> {
    let machine = cluster.setup.nodes;
    let right = cluster.setup.config(machine, true);
    let taken = name(0).parse()?;
    let misfits = [
        ("keeps copies", Config { copies: right.copies + 1, ..right.clone() }),
        ("has slots", Config { slots: right.slots * 2, ..right.clone() }),
        ("is named", Config { cluster: "another".to_owned(), ..right.clone() }),
        ("is taken", Config { name: taken, ..right }),
    ];
    for (words, misfit) in misfits {
        sleep(TRAFFIC).await;
        let why = cluster.turn_away(machine, misfit).await?;
        ensure!(why.contains(words), "for {words:?} a node is told: {why}");
    }
    cluster.start_node(machine, true).await?;
    cluster.ready().await?;
    ensure!(!cluster.owned(machine)?.is_empty(), "nothing moved: nothing was shown of it");
    cluster.rest().await?;
    nobody_noticed(cluster)
}
