//! `may_serve`: whether this node may claim and acknowledge with the view that it has.

/// Whether a node may claim and acknowledge.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Serving {
    /// The view holds at least `copies` nodes.
    Full,
    /// No seed is configured and there never was a peer: fewer copies are acknowledged, and said so.
    Standalone,
    /// Enough of the stable membership was seen for long enough: likewise.
    Degraded,
    /// Operations are parked, then refused with a temporary error.
    #[default]
    No,
}

impl Serving {
    /// Whether claiming and acknowledging are allowed.
    pub fn allowed(self) -> bool {
        self != Self::No
    }
}
