//! Links to other nodes over QUIC: one authenticated link a pair of nodes, all on one UDP socket of
//! the caller's that both dials and accepts. Moves frames, gossip and events; decides nothing about
//! slots or views. Driven by the composition root.
mod dial;
mod endpoint;
mod frames;
mod gate;
mod gossip;
mod greeting;
mod identity;
mod lanes;
mod lifeline;
mod link;
mod outbox;
mod refusal;
mod registry;
mod relay;
mod stats;
#[cfg(test)]
pub(crate) mod tests;
mod tls;
mod transport;

use std::net::{SocketAddr, TcpListener};
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use quinn::{AsyncUdpSocket, Endpoint, Runtime, VarInt};
use thiserror::Error;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use dial::Target;
pub use frames::{FRAME_BYTES_MAX, FrameError};
pub use gossip::Gossip;
pub use identity::{Credentials, OperatorPem, SECRET_BYTES, SECRET_BYTES_MIN, Secret, SecretError};
pub use lifeline::{Door, Finding};
pub use link::LinkEnd;
pub use registry::Relays;
pub use relay::Outcome;
pub use stats::{LinkStatus, PeersStats};
pub use tls::TlsError;
pub use transport::{SOCKET_BUFFER_BYTES, udp};

use crate::protocol::ids::{Incarnation, NodeId};
use crate::protocol::link::{CloseCode, Hello, Refusal};
use crate::protocol::peer::{Lane, PeerFrame};

/// How long closing waits for the peers to have heard of it.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// Who this node is and what its cluster agrees on.
#[derive(Clone, Debug)]
pub struct PeersConfig {
    /// Name and incarnation.
    pub node: NodeId,
    /// The cluster's name.
    pub cluster: String,
    /// Slots of the cluster.
    pub slots: u16,
    /// Copies of each entry.
    pub copies: u8,
    /// Versions of peer frames that it speaks; each link takes the newest that both ends do.
    pub versions: RangeInclusive<u16>,
    /// Where other nodes reach this one; never port 0.
    pub advertise: SocketAddr,
    /// Where clients reach this node.
    pub url: Option<String>,
    /// What it proves itself with.
    pub credentials: Credentials,
}

/// Why links can't be had.
#[derive(Debug, Error)]
pub enum PeersError {
    /// Certificates.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// QUIC needs a cipher suite that TLS doesn't have.
    #[error("quic: {0}")]
    Quic(#[from] quinn::crypto::rustls::NoInitialCipherSuite),
    /// The UDP socket.
    #[error("the socket for peers can't be used: {0}")]
    Socket(std::io::Error),
    /// An address that nobody can dial.
    #[error("{0} is no address that peers could dial: give one with an IP and a port")]
    Advertise(SocketAddr),
}

/// What happens on links. Of one link `Up` comes first and `Down` last.
#[derive(Debug)]
pub enum PeerEvent {
    /// A link works.
    Up {
        /// The node at the other end.
        id: NodeId,
        /// Where it is reached.
        address: SocketAddr,
        /// Where clients reach it.
        url: Option<String>,
    },
    /// A link ended.
    Down {
        /// The node at the other end.
        id: NodeId,
        /// Why.
        why: LinkEnd,
    },
    /// Frames, in the order in which they were sent on their lane.
    Frames {
        /// Who sent them; without a link to it, they came through another node.
        from: Incarnation,
        /// At least one.
        frames: Vec<PeerFrame>,
    },
    /// This node was refused.
    Refused {
        /// Where it dialled, or who dialled.
        by: SocketAddr,
        /// Why.
        reason: Refusal,
        /// Whether trying again can't help: the node should exit with the reason.
        fatal: bool,
    },
}

/// The links of a node. Dropping it closes them.
#[derive(Clone)]
pub struct Peers {
    mesh: Arc<Mesh>,
    _close: Arc<CloseOnDrop>,
}

/// What all tasks of this shell share.
struct Mesh {
    config: PeersConfig,
    proofs: identity::ProofKeys,
    endpoint: Endpoint,
    server_name: String,
    registry: registry::Registry,
    lifelines: lifeline::Lines,
    dials: dial::Dials,
    gate: Arc<gate::Gate>,
    refusals: gate::RefusalLog,
    counters: stats::Counters,
    events: mpsc::Sender<PeerEvent>,
    gossip_in: mpsc::Sender<(SocketAddr, bytes::Bytes)>,
    started: Instant,
    was_linked: AtomicBool,
    stop: CancellationToken,
    /// Dials, handshakes and the rest, which just stop.
    tasks: TaskTracker,
    /// Links, which end with an event.
    links: TaskTracker,
}

impl Peers {
    /// Starts on a socket and runtime of the caller's that QUIC can use, such as those of [`udp`].
    /// Events arrive on `events`; a link whose frames find it full waits.
    pub fn start(
        config: PeersConfig,
        socket: Arc<dyn AsyncUdpSocket>,
        runtime: Arc<dyn Runtime>,
        events: mpsc::Sender<PeerEvent>,
    ) -> Result<(Self, Gossip), PeersError> {
        if config.advertise.port() == 0 || config.advertise.ip().is_unspecified() {
            return Err(PeersError::Advertise(config.advertise));
        }
        let (endpoint, server_name) = transport::endpoint(&config, socket, runtime)?;
        let (gossip, ends) = gossip::channels();
        let mesh = Arc::new(Mesh {
            proofs: identity::ProofKeys::new(&config.credentials, "hello proof", &config.cluster),
            config,
            endpoint,
            server_name,
            registry: registry::Registry::new(),
            lifelines: lifeline::Lines::default(),
            dials: dial::Dials::default(),
            gate: Arc::default(),
            refusals: gate::RefusalLog::default(),
            counters: stats::Counters::default(),
            events,
            gossip_in: ends.incoming,
            started: Instant::now(),
            was_linked: AtomicBool::new(false),
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
            links: TaskTracker::new(),
        });
        let stop = mesh.stop.clone();
        mesh.tasks.spawn(endpoint::accept(mesh.clone()));
        mesh.tasks.spawn(stop.run_until_cancelled_owned(gossip::pump(mesh.clone(), ends.outgoing)));
        let close = Arc::new(CloseOnDrop(mesh.clone()));
        Ok((Self { mesh, _close: close }, gossip))
    }

