//! Which run it is: what follows from the seed, and what the command line has otherwise.
use std::collections::BTreeSet;

use super::plan::Plan;
use super::setup::Setup;
use crate::options::Arguments;
use crate::scenario::Scenario;

/// See the module.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Course {
    pub(crate) scenario: Scenario,
    pub(crate) seed: u64,
    /// If not as many as the seed gives.
    pub(crate) nodes: Option<usize>,
    /// The same.
    pub(crate) clients: Option<usize>,
    /// Steps of the plan.
    pub(crate) leave_out: BTreeSet<usize>,
}

impl Course {
    pub(crate) fn new(scenario: Scenario, seed: u64, arguments: &Arguments) -> Self {
        let Arguments { nodes, clients, leave_out, .. } = arguments;
        let leave_out = leave_out.iter().copied().collect();
        Self { scenario, seed, nodes: *nodes, clients: *clients, leave_out }
    }

    pub(crate) fn setup(&self) -> Setup {
        let drawn = Setup::draw(self.seed);
        let drawn = match self.scenario {
            Scenario::HotChannel => drawn.in_one_channel(),
            Scenario::SlowClients => drawn.with_large_publications(),
            Scenario::Overflow => drawn.with_small_histories(),
            Scenario::Aftermath => drawn.with_short_histories(),
            Scenario::Records => drawn.with_attributes(),
            Scenario::Clocks => drawn.with_clocks_that_differ(),
            Scenario::Strangers => drawn.with_strangers(),
            _ => drawn,
        };
        drawn.resized(self.nodes, self.clients)
    }

    /// Empty for a scenario that isn't made of one.
    pub(crate) fn plan(&self) -> Plan {
        if self.scenario != Scenario::Swarm {
            return Plan::default();
        }
        let plan = Plan::draw(self.seed, &Setup::draw(self.seed)).without(&self.leave_out);
        plan.among(self.setup().nodes)
    }

    /// The same with no steps but these.
    pub(crate) fn with_only(&self, steps: impl IntoIterator<Item = usize>) -> Self {
        let kept: BTreeSet<usize> = steps.into_iter().collect();
        let drawn = Plan::draw(self.seed, &Setup::draw(self.seed)).steps;
        let left_out = drawn.iter().map(|step| step.number).filter(|step| !kept.contains(step));
        Self { leave_out: left_out.collect(), ..self.clone() }
    }

    /// As the command line has it.
    pub(crate) fn arguments(&self) -> Vec<String> {
        let mut all = vec!["--scenario".to_owned(), self.scenario.to_string()];
        let mut add = |option: &str, value: String| all.extend([option.to_owned(), value]);
        add("--seed", self.seed.to_string());
        self.nodes.iter().for_each(|nodes| add("--nodes", nodes.to_string()));
        self.clients.iter().for_each(|clients| add("--clients", clients.to_string()));
        if !self.leave_out.is_empty() {
            let numbers: Vec<String> = self.leave_out.iter().map(usize::to_string).collect();
            add("--leave-out", numbers.join(","));
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[test]
    fn a_course_is_what_its_arguments_say() {
        let leave_out = BTreeSet::from([0, 2]);
        let (nodes, clients) = (Some(3), Some(7));
        let course = Course { scenario: Scenario::Swarm, seed: 9, nodes, clients, leave_out };
        let line = ["simulations".to_owned()].into_iter().chain(course.arguments());
        let arguments = Arguments::parse_from(line);
        assert_eq!(course, Course::new(Scenario::Swarm, 9, &arguments));
        let (setup, drawn) = (course.setup(), Setup::draw(9));
        assert_eq!((setup.nodes, setup.clients, setup.copies), (3, 7, drawn.copies));
        assert!(course.plan().steps.iter().all(|step| step.number != 0 && step.number != 2));
    }
}
