//! The faults that a step may be, and what each does to the network while it lasts.
use std::fmt;

use crate::cluster::conditions::{Conditions, Cut, Way, Weather};
use crate::cluster::setup::name;

/// See the module.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Part {
    /// A machine loses its power; the next process of that name starts at the end.
    Kill(usize),
    /// A node leaves, and the next process of its name starts at the end, or when it has left.
    Drain(usize),
    /// One more joins, and leaves at the end.
    Join(usize),
    /// Some are cut off from all others.
    CutOff(Vec<usize>, Cut),
    /// Two can't reach each other, and can, in turn.
    Flap { one: usize, other: usize, every_ms: u64 },
    /// What two say to each other takes longer.
    Slow { one: usize, other: usize, more_ms: u64 },
    /// All datagrams have a hard time.
    Weather(Weather),
    /// A machine's sockets stand still, and go on with what has waited at the end.
    Still(usize),
    /// A process is stopped, and goes on at the end.
    Pause(usize),
    /// All clients lose their connections, which nodes see or (`half_open`) don't.
    CutClients { half_open: bool },
}

/// What is alike of parts: a seed draws some of these, and shrinking leaves them out as a whole.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Class {
    Kill,
    Drain,
    Join,
    Isolate,
    OneWay,
    Halves,
    Flap,
    Slow,
    Loss,
    Disorder,
    Still,
    Pause,
    Clients,
}

impl Part {
    pub(crate) fn class(&self) -> Class {
        match self {
            Self::Kill(_) => Class::Kill,
            Self::Drain(_) => Class::Drain,
            Self::Join(_) => Class::Join,
            Self::CutOff(_, Cut::Deaf | Cut::Mute) => Class::OneWay,
            Self::CutOff(part, Cut::BothWays) if part.len() == 1 => Class::Isolate,
            Self::CutOff(_, Cut::BothWays) => Class::Halves,
            Self::Flap { .. } => Class::Flap,
            Self::Slow { .. } => Class::Slow,
            Self::Weather(weather) if weather.loss > 0 => Class::Loss,
            Self::Weather(_) => Class::Disorder,
            Self::Still(_) => Class::Still,
            Self::Pause(_) => Class::Pause,
            Self::CutClients { .. } => Class::Clients,
        }
    }

    /// Whether a process ends, with the copies that it has.
    pub(crate) fn is_death(&self) -> bool {
        matches!(self, Self::Kill(_) | Self::Drain(_) | Self::Join(_))
    }

    /// Which process ends, or begins.
    pub(crate) fn process(&self) -> Option<usize> {
        match self {
            Self::Kill(node) | Self::Drain(node) | Self::Join(node) => Some(*node),
            _ => None,
        }
    }

    /// Whether nodes can't be reached by any other, or can't reach any.
    pub(crate) fn cuts_off(&self) -> bool {
        matches!(self, Self::CutOff(..) | Self::Still(_) | Self::Pause(_))
    }

    /// The link that is cut at times.
    pub(crate) fn cut_link(&self) -> Option<Way> {
        match self {
            Self::Flap { one, other, .. } => Some((*one.min(other), *one.max(other))),
            _ => None,
        }
    }

    /// What of it can happen to so many nodes; whether it can.
    pub(super) fn shrink(&mut self, nodes: usize) -> bool {
        match self {
            Self::Kill(node) | Self::Drain(node) | Self::Still(node) | Self::Pause(node) => {
                *node < nodes
            }
            Self::CutOff(part, _) => {
                part.retain(|node| *node < nodes);
                !part.is_empty() && part.len() < nodes
            }
            Self::Flap { one, other, .. } | Self::Slow { one, other, .. } => {
                *one < nodes && *other < nodes
            }
            Self::Join(_) | Self::Weather(_) | Self::CutClients { .. } => true,
        }
    }

    /// How often the network changes while it lasts, if it does.
    pub(crate) fn changes_every_ms(&self) -> Option<u64> {
        match self {
            Self::Flap { every_ms, .. } => Some(*every_ms),
            _ => None,
        }
    }

    /// What it does to the network when it has lasted so long.
    pub(crate) fn worsen(&self, since_ms: u64, machines: usize, conditions: &mut Conditions) {
        match self {
            Self::CutOff(part, cut) => conditions.cut(part, machines, *cut),
            Self::Flap { one, other, every_ms } if (since_ms / every_ms).is_multiple_of(2) => {
                conditions.cut_link(*one, *other);
            }
            Self::Slow { one, other, more_ms } => conditions.slow_link(*one, *other, *more_ms),
            Self::Weather(weather) => conditions.weather = conditions.weather.or_worse(*weather),
            Self::Still(node) => _ = conditions.still.insert(*node),
            Self::Pause(node) => _ = conditions.stopped.insert(*node),
            _ => {}
        }
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kill(node) => write!(f, "kill {}", name(*node)),
            Self::Drain(node) => write!(f, "drain {}", name(*node)),
            Self::Join(node) => write!(f, "join {}", name(*node)),
            Self::CutOff(part, cut) => {
                let names: Vec<String> = part.iter().map(|node| name(*node)).collect();
                let how = match cut {
                    Cut::BothWays => "",
                    Cut::Deaf => ", deaf",
                    Cut::Mute => ", mute",
                };
                write!(f, "cut off {}{how}", names.join(" "))
            }
            Self::Flap { one, other, every_ms } => {
                write!(f, "flap {}–{} every {every_ms} ms", name(*one), name(*other))
            }
            Self::Slow { one, other, more_ms } => {
                write!(f, "slow {}–{} by {more_ms} ms", name(*one), name(*other))
            }
            Self::Weather(Weather { latency_ms: (_, most), loss, twice, overtaking }) => {
                let percent = |in_10_000: &u32| f64::from(*in_10_000) / 100.0;
                let (loss, twice, overtaking) =
                    (percent(loss), percent(twice), percent(overtaking));
                write!(f, "{loss} % lost, {twice} % twice, {overtaking} % overtake, to {most} ms")
            }
            Self::Still(node) => write!(f, "still {}", name(*node)),
            Self::Pause(node) => write!(f, "pause {}", name(*node)),
            Self::CutClients { half_open: true } => write!(f, "cut clients, half open"),
            Self::CutClients { half_open: false } => write!(f, "cut clients"),
        }
    }
}
