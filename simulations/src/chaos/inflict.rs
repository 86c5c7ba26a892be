//! Carries one fault out, and waits until the nodes have got over it.
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::fault::Fault;
use super::processes::Processes;
use crate::cluster::conditions::Cut;

/// How often a starving node is stopped and goes on: less often than the scheduler of a machine with
/// too much to do would, and so often that it is never taken for dead by that alone.
const STARVE_EVERY: Duration = Duration::from_millis(100);

impl Processes {
    /// How long it took, from the end of the fault until all agreed.
    pub(super) async fn inflict(&mut self, fault: &Fault) -> anyhow::Result<Duration> {
        match fault {
            Fault::Kill { nodes, at_once } => return self.kill_and_restart(nodes, *at_once).await,
            Fault::Pause { node, ms } => {
                self.node(*node)?.stop()?;
                lasts(*ms).await;
                self.node(*node)?.go_on()?;
            }
            Fault::FullCut { part, ms } => {
                self.hosts.cut(part, Cut::BothWays).await?;
                lasts(*ms).await;
                self.hosts.heal().await?;
            }
            Fault::PartialCut { one, other, ms } => {
                self.hosts.cut_link(*one, *other).await?;
                lasts(*ms).await;
                self.hosts.heal().await?;
            }
            Fault::OneWayCut { node, cut, ms } => {
                self.hosts.cut(&[*node], *cut).await?;
                lasts(*ms).await;
                self.hosts.heal().await?;
            }
            Fault::Loss { percent, ms } => {
                self.hosts.lose(*percent).await?;
                lasts(*ms).await;
                self.hosts.heal().await?;
            }
            Fault::Starvation { node, percent, ms } => self.starve(*node, *percent, *ms).await?,
            Fault::Files { node, ms } => self.run_out_of_files(*node, *ms).await?,
            Fault::Reconnects => self.doors.cut(),
        }
        let over = Instant::now();
        self.agree(false).await?;
        let healed = over.elapsed();
        // Who was away is awaited, lest the next fault hits a cluster that is smaller than it seems.
        self.ready().await?;
        Ok(healed)
    }

    /// How long it took from their death until the others had repaired what they held, or, if they are
    /// started again at once, until all agree with them.
    async fn kill_and_restart(
        &mut self,
        nodes: &[usize],
        at_once: bool,
    ) -> anyhow::Result<Duration> {
        let died = Instant::now();
        for node in nodes {
            self.kill(*node).await?;
        }
        if !at_once {
            self.agree(false).await?;
        }
        let repaired = died.elapsed();
        for node in nodes {
            self.start_node(*node, true)?;
        }
        self.ready().await?;
        Ok(if at_once { died.elapsed() } else { repaired })
    }

    async fn starve(&self, node: usize, percent: u64, ms: u64) -> anyhow::Result<()> {
        let (node, over) = (self.node(node)?, Instant::now() + Duration::from_millis(ms));
        let runs = STARVE_EVERY * percent as u32 / 100;
        while Instant::now() < over {
            node.stop()?;
            sleep(STARVE_EVERY - runs).await;
            node.go_on()?;
            sleep(runs).await;
        }
        Ok(())
    }

    /// All clients come again while a node has no room for any.
    async fn run_out_of_files(&self, node: usize, ms: u64) -> anyhow::Result<()> {
        let node = self.node(node)?;
        let before = node.exhaust_files()?;
        self.doors.cut();
        lasts(ms).await;
        node.set_files(before)
    }
}

/// The time that a fault lasts is drawn from the seed; no event ends it.
async fn lasts(ms: u64) {
    sleep(Duration::from_millis(ms)).await;
}
