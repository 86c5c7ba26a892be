//! Frames between the cores of two nodes, carried by links.
use serde::{Deserialize, Serialize};

/// Which of a link's streams carries a frame; each is ordered in itself.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Lane {
    /// Claims and acknowledgements: small, and never behind a backlog.
    Control,
    /// Operations, deliveries and what must keep their order.
    Data,
    /// Copies of streams.
    Bulk,
}

/// A frame between two cores.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub enum PeerFrame {
    /// Placeholder while the cores are written.
    Nothing,
}
