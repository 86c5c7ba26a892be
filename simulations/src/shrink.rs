//! From a failing swarm to the smallest that fails in the same way: whole classes of faults are left
//! out, then single steps, then nodes and clients. Each try is a process of its own.
mod minimise;

use std::collections::BTreeSet;
use std::fmt;

use anyhow::{Context as _, bail, ensure};

use crate::cluster::course::Course;
use crate::cluster::plan::{Class, Step};
use crate::cluster::run;
use crate::options::Arguments;
use crate::parallel::{self, Failed};
use crate::scenario::Scenario;
use crate::whole::command;

/// Runs that a search may take.
const RUNS_MAX: usize = 400;
/// Fewer nodes than the seed gives, the fewest first.
const FEWER_NODES: [usize; 2] = [3, 4];
/// Fewer clients, the same.
const FEWER_CLIENTS: [usize; 7] = [1, 2, 3, 5, 8, 12, 16];

/// Shrinks the seed that the command line names, and tells what is left of it.
pub(crate) fn shrink(arguments: &Arguments) -> anyhow::Result<()> {
    let (Some(Scenario::Swarm), Some(seed)) = (arguments.scenario, arguments.seed) else {
        bail!("only a seed of {} can be shrunk", Scenario::Swarm);
    };
    let without = arguments.without.as_deref();
    let whole = Course::new(Scenario::Swarm, seed, arguments);
    let verdict = run::verdict(&whole, without)?;
    let verdict = verdict.with_context(|| format!("it passes: {}", command(&whole, without)))?;
    println!("{} steps fail: {verdict}", whole.plan().steps.len());
    let mut search = Search { without, kind: kind(&verdict), smallest: whole, runs: 1 };
    search.leave_out_classes()?;
    search.leave_out_steps()?;
    search.take_fewer_nodes()?;
    search.take_fewer_clients()?;
    search.leave_out_steps()?;
    search.conclude()
}

/// What failed first: the number of the promise, and what is said of it but for numbers and lists.
fn kind(verdict: &str) -> String {
    let promise = verdict.match_indices('I').find_map(|(at, _)| {
        let (number, said) = verdict[at + 1..].split_once(':')?;
        let named = !number.is_empty() && number.bytes().all(|digit| digit.is_ascii_digit());
        named.then_some((number, said))
    });
    let (number, said) = promise.unwrap_or(("", verdict));
    let mut kind = format!("{number}:");
    for letter in said.split(['\n', '[', '{', '(', ';']).next().unwrap_or_default().chars() {
        match letter.is_ascii_digit() {
            true if kind.ends_with('#') => {}
            true => kind.push('#'),
            false => kind.push(letter),
        }
    }
    kind
}

/// Says that a run fails as the whole one does.
#[derive(Debug)]
struct Same;

impl fmt::Display for Same {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("it fails in the same way")
    }
}

impl std::error::Error for Same {}

struct Search<'a> {
    without: Option<&'a str>,
    /// How all of these fail.
    kind: String,
    /// The smallest so far.
    smallest: Course,
    runs: usize,
}

impl Search<'_> {
    fn leave_out_classes(&mut self) -> anyhow::Result<()> {
        loop {
            let steps = self.smallest.plan().steps;
            let classes: BTreeSet<Class> = steps.iter().map(|step| step.part.class()).collect();
            let others = |class: &Class| {
                let others = steps.iter().filter(|step| step.part.class() != *class);
                self.smallest.with_only(others.map(|step| step.number))
            };
            let courses: Vec<Course> = classes.iter().map(others).collect();
            if self.first(&courses)?.is_none() {
                return Ok(());
            }
        }
    }

    fn leave_out_steps(&mut self) -> anyhow::Result<()> {
        let whole = self.smallest.clone();
        let steps: Vec<Step> = whole.plan().steps;
        let numbers = |steps: &[Step]| steps.iter().map(|step| step.number).collect::<Vec<_>>();
        minimise::minimise(steps, &mut |lists| {
            let courses = lists.iter().map(|steps| whole.with_only(numbers(steps)));
            self.first(&courses.collect::<Vec<_>>())
        })?;
        Ok(())
    }

    fn take_fewer_nodes(&mut self) -> anyhow::Result<()> {
        let now = self.smallest.setup().nodes;
        let fewer = FEWER_NODES.into_iter().filter(|nodes| *nodes < now);
        let courses = fewer.map(|nodes| Course { nodes: Some(nodes), ..self.smallest.clone() });
        self.first(&courses.collect::<Vec<_>>()).map(|_| ())
    }

    fn take_fewer_clients(&mut self) -> anyhow::Result<()> {
        let now = self.smallest.setup().clients;
        let fewer = FEWER_CLIENTS.into_iter().filter(|clients| *clients < now);
        let courses =
            fewer.map(|clients| Course { clients: Some(clients), ..self.smallest.clone() });
        self.first(&courses.collect::<Vec<_>>()).map(|_| ())
    }

    /// Which of these runs, the first in order, fails in the same way; it is the smallest now. None once
    /// there were too many runs.
    fn first(&mut self, courses: &[Course]) -> anyhow::Result<Option<usize>> {
        if self.runs + courses.len() > RUNS_MAX {
            return Ok(None);
        }
        self.runs += courses.len();
        let fails = |_, number: u64| {
            let verdict = run::verdict(&courses[number as usize], self.without)?;
            ensure!(verdict.is_none_or(|verdict| kind(&verdict) != self.kind), Same);
            Ok(())
        };
        let numbers = (0..courses.len() as u64).map(|number| (number, Scenario::Swarm));
        match parallel::run_all(parallel::all_cores(), numbers, fails, |()| {}) {
            Ok(()) => Ok(None),
            Err(Failed { why, .. }) if !why.is::<Same>() => Err(why),
            Err(Failed { seed: number, .. }) => {
                self.smallest = courses[number as usize].clone();
                println!("{}", self.sizes());
                Ok(Some(number as usize))
            }
        }
    }

    fn sizes(&self) -> String {
        let (setup, steps) = (self.smallest.setup(), self.smallest.plan().steps.len());
        let (nodes, clients) = (setup.nodes, setup.clients);
        format!("{} runs: {steps} steps, {nodes} nodes, {clients} clients", self.runs)
    }

    /// The smallest fails once more as it does.
    fn conclude(&self) -> anyhow::Result<()> {
        let verdict = || run::verdict(&self.smallest, self.without);
        let (once, again) = (verdict()?, verdict()?);
        ensure!(once == again, "one time {once:?}, another time {again:?}");
        let failed = once.context("the smallest passes")?;
        println!("\nthe smallest after {}\n{failed}", self.sizes());
        self.smallest.plan().steps.iter().for_each(|step| println!("  step {step}"));
        println!("{}", command(&self.smallest, self.without));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::kind;

    #[test]
    fn failures_are_alike_but_for_numbers_and_lists() {
        let gossip = "6s after the faults: as n2 sees it: I8: n3 claims 4 slots\nI7: client 3 saw";
        assert_eq!(kind(gossip), "8: n# claims # slots");
        let missed = kind("I1: client 12 never saw [4, 60] of chat:3; it began at Some(5) ms");
        assert_eq!(missed, "1: client # never saw ");
        assert_ne!(missed, kind("I1: 4 gaps were announced"));
        assert_ne!(kind("I2: so many"), kind("I3: so many"));
        assert_eq!(kind("the scenario panicked"), ":the scenario panicked");
    }
}
