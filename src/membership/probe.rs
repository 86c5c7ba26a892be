//! Whose turn it is to be gossiped with though gossip doesn't know it: seeds and lost members.
use std::net::SocketAddr;
use std::time::Duration;

use super::snapshot::Snapshot;
use crate::protocol::time::Millis;

/// Unknown addresses are probed so often once this node isn't alone; while it is, every round.
pub const PROBE_INTERVAL_MS: u64 = 1_000;
/// How many of them a round.
pub const PROBES_MAX: usize = 8;

/// Takes turns with the unknown addresses.
#[derive(Clone, Debug)]
pub struct Probe {
    alone_interval_ms: u64,
    due_at: Millis,
    turn: usize,
}

impl Probe {
    /// Nobody was probed yet.
    pub fn new(gossip_interval: Duration) -> Self {
        Self { alone_interval_ms: gossip_interval.as_millis() as u64, due_at: Millis(0), turn: 0 }
    }

    /// Whom to gossip with now: at most [`PROBES_MAX`], in turn.
    pub fn due(&mut self, now: Millis, snapshot: &Snapshot) -> Vec<SocketAddr> {
        let unknown = snapshot.targets.iter().filter(|target| target.id.is_none());
        let addresses: Vec<SocketAddr> = unknown.map(|target| target.address).collect();
        if now < self.due_at || addresses.is_empty() {
            return Vec::new();
        }
        let alone = snapshot.members.len() == 1;
        self.due_at = now + if alone { self.alone_interval_ms } else { PROBE_INTERVAL_MS };
        let count = addresses.len().min(PROBES_MAX);
        let from = self.turn % addresses.len();
        self.turn = from + count;
        addresses.iter().cycle().skip(from).take(count).copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::Arc;

    use super::*;
    use crate::membership::snapshot::Target;
    use crate::membership::tests::{live_member, snapshot_of};

    fn seeing(members: &[&str], unknown: u16) -> Snapshot {
        let member = |name: &&str| Arc::new(live_member(name, 1));
        let mut snapshot = snapshot_of(members.iter().map(member).collect());
        let target = |port| Target { address: ([127, 0, 0, 1], port).into(), id: None };
        snapshot.targets = (0..unknown).map(target).collect();
        snapshot
    }

    #[test]
    fn a_node_alone_probes_every_round_and_others_every_second() {
        let mut probe = Probe::new(Duration::from_millis(100));
        let alone = seeing(&["a"], 2);
        assert_eq!(probe.due(Millis(0), &alone).len(), 2);
        assert_eq!(probe.due(Millis(50), &alone).len(), 0);
        let two = seeing(&["a", "b"], 2);
        assert_eq!(probe.due(Millis(100), &two).len(), 2);
        assert_eq!(probe.due(Millis(1_099), &two).len(), 0);
        assert_eq!(probe.due(Millis(1_100), &two).len(), 2);
        assert_eq!(probe.due(Millis(9_000), &seeing(&["a"], 0)).len(), 0);
    }

    #[test]
    fn everybody_has_a_turn() {
        let mut probe = Probe::new(Duration::from_millis(100));
        let many = seeing(&["a"], 20);
        let rounds = (0..3).map(|round| probe.due(Millis(round * 100), &many));
        let probed: BTreeSet<SocketAddr> = rounds.flatten().collect();
        assert_eq!(probed.len(), 20);
    }
}
