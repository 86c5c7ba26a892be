//! Runs the cores under a virtual clock and network and checks what they promise. Prints the seed
//! and all options first, and for a failure the command that replays it.
#![expect(clippy::print_stdout, reason = "the report of a run goes to the terminal")]

mod checkers;
mod clients;
mod membership;
mod network;
mod options;
mod outcome;
mod world;

use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;

use options::{Arguments, Scenario, Swarm};
use outcome::Outcome;
use world::World;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if arguments.rules {
        orbweb::mutant::Rule::ALL.iter().for_each(|(_, name)| println!("{name}"));
        return ExitCode::SUCCESS;
    }
    let scenarios = match arguments.scenario {
        Some(scenario) => vec![scenario],
        None => Scenario::ALL.to_vec(),
    };
    if let Err(unknown) = switch_off(arguments.without.as_deref()) {
        println!("{unknown}");
        return ExitCode::FAILURE;
    }
    let began = Instant::now();
    let mut totals = Outcome::default();
    for seed in seeds(&arguments) {
        let minutes = began.elapsed().as_secs_f64() / 60.0;
        if arguments.minutes.is_some_and(|most| minutes >= most) {
            break;
        }
        for scenario in &scenarios {
            match run(*scenario, seed, arguments.trace) {
                Ok(outcome) => totals.add(&outcome),
                Err(failure) => {
                    println!("{failure}");
                    println!(
                        "replay: cargo run --release -p simulations -- --scenario {scenario} --seed {seed} --trace"
                    );
                    return ExitCode::FAILURE;
                }
            }
        }
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

/// The seeds to run: those asked for, or random ones without an end.
fn seeds(arguments: &Arguments) -> Box<dyn Iterator<Item = u64>> {
    if let Some(seed) = arguments.seed {
        return Box::new(std::iter::once(seed));
    }
    if arguments.minutes.is_some() {
        let first: u32 = rand::random();
        println!("random seeds from {first}");
        return Box::new(u64::from(first)..);
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

fn run(scenario: Scenario, seed: u64, trace: u8) -> anyhow::Result<Outcome> {
    let swarm = Swarm::draw(scenario, seed);
    if trace > 0 {
        println!("{scenario} seed {seed}: {swarm:?}");
    }
    World::new(swarm, seed, trace).run().map_err(|broken| {
        anyhow::anyhow!("scenario {scenario}, seed {seed}, {swarm:?}\n{broken:#}")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_seed_gives_one_trace() {
        for scenario in Scenario::ALL {
            let first = run(scenario, 7, 0).expect("seed 7 passes");
            let second = run(scenario, 7, 0).expect("seed 7 passes");
            assert_eq!(first.fingerprint, second.fingerprint, "{scenario}");
            let other = run(scenario, 8, 0).expect("seed 8 passes");
            assert_ne!(first.fingerprint, other.fingerprint, "{scenario}");
        }
    }
}
