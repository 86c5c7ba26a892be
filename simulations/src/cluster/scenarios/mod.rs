//! What may happen to a cluster of whole nodes: one scenario a file, each an async function that
//! begins when all nodes serve and clients publish, and ends when everybody rests.
mod aftermath;
mod bridge;
mod clocks;
mod disorder;
mod flapping_link;
mod heavy_loss;
mod hot_channel;
mod isolate_one;
mod join;
mod join_five;
mod kill_claimant;
mod kill_gateway;
mod kill_leaving;
mod kill_owner;
mod loss;
mod misfits;
mod one_way;
mod overflow;
mod pause;
mod reconnect_storm;
mod records;
mod rolling_restart;
mod slow_clients;
mod slow_link;
mod smoke;
mod split_halves;
mod standstill;
mod starvation;
mod strangers;
mod swarm;
mod three_way;
mod upgrade;

use anyhow::ensure;

use super::Cluster;
use super::plan::Plan;
use crate::checkers::{contiguous, in_order, names, once};
use crate::scenario::Scenario;

/// Plays a scenario and checks what was promised; all that was broken is the failure.
pub(super) async fn play(
    (scenario, plan): (Scenario, &Plan),
    cluster: &mut Cluster,
) -> anyhow::Result<()> {
    cluster.start().await?;
    let mut verdicts = vec![run((scenario, plan), cluster).await];
    let splits = scenario.splits() || plan.splits(cluster.setup.nodes);
    let history = cluster.history.borrow();
    verdicts.push(names::check_all(&history));
    verdicts.push(contiguous::check(&history, splits));
    verdicts.push(once::check(&history, splits));
    if !splits {
        verdicts.push(in_order::check(&history));
    }
    let broken: Vec<String> =
        verdicts.into_iter().filter_map(|v| Some(format!("{:#}", v.err()?))).collect();
    ensure!(broken.is_empty(), "{}", broken.join("\n"));
    Ok(())
}

async fn run((scenario, plan): (Scenario, &Plan), cluster: &mut Cluster) -> anyhow::Result<()> {
    match scenario {
        Scenario::Smoke => smoke::play(cluster).await,
        Scenario::KillOwner => kill_owner::play(cluster).await,
        Scenario::KillGateway => kill_gateway::play(cluster).await,
        Scenario::KillClaimant => kill_claimant::play(cluster).await,
        Scenario::RollingRestart => rolling_restart::play(cluster).await,
        Scenario::KillLeaving => kill_leaving::play(cluster).await,
        Scenario::Join => join::play(cluster).await,
        Scenario::JoinFive => join_five::play(cluster).await,
        Scenario::ReconnectStorm => reconnect_storm::play(cluster).await,
        Scenario::SlowClients => slow_clients::play(cluster).await,
        Scenario::IsolateOne => isolate_one::play(cluster).await,
        Scenario::OneWay => one_way::play(cluster).await,
        Scenario::FlappingLink => flapping_link::play(cluster).await,
        Scenario::SlowLink => slow_link::play(cluster).await,
        Scenario::SplitHalves => split_halves::play(cluster).await,
        Scenario::ThreeWay => three_way::play(cluster).await,
        Scenario::Overflow => overflow::play(cluster).await,
        Scenario::Aftermath => aftermath::play(cluster).await,
        Scenario::Bridge => bridge::play(cluster).await,
        Scenario::Loss => loss::play(cluster).await,
        Scenario::HeavyLoss => heavy_loss::play(cluster).await,
        Scenario::Disorder => disorder::play(cluster).await,
        Scenario::Standstill => standstill::play(cluster).await,
        Scenario::Pause => pause::play(cluster).await,
        Scenario::Starvation => starvation::play(cluster).await,
        Scenario::HotChannel => hot_channel::play(cluster).await,
        Scenario::Records => records::play(cluster).await,
        Scenario::Clocks => clocks::play(cluster).await,
        Scenario::Strangers => strangers::play(cluster).await,
        Scenario::Misfits => misfits::play(cluster).await,
        Scenario::Upgrade => upgrade::play(cluster).await,
        Scenario::Swarm => swarm::play(plan, cluster).await,
        Scenario::Moves | Scenario::Crashes | Scenario::Storms | Scenario::Chaos => {
            anyhow::bail!("{scenario} is a scenario of the cores alone")
        }
    }
}
