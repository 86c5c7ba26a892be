//! What a swarm run is made of: steps, each a fault with its time, target and duration. Plain data,
//! drawn from the seed; a step keeps its number when others are left out.
mod draw;
mod part;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::setup::Setup;
pub(crate) use part::{Class, Part};

/// One fault of a plan.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Step {
    /// Its place in the plan as it was drawn.
    pub(crate) number: usize,
    /// A round begins when all is well, and ends with everything as it was.
    pub(crate) round: usize,
    /// Since its round began.
    pub(crate) at_ms: u64,
    pub(crate) lasts_ms: u64,
    pub(crate) part: Part,
}

impl Step {
    pub(crate) fn ends_ms(&self) -> u64 {
        self.at_ms + self.lasts_ms
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { number, round, at_ms, lasts_ms, part } = self;
        write!(f, "{number:>2}: round {round}, at {at_ms} ms for {lasts_ms} ms: {part}")
    }
}

/// See the module.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Plan {
    pub(crate) steps: Vec<Step>,
}

impl Plan {
    /// The plan of a seed, for the sizes that the seed gives.
    pub(crate) fn draw(seed: u64, setup: &Setup) -> Self {
        Self { steps: draw::steps(seed, setup) }
    }

    /// The same without some steps.
    pub(crate) fn without(mut self, left_out: &BTreeSet<usize>) -> Self {
        self.steps.retain(|step| !left_out.contains(&step.number));
        self
    }

    /// What of it can happen to so many nodes.
    pub(crate) fn among(mut self, nodes: usize) -> Self {
        self.steps.retain_mut(|step| step.part.shrink(nodes));
        self
    }

    /// The steps of each round, by the time at which they begin.
    pub(crate) fn rounds(&self) -> Vec<Vec<&Step>> {
        let mut rounds: BTreeMap<usize, Vec<&Step>> = BTreeMap::new();
        for step in &self.steps {
            rounds.entry(step.round).or_default().push(step);
        }
        rounds.into_values().collect()
    }

    /// Whether two parts of the cluster may serve unknown to each other.
    pub(crate) fn splits(&self, nodes: usize) -> bool {
        self.rounds().iter().any(|round| splits(round, nodes))
    }
}

/// Whether a round may part so many nodes: it cuts some off from all others, or, with all of it at
/// once, leaves a node with links to fewer than half of the others.
pub(crate) fn splits(round: &[&Step], nodes: usize) -> bool {
    let parts = || round.iter().map(|step| &step.part);
    let others = nodes.saturating_sub(1 + parts().filter(|part| part.is_death()).count());
    let cut = |node: usize| {
        let links: BTreeSet<_> = parts().filter_map(Part::cut_link).collect();
        links.into_iter().filter(|(one, other)| *one == node || *other == node).count()
    };
    parts().any(Part::cuts_off) || (0..nodes).any(|node| 2 * cut(node) > others)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round(parts: impl IntoIterator<Item = Part>) -> Plan {
        let step = |(number, part)| Step { number, round: 0, at_ms: 0, lasts_ms: 1, part };
        Plan { steps: parts.into_iter().enumerate().map(step).collect() }
    }

    fn flap(one: usize, other: usize) -> Part {
        Part::Flap { one, other, every_ms: 100 }
    }

    #[test]
    fn who_keeps_half_of_its_links_stays() {
        assert!(!round([flap(0, 1), flap(2, 3), Part::Kill(4)]).splits(5));
        assert!(!round([flap(0, 1), flap(0, 1), flap(0, 2)]).splits(5));
        assert!(round([flap(0, 1), flap(2, 0), Part::Kill(4)]).splits(5));
        assert!(round([flap(0, 1), Part::Kill(2)]).splits(3));
        assert!(round([Part::Still(3)]).splits(5));
    }

    #[test]
    fn what_is_left_out_leaves_the_numbers_of_the_others() {
        let plan = round([Part::Kill(0), flap(1, 4), Part::Drain(2)]);
        let numbers = |plan: Plan| plan.steps.iter().map(|s| s.number).collect::<Vec<_>>();
        assert_eq!(numbers(plan.clone().without(&BTreeSet::from([0]))), [1, 2]);
        assert_eq!(numbers(plan.among(4)), [0, 2]);
    }

    #[test]
    fn no_round_loses_as_many_nodes_as_there_are_copies() {
        for seed in 0..200 {
            let setup = Setup::draw(seed);
            let plan = Plan::draw(seed, &setup);
            assert_eq!(plan, Plan::draw(seed, &setup));
            assert!(plan.steps.iter().enumerate().all(|(place, step)| step.number == place));
            for round in plan.rounds() {
                let deaths = round.iter().filter(|step| step.part.is_death());
                assert!(deaths.count() < usize::from(setup.copies), "seed {seed}: {round:?}");
            }
        }
    }
}
