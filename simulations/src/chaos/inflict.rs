//! Carries one fault out, and waits until the nodes have got over it.
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::fault::{Amid, Fault, Faults};
use super::processes::Processes;
use crate::cluster::conditions::Cut;

/// How often a starving node is stopped and goes on: less often than the scheduler of a machine with
/// too much to do would, and so often that it is never taken for dead by that alone.
const STARVE_EVERY: Duration = Duration::from_millis(100);

impl Processes {
    /// How long it took, from the end of the fault until all agreed.
    pub(super) async fn inflict(&mut self, faults: &Faults) -> anyhow::Result<Duration> {
        let amid = faults.amid;
        match &faults.fault {
            Fault::Kill { nodes, at_once } => return self.kill_and_restart(nodes, *at_once).await,
            Fault::Pause { node, ms } => {
                self.node(*node)?.stop()?;
                self.lasts(*ms, amid).await?;
                self.node(*node)?.go_on()?;
            }
            Fault::FullCut { part, ms } => {
                self.hosts.cut(part, Cut::BothWays).await?;
                self.lasts(*ms, amid).await?;
                self.hosts.heal().await?;
            }
            Fault::PartialCut { one, other, ms } => {
                self.hosts.cut_link(*one, *other).await?;
                self.lasts(*ms, amid).await?;
                self.hosts.heal().await?;
            }
            Fault::OneWayCut { node, cut, ms } => {
                self.hosts.cut(&[*node], *cut).await?;
                self.lasts(*ms, amid).await?;
                self.hosts.heal().await?;
            }
            Fault::Loss { percent, ms } => {
                self.hosts.lose(*percent).await?;
                self.lasts(*ms, amid).await?;
                self.hosts.heal().await?;
            }
            Fault::Starvation { node, percent, ms } => {
                self.starve(*node, (*percent, *ms), amid).await?
            }
            Fault::Files { node, ms } => self.run_out_of_files(*node, *ms, amid).await?,
            Fault::Reconnects => self.doors.cut(),
        }
        let over = Instant::now();
        self.agree(false).await?;
        let healed = over.elapsed();
        if let Some((_, Amid::Kill { node })) = amid {
            self.start_node(node, true)?;
        }
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

    async fn starve(
        &mut self,
        starving: usize,
        (percent, ms): (u64, u64),
        amid: Option<(u64, Amid)>,
    ) -> anyhow::Result<()> {
        let (began, mut amid) = (Instant::now(), amid);
        let runs = STARVE_EVERY * percent as u32 / 100;
        while began.elapsed() < Duration::from_millis(ms) {
            self.node(starving)?.stop()?;
            sleep(STARVE_EVERY - runs).await;
            self.node(starving)?.go_on()?;
            sleep(runs).await;
            let due = |(after_ms, _): &mut (u64, Amid)| {
                began.elapsed() >= Duration::from_millis(*after_ms)
            };
            if let Some((_, amid)) = amid.take_if(due) {
                self.happen(amid).await?;
            }
        }
        match amid {
            Some((_, amid)) => self.happen(amid).await,
            None => Ok(()),
        }
    }

    /// All clients come again while a node has no room for any.
    async fn run_out_of_files(
        &mut self,
        node: usize,
        ms: u64,
        amid: Option<(u64, Amid)>,
    ) -> anyhow::Result<()> {
        let before = self.node(node)?.exhaust_files()?;
        self.doors.cut();
        self.lasts(ms, amid).await?;
        self.node(node)?.set_files(before)
    }

    /// The time that a fault lasts is drawn from the seed; no event ends it.
    async fn lasts(&mut self, ms: u64, amid: Option<(u64, Amid)>) -> anyhow::Result<()> {
        let Some((after_ms, amid)) = amid else {
            sleep(Duration::from_millis(ms)).await;
            return Ok(());
        };
        sleep(Duration::from_millis(after_ms)).await;
        self.happen(amid).await?;
        sleep(Duration::from_millis(ms - after_ms)).await;
        Ok(())
    }

    async fn happen(&mut self, amid: Amid) -> anyhow::Result<()> {
        match amid {
            Amid::Kill { node } => self.kill(node).await?,
            Amid::Reconnects => self.doors.cut(),
        }
        Ok(())
    }
}
