//! The composition root: binds, wires the parts and takes them apart again. It decides nothing.
mod clock;
mod environment;
mod facts;
mod metrics;
mod shortage;
#[cfg(test)]
mod tests;
mod wiring;

use std::process;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use arc_swap::ArcSwap;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

use crate::api::NodeFacts;
use crate::config::Config;
use crate::delivery::event::{CoreStatus, Event};
use crate::delivery::mailbox::CoreSender;
use crate::engine::Progress;
use crate::gateway::Gateway;
use crate::gateway::socket::Listener;
use crate::membership::{Membership, State};
use crate::peers::Peers;
use crate::protocol::peer::SlotRange;

pub use clock::Clocks;
pub use environment::{Environment, Mesh};

/// How long a joining node waits to be told everything before it turns up all the same.
const LEARN_TIMEOUT: Duration = Duration::from_secs(60);
/// Connections closed a second while draining, so that their clients don't all come back at once.
const CLOSED_PER_SECOND: u32 = 2_000;
/// What stays of the time to leave, at least, for stopping: words of farewell go out on the links.
const STOP_TIMEOUT_MIN: Duration = Duration::from_millis(100);

/// Binds, runs a node until a signal, and drains it. A second signal exits at once.
pub async fn run(config: Config) -> anyhow::Result<()> {
    let mut term = signal(SignalKind::terminate())?;
    let mut int = signal(SignalKind::interrupt())?;
    let drain_timeout = config.drain_timeout;
    let environment = Environment::bind(&config)?;
    let mut node = Node::start(config, environment).await?;
    tokio::select! {
        _ = term.recv() => {}
        _ = int.recv() => {}
        error = node.failed() => return Err(error),
    }
    tracing::info!(timeout = ?drain_timeout, "node.leaving");
    tokio::spawn(async move {
        tokio::select! {
            _ = term.recv() => {}
            _ = int.recv() => {}
        }
        tracing::warn!("node.killed_by_second_signal");
        process::exit(130);
    });
    node.drain(drain_timeout).await;
    tracing::info!("node.left");
    Ok(())
}

/// A running node.
pub struct Node<L: Listener = TcpListener> {
    core: CoreSender,
    gateway: Gateway<L>,
    membership: Option<Membership>,
    peers: Option<Peers>,
    progress: watch::Receiver<Progress>,
    failures: mpsc::Receiver<anyhow::Error>,
    status: Arc<ArcSwap<CoreStatus>>,
    facts: Arc<dyn NodeFacts>,
    tasks: Vec<JoinHandle<()>>,
}

impl<L: Listener> Node<L> {
    /// Starts a node in surroundings of the caller's. With [`Threads::Shared`](crate::gateway::Threads)
    /// the caller must be inside a `LocalSet`.
    pub async fn start(config: Config, environment: Environment<L>) -> anyhow::Result<Self> {
        wiring::start(config, environment).await
    }

    /// What it says of itself.
    pub fn facts(&self) -> Arc<dyn NodeFacts> {
        self.facts.clone()
    }

    /// The slots that it owns, in order, as of the fifth of a second before.
    pub fn owned(&self) -> Vec<SlotRange> {
        self.status.load().owned.to_vec()
    }

    /// Waits for something after which this node can't go on.
    pub async fn failed(&mut self) -> anyhow::Error {
        match self.failures.recv().await {
            Some(error) => error,
            None => anyhow::anyhow!("the node's tasks ended"),
        }
    }

    /// Announces the leave, hands slots over, closes connections, and stops, within `within`; if
    /// that is less than `STOP_TIMEOUT_MIN`, within the latter.
    pub async fn drain(mut self, within: Duration) {
        let deadline = Instant::now() + within;
        let left = || deadline.saturating_duration_since(Instant::now());
        if let Some(membership) = &self.membership {
            membership.set_state(State::Leaving);
        }
        // A quarter of the time stays for the connections.
        if timeout(within * 3 / 4, self.hand_over()).await.is_err() {
            let owned = self.status.load().slots_owned;
            tracing::warn!(slots_owned = owned, "drain.timed_out");
        }
        self.close_connections(left().saturating_sub(STOP_TIMEOUT_MIN)).await;
        self.stop(left().max(STOP_TIMEOUT_MIN)).await;
    }

    async fn hand_over(&mut self) {
        // The mailbox is only closed if the engine has ended, and then nothing is owned.
        let _ended = self.core.push(Event::Leave).await;
        let _ended = self.progress.wait_for(|progress| progress.drained).await;
    }

    async fn close_connections(&self, within: Duration) {
        let connections = u32::try_from(self.gateway.connections()).unwrap_or(u32::MAX);
        let pace = Duration::from_secs(1) * connections / CLOSED_PER_SECOND;
        if timeout(within, self.gateway.drain(pace.min(within * 3 / 4))).await.is_err() {
            tracing::warn!(connections = self.gateway.connections(), "drain.connections_left");
        }
    }

    /// Stops without handing anything over, and waits no longer than `within` for the parts to end.
    pub async fn stop(self, within: Duration) {
        let Self { gateway, membership, peers, tasks, .. } = self;
        let ended = async {
            gateway.stop().await;
            if let Some(membership) = membership {
                membership.shutdown().await;
            }
            if let Some(peers) = peers {
                peers.close().await;
            }
        };
        if timeout(within, ended).await.is_err() {
            tracing::debug!("node.stopped_late");
        }
        for task in tasks {
            task.abort();
        }
    }
}

/// Turns a joining node up once it has been told everything, or after [`LEARN_TIMEOUT`].
async fn turn_up(
    mut state: watch::Receiver<State>,
    mut progress: watch::Receiver<Progress>,
    set_state: impl FnOnce(State),
) {
    let caught_up = progress.wait_for(|progress| progress.caught_up);
    tokio::select! {
        biased;
        // It founds a cluster and has nothing to be told, or leaves before it was up.
        _ = state.wait_for(|state| *state != State::Joining) => return,
        told = timeout(LEARN_TIMEOUT, caught_up) => match told {
            Ok(_) => tracing::info!("node.caught_up"),
            Err(_) => tracing::warn!(after = ?LEARN_TIMEOUT, "node.up_without_all_copies"),
        },
    }
    set_state(State::Up);
}

/// A message with the cause, for the process that ends because of it.
fn fatal(reason: impl std::fmt::Display) -> anyhow::Result<()> {
    Err(anyhow::anyhow!("{reason}")).context("this node can't be part of the cluster")
}
