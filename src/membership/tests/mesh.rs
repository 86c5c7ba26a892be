//! A network in memory, and nodes on it whose links come and go as gossip and cuts say.
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, timeout};

use crate::membership::{Finding, GossipMessage, Membership, MembershipConfig, Snapshot, State};
use crate::protocol::ids::{Incarnation, NodeId};

#[derive(Clone, Default)]
struct Net {
    nodes: BTreeMap<SocketAddr, (NodeId, mpsc::Sender<GossipMessage>)>,
    cuts: BTreeSet<(SocketAddr, SocketAddr)>,
}

impl Net {
    fn reaches(&self, from: SocketAddr, to: SocketAddr) -> bool {
        let known = self.nodes.contains_key(&from) && self.nodes.contains_key(&to);
        known && !self.cuts.contains(&(from.min(to), from.max(to)))
    }
}

pub(super) struct Node {
    pub(super) membership: Membership,
    address: SocketAddr,
    findings: mpsc::Sender<Finding>,
}

/// A cluster; nodes have one letter.
#[derive(Default)]
pub(super) struct Mesh {
    net: watch::Sender<Net>,
    nodes: BTreeMap<char, Node>,
    started: u64,
}

pub(super) fn address_of(name: char) -> SocketAddr {
    ([127, 0, 0, name as u8], 7400).into()
}

pub(super) fn view(snapshot: &Snapshot) -> String {
    snapshot.view.members().iter().map(|m| m.id.name.as_str()).collect()
}

pub(super) fn members(snapshot: &Snapshot) -> String {
    snapshot.members.iter().map(|m| m.id.name.as_str()).collect()
}

impl Mesh {
    /// Starts these at one moment; each points at all the others.
    pub(super) fn start_all(&mut self, names: &str) {
        for name in names.chars() {
            self.start(name, names);
        }
    }

    pub(super) fn start(&mut self, name: char, seeds: &str) {
        self.start_at(name, address_of(name), seeds);
    }

    pub(super) fn start_at(&mut self, name: char, address: SocketAddr, seeds: &str) {
        let seeds = seeds.chars().map(|seed| address_of(seed).to_string()).collect();
        self.start_with(name, address, |config| config.seeds = seeds);
    }

    pub(super) fn start_with(
        &mut self,
        name: char,
        address: SocketAddr,
        change: impl FnOnce(&mut MembershipConfig),
    ) {
        self.started += 1;
        let incarnation = Incarnation(u128::from(self.started) << 64);
        let id = NodeId { name: name.to_string().parse().unwrap(), incarnation };
        let mut config = MembershipConfig::new(id.clone(), self.started, address);
        change(&mut config);
        let (gossip_out, sent) = mpsc::channel(64);
        let (mailbox, gossip_in) = mpsc::channel(64);
        let (linked, links) = watch::channel(Vec::new());
        let (findings, found) = mpsc::channel(4);
        let membership = Membership::start(config, gossip_out, gossip_in, links, found).unwrap();
        self.net.send_modify(|net| {
            net.nodes.insert(address, (id, mailbox));
        });
        tokio::spawn(carry(address, sent, self.net.subscribe()));
        let state = membership.state.clone();
        tokio::spawn(link(address, membership.snapshots(), self.net.subscribe(), linked, state));
        self.nodes.insert(name, Node { membership, address, findings });
    }

    /// Ends a node without a word.
    pub(super) fn kill(&mut self, name: char) {
        if let Some(node) = self.nodes.remove(&name) {
            self.net.send_modify(|net| {
                net.nodes.remove(&node.address);
            });
        }
    }

    /// Brings a node a message from itself.
    pub(super) fn tell(&self, name: char, bytes: Bytes) {
        let address = self.node(name).address;
        let mailbox = self.net.borrow().nodes[&address].1.clone();
        mailbox.try_send((address, bytes)).unwrap();
    }

    /// Tells a node what was found at somebody's door.
    pub(super) fn find(&self, name: char, finding: Finding) {
        self.node(name).findings.try_send(finding).unwrap();
    }

    pub(super) fn cut(&self, one: char, other: char) {
        let (one, other) = (self.node(one).address, self.node(other).address);
        self.net.send_modify(|net| {
            net.cuts.insert((one.min(other), one.max(other)));
        });
    }

    pub(super) fn heal(&self) {
        self.net.send_modify(|net| net.cuts.clear());
    }

    pub(super) fn node(&self, name: char) -> &Node {
        &self.nodes[&name]
    }

    pub(super) fn now(&self, name: char) -> Snapshot {
        self.node(name).membership.snapshots().borrow().as_ref().clone()
    }

    /// What each node sees now, by name.
    pub(super) fn snapshots(&self) -> Vec<Snapshot> {
        self.nodes.keys().map(|&name| self.now(name)).collect()
    }

    pub(super) async fn sees(&self, name: char, what: impl Fn(&Snapshot) -> bool) {
        let mut snapshots = self.node(name).membership.snapshots();
        let seen = timeout(Duration::from_secs(100), snapshots.wait_for(|s| what(s))).await;
        assert!(seen.is_ok_and(|seen| seen.is_ok()), "{name} sees {:#?}", self.now(name));
    }

    /// Waits until all nodes have this view at the same time, and returns how long it took.
    pub(super) async fn all_see(&self, names: &str) -> Duration {
        let start = Instant::now();
        while self.snapshots().iter().any(|snapshot| view(snapshot) != names) {
            for &name in self.nodes.keys() {
                self.sees(name, |snapshot| view(snapshot) == names).await;
            }
        }
        start.elapsed()
    }
}

async fn carry(
    from: SocketAddr,
    mut sent: mpsc::Receiver<GossipMessage>,
    net: watch::Receiver<Net>,
) {
    while let Some((to, bytes)) = sent.recv().await {
        tokio::time::sleep(Duration::from_micros(300)).await;
        let net = net.borrow();
        if net.reaches(from, to) {
            // A full mailbox drops, as a link does.
            let _ = net.nodes[&to].1.try_send((from, bytes));
        }
    }
}

/// Links with whom gossip names, and turns up with the first link, as a node with nothing to learn.
async fn link(
    me: SocketAddr,
    mut snapshots: watch::Receiver<Arc<Snapshot>>,
    mut net: watch::Receiver<Net>,
    linked: watch::Sender<Vec<NodeId>>,
    state: Arc<watch::Sender<State>>,
) {
    loop {
        let links: Vec<NodeId> = {
            let net = net.borrow_and_update();
            let targets = &snapshots.borrow_and_update().targets;
            let reached = targets.iter().filter(|target| net.reaches(me, target.address));
            let peers = reached.map(|target| (net.nodes[&target.address].0.clone(), target));
            let same = peers.filter(|(peer, target)| target.id.as_ref() == Some(peer));
            same.map(|(peer, _)| peer).collect()
        };
        if !links.is_empty() {
            crate::membership::facts::raise(&state, State::Up);
        }
        linked.send_if_modified(|linked| {
            let changed = *linked != links;
            *linked = links;
            changed
        });
        tokio::select! {
            changed = snapshots.changed() => if changed.is_err() { return },
            _ = net.changed() => {}
        }
    }
}
