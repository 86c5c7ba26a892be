//! The virtual network: frames cross it as bytes, each lane of each pair of nodes in order unless
//! the run's faults say otherwise.
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

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
    pub(crate) lane: Lane,
    bytes: Vec<u8>,
}

impl Flight {
    pub(crate) fn frame(&self) -> anyhow::Result<PeerFrame> {
        rmp_serde::from_slice(&self.bytes).context("a frame that was encoded can be decoded")
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

impl fmt::Debug for Flight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} -> {:?} {:?}", self.from, self.to, self.frame().map_err(|_| fmt::Error)?)
    }
}

/// See the module.
pub(crate) struct Network {
    swarm: Swarm,
    healed: bool,
    arrivals: BTreeMap<(Incarnation, Incarnation, Lane), u64>,
    cut: BTreeSet<(Incarnation, Incarnation)>,
    mute: BTreeSet<Incarnation>,
    deaf: BTreeSet<Incarnation>,
    isolated: BTreeSet<Incarnation>,
    harm: Harm,
}

/// What faults did to frames.
#[derive(Clone, Copy, Default)]
pub(crate) struct Harm {
    /// Lost by chance or since a link was cut or a node died; not what mute and deaf ones lose.
    pub(crate) lost: u64,
    pub(crate) twice: u64,
    /// Overtook those before them.
    pub(crate) overtook: u64,
}

impl Network {
    pub(crate) fn new(swarm: Swarm) -> Self {
        Self {
            swarm,
            healed: false,
            arrivals: BTreeMap::new(),
            cut: BTreeSet::new(),
            mute: BTreeSet::new(),
            deaf: BTreeSet::new(),
            isolated: BTreeSet::new(),
            harm: Harm::default(),
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

    /// The directions of links that lose everything.
    pub(crate) fn cuts(&self) -> &BTreeSet<(Incarnation, Incarnation)> {
        &self.cut
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

    /// Nothing that is sent to this node arrives any more.
    pub(crate) fn deafen(&mut self, node: Incarnation) {
        self.deaf.insert(node);
    }

    pub(crate) fn is_deaf(&self, node: Incarnation) -> bool {
        self.deaf.contains(&node)
    }

    /// Frames that were on their way are lost.
    pub(crate) fn lose(&mut self, frames: usize) {
        self.harm.lost += frames as u64;
    }

    pub(crate) fn harm(&self) -> Harm {
        self.harm
    }

    /// Faults end: copies aren't slow any more. Returns when the last of those on their way arrives.
    pub(crate) fn heal(&mut self, now: u64) -> u64 {
        self.healed = true;
        let soon = now + self.swarm.latency_ms.max(1);
        let bulk = self.arrivals.iter_mut().filter(|((.., lane), _)| *lane == Lane::Bulk);
        bulk.for_each(|(_, last)| *last = soon.min(*last));
        soon
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
        if self.mute.contains(&from) || self.deaf.contains(&to) {
            return Ok(vec![]);
        }
        let apart = [from, to].iter().any(|node| self.isolated.contains(node));
        if lost || apart || self.cut.contains(&(from, to)) {
            self.harm.lost += 1;
            return Ok(vec![]);
        }
        self.harm.twice += u64::from(twice);
        self.harm.overtook += u64::from(overtakes);
        let before = self.arrivals.entry((from, to, lane)).or_insert(0);
        let bulk_ms = if lane == Lane::Bulk && !self.healed { self.swarm.bulk_ms } else { 0 };
        let mut at = now + delay;
        if !overtakes {
            at = at.max(*before + bulk_ms);
            *before = at;
        }
        let flight = Flight { from, to, lane, bytes };
        let mut flights = vec![(at, flight.clone())];
        if twice {
            flights.push((at + delay, flight));
        }
        Ok(flights)
    }
}
