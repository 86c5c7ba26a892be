//! Nodes on loopback in one process, linked by the shipped code. The harness: a node with its
//! events, and a socket that can be pulled out without a word, as a crash would.
pub(crate) mod authority;
mod configuration;
mod flow;
mod lifelines;
mod names;
mod plug;
mod trust;

use std::collections::BTreeMap;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::timeout;

use super::*;
use crate::protocol::link::{PROTOCOL_MAX, PROTOCOL_MIN};
use plug::Plug;

/// Longer than anything here takes, on a machine that has other things to do.
const PATIENCE: Duration = Duration::from_secs(10);
/// For things that must not happen.
const WHILE: Duration = Duration::from_millis(600);

/// A node to be started.
struct Setup {
    config: PeersConfig,
    socket: UdpSocket,
    event_queue: usize,
}

impl Setup {
    fn new(name: &str, secret: &Secret) -> Self {
        Self::at(name, secret, "127.0.0.1:0".parse().unwrap())
    }

    fn at(name: &str, secret: &Secret, address: SocketAddr) -> Self {
        let socket = UdpSocket::bind(address).expect("a free port");
        let config = PeersConfig {
            node: NodeId {
                name: name.parse().expect("a legal name"),
                incarnation: Incarnation(rand::random()),
            },
            cluster: "test".into(),
            slots: 16384,
            copies: 2,
            versions: PROTOCOL_MIN..=PROTOCOL_MAX,
            advertise: socket.local_addr().expect("a bound socket"),
            url: Some(format!("ws://{name}")),
            credentials: Credentials::new(secret.clone()),
        };
        Self { config, socket, event_queue: 1024 }
    }

    fn with(mut self, change: impl FnOnce(&mut PeersConfig)) -> Self {
        change(&mut self.config);
        self
    }

    fn start(self) -> Node {
        let (id, address) = (self.config.node.clone(), self.config.advertise);
        let (queue, events) = mpsc::channel(self.event_queue);
        let (socket, runtime) = udp(self.socket).expect("a socket");
        let plug = Arc::new(Plug::new(socket));
        let (peers, gossip) =
            Peers::start(self.config, plug.clone(), runtime, queue).expect("a node");
        Node { id, address, peers, gossip, events, plug }
    }
}

/// A started node.
struct Node {
    id: NodeId,
    address: SocketAddr,
    peers: Peers,
    gossip: Gossip,
    events: mpsc::Receiver<PeerEvent>,
    plug: Arc<Plug>,
}

fn node(name: &str, secret: &Secret) -> Node {
    Setup::new(name, secret).start()
}

/// Nodes that are all linked with each other.
async fn mesh<const N: usize>(names: [&str; N], secret: &Secret) -> [Node; N] {
    let mut nodes = names.map(|name| node(name, secret));
    for at in 1..N {
        let (before, rest) = nodes.split_at_mut(at);
        for other in before {
            link(&mut rest[0], other).await;
        }
    }
    nodes
}

/// The first dials the second; both see the link.
async fn link(dialler: &mut Node, other: &mut Node) {
    dialler.dial(other);
    dialler.up(&other.id).await;
    other.up(&dialler.id).await;
}

impl Node {
    fn dial(&self, other: &Node) {
        let mut targets: Vec<Target> = self.peers.mesh.dials.targets();
        targets.push(Target { id: None, address: other.address });
        self.peers.set_targets(targets);
    }

    /// The next event that `wanted` makes something of; others are skipped.
    async fn event<T>(&mut self, mut wanted: impl FnMut(PeerEvent) -> Option<T>) -> T {
        let found = async {
            loop {
                let event = self.events.recv().await.expect("events as long as the node lives");
                if let Some(found) = wanted(event) {
                    return found;
                }
            }
        };
        timeout(PATIENCE, found).await.expect("the event in time")
    }

    async fn up(&mut self, other: &NodeId) -> SocketAddr {
        self.event(|event| match event {
            PeerEvent::Up { id, address, .. } if id == *other => Some(address),
            _ => None,
        })
        .await
    }

    async fn down(&mut self, other: &NodeId) -> LinkEnd {
        self.event(|event| match event {
            PeerEvent::Down { id, why } if id == *other => Some(why),
            _ => None,
        })
        .await
    }

    async fn refused(&mut self) -> (Refusal, bool) {
        self.event(|event| match event {
            PeerEvent::Refused { reason, fatal, .. } => Some((reason, fatal)),
            _ => None,
        })
        .await
    }

    /// Nothing happens to links for a while.
    async fn quiet(&mut self) {
        match timeout(WHILE, self.events.recv()).await {
            Err(_) => {}
            Ok(event) => panic!("{}: {event:?}", self.id),
        }
    }

    /// The numbers of the next frames, by sender, until `count` came.
    async fn numbers(&mut self, count: usize) -> BTreeMap<Incarnation, Vec<u64>> {
        let mut numbers: BTreeMap<Incarnation, Vec<u64>> = BTreeMap::new();
        let mut came = 0;
        self.event(|event| {
            if let PeerEvent::Frames { from, frames } = event {
                came += frames.len();
                numbers.entry(from).or_default().extend(frames.iter().filter_map(number));
            }
            (came >= count).then_some(())
        })
        .await;
        numbers
    }

    /// The next frames, so many at least.
    async fn frames(&mut self, count: usize) -> Vec<PeerFrame> {
        let mut all = Vec::new();
        self.event(|event| {
            if let PeerEvent::Frames { frames, .. } = event {
                all.extend(frames);
            }
            (all.len() >= count).then_some(())
        })
        .await;
        all
    }

    fn send(&self, to: &Node, lane: Lane, frame: &PeerFrame) -> Outcome {
        self.peers.send(&[to.id.incarnation], lane, frame).expect("a frame within limits")[0]
    }

    fn linked(&self) -> Vec<NodeId> {
        self.peers.linked().borrow().to_vec()
    }
}

/// A frame that carries a number.
fn numbered(number: u64) -> PeerFrame {
    PeerFrame::NotOwner { number, owner: None }
}

fn number(frame: &PeerFrame) -> Option<u64> {
    match frame {
        PeerFrame::NotOwner { number, .. } => Some(*number),
        _ => None,
    }
}

/// A frame of about so many bytes.
fn heavy(bytes: usize) -> PeerFrame {
    PeerFrame::Digest { slots: vec![(crate::protocol::ids::Slot(9999), u64::MAX); bytes / 13] }
}
