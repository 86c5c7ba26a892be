//! Whole nodes from the command line: one seed here, many in processes of their own, or one seed
//! twice.
use std::process::ExitCode;

use crate::cluster::course::Course;
use crate::cluster::run;
use crate::options::Arguments;
use crate::parallel::{self, Failed};
use crate::scenario::Scenario;
use crate::simulate;

/// The seed that is run twice.
const META_SEED: u64 = 1;

/// What runs a course again.
pub(crate) fn command(course: &Course, without: Option<&str>) -> String {
    simulate::command(&course.arguments().join(" "), without)
}

pub(crate) fn run(arguments: &Arguments, scenarios: &[Scenario]) -> ExitCode {
    let without = arguments.without.as_deref();
    let (mut runs, seeds) = (0_u64, simulate::seeds(arguments));
    let seeds = seeds.take(if arguments.meta { 1 } else { usize::MAX });
    let all = seeds.flat_map(|seed| scenarios.iter().map(move |scenario| (seed, *scenario)));
    let course = |scenario, seed| Course::new(scenario, seed, arguments);
    let run = |scenario, seed| match (arguments.meta, arguments.seed) {
        (true, seed) => run::twice(&course(scenario, seed.unwrap_or(META_SEED)), without),
        (false, Some(_)) => run::here(&course(scenario, seed), arguments),
        (false, None) => {
            run::apart(&course(scenario, seed), without).map(|line| println!("{line}"))
        }
    };
    let threads = if arguments.seed.is_some() { 1 } else { parallel::all_cores() };
    if let Err(failed) = parallel::run_all(threads, all, run, |()| runs += 1) {
        let Failed { scenario, seed, why } = failed;
        println!("{why:#}");
        println!("{}{} --trace", run::REPLAY, command(&course(scenario, seed), without));
        return ExitCode::FAILURE;
    }
    if arguments.seed.is_none() {
        println!("{runs} runs of whole nodes passed");
    }
    ExitCode::SUCCESS
}
