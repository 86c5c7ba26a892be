//! Gossip: who is there, who counts for the placement, whom to link with. Started by the node;
//! chitchat runs inside, over two channels whose other ends somebody else's links serve. It never
//! opens a socket, never decides who owns what, and gossips nothing that grows with load.
//!
//! In reading order:
//!
//! - [`config`]: what the node tells it at the start.
//! - [`facts`]: what members gossip of themselves, as text and as types.
//! - [`snapshot`]: what comes out.
//! - [`roster`]: from gossip and links to a snapshot. Pure, like its parts: [`stall`] (is it me who
//!   is late?), [`liveness`] (who is there), [`verdicts`] (whose process is known to be gone),
//!   [`links`] (what I report of my links),
//!   [`view_tracker`] (who counts), [`relay`] (who is reached through whom).
//! - [`seeds`]: the addresses behind seeds; [`probe`]: whose turn it is to be tried;
//!   [`transport`]: chitchat's socket; `live`: what it calls live; `gossip`: the task.
//! - [`outlook`]: what the cores are told of a snapshot.
use std::sync::Arc;

use bytes::Bytes;
use thiserror::Error;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::sync::DropGuard;

use crate::protocol::ids::NodeId;

pub mod config;
pub mod facts;
mod gossip;
pub mod links;
mod live;
pub mod liveness;
pub mod outlook;
pub mod probe;
pub mod relay;
pub mod roster;
pub mod seeds;
pub mod snapshot;
pub mod stall;
pub mod transport;
pub mod verdicts;
pub mod view_tracker;

pub use config::{Detector, MembershipConfig};
pub use facts::State;
pub use outlook::Lookout;
pub use snapshot::Snapshot;
pub use verdicts::{Door, Finding};

#[cfg(test)]
mod tests;

/// Gossip messages between membership and links: each with the address that its sender, or its
/// receiver, advertises.
pub type GossipMessage = (std::net::SocketAddr, Bytes);

/// Why membership can't start. Nothing was started.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum MembershipError {
    /// A seed that isn't `HOST:PORT`.
    #[error("seed {0:?} is not HOST:PORT")]
    Seed(String),
    /// More seeds than would ever be probed in time.
    #[error("{0} seeds are configured, at most {max} are allowed", max = seeds::SEEDS_MAX)]
    Seeds(usize),
    /// A client URL that doesn't fit in gossip.
    #[error("client URL is {0} bytes long, at most {max} are allowed", max = facts::URL_BYTES_MAX)]
    ClientUrl(usize),
    /// A weight outside the range that placements are made for.
    #[error("weight is {0}, expected 1 to {max}", max = facts::WEIGHT_MAX)]
    Weight(u16),
    /// A gossip interval that the detector can't work with.
    #[error("gossip interval is {0} ms, expected 20 to 5000")]
    GossipInterval(u128),
}

/// Membership at work; it stops when this is dropped.
#[derive(Debug)]
pub struct Membership {
    snapshots: watch::Receiver<Arc<Snapshot>>,
    state: Arc<watch::Sender<State>>,
    stop: DropGuard,
    task: JoinHandle<()>,
}

impl Membership {
    /// Starts gossiping; must be called on a runtime. `gossip_out` is never waited for: what
    /// doesn't fit is dropped. `gossip_in` must bring authenticated messages only, each with the
    /// address that its sender advertises. `linked` lists the peers with a working link now.
    /// `findings` may bring what was found at doors of peers whose connection ended.
    pub fn start(
        config: MembershipConfig,
        gossip_out: mpsc::Sender<GossipMessage>,
        gossip_in: mpsc::Receiver<GossipMessage>,
        linked: watch::Receiver<Vec<NodeId>>,
        findings: mpsc::Receiver<Finding>,
    ) -> Result<Self, MembershipError> {
        let seed_list = config.check()?;
        let known = seeds::Seeds::literal(&seed_list, &config);
        let state = if known.foreign { State::Joining } else { State::Up };
        let state = Arc::new(watch::Sender::new(state));
        let tasks = config.tasks.clone();
        let stop = CancellationToken::new();
        let shell = gossip::Gossip::new(gossip::Wiring {
            seeds: seeds::watch(seed_list, known, &config, stop.clone()),
            transport: transport::ChannelTransport::new(gossip_out, gossip_in),
            state: state.clone(),
            stop: stop.clone(),
            linked,
            findings,
            config,
        });
        let snapshots = shell.snapshots();
        let task = tasks.spawn(shell.run());
        Ok(Self { snapshots, state, stop: stop.drop_guard(), task })
    }

    /// What membership sees, now and from now on.
    pub fn snapshots(&self) -> watch::Receiver<Arc<Snapshot>> {
        self.snapshots.clone()
    }

    /// Announces a later state of this node. States go one way: an earlier one is ignored.
    pub fn set_state(&self, state: State) {
        facts::raise(&self.state, state);
    }

    /// The state that this node announces, now and from now on.
    pub fn state(&self) -> watch::Receiver<State> {
        self.state.subscribe()
    }

    /// [`Membership::set_state`] for a task of its own.
    pub fn state_setter(&self) -> impl FnOnce(State) + Send + 'static {
        let own = self.state.clone();
        move |state| facts::raise(&own, state)
    }

    /// Announces that this node leaves: it is out of every view within some gossip intervals.
    /// Gossip goes on, so that others know it reachable, until [`Membership::shutdown`].
    pub fn leave(&self) {
        self.set_state(State::Leaving);
    }

    /// Stops gossiping and waits for the task to end.
    pub async fn shutdown(self) {
        drop(self.stop);
        if let Err(error) = self.task.await {
            tracing::error!(%error, "membership.failed");
        }
    }
}
