//! What becomes of datagrams: the weather, which is the same everywhere, and what is wrong with single
//! links and machines. Plain data; the network goes by it.
use std::collections::{BTreeMap, BTreeSet};

/// What may happen to any datagram.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Weather {
    /// The shortest and the longest way, in milliseconds; at least 1.
    pub(crate) latency_ms: (u64, u64),
    /// Lost, in 10,000.
    pub(crate) loss: u32,
    /// Arriving twice, in 10,000.
    pub(crate) twice: u32,
    /// Not waiting for those before them, in 10,000; and they take up to three times as long.
    pub(crate) overtaking: u32,
}

impl Weather {
    /// As bad as the worse of both, in each respect.
    pub(crate) fn or_worse(self, other: Self) -> Self {
        let ((least, most), (shortest, longest)) = (self.latency_ms, other.latency_ms);
        Self {
            latency_ms: (least.min(shortest), most.max(longest)),
            loss: self.loss.max(other.loss),
            twice: self.twice.max(other.twice),
            overtaking: self.overtaking.max(other.overtaking),
        }
    }
}

/// From one node's machine to another's, by their numbers.
pub(crate) type Way = (usize, usize);

/// See the module.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Conditions {
    pub(crate) weather: Weather,
    /// From whom to whom nothing goes.
    pub(crate) cuts: BTreeSet<Way>,
    /// From whom to whom it takes longer, and by how many milliseconds.
    pub(crate) slow: BTreeMap<Way, u64>,
    /// Whose sockets stand still: what comes waits as long as there is room, what goes waits, too.
    pub(crate) still: BTreeSet<usize>,
    /// Whose processes are stopped: what is sent to them waits as long as there is room.
    pub(crate) stopped: BTreeSet<usize>,
}

impl Conditions {
    /// Nothing but the weather.
    pub(crate) fn fair(weather: Weather) -> Self {
        Self { weather, ..Self::default() }
    }

    /// Two nodes can't reach each other.
    pub(crate) fn cut_link(&mut self, one: usize, other: usize) {
        self.cuts.extend([(one, other), (other, one)]);
    }

    /// What two nodes say to each other takes so much longer.
    pub(crate) fn slow_link(&mut self, one: usize, other: usize, more_ms: u64) {
        for way in [(one, other), (other, one)] {
            let more = self.slow.entry(way).or_default();
            *more = more_ms.max(*more);
        }
    }

    /// Cuts a part off from all others.
    pub(crate) fn cut(&mut self, part: &[usize], all: usize, cut: Cut) {
        for other in (0..all).filter(|node| !part.contains(node)) {
            for inside in part.iter().copied() {
                if !matches!(cut, Cut::Deaf) {
                    self.cuts.insert((inside, other));
                }
                if !matches!(cut, Cut::Mute) {
                    self.cuts.insert((other, inside));
                }
            }
        }
    }
}

/// What of the datagrams between a part of the cluster and the rest gets lost.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Cut {
    /// All.
    BothWays,
    /// Those to the part.
    Deaf,
    /// Those from it.
    Mute,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_that_is_cut_off_is_still_whole() {
        let mut conditions = Conditions::default();
        conditions.cut(&[0, 2], 4, Cut::BothWays);
        assert!(!conditions.cuts.contains(&(0, 2)) && !conditions.cuts.contains(&(1, 3)));
        assert_eq!(conditions.cuts.len(), 8);
        let mut deaf = Conditions::default();
        deaf.cut(&[1], 3, Cut::Deaf);
        assert_eq!(Vec::from_iter(deaf.cuts), [(0, 1), (2, 1)]);
    }

    #[test]
    fn of_two_weathers_the_worse_counts() {
        let calm = Weather { latency_ms: (1, 5), loss: 0, twice: 9, overtaking: 0 };
        let wild = Weather { latency_ms: (2, 20), loss: 300, twice: 0, overtaking: 7 };
        let both = Weather { latency_ms: (1, 20), loss: 300, twice: 9, overtaking: 7 };
        assert_eq!(calm.or_worse(wild), both);
    }
}
