//! Orbweb beside what people use today, on the same work in the same run: what a delivery costs.
//!
//!     tests/benches/peers/setup                          installs the peers
//!     cargo build --profile dist                         builds what is measured
//!     cargo bench --bench peers                          measures everything
//!     cargo bench --bench peers -- --help                tells the options
//!     cargo bench --bench peers -- chart FILE.svg FILE.json…
//!
//! One load generator speaks raw WebSocket to two nodes of each system, one system after the other,
//! in rounds. It counts deliveries by a stamp in the payload and reads from `/proc` what the
//! system's processes used: latencies depend on what else a machine does, CPU a delivery hardly.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a bench prints")]

mod chart;
mod crowd;
mod floor;
mod frame;
mod measure;
mod options;
mod ports;
mod process;
mod report;
mod scenario;
mod systems;
mod usage;
mod watch;

use std::process::ExitCode;

use anyhow::{Context as _, Result, ensure};
use clap::Parser as _;

use options::{Command, Options};
use report::Report;

fn main() -> ExitCode {
    let options = Options::parse();
    let done = match &options.command {
        Some(Command::Hold { words }) => process::become_held(words),
        Some(Command::Floor { clients, mesh, join }) => floor::serve(*clients, *mesh, *join),
        Some(Command::Chart { svg, figures }) => chart::draw(svg, figures),
        None => compare(&options),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn compare(options: &Options) -> Result<()> {
    process::raise_file_limit()?;
    for system in &options.system {
        system.check().with_context(|| format!("cannot measure {system}"))?;
    }
    let mut report = Report::new(options);
    for scenario in options.scenarios() {
        for round in 1..=options.rounds {
            for &system in &options.system {
                eprintln!("{} {round}/{} {system} …", scenario.name, options.rounds);
                let run = measure::run(system, &scenario, options)
                    .with_context(|| format!("{}, round {round}, {system}", scenario.name))?;
                report.add(&scenario, system, run);
            }
        }
        println!("{}", report.table(&scenario));
        // After each, so that what was measured isn't lost with what goes wrong later.
        if let Some(file) = &options.json {
            std::fs::write(file, report.json()?).with_context(|| format!("{}", file.display()))?;
        }
    }
    let short = report.short_of_deliveries();
    ensure!(short.is_empty(), "orbweb did not deliver exactly what was expected: {short}");
    Ok(())
}
