//! One node hears nothing for a while, and then one is heard by nobody, or the other way round. Each may
//! take what others never hear of, and claims slots that nobody gives it: a split.
use rand::Rng;
use tokio::time::sleep;

use crate::cluster::conditions::Cut;
use crate::cluster::{Cluster, SETTLED};

pub(super) async fn play(cluster: &mut Cluster) -> anyhow::Result<()> {
    sleep(SETTLED).await;
    let mut cuts = [Cut::Deaf, Cut::Mute];
    if cluster.random.random_bool(0.5) {
        cuts.reverse();
    }
    for cut in cuts {
        let one = cluster.random.random_range(0..cluster.setup.nodes);
        cluster.cut(&[one], cut);
        cluster.hold_ms(1_000..=6_000).await;
        cluster.heal();
        cluster.agree().await?;
    }
    cluster.rest().await
}
