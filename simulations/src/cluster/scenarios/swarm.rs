//! Many faults, several at once, as a plan says that was drawn from the seed. Each round begins when all
//! is well and ends with everything as it was.
use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::ensure;
use tokio::time::{Instant, sleep, sleep_until};

use crate::cluster::conditions::Conditions;
use crate::cluster::plan::{self, Part, Plan, Step};
use crate::cluster::story::Mark;
use crate::cluster::{Cluster, Leaving, SETTLED};

/// Between two looks at who has left.
const LOOK_EVERY: Duration = Duration::from_millis(50);

pub(super) async fn play(plan: &Plan, cluster: &mut Cluster) -> anyhow::Result<()> {
    let mut parted = 0;
    for steps in plan.rounds() {
        let splits = plan::splits(&steps, cluster.setup.nodes);
        if splits {
            sleep(SETTLED).await;
        }
        Round { began: Instant::now(), steps: &steps, away: Vec::new(), cluster }.play().await?;
        let cuts = steps.iter().filter(|step| step.part.cuts_off()).count();
        parted += cuts.max(usize::from(splits));
        let moves = steps.iter().any(|step| step.part.process().is_some());
        // Who starts again gets copies first.
        if !moves {
            cluster.agree().await?;
        }
        // Who has left the view again within a minute is let in later each time.
        if moves || (splits && parted > 1) {
            cluster.ready().await?;
        }
    }
    cluster.rest().await?;
    if !plan.splits(cluster.setup.nodes) {
        let gaps = cluster.history.borrow().gaps();
        ensure!(gaps == 0, "I1: {gaps} gaps were announced");
    }
    Ok(())
}

struct Round<'a> {
    cluster: &'a mut Cluster,
    began: Instant,
    steps: &'a [&'a Step],
    away: Vec<Away>,
}

/// A node that leaves or is gone.
struct Away {
    node: usize,
    leaving: Option<Leaving>,
    /// When it is to be back, if ever.
    back_at: Option<Instant>,
}

impl Round<'_> {
    async fn play(mut self) -> anyhow::Result<()> {
        let steps = self.steps;
        for at_ms in self.moments() {
            self.wait_until(self.at(at_ms)).await?;
            for step in steps.iter().filter(|step| step.at_ms == at_ms) {
                self.cluster.trace.tell(format_args!("step {step}"));
                self.cluster.story.tell(Mark::Began(step.number, step.part.to_string()));
                self.begin(step).await?;
            }
            for step in steps.iter().filter(|step| step.ends_ms() == at_ms) {
                self.cluster.trace.tell(format_args!("step {} is over", step.number));
                self.cluster.story.tell(Mark::Over(step.number));
                self.end(step)?;
            }
            self.cluster.set_conditions(self.conditions(at_ms));
        }
        for away in std::mem::take(&mut self.away) {
            if let Some(leaving) = away.leaving {
                self.cluster.end_drain(leaving).await?;
            }
            if away.back_at.is_some() {
                self.cluster.start_node(away.node, true).await?;
            }
        }
        Ok(())
    }

    /// When something happens, in milliseconds since the round began.
    fn moments(&self) -> BTreeSet<u64> {
        let steps = self.steps.iter();
        let ends = steps.clone().map(|step| step.ends_ms());
        let changes = steps.flat_map(|step| {
            let every_ms = step.part.changes_every_ms().unwrap_or(step.lasts_ms);
            (step.at_ms..step.ends_ms()).step_by(every_ms.max(1) as usize)
        });
        changes.chain(ends).collect()
    }

    fn at(&self, at_ms: u64) -> Instant {
        self.began + Duration::from_millis(at_ms)
    }

    async fn wait_until(&mut self, at: Instant) -> anyhow::Result<()> {
        loop {
            self.bring_back().await?;
            if Instant::now() >= at {
                return Ok(());
            }
            sleep_until(at.min(Instant::now() + LOOK_EVERY)).await;
        }
    }

    /// Those whose time has come and who have left.
    async fn bring_back(&mut self) -> anyhow::Result<()> {
        for mut away in std::mem::take(&mut self.away) {
            if let Some(leaving) = away.leaving.take_if(|leaving| leaving.is_over()) {
                self.cluster.end_drain(leaving).await?;
            }
            match (&away.leaving, away.back_at) {
                (None, None) => {}
                (None, Some(at)) if at <= Instant::now() => {
                    self.cluster.start_node(away.node, true).await?;
                }
                _ => self.away.push(away),
            }
        }
        Ok(())
    }

    async fn begin(&mut self, step: &Step) -> anyhow::Result<()> {
        let back_at = Some(self.at(step.ends_ms()));
        match step.part {
            Part::Kill(node) => {
                self.cluster.kill(node)?;
                self.away.push(Away { node, leaving: None, back_at });
            }
            Part::Drain(node) => {
                let leaving = Some(self.cluster.begin_drain(node)?);
                self.away.push(Away { node, leaving, back_at });
            }
            Part::Join(node) => self.cluster.start_node(node, true).await?,
            Part::CutClients { half_open } => self.cluster.cut_clients(half_open),
            _ => {}
        }
        Ok(())
    }

    fn end(&mut self, step: &Step) -> anyhow::Result<()> {
        if let Part::Join(node) = step.part {
            let leaving = Some(self.cluster.begin_drain(node)?);
            self.away.push(Away { node, leaving, back_at: None });
        }
        Ok(())
    }

    /// What all steps that last do to the network.
    fn conditions(&self, at_ms: u64) -> Conditions {
        let setup = &self.cluster.setup;
        let mut conditions = Conditions::fair(setup.weather);
        for step in self.steps.iter().filter(|s| s.at_ms <= at_ms && at_ms < s.ends_ms()) {
            step.part.worsen(at_ms - step.at_ms, setup.machines(), &mut conditions);
        }
        conditions
    }
}
