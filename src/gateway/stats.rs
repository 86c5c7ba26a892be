//! Counters of a gateway, for metrics: plain atomics that shards add to once a batch.
use std::sync::atomic::{AtomicU64, Ordering};

/// A value that only grows, or a level.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    /// The value now.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    pub(super) fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    pub(super) fn sub(&self, n: u64) {
        self.0.fetch_sub(n, Ordering::Relaxed);
    }
}

/// What a gateway counts.
#[derive(Debug, Default)]
pub struct GatewayStats {
    /// Connections now (a level).
    pub connections: Count,
    /// Connections opened.
    pub connections_opened: Count,
    /// Handshakes refused: limit, origin, protocol.
    pub handshakes_refused: Count,
    /// Commands read.
    pub commands: Count,
    /// Frames handed to connections because of a delivery.
    pub deliveries: Count,
    /// Bytes read from clients.
    pub bytes_in: Count,
    /// Bytes written to clients.
    pub bytes_out: Count,
    /// Connections closed because they read too slowly (3008).
    pub closed_slow: Count,
    /// Connections closed because they broke a rule or limit (3501, 3013, framing).
    pub closed_bad: Count,
    /// Connections closed because no pong came (3012).
    pub closed_silent: Count,
    /// Times that a shard lost messages and closed its connections.
    pub overflows: Count,
    /// Subscriptions ended with 2500, so that the client learns a new epoch.
    pub resubscribes: Count,
}

impl GatewayStats {
    /// Every counter with the name that metrics give it, and whether it is a level.
    pub fn all(&self) -> [(&'static str, bool, u64); 12] {
        [
            ("connections", true, self.connections.get()),
            ("connections_opened", false, self.connections_opened.get()),
            ("handshakes_refused", false, self.handshakes_refused.get()),
            ("commands", false, self.commands.get()),
            ("deliveries", false, self.deliveries.get()),
            ("bytes_in", false, self.bytes_in.get()),
            ("bytes_out", false, self.bytes_out.get()),
            ("closed_slow", false, self.closed_slow.get()),
            ("closed_bad", false, self.closed_bad.get()),
            ("closed_silent", false, self.closed_silent.get()),
            ("overflows", false, self.overflows.get()),
            ("resubscribes", false, self.resubscribes.get()),
        ]
    }
}
