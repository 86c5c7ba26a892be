//! Frames to nodes without a link here, by way of one that both reach. One hop: what was relayed
//! once is never relayed again.
use bytes::Bytes;

use super::Mesh;
use super::frames::{Encoded, Wire};
use super::link::Link;
use crate::protocol::ids::Incarnation;
use crate::protocol::peer::Lane;

/// What became of a frame to one node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// In the outbox of the node's own link.
    Queued,
    /// In the outbox of the link to a node that passes it on.
    Relayed,
    /// Dropped and counted: the outbox is full.
    Full,
    /// Dropped and counted: no link and no relay.
    Unreachable,
}

impl Mesh {
    pub(super) fn send_one(&self, to: Incarnation, lane: Lane, encoded: &Encoded) -> Outcome {
        let routes = self.registry.routes();
        let (pushed, outcome) = match (routes.link(to), routes.relay(to)) {
            (Some(link), _) => (link.push(lane, encoded.direct()), Outcome::Queued),
            (None, Some(via)) => {
                (via.push_relay(lane, encoded.relay(to, self.me())), Outcome::Relayed)
            }
            (None, None) => {
                self.counters.unreachable.add(1);
                return Outcome::Unreachable;
            }
        };
        match pushed {
            Ok(()) => outcome,
            Err(_) => {
                self.counters.dropped.add(1);
                Outcome::Full
            }
        }
    }

    /// Passes a frame on without reading it, if it comes from its origin itself.
    pub(super) fn pass_on(
        &self,
        from: &Link,
        lane: Lane,
        to: Incarnation,
        origin: Incarnation,
        frame: Bytes,
    ) {
        let routes = self.registry.routes();
        let link = routes.link(to).filter(|_| origin == from.id.incarnation);
        let passed = link.map(|link| link.push_relay(lane, Wire::relay(to, origin, frame)));
        if !matches!(passed, Some(Ok(()))) {
            self.counters.relay_dropped.add(1);
            tracing::debug!(from = %from.id, ?to, ?origin, "relay.dropped");
        }
    }
}
