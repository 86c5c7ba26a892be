//! What the node tells membership at the start.
use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use super::facts::{URL_BYTES_MAX, WEIGHT_MAX};
use super::seeds::{Resolver, SEEDS_MAX, Seed, system_resolver};
use super::{MembershipError, facts};
use crate::protocol::ids::NodeId;
use crate::tasks::Tasks;

/// Who this node is, and how it finds the others.
#[derive(Clone)]
pub struct MembershipConfig {
    /// Name and incarnation.
    pub id: NodeId,
    /// Greater than at every earlier start of this name: microseconds of the wall clock will do.
    /// Of two incarnations of a name the one with the greater generation counts; a clock that was
    /// set back only delays that until the earlier one is taken as dead.
    pub generation: u64,
    /// The cluster's name; gossip with another one is refused.
    pub cluster: String,
    /// Where peers reach this node; it is its address in gossip.
    pub link_address: SocketAddr,
    /// Further addresses that are this node: a seed among them is ignored.
    pub own_addresses: Vec<SocketAddr>,
    /// Where clients reach this node; at most 256 bytes.
    pub client_url: String,
    /// `HOST:PORT` of nodes to find the cluster by; none = this node starts a cluster.
    pub seeds: Vec<String>,
    /// Version of the frames between nodes, for status.
    pub protocol: u32,
    /// Copies of what is acknowledged; the same on all nodes.
    pub copies: u8,
    /// Slots of the cluster; the same on all nodes.
    pub slots: u16,
    /// Share of the ring, 1 to 64.
    pub weight: u16,
    /// How soon a silent node is taken as dead.
    pub detector: Detector,
    /// How names of seeds become addresses.
    pub resolver: Resolver,
    /// What runs its task.
    pub tasks: Tasks,
}

/// How soon a silent node is taken as dead. The defaults notice it in 0.5 to 0.8 s and were free of
/// false deaths under CPU load.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Detector {
    /// Time between gossip rounds, default 100 ms; take 200 to 250 ms with 100 nodes or more:
    /// traffic a node grows with their number.
    pub gossip_interval: Duration,
    /// A node is suspect when it is silent for this many times the mean interval of its
    /// heartbeats, default 8; 12 suits networks with pauses.
    pub phi: f64,
    /// A suspect counts as live for so long still, default 200 ms.
    pub hold: Duration,
    /// How long dead nodes are remembered in gossip, default 5 min; with several partitions a day
    /// that last longer, seeds heal them.
    pub dead_grace: Duration,
}

impl Default for Detector {
    fn default() -> Self {
        Self {
            gossip_interval: Duration::from_millis(100),
            phi: 8.0,
            hold: Duration::from_millis(200),
            dead_grace: Duration::from_secs(300),
        }
    }
}

impl MembershipConfig {
    /// A configuration with defaults for all but who and where this node is.
    pub fn new(id: NodeId, generation: u64, link_address: SocketAddr) -> Self {
        Self {
            id,
            generation,
            cluster: "orbweb".to_owned(),
            link_address,
            own_addresses: Vec::new(),
            client_url: String::new(),
            seeds: Vec::new(),
            protocol: 1,
            copies: 2,
            slots: crate::protocol::ids::SLOTS_DEFAULT,
            weight: 1,
            detector: Detector::default(),
            resolver: system_resolver(),
            tasks: Tasks::default(),
        }
    }

    /// Whether this address is this node itself.
    pub fn is_me(&self, address: SocketAddr) -> bool {
        address == self.link_address || self.own_addresses.contains(&address)
    }

    /// What this node first says of itself.
    pub(super) fn facts(&self, state: facts::State) -> facts::Facts {
        facts::Facts {
            incarnation: self.id.incarnation,
            client_url: self.client_url.clone(),
            state,
            links: Vec::new(),
            awaits: Vec::new(),
            protocol: self.protocol,
            copies: self.copies,
            slots: self.slots,
            weight: self.weight,
        }
    }

    pub(super) fn check(&self) -> Result<Vec<Seed>, MembershipError> {
        if self.client_url.len() > URL_BYTES_MAX {
            return Err(MembershipError::ClientUrl(self.client_url.len()));
        }
        if !(1..=WEIGHT_MAX).contains(&self.weight) {
            return Err(MembershipError::Weight(self.weight));
        }
        let interval = self.detector.gossip_interval.as_millis();
        if !(20..=5_000).contains(&interval) {
            return Err(MembershipError::GossipInterval(interval));
        }
        if self.seeds.len() > SEEDS_MAX {
            return Err(MembershipError::Seeds(self.seeds.len()));
        }
        let parse = |text: &String| text.parse().map_err(|()| MembershipError::Seed(text.clone()));
        self.seeds.iter().map(parse).collect()
    }
}

impl fmt::Debug for MembershipConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MembershipConfig")
            .field("id", &self.id)
            .field("link_address", &self.link_address)
            .field("seeds", &self.seeds)
            .finish_non_exhaustive()
    }
}
