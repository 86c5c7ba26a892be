//! Which faults come in which order: drawn from the seed alone, so that one seed gives one schedule.
//! Classes come in turns, each once before any comes again.
use clap::ValueEnum as _;
use rand::rngs::StdRng;
use rand::seq::{IndexedRandom as _, SliceRandom as _};
use rand::{Rng, SeedableRng};

use super::fault::{Amid, Class, Fault, Faults};
use crate::cluster::conditions::Cut;

/// How long clients publish undisturbed before a fault.
const BUSY_MS: (u64, u64) = (500, 3_000);
/// The shortest fault that lasts.
const FAULT_MS_MIN: u64 = 300;
/// The longest, if clients may be away for so long.
const FAULT_MS_MAX: u64 = 6_000;
/// Of a hundred packets, lost in a bad network.
const LOSS_PERCENT: (u64, u64) = (1, 20);
/// Of a hundred milliseconds a starving node may run so many.
const SHARE_PERCENT: (u64, u64) = (10, 40);
/// How many killed nodes are started again at once.
const AT_ONCE: f64 = 0.25;
/// In how many faults that last something else happens.
const AMID: f64 = 0.4;

/// One fault, and what comes before it.
#[derive(Clone, Debug)]
pub(super) struct Round {
    pub(super) busy_ms: u64,
    pub(super) faults: Faults,
}

/// How many nodes are killed at once.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kills {
    /// Fewer than there are copies of anything.
    FewerThan(usize),
    /// As many, and those that are left may be too few to go on alone: all are started again at once.
    TooMany(usize),
}

/// See the module. Never ends.
pub(super) struct Schedule {
    random: StdRng,
    classes: Vec<Class>,
    deck: Vec<Class>,
    nodes: usize,
    kills: Kills,
    fault_ms_max: u64,
}

impl Schedule {
    /// Of all classes, or only of these. So many of all nodes are killed at once, and clients may be away
    /// for so long.
    pub(super) fn new(
        seed: u64,
        only: &[Class],
        (nodes, kills): (usize, Kills),
        away_ms: u64,
    ) -> Self {
        let classes = if only.is_empty() { Class::value_variants() } else { only };
        Self {
            random: StdRng::seed_from_u64(seed ^ 0xc4a05),
            classes: classes.to_vec(),
            deck: Vec::new(),
            nodes,
            kills,
            fault_ms_max: FAULT_MS_MAX.min(away_ms),
        }
    }

    pub(super) fn next(&mut self) -> Round {
        if self.deck.is_empty() {
            self.deck.clone_from(&self.classes);
            self.deck.shuffle(&mut self.random);
        }
        // Just filled, unless there is no class at all.
        let class = self.deck.pop().unwrap_or(Class::Reconnects);
        let busy_ms = self.random.random_range(BUSY_MS.0..=BUSY_MS.1);
        let fault = self.draw(class);
        let amid = self.draw_amid(&fault);
        Round { busy_ms, faults: Faults { fault, amid } }
    }

    /// Only of classes that are wanted. A second node is killed if fewer than there are copies may be.
    fn draw_amid(&mut self, fault: &Fault) -> Option<(u64, Amid)> {
        let ms = fault.lasts()?;
        let spared = fault.nodes();
        let victim = self.some_nodes().into_iter().find(|node| !spared.contains(node));
        let kill = victim.map(|node| Amid::Kill { node });
        let kill = kill.filter(|_| matches!(self.kills, Kills::FewerThan(copies) if copies > 1));
        let both = kill.into_iter().chain([Amid::Reconnects]);
        let both: Vec<_> = both.filter(|amid| self.classes.contains(&amid.class())).collect();
        let after_ms = self.random.random_range(0..ms);
        let happens = self.random.random_bool(AMID);
        let amid = both.choose(&mut self.random).filter(|_| happens)?;
        Some((after_ms, *amid))
    }

