//! The process of a node is stopped, and goes on: of the owner of a channel, of who is to own it when that
//! one is gone, and of the node of some clients, in some order, none of them twice. What the others have
//! decided meanwhile stands, and nobody misses anything.
use anyhow::ensure;
use rand::Rng;
use rand::seq::SliceRandom as _;
use tokio::time::sleep;

use crate::cluster::{Cluster, SETTLED};

#[derive(Clone, Copy)]
enum Role {
    Owner,
    Heir,
    Gateway,
}

pub(super) async fn play(cluster: &mut Cluster) -> anyhow::Result<()> {
    let (mut roles, mut done) = ([Role::Owner, Role::Heir, Role::Gateway], Vec::new());
    roles.shuffle(&mut cluster.random);
    for role in roles {
        sleep(SETTLED).await;
        let Some(node) = pick(role, &done, cluster).await? else { continue };
        done.push(node);
        cluster.stop(node);
        cluster.hold_ms(100..=6_000).await;
        cluster.heal();
        cluster.agree().await?;
    }
    ensure!(done.len() > 1, "hardly anybody was stopped: nothing was shown of it");
    cluster.rest().await?;
    let gaps = cluster.history.borrow().gaps();
    ensure!(gaps == 0, "I1: {gaps} gaps were announced");
    Ok(())
}

/// Whoever plays a role for some channel, if it is none of these.
async fn pick(role: Role, done: &[usize], cluster: &mut Cluster) -> anyhow::Result<Option<usize>> {
    let first = cluster.random.random_range(0..cluster.setup.channels);
    for number in first..first + cluster.setup.channels {
        let channel = cluster.setup.channel(number);
        let (owner, heir) = cluster.owner_and_heir_of(channel.as_str()).await?;
        let node = match role {
            Role::Owner => owner,
            Role::Heir => heir,
            // Clients are spread over all nodes.
            Role::Gateway => {
                let others =
                    cluster.running().into_iter().filter(|node| ![owner, heir].contains(node));
                others.into_iter().find(|node| !done.contains(node)).unwrap_or(owner)
            }
        };
        if !done.contains(&node) {
            return Ok(Some(node));
        }
    }
    Ok(None)
}
