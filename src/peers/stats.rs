//! What links did, for metrics and status. Counters only; nothing here decides anything.
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::protocol::ids::NodeId;

/// A number that only grows.
#[derive(Default, Debug)]
pub(super) struct Counter(AtomicU64);

impl Counter {
    pub(super) fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    pub(super) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Counters of one link.
#[derive(Default, Debug)]
pub(super) struct LinkCounters {
    pub(super) sent_frames: Counter,
    pub(super) sent_bytes: Counter,
    pub(super) received_frames: Counter,
    pub(super) received_bytes: Counter,
    pub(super) dropped: Counter,
    pub(super) relayed: Counter,
}

/// Counters of all links together.
#[derive(Default, Debug)]
pub(super) struct Counters {
    pub(super) refused: Counter,
    pub(super) refused_by_peers: Counter,
    pub(super) turned_away: Counter,
    pub(super) retries: Counter,
    pub(super) dials: Counter,
    pub(super) dropped: Counter,
    pub(super) unreachable: Counter,
    pub(super) gossip_dropped: Counter,
    pub(super) relay_dropped: Counter,
    pub(super) lifelines_cut: Counter,
    pub(super) lifelines_refused: Counter,
    pub(super) lifelines_turned_away: Counter,
}

/// A link as status and metrics show it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LinkStatus {
    /// The node at the other end.
    pub id: NodeId,
    /// Where it is reached.
    pub address: SocketAddr,
    /// The version of peer frames that both ends speak.
    pub version: u16,
    /// Whether this node dialled.
    pub dialled: bool,
    /// Round-trip time as QUIC sees it.
    pub rtt: Duration,
    /// How long the link is up.
    pub since: Duration,
    /// Frames written, gossip included.
    pub sent_frames: u64,
    /// Bytes of them.
    pub sent_bytes: u64,
    /// Frames read, gossip included.
    pub received_frames: u64,
    /// Bytes of them.
    pub received_bytes: u64,
    /// Frames that found the outbox full.
    pub dropped: u64,
    /// Frames passed on over this link for other nodes.
    pub relayed: u64,
}

/// What happened on all links since the start.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct PeersStats {
    /// Connections that came in or were dialled and that this node refused, or that came in and
    /// whose dialler found that it doesn't belong here: wrong secret, other configuration, name
    /// taken.
    pub refused: u64,
    /// Connections that this node dialled and that peers refused.
    pub refused_by_peers: u64,
    /// Connections turned away because too many were being made.
    pub turned_away: u64,
    /// First packets answered with a Retry.
    pub retries: u64,
    /// Connections begun.
    pub dials: u64,
    /// Frames that found an outbox full.
    pub dropped: u64,
    /// Frames for nodes without a link or a relay.
    pub unreachable: u64,
    /// Gossip messages dropped: too long, queue full, or nobody reached.
    pub gossip_dropped: u64,
    /// Frames to be passed on that weren't: no link, outbox full, or relayed before.
    pub relay_dropped: u64,
    /// Lifelines now.
    pub lifelines: u64,
    /// Lifelines that ended, each a hint that its node may be dead.
    pub lifelines_cut: u64,
    /// TCP connections that proved no node of this cluster.
    pub lifelines_refused: u64,
    /// TCP connections turned away because too many were being made.
    pub lifelines_turned_away: u64,
}

impl Counters {
    pub(super) fn read(&self) -> PeersStats {
        PeersStats {
            refused: self.refused.get(),
            refused_by_peers: self.refused_by_peers.get(),
            turned_away: self.turned_away.get(),
            retries: self.retries.get(),
            dials: self.dials.get(),
            dropped: self.dropped.get(),
            unreachable: self.unreachable.get(),
            gossip_dropped: self.gossip_dropped.get(),
            relay_dropped: self.relay_dropped.get(),
            lifelines: 0, // a level, which the shell knows
            lifelines_cut: self.lifelines_cut.get(),
            lifelines_refused: self.lifelines_refused.get(),
            lifelines_turned_away: self.lifelines_turned_away.get(),
        }
    }
}
