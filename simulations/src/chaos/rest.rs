//! Waiting for all to be well: every node ready, all agreed, everything delivered. Each wait has an
//! end, and what is still missing then is the failure.
use std::time::Duration;

use anyhow::ensure;
use tokio::time::{Instant, sleep, sleep_until};

use super::processes::Processes;
use crate::checkers::{agreed, delivered, shown};
use crate::cluster::client::Doing;
use crate::cluster::setup::name;

/// How long nodes may take to start and to join; and to come back to the view, which takes who has left it
/// before within a minute up to a minute of stability.
const START: Duration = Duration::from_secs(66);
/// Ten gossip intervals and 5 s: I8.
const AGREEMENT: Duration = Duration::from_secs(6);
/// After this, what a node says of its slots is from now.
const STATUS_LATE: Duration = Duration::from_millis(250);
/// How long clients may take until everything has reached them: their last attempt to connect or
/// subscribe may have been answered late, and is tried again; a connection that nothing comes through
/// is left after a ping that is missing.
const DELIVERY: Duration = Duration::from_secs(30);
/// When a publication was sent so long ago, it is answered or stays unknown: SDKs wait for 5 s, and what
/// nodes keep for one that died or moved they give up after the same time.
const OPERATION: Duration = Duration::from_secs(6);
/// How long a client may be shown that is there no longer: until the ping after its last sign of life is
/// unanswered. And how long one may not be shown that is.
const ATTENDANCE: Duration = Duration::from_secs(30);
/// How long clients take to ask who is there and to hear it.
const ANSWERED: Duration = Duration::from_millis(700);
/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(200);

impl Processes {
    /// Every running node says that it is ready for clients, and all agree.
    pub(super) async fn ready(&mut self) -> anyhow::Result<()> {
        let deadline = Instant::now() + START;
        for node in self.running() {
            while let Err(unready) = self.questions.ready(node).await {
                self.all_live().await?;
                let why = format!("{} within {START:?}", name(node));
                ensure!(Instant::now() < deadline, "I8: {why}: {unready:#}");
                sleep(LOOK_EVERY).await;
            }
        }
        self.agree(false).await
    }

    /// All running nodes agree, though clients may go on publishing unless it is to be `quiet`.
    pub(super) async fn agree(&mut self, quiet: bool) -> anyhow::Result<()> {
        let deadline = Instant::now() + AGREEMENT;
        let mut told = String::new();
        loop {
            self.all_live().await?;
            let Err(disagreed) = self.agrees(quiet).await else {
                self.trace.tell("all agree");
                return Ok(());
            };
            let why = format!("{disagreed:#}");
            if why != told {
                self.trace.tell(&why);
                told = why;
            }
            if Instant::now() >= deadline {
                return Err(disagreed.context(format!("{AGREEMENT:?} after the fault")));
            }
            sleep(LOOK_EVERY).await;
        }
    }

    /// What nodes say of their slots may be older than what they say of their views, so they are asked
    /// twice: the second time of what has been since.
    async fn agrees(&self, quiet: bool) -> anyhow::Result<()> {
        self.agree_now(quiet).await?;
        sleep(STATUS_LATE).await;
        self.agree_now(quiet).await
    }

    async fn agree_now(&self, quiet: bool) -> anyhow::Result<()> {
        let running = self.running();
        let names: Vec<String> = running.iter().map(|node| name(*node)).collect();
        for node in running {
            let reports = self.questions.status(node).await?;
            agreed::check_reports(&name(node), &names, &reports, quiet)?;
            let owned: u32 = reports.iter().map(|report| report.slots_owned).sum();
            let slots = self.setup.slots;
            ensure!(owned == u32::from(slots), "I8: of {slots} slots {owned} are owned");
        }
        Ok(())
    }

    /// Clients publish no more, and in the end all have what they were promised.
    pub(super) async fn rest(&mut self) -> anyhow::Result<()> {
        self.tell_clients(Doing::Nothing);
        let over = Instant::now() + OPERATION;
        self.agree(true).await?;
        let deadline = Instant::now() + DELIVERY;
        loop {
            let missed = delivered::check(&self.history.borrow());
            match missed {
                Ok(()) => break,
                Err(missed) if Instant::now() >= deadline => return Err(missed),
                Err(_) => sleep(LOOK_EVERY).await,
            }
        }
        // What comes until then may come.
        sleep_until(over).await;
        self.agree(true).await?;
        delivered::check(&self.history.borrow())?;
        self.attended().await
    }

    /// Everybody is shown to be where it is, and nobody else.
    async fn attended(&mut self) -> anyhow::Result<()> {
        let deadline = Instant::now() + ATTENDANCE;
        loop {
            self.asked += 1;
            self.history.borrow_mut().ask_again();
            self.tell_clients(Doing::Ask(self.asked));
            sleep(ANSWERED).await;
            let shown = shown::check(&self.history.borrow(), &self.setup);
            match shown {
                Ok(()) => return Ok(()),
                Err(wrong) if Instant::now() >= deadline => return Err(wrong),
                Err(_) => {}
            }
        }
    }
}
