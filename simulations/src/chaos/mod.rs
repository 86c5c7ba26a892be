//! Real processes: five nodes of the shipped binary, each on a host of its own made of network
//! namespaces, under faults of processes, of the network and of resources. The clients are those of
//! whole nodes, over TCP, and the real SDK; the checkers are the same.
//!
//! In reading order: `options` is the command line, `apart` gives the run processes and a network
//! of its own, `schedule` draws `fault`s from the seed, `setup` the sizes. `hosts` are the
//! network, `node` is a process and `questions` what it is asked; `doors` and `balancer` lead
//! clients to nodes, `sdk` is a real one. `processes` holds all of them together, `inflict`
//! carries faults out, `rest` waits until all is well. `run` plays the schedule, and `summary`
//! says what came of it.
mod apart;
mod balancer;
mod doors;
mod fault;
mod hosts;
mod inflict;
mod node;
mod options;
mod processes;
mod questions;
mod rest;
mod run;
mod schedule;
mod sdk;
mod setup;
mod summary;

use std::process::ExitCode;

use clap::Parser as _;

use options::Arguments;

/// The program `chaos`.
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let ended = match arguments.inside {
        Some(seed) => run::run(&arguments, seed),
        None => apart::run(&arguments),
    };
    ended.unwrap_or_else(|error| {
        println!("{error:#}");
        ExitCode::FAILURE
    })
}
