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

impl Fault {
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
