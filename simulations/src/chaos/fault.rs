//! What may be done to the processes, and what it leaves promised.
use std::fmt;

use clap::ValueEnum;

use crate::cluster::conditions::Cut;

/// Of a hundred datagrams so many may get lost without that a node is taken for dead.
const BEARABLE_LOSS: u64 = 3;

/// Kinds of faults, as the summary counts them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, ValueEnum)]
#[value(rename_all = "snake_case")]
pub(super) enum Class {
    /// `kill -9` of fewer nodes than there are copies.
    Kill,
    /// SIGSTOP, and SIGCONT later.
    Pause,
    /// One or two nodes and the others can't reach each other.
    FullCut,
    /// Two nodes can't reach each other; all others can.
    PartialCut,
    /// One node hears nothing of the others, or the others nothing of it.
    OneWayCut,
    /// Packets between nodes get lost at random.
    Loss,
    /// A node gets little of the CPU.
    Starvation,
    /// A node can open no more files and connections, and clients come.
    Files,
    /// All clients lose their connections at once.
    Reconnects,
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = self.to_possible_value();
        f.write_str(value.as_ref().map_or("", |value| value.get_name()))
    }
}

/// What happens to whom and for how long, all of it drawn from the seed.
#[derive(Clone, Debug)]
pub(super) enum Fault {
    Kill {
        nodes: Vec<usize>,
        /// Started again before anybody can have noticed, rather than after repair.
        at_once: bool,
    },
    Pause {
        node: usize,
        ms: u64,
    },
    FullCut {
        part: Vec<usize>,
        ms: u64,
    },
    PartialCut {
        one: usize,
        other: usize,
        ms: u64,
    },
    OneWayCut {
        node: usize,
        cut: Cut,
        ms: u64,
    },
    Loss {
        percent: u64,
        ms: u64,
    },
    Starvation {
        node: usize,
        /// How much of the time it may run.
        percent: u64,
        ms: u64,
    },
    Files {
        node: usize,
        ms: u64,
    },
    Reconnects,
}

/// What happens while another fault lasts.
#[derive(Clone, Copy, Debug)]
pub(super) enum Amid {
    /// `kill -9` of a node; it is started again once the other fault is over.
    Kill { node: usize },
    /// All clients lose their connections at once.
    Reconnects,
}

impl Amid {
    pub(super) fn class(self) -> Class {
        match self {
            Self::Kill { .. } => Class::Kill,
            Self::Reconnects => Class::Reconnects,
        }
    }
}

/// A fault, and what happens when it has lasted for some time.
#[derive(Clone, Debug)]
pub(super) struct Faults {
    pub(super) fault: Fault,
    pub(super) amid: Option<(u64, Amid)>,
}

impl Faults {
    /// Of both: see [`Fault::splits`]. Who takes over from a killed node may not reach who holds what
    /// that held, so that it serves without.
    pub(super) fn splits(&self) -> bool {
        self.fault.splits() || self.kills_of_parted()
    }

    /// Of both: see [`Fault::loses_positions`].
    pub(super) fn loses_positions(&self) -> bool {
        self.fault.loses_positions() || self.kills_of_parted()
    }

    fn kills_of_parted(&self) -> bool {
        matches!(self.amid, Some((_, Amid::Kill { .. }))) && self.fault.parts()
    }
}

impl Fault {
    /// How long it lasts, if it does, in milliseconds.
    pub(super) fn lasts(&self) -> Option<u64> {
        match self {
            Self::Pause { ms, .. }
            | Self::FullCut { ms, .. }
            | Self::PartialCut { ms, .. }
            | Self::OneWayCut { ms, .. }
            | Self::Loss { ms, .. }
            | Self::Starvation { ms, .. }
            | Self::Files { ms, .. } => Some(*ms),
            Self::Kill { .. } | Self::Reconnects => None,
        }
    }

    /// The nodes to which it happens.
    pub(super) fn nodes(&self) -> Vec<usize> {
        match self {
            Self::Kill { nodes, .. } => nodes.clone(),
            Self::FullCut { part, .. } => part.clone(),
            Self::PartialCut { one, other, .. } => vec![*one, *other],
            Self::Pause { node, .. }
            | Self::OneWayCut { node, .. }
            | Self::Starvation { node, .. }
            | Self::Files { node, .. } => vec![*node],
            Self::Loss { .. } | Self::Reconnects => vec![],
        }
    }

    /// Whether two nodes that live may not hear each other.
    fn parts(&self) -> bool {
        self.splits() || matches!(self, Self::PartialCut { .. })
    }

    pub(super) fn class(&self) -> Class {
        match self {
            Self::Kill { .. } => Class::Kill,
            Self::Pause { .. } => Class::Pause,
            Self::FullCut { .. } => Class::FullCut,
            Self::PartialCut { .. } => Class::PartialCut,
            Self::OneWayCut { .. } => Class::OneWayCut,
            Self::Loss { .. } => Class::Loss,
            Self::Starvation { .. } => Class::Starvation,
            Self::Files { .. } => Class::Files,
            Self::Reconnects => Class::Reconnects,
        }
    }

    /// Whether a node that lives may be taken for dead, so that two serve unknown to each other: what
    /// both took may come again and in another order, rather than be lost.
    pub(super) fn splits(&self) -> bool {
        match self {
            Self::Pause { .. }
            | Self::FullCut { .. }
            | Self::OneWayCut { .. }
            | Self::Starvation { .. } => true,
            Self::Loss { percent, .. } => *percent > BEARABLE_LOSS,
            Self::Kill { .. } | Self::PartialCut { .. } | Self::Files { .. } | Self::Reconnects => {
                false
            }
        }
    }

    /// Whether a client may be told that its position is lost: one that moves from one part to the
    /// other comes with a position that nobody there can know.
    pub(super) fn loses_positions(&self) -> bool {
        match self {
            Self::FullCut { part, .. } => part.len() > 1,
            Self::OneWayCut { .. } => true,
            _ => false,
        }
    }
}
