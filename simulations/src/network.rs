//! The virtual network: frames cross it as bytes, each lane of each pair of nodes in order.
use std::collections::{BTreeMap, BTreeSet};

use anyhow::Context as _;
use rand::Rng;
use rand::rngs::StdRng;

use orbweb::protocol::ids::Incarnation;
use orbweb::protocol::peer::{Lane, PeerFrame};

/// A frame on its way.
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
    latency_ms: u64,
    loss: u32,
    arrivals: BTreeMap<(Incarnation, Incarnation, Lane), u64>,
    cut: BTreeSet<(Incarnation, Incarnation)>,
}

impl Network {
    pub(crate) fn new(latency_ms: u64, loss: u32) -> Self {
        Self { latency_ms, loss, arrivals: BTreeMap::new(), cut: BTreeSet::new() }
    }

    /// From now on the link between two nodes loses everything, or no longer.
    pub(crate) fn cut(&mut self, (one, other): (Incarnation, Incarnation), cut: bool) {
        for pair in [(one, other), (other, one)] {
            if cut {
                self.cut.insert(pair)
            } else {
                self.cut.remove(&pair)
            };
        }
    }

    /// Faults end.
    pub(crate) fn heal(&mut self) {
        self.loss = 0;
    }

    /// When a frame that is sent now arrives, and what arrives; `None` if it is lost.
    pub(crate) fn send(
        &mut self,
        (from, to, lane): (Incarnation, Incarnation, Lane),
        frame: &PeerFrame,
        now: u64,
        random: &mut StdRng,
    ) -> anyhow::Result<Option<(u64, Flight)>> {
        let bytes = rmp_serde::to_vec(frame).context("a frame can be encoded")?;
        let delay = random.random_range(1..=self.latency_ms.max(1));
        let lost = random.random_range(0..10_000) < self.loss;
        if lost || self.cut.contains(&(from, to)) {
            return Ok(None);
        }
        let before = self.arrivals.entry((from, to, lane)).or_insert(0);
        let at = (now + delay).max(*before);
        *before = at;
        Ok(Some((at, Flight { from, to, bytes })))
    }
}
