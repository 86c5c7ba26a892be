//! A virtual client: speaks the client protocol to whichever node lets it in, publishes at its pace,
//! keeps its positions as the SDKs do, and comes back with them when a connection ends.
mod connection;
mod replies;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use orbweb::protocol::channel::Channel;
use orbweb::protocol::ids::Position;
use rand::Rng;
use rand::rngs::StdRng;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::doors::Doors;
use super::history;
use super::trace::Trace;
use super::wire::Wire;
use connection::Connection;

/// Between two attempts to connect, as SDKs do at first; without a node to connect to, too.
const RECONNECT_MS: (u64, u64) = (100, 1_000);

/// How long SDKs wait for a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// What clients do beside listening.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Doing {
    Publish,
    Nothing,
    /// They ask who else is in their channels, and for their attributes, once for each number.
    Ask(u64),
}

/// Which SDK a client behaves like: JavaScript's learns new epochs from publications, others
/// subscribe again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Sdk {
    JavaScript,
    Other,
}

/// See the module.
pub(crate) struct Client<D> {
    pub(crate) number: history::Client,
    pub(crate) sdk: Sdk,
    /// What shows whom it belongs to.
    pub(crate) token: Option<String>,
    pub(crate) channels: Vec<Channel>,
    /// Where it connects first.
    pub(crate) home: Option<usize>,
    /// Between two publications, on average.
    pub(crate) pace: Duration,
    /// Bytes that the payload of a publication has more than it needs.
    pub(crate) padding: usize,
    /// Whether it keeps an attribute of its user, too.
    pub(crate) keeps: bool,
    pub(crate) doors: D,
    pub(crate) doing: watch::Receiver<Doing>,
    /// Those that neither read nor send for now.
    pub(crate) still: watch::Receiver<BTreeSet<history::Client>>,
    /// The nodes that stand still: nothing comes from them.
    pub(crate) stopped: watch::Receiver<BTreeSet<usize>>,
    pub(crate) history: history::Shared,
    pub(crate) trace: Trace,
    pub(crate) random: StdRng,
    /// Where it is in each channel that it has ever subscribed to.
    pub(crate) positions: BTreeMap<Channel, Position>,
}

impl<D: Doors> Client<D> {
    /// Lives until its task is dropped.
    pub(crate) async fn run(mut self) {
        for number in 0.. {
            let home = self.home.filter(|_| number == 0);
            if let Some(node) = self.doors.choose(home, &mut self.random) {
                let why = self.connect(node, number).await;
                self.trace.tell(format_args!("client {} left node {node}: {why}", self.number));
            }
            let (least, most) = RECONNECT_MS;
            sleep(Duration::from_millis(self.random.random_range(least..=most))).await;
        }
    }

    /// One connection, from its beginning to why it ended.
    async fn connect(&mut self, node: usize, number: u32) -> String {
        let from = SocketAddr::from(([10, 1, 0, self.number as u8], 10_000 + number as u16));
        let (socket, cut) = match self.doors.dial(node, from).await {
            Ok(dialled) => dialled,
            Err(error) => return format!("{error}"),
        };
        let shaken = tokio::select! {
            biased;
            () = cut.cancelled() => return "it was cut off".to_owned(),
            shaken = timeout(CONNECT_TIMEOUT, Self::open(socket, node, self.stopped.clone())) => shaken,
        };
        let Ok(shaken) = shaken else { return "no handshake in time".to_owned() };
        match shaken {
            Ok(wire) => Connection::new(self, wire, (node, number)).run(cut).await,
            Err(error) => format!("{error:#}"),
        }
    }

    /// The handshake, for which a node must not stand still.
    async fn open(
        socket: D::Socket,
        node: usize,
        mut stopped: watch::Receiver<BTreeSet<usize>>,
    ) -> anyhow::Result<Wire<D::Socket>> {
        stopped.wait_for(|stopped| !stopped.contains(&node)).await?;
        Wire::open(socket).await
    }
}
