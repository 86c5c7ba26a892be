//! One node after the other is cut off for a while, and when all that was published then is forgotten an
//! owner loses its power. What is left of lines that parted long ago is no news: nobody is told of a gap.
use std::time::Duration;

use anyhow::ensure;
use rand::Rng;
use tokio::time::sleep;

use crate::cluster::conditions::Cut;
use crate::cluster::setup::name;
use crate::cluster::{Cluster, SETTLED};

const ROUNDS: usize = 3;
/// The longest cut, in milliseconds.
const CUT_MS: u64 = 6_000;
/// How much longer than publications are kept it takes until an owner is killed, at most.
const LATER_MS: u64 = 3_000;

pub(super) async fn play(cluster: &mut Cluster) -> anyhow::Result<()> {
    sleep(SETTLED).await;
    let first = cluster.random.random_range(0..cluster.setup.nodes);
    for round in 0..ROUNDS {
        let one = (first + round) % cluster.setup.nodes;
        cluster.cut(&[one], Cut::BothWays);
        cluster.hold_ms(500..=CUT_MS).await;
        cluster.heal();
        cluster.agree().await?;
        let later = cluster.random.random_range(0..=LATER_MS);
        sleep(cluster.setup.kept_for + Duration::from_millis(CUT_MS + later)).await;
        let gaps = cluster.history.borrow().gaps();
        let channel = cluster.random.random_range(0..cluster.setup.channels);
        let owner = cluster.owner_of(cluster.setup.channel(channel).as_str()).await?;
        cluster.kill(owner)?;
        cluster.agree().await?;
        cluster.start_node(owner, true).await?;
        cluster.ready().await?;
        let gaps = cluster.history.borrow().gaps() - gaps;
        ensure!(gaps == 0, "I1: {gaps} gaps were announced after {} was killed", name(owner));
    }
    cluster.rest().await
}
