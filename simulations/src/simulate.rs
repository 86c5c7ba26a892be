//! Runs the cores, or whole nodes, under a virtual clock and network and checks what they promise.
//! Prints the seed and all options first, and for a failure the timeline and the command that
//! replays it.
use std::panic::{self, AssertUnwindSafe};
use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;

use crate::options::{Arguments, Swarm};
use crate::outcome::Outcome;
use crate::parallel::{self, Failed};
use crate::scenario::Scenario;
use crate::shrink;
use crate::whole;
use crate::world::timeline::Timeline;
use crate::world::{World, growth};

/// The program `simulations`.
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if arguments.rules {
        orbweb::mutant::Rule::ALL.iter().for_each(|(_, name)| println!("{name}"));
        return ExitCode::SUCCESS;
    }
    let scenarios = match arguments.scenario {
        Some(scenario) => vec![scenario],
        None if arguments.whole || arguments.meta => Scenario::WHOLE.to_vec(),
        None => Scenario::CORES.to_vec(),
    };
    if let Err(unknown) = switch_off(arguments.without.as_deref()) {
        println!("{unknown}");
        return ExitCode::FAILURE;
    }
    if arguments.shrink {
        return told(shrink::shrink(&arguments));
    }
    if !arguments.scale.is_empty() {
        return told(scale(&arguments));
    }
    if scenarios.iter().all(|scenario| scenario.is_whole()) {
        return whole::run(&arguments, &scenarios);
    }
    if arguments.are_of_whole_nodes() {
        println!("nodes, clients, steps and reports are of whole nodes alone");
        return ExitCode::FAILURE;
    }
    let mut totals = Outcome::default();
    let runs = seeds(&arguments).flat_map(|seed| scenarios.iter().map(move |s| (seed, *s)));
    let run = |scenario, seed| {
        if arguments.seed.is_some() {
            println!("{}", title(scenario, seed));
        }
        run(scenario, seed, arguments.trace)
    };
    let threads = if arguments.seed.is_some() { 1 } else { parallel::all_cores() };
    if let Err(failed) = parallel::run_all(threads, runs, run, |outcome| totals.add(&outcome)) {
        let Failed { scenario, seed, why } = failed;
        println!("{why}");
        let course = format!("--scenario {scenario} --seed {seed} --trace");
        println!("replay: {}", command(&course, arguments.without.as_deref()));
        return ExitCode::FAILURE;
    }
    println!("{totals}");
    match totals.unmet() {
        missing
            if missing.is_empty() || arguments.scenario.is_some() || arguments.seed.is_some() =>
        {
            ExitCode::SUCCESS
        }
        missing => {
            println!(
                "never happened in any run, so nothing was shown of it: {}",
                missing.join(", ")
            );
            ExitCode::FAILURE
        }
    }
}

fn told(result: anyhow::Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Prints what clusters of these sizes cost.
fn scale(arguments: &Arguments) -> anyhow::Result<()> {
    println!("{}", growth::HEADER);
    for nodes in &arguments.scale {
        println!("{}", growth::grow(*nodes, arguments.seed.unwrap_or(arguments.from))?);
    }
    Ok(())
}

/// The seeds to run: those asked for, or random ones for as long as was asked for.
pub(crate) fn seeds(arguments: &Arguments) -> Box<dyn Iterator<Item = u64> + Send> {
    if let Some(seed) = arguments.seed {
        return Box::new(std::iter::once(seed));
    }
    if let Some(minutes) = arguments.minutes {
        let first: u32 = rand::random();
        println!("random seeds from {first}");
        let began = Instant::now();
        let over = move |_: &u64| began.elapsed().as_secs_f64() / 60.0 < minutes;
        return Box::new((u64::from(first)..).take_while(over));
    }
    Box::new(arguments.from..arguments.from + arguments.seeds)
}

/// Switches off the rule of that name.
fn switch_off(name: Option<&str>) -> anyhow::Result<()> {
    let Some(name) = name else { return Ok(()) };
    let rules = orbweb::mutant::Rule::ALL;
    let names: Vec<&str> = rules.iter().map(|(_, name)| *name).collect();
    let Some((rule, _)) = rules.into_iter().find(|(_, known)| *known == name) else {
        anyhow::bail!("no rule is called {name:?}; there are {}", names.join(", "));
    };
    #[cfg(mutants)]
    orbweb::mutant::switch_off(rule);
    anyhow::ensure!(
        orbweb::mutant::without(rule),
        "switching rules off needs RUSTFLAGS='--cfg mutants' and a target folder of its own"
    );
    Ok(())
}

/// What runs this again, in a build in which rules can be switched off if one is.
pub(crate) fn command(arguments: &str, without: Option<&str>) -> String {
    let run = format!("cargo run --profile sim -p simulations -- {arguments}");
    match without {
        Some(rule) => {
            format!("RUSTC_WORKSPACE_WRAPPER=$PWD/.ci/rustc-mutants {run} --without {rule}")
        }
        None => run,
    }
}

/// What a run is made of.
fn title(scenario: Scenario, seed: u64) -> String {
    format!("{scenario}, seed {seed}: {:?}", Swarm::draw(scenario, seed))
}

fn run(scenario: Scenario, seed: u64, trace: u8) -> anyhow::Result<Outcome> {
    let timeline = Timeline::new(trace);
    let world = World::new(Swarm::draw(scenario, seed), seed, timeline.clone());
    let verdict = panic::catch_unwind(AssertUnwindSafe(|| world.run()));
    verdict.unwrap_or_else(|_| Err(anyhow::anyhow!("it panicked"))).map_err(|broken| {
        anyhow::anyhow!("{}{}\n{broken:#}", timeline.end(), title(scenario, seed))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_seed_gives_one_trace() {
        for scenario in Scenario::CORES {
            let first = run(scenario, 7, 0).expect("seed 7 passes");
            let second = run(scenario, 7, 0).expect("seed 7 passes");
            assert_eq!(first.fingerprint, second.fingerprint, "{scenario}");
            let other = run(scenario, 8, 0).expect("seed 8 passes");
            assert_ne!(first.fingerprint, other.fingerprint, "{scenario}");
        }
    }
}
