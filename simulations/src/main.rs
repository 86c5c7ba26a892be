//! Runs the cores under a virtual clock and network and checks what they promise. Prints the seed
//! and all options first, and for a failure the command that replays it.
#![expect(clippy::print_stdout, reason = "the report of a run goes to the terminal")]

mod checkers;
mod clients;
mod membership;
mod network;
mod options;
mod world;

use std::process::ExitCode;

use clap::Parser;

use options::{Arguments, Scenario, Swarm};
use world::{Outcome, World};

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
    let mut totals = Outcome::default();
    for scenario in scenarios {
        for seed in arguments.seeds() {
            match run(scenario, seed, arguments.trace) {
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
        missing if missing.is_empty() || arguments.seed.is_some() => ExitCode::SUCCESS,
        missing => {
            println!(
                "never happened in any run, so nothing was shown of it: {}",
                missing.join(", ")
            );
            ExitCode::FAILURE
        }
    }
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

fn run(scenario: Scenario, seed: u64, trace: bool) -> anyhow::Result<Outcome> {
    let swarm = Swarm::draw(scenario, seed);
    if trace {
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
            let first = run(scenario, 7, false).expect("seed 7 passes");
            let second = run(scenario, 7, false).expect("seed 7 passes");
            assert_eq!(first.fingerprint, second.fingerprint, "{scenario}");
            let other = run(scenario, 8, false).expect("seed 8 passes");
            assert_ne!(first.fingerprint, other.fingerprint, "{scenario}");
        }
    }
}