    fn draw(&mut self, class: Class) -> Fault {
        let nodes = self.some_nodes();
        let ms = self.random.random_range(FAULT_MS_MIN..=self.fault_ms_max);
        let random = &mut self.random;
        let node = nodes[0];
        match class {
            Class::Kill => match self.kills {
                Kills::FewerThan(copies) => Fault::Kill {
                    nodes: nodes[..random.random_range(1..copies)].to_vec(),
                    at_once: random.random_bool(AT_ONCE),
                },
                Kills::TooMany(copies) => {
                    Fault::Kill { nodes: nodes[..copies].to_vec(), at_once: true }
                }
            },
            Class::Pause => Fault::Pause { node, ms },
            Class::FullCut => Fault::FullCut {
                part: nodes[..random.random_range(1..=nodes.len() / 2)].to_vec(),
                ms,
            },
            Class::PartialCut => Fault::PartialCut { one: node, other: nodes[1], ms },
            Class::OneWayCut => {
                let cut = if random.random_bool(0.5) { Cut::Deaf } else { Cut::Mute };
                Fault::OneWayCut { node, cut, ms }
            }
            Class::Loss => {
                Fault::Loss { percent: random.random_range(LOSS_PERCENT.0..=LOSS_PERCENT.1), ms }
            }
            Class::Starvation => {
                let percent = random.random_range(SHARE_PERCENT.0..=SHARE_PERCENT.1);
                Fault::Starvation { node, percent, ms }
            }
            Class::Files => Fault::Files { node, ms },
            Class::Reconnects => Fault::Reconnects,
        }
    }

    /// All nodes, in some order.
    fn some_nodes(&mut self) -> Vec<usize> {
        let mut nodes: Vec<usize> = (0..self.nodes).collect();
        nodes.shuffle(&mut self.random);
        nodes
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn rounds(seed: u64, number: usize) -> Vec<Round> {
        let mut schedule = Schedule::new(seed, &[], (5, Kills::FewerThan(3)), 6_000);
        (0..number).map(|_| schedule.next()).collect()
    }

    #[test]
    fn one_seed_gives_one_schedule() {
        let told = |seed| format!("{:?}", rounds(seed, 50));
        assert_eq!(told(7), told(7));
        assert_ne!(told(7), told(8));
    }

    #[test]
    fn every_class_comes_before_any_comes_again() {
        let all = Class::value_variants().len();
        let first: BTreeSet<Class> =
            rounds(1, all).iter().map(|round| round.faults.fault.class()).collect();
        assert_eq!(first.len(), all);
    }

    #[test]
    fn as_many_nodes_are_killed_as_is_allowed_and_never_more() {
        let killed = |round: Round| match round.faults.fault {
            Fault::Kill { nodes, .. } => Some(nodes.len()),
            _ => None,
        };
        let numbers: BTreeSet<usize> = rounds(3, 500).into_iter().filter_map(killed).collect();
        assert_eq!(numbers, BTreeSet::from([1, 2]));
    }

    #[test]
    fn something_else_happens_amid_faults_that_last_to_others_and_of_the_classes_that_are_wanted() {
        let mut kinds = BTreeSet::new();
        for Round { faults: Faults { fault, amid }, .. } in rounds(4, 1_000) {
            let Some((after_ms, amid)) = amid else { continue };
            assert!(fault.lasts().is_some_and(|ms| after_ms < ms), "{fault:?}");
            if let Amid::Kill { node } = amid {
                assert!(!fault.nodes().contains(&node), "{fault:?}, {amid:?}");
            }
            kinds.insert((fault.class(), matches!(amid, Amid::Kill { .. })));
        }
        assert_eq!(kinds.len(), 2 * (Class::value_variants().len() - 2));
        let only = [Class::Pause, Class::Reconnects];
        let mut schedule = Schedule::new(4, &only, (5, Kills::FewerThan(3)), 6_000);
        let amid: Vec<_> = (0..100).filter_map(|_| schedule.next().faults.amid).collect();
        assert!(!amid.is_empty());
        assert!(amid.iter().all(|(_, amid)| matches!(amid, Amid::Reconnects)));
    }
}
