//! Waiting for a cluster to be well: all ready, all agreed, everything delivered. Each wait has an end,
//! and what is still missing then is the failure.
use std::fmt;
use std::time::Duration;

use anyhow::ensure;
use tokio::time::{Instant, sleep};

use super::client::Doing;
use super::setup::name;
use super::story::Mark;
use super::{Cluster, STATUS_LATE};
use crate::checkers::{agreed, attributes, delivered, shown};

/// How long a cluster may take to start.
const START: Duration = Duration::from_secs(20);
/// Ten gossip intervals and 5 s: I8.
const AGREEMENT: Duration = Duration::from_secs(6);
/// How long clients may take until everything has reached them: their last attempt to connect or
/// subscribe may have been answered late, and is tried again.
const DELIVERY: Duration = Duration::from_secs(15);
/// How long a client may be shown that is there no longer: until the ping after its last sign of life
/// is unanswered. And how long one may not be shown that is.
const ATTENDANCE: Duration = Duration::from_secs(45);
/// How long clients take to ask who is there and to hear it.
const ANSWERED: Duration = Duration::from_millis(500);
/// What is noted then.
pub(crate) const READY: &str = "all are ready";
pub(crate) const AGREE: &str = "all agree";
/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(100);

impl Cluster {
    /// Every running node says that it is ready for clients, and all agree.
    pub(crate) async fn ready(&self) -> anyhow::Result<()> {
        let deadline = Instant::now() + START;
        loop {
            let mut unready = Vec::new();
            for node in self.running() {
                let reasons = self.facts(node)?.ready().await.err();
                unready.extend(reasons.map(|reasons| (name(node), reasons)));
            }
            let disagreed = self.agrees(false).await.err().map(|error| format!("{error:#}"));
            if unready.is_empty() && disagreed.is_none() {
                self.note(READY);
                return Ok(());
            }
            ensure!(
                Instant::now() < deadline,
                "I8: not ready within {START:?}: {unready:?}, {disagreed:?}"
            );
            sleep(LOOK_EVERY).await;
        }
    }

    /// Something for the timeline and the report.
    pub(crate) fn note(&self, note: impl fmt::Display) {
        self.trace.tell(&note);
        self.story.tell(Mark::Note(note.to_string()));
    }

    /// Nothing bad happens any more: all agree in time, though clients may go on publishing.
    pub(crate) async fn agree(&self) -> anyhow::Result<()> {
        self.agreed(false).await
    }

    /// What nodes say of their slots may be older than what they say of their views, so they are asked
    /// twice: the second time of what has been since.
    async fn agrees(&self, quiet: bool) -> anyhow::Result<()> {
        agreed::check(self, quiet).await?;
        sleep(STATUS_LATE).await;
        agreed::check(self, quiet).await
    }

    async fn agreed(&self, quiet: bool) -> anyhow::Result<()> {
        let deadline = Instant::now() + AGREEMENT;
        loop {
            let Err(disagreed) = self.agrees(quiet).await else {
                self.note(AGREE);
                return Ok(());
            };
            if Instant::now() >= deadline {
                return Err(disagreed.context(format!("{AGREEMENT:?} after the faults")));
            }
            sleep(LOOK_EVERY).await;
        }
    }

    /// Clients publish no more, and in the end all have what they were promised.
    pub(crate) async fn rest(&self) -> anyhow::Result<()> {
        self.agree().await?;
        self.tell_clients(Doing::Nothing);
        let deadline = Instant::now() + DELIVERY;
        loop {
            let missed = delivered::check(&self.history.borrow());
            match missed {
                Ok(()) => break,
                Err(missed) if Instant::now() >= deadline => return Err(missed),
                Err(_) => sleep(LOOK_EVERY).await,
            }
        }
        // What comes now would be a repetition.
        sleep(Duration::from_secs(1)).await;
        self.agreed(true).await?;
        self.attended().await
    }

    /// Everybody is shown to be where it is, and nobody else; and attributes are what they were set to.
    async fn attended(&self) -> anyhow::Result<()> {
        let deadline = Instant::now() + ATTENDANCE;
        for number in 1.. {
            self.history.borrow_mut().ask_again();
            self.tell_clients(Doing::Ask(number));
            sleep(ANSWERED).await;
            let history = self.history.borrow();
            let shown = shown::check(&history, &self.setup);
            match shown.and_then(|()| attributes::check(&history)) {
                Err(wrong) if Instant::now() >= deadline => return Err(wrong),
                Err(_) => {}
                Ok(()) => break,
            }
        }
        Ok(())
    }
}
