//! The virtual network: frames cross it as bytes, each lane of each pair of nodes in order unless
//! the run's faults say otherwise.
use std::collections::{BTreeMap, BTreeSet};

use anyhow::Context as _;
use rand::Rng;
use rand::rngs::StdRng;

use orbweb::protocol::ids::Incarnation;
use orbweb::protocol::peer::{Lane, PeerFrame};

use crate::options::Swarm;

/// A frame on its way.
#[derive(Clone)]
pub(crate) struct Flight {
    pub(crate) from: Incarnation,
    pub(crate) to: Incarnation,
    bytes: Vec<u8>,
}

impl Flight {
    pub(crate) fn frame(&self) -> anyhow::Result<PeerFrame> {
        rmp_serde::from_slice(&self.bytes).context("a frame that was encoded can be decoded")
    }

    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }
}

/// See the module.
pub(crate) struct Network {
    swarm: Swarm,
    healed: bool,
    arrivals: BTreeMap<(Incarnation, Incarnation, Lane), u64>,
    cut: BTreeSet<(Incarnation, Incarnation)>,
    mute: BTreeSet<Incarnation>,
    isolated: BTreeSet<Incarnation>,
}

impl Network {
    pub(crate) fn new(swarm: Swarm) -> Self {
        Self {
            swarm,
            healed: false,
            arrivals: BTreeMap::new(),
            cut: BTreeSet::new(),
            mute: BTreeSet::new(),
            isolated: BTreeSet::new(),
        }
    }

    /// From now on one direction of a link loses everything, or no longer.
    pub(crate) fn cut(&mut self, from: Incarnation, to: Incarnation, cut: bool) {
        if cut {
            self.cut.insert((from, to))
        } else {
            self.cut.remove(&(from, to))
        };
    }

    /// From now on nothing passes between a node and all others, or everything does again.
    pub(crate) fn isolate(&mut self, node: Incarnation, isolated: bool) {
        if isolated {
            self.isolated.insert(node);
        } else {
            self.isolated.remove(&node);
        }
    }

    /// Whether nothing passes between a node and all others.
    pub(crate) fn is_isolated(&self, node: Incarnation) -> bool {
        self.isolated.contains(&node)
    }

    /// Nothing that this node sends arrives any more.
    pub(crate) fn mute(&mut self, node: Incarnation) {
        self.mute.insert(node);
    }

    /// Faults end.
    pub(crate) fn heal(&mut self) {
        self.healed = true;
    }

    /// When a frame that is sent now arrives, once or twice, and what arrives; nothing if it is
    /// lost.
    pub(crate) fn send(
        &mut self,
        (from, to, lane): (Incarnation, Incarnation, Lane),
        frame: &PeerFrame,
        now: u64,
        random: &mut StdRng,
    ) -> anyhow::Result<Vec<(u64, Flight)>> {
        let bytes = rmp_serde::to_vec(frame).context("a frame can be encoded")?;
        let delay = random.random_range(1..=self.swarm.latency_ms.max(1));
        let mut happens = |rate: u32| !self.healed && random.random_range(0..10_000) < rate;
        let lost = happens(self.swarm.loss);
        let (overtakes, twice) = (happens(self.swarm.overtaking), happens(self.swarm.twice));
        let apart = [from, to].iter().any(|node| self.isolated.contains(node));
        if lost || apart || self.cut.contains(&(from, to)) || self.mute.contains(&from) {
            return Ok(vec![]);
        }
        let before = self.arrivals.entry((from, to, lane)).or_insert(0);
        let bulk_ms = if lane == Lane::Bulk && !self.healed { self.swarm.bulk_ms } else { 0 };
        let mut at = now + delay;
        if !overtakes {
            at = at.max(*before + bulk_ms);
            *before = at;
        }
        let flight = Flight { from, to, bytes };
        let mut flights = vec![(at, flight.clone())];
        if twice {
            flights.push((at + delay, flight));
        }
        Ok(flights)
    }
}
