//! Nodes that don't belong to the cluster: those that are configured otherwise, and those of another
//! cluster. Clients never find them.
use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use orbweb::api::NodeReport;
use orbweb::config::Config;
use orbweb::gateway::socket::memory::{MemoryDialer, MemoryListener};
use orbweb::node::Node;
use tokio::task::spawn_local;
use tokio::time::{Instant, sleep, timeout};

use super::setup::mesh_address;
use super::{BURIAL, Cluster};

/// How long a node may take to be told that it can't be part of the cluster.
const TURNED_AWAY: Duration = Duration::from_secs(10);
/// How long strangers may take until they are one cluster, also if one was away: I8 of those who start.
const TOGETHER: Duration = Duration::from_secs(20);
/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// A node of another cluster. Its door for clients stays open, and nobody comes.
pub(super) struct Stranger {
    node: Node<MemoryListener>,
    _door: MemoryDialer,
}

impl Cluster {
    /// Starts a node that can't be part of this cluster, and waits until it ends of itself; why, as it
    /// says.
    pub(crate) async fn turn_away(
        &mut self,
        machine: usize,
        config: Config,
    ) -> anyhow::Result<String> {
        let (mut misfit, _door) = self.launch(machine, config).await?;
        let why = timeout(TURNED_AWAY, misfit.failed()).await.context("nobody turns it away")?;
        self.trace.tell(format_args!("a node ends: {why:#}"));
        misfit.stop(BURIAL).await;
        self.network.unplug(mesh_address(machine));
        Ok(format!("{why:#}"))
    }

    /// Starts a node of the other cluster.
    pub(crate) async fn start_stranger(&mut self, machine: usize) -> anyhow::Result<()> {
        let config = self.setup.config_of_stranger(machine);
        let (node, door) = self.launch(machine, config).await?;
        self.trace.tell(format_args!("a stranger on machine {machine} started"));
        self.strangers.insert(machine, Stranger { node, _door: door });
        Ok(())
    }

    /// The machine of a node of the other cluster loses its power.
    pub(crate) fn kill_stranger(&mut self, machine: usize) -> anyhow::Result<()> {
        let stranger = self.strangers.remove(&machine).context("no stranger runs there")?;
        self.network.unplug(mesh_address(machine));
        self.trace.tell(format_args!("the stranger on machine {machine} is killed"));
        spawn_local(stranger.node.stop(BURIAL));
        Ok(())
    }

    /// Until the strangers are a cluster of their own, and none of either cluster knows one of the other.
    pub(crate) async fn keep_apart(&self) -> anyhow::Result<()> {
        let deadline = Instant::now() + TOGETHER;
        while let Err(wrong) = self.are_apart().await {
            ensure!(Instant::now() < deadline, "I8: {wrong:#}, after {TOGETHER:?}");
            sleep(LOOK_EVERY).await;
        }
        Ok(())
    }

    async fn are_apart(&self) -> anyhow::Result<()> {
        let ours = addresses(self.running());
        for node in self.running() {
            knows_only(&ours, &self.facts(node)?.cluster().await)?;
        }
        let theirs = addresses(self.strangers.keys().copied());
        for stranger in self.strangers.values() {
            let facts = stranger.node.facts();
            let reports = facts.cluster().await;
            knows_only(&theirs, &reports)?;
            let owned: u32 = reports.iter().map(|report| report.slots_owned).sum();
            let slots = self.setup.slots;
            ensure!(owned == u32::from(slots), "strangers own {owned} of {slots} slots");
            if let Err(reasons) = facts.ready().await {
                anyhow::bail!("a stranger isn't ready: {reasons:?}");
            }
        }
        Ok(())
    }

    /// Whether something has come from each of the strangers to a node, and the other way round.
    pub(crate) fn have_met(&self) -> bool {
        let met = |stranger: usize| {
            let mut nodes = 0..self.setup.nodes;
            let way = |node| self.network.is_used((stranger, node));
            let back = |node| self.network.is_used((node, stranger));
            nodes.clone().any(way) && nodes.any(back)
        };
        self.setup.strangers().all(met)
    }
}

/// Where nodes of these machines are reached by others.
fn addresses(machines: impl IntoIterator<Item = usize>) -> BTreeSet<String> {
    machines.into_iter().map(|machine| mesh_address(machine).to_string()).collect()
}

fn knows_only(kin: &BTreeSet<String>, reports: &[NodeReport]) -> anyhow::Result<()> {
    let known = reports.iter().filter_map(|report| report.link_address.clone());
    let known: BTreeSet<String> = known.collect();
    ensure!(known == *kin, "{} knows {known:?}, not {kin:?}", reports[0].name);
    Ok(())
}
