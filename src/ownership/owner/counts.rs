//! What happened to a node's slots since it started, as numbers. Counted where it happens; read for
//! metrics and by checkers.

/// What happened to slots since the start.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counts {
    /// Claims begun, each of many slots.
    pub begun: u64,
    /// Slots won.
    pub won: u64,
    /// Slots lost to a higher promise.
    pub rejected: u64,
    /// Slots won while a live node was silent.
    pub incomplete: u64,
    /// Changes that weren't committed when their slot was lost.
    pub fenced: u64,
    /// Changes committed.
    pub committed: u64,
    /// Whole copies that this node has pulled.
    pub copied: u64,
    /// Nodes that stood in for a silent one.
    pub spares: u64,
    /// Frames that waited for a slot and were handled here then.
    pub replayed: u64,
    /// Operations that came again, and were known.
    pub repeated: u64,
    /// Questions that waited for a commit.
    pub deferred: u64,
    /// Publications that were held beside a stream, and appended anew.
    pub adopted: u64,
}