    /// Sends a frame to nodes; never waits. The frame is encoded once. Returns what became of it
    /// for each recipient in turn.
    pub fn send(
        &self,
        to: &[Incarnation],
        lane: Lane,
        frame: &PeerFrame,
    ) -> Result<smallvec::SmallVec<[Outcome; 4]>, FrameError> {
        let encoded = frames::Encoded::new(frame)?;
        Ok(to.iter().map(|&node| self.mesh.send_one(node, lane, &encoded)).collect())
    }

    /// Keeps links with these nodes: dials those that aren't linked, again and again. Others are
    /// dialled no more; their links stay until they break.
    pub fn set_targets(&self, targets: Vec<Target>) {
        self.mesh.set_targets(targets);
    }

    /// Keeps a lifeline with each linked node, on a listener of the caller's at the address that is
    /// advertised. What is found when one ends arrives at the receiver; a full one drops. To be
    /// called once, if at all.
    pub fn keep_lifelines(
        &self,
        listener: TcpListener,
    ) -> std::io::Result<mpsc::Receiver<Finding>> {
        lifeline::start(&self.mesh, listener)
    }

    /// Closes the link to a node whose process is gone.
    pub fn bury(&self, node: &NodeId) {
        if let Some(link) = self.mesh.registry.routes().link(node.incarnation) {
            link.bury();
        }
    }

    /// Says through whom nodes without a link are reached.
    pub fn set_relays(&self, relays: Relays) {
        self.mesh.registry.set_relays(relays);
    }

    /// The nodes with a working link, in order of their names; changes wake the receiver.
    pub fn linked(&self) -> watch::Receiver<Arc<[NodeId]>> {
        self.mesh.registry.linked()
    }

    /// The links as they are, in order of the nodes' names.
    pub fn links(&self) -> Vec<LinkStatus> {
        self.mesh.registry.links().iter().map(|link| link.status()).collect()
    }

    /// Counters of all links together.
    pub fn stats(&self) -> PeersStats {
        PeersStats { lifelines: self.mesh.lifelines.count(), ..self.mesh.counters.read() }
    }

    /// Closes all links with a word to the peers, and waits a moment for them to have heard it.
    /// What is still in outboxes is lost.
    pub async fn close(&self) {
        self.mesh.shut();
        self.mesh.links.close();
        self.mesh.tasks.close();
        let ended = async {
            self.mesh.links.wait().await;
            self.mesh.tasks.wait().await;
            self.mesh.endpoint.wait_idle().await;
        };
        if timeout(CLOSE_TIMEOUT, ended).await.is_err() {
            tracing::debug!("links.closed_late");
        }
    }
}

/// Closes the links when the last handle is gone.
struct CloseOnDrop(Arc<Mesh>);

impl Drop for CloseOnDrop {
    fn drop(&mut self) {
        self.0.shut();
    }
}

impl Mesh {
    fn me(&self) -> Incarnation {
        self.config.node.incarnation
    }

    fn age_ms(&self) -> u64 {
        self.started.elapsed().as_millis() as u64
    }

    fn was_linked(&self) -> bool {
        self.was_linked.load(Ordering::Relaxed)
    }

    fn linked_once(&self) {
        self.was_linked.store(true, Ordering::Relaxed);
    }

    /// Our hello, with proofs for what this end exported from the session.
    fn hello(&self, exported: [u8; 32]) -> Hello {
        let config = &self.config;
        Hello {
            version_min: *config.versions.start(),
            version_max: *config.versions.end(),
            node: config.node.clone(),
            cluster: config.cluster.clone(),
            slots: config.slots,
            copies: config.copies,
            advertise: config.advertise,
            url: config.url.clone(),
            age_ms: self.age_ms(),
            links: self.registry.count() as u32,
            proofs: self.proofs.prove(&exported, &config.node),
        }
    }

    /// Waits for room in the queue of events. False if nobody will read it.
    async fn event(&self, event: PeerEvent) -> bool {
        tokio::select! {
            biased;
            sent = self.events.send(event) => sent.is_ok(),
            () = self.stop.cancelled() => false,
        }
    }

    fn shut(&self) {
        self.registry.close();
        self.stop.cancel();
        let code = CloseCode::Shutdown;
        self.endpoint.close(VarInt::from_u32(code as u32), code.to_string().as_bytes());
    }
}
