//! What can be asked for on the command line.
use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Parser, Subcommand};

use crate::scenario::{Scenario, Work};
use crate::systems::Kind;

/// Measures Orbweb and its peers on the same work, in turns.
#[derive(Parser, Debug)]
#[command(name = "cargo bench --bench peers --", args_conflicts_with_subcommands = true)]
pub(crate) struct Options {
    /// Systems, in the order in which they take turns
    #[arg(
        long,
        value_delimiter = ',',
        value_enum,
        default_value = "floor,orbweb,orbweb-one,nats,socketio,mosquitto"
    )]
    pub(crate) system: Vec<Kind>,
    /// Scenarios by name, or by the first part of it, such as direct; all but churn if none is given
    #[arg(long, value_delimiter = ',', value_parser = known)]
    pub(crate) scenario: Vec<String>,
    /// How long each run lasts
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) seconds: u32,
    /// How often each system has its turn
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) rounds: u32,
    /// Connections of `idle`; the limit of open files must allow for them
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(2..))]
    pub(crate) connections: u32,
    /// Connections that `connect` makes
    #[arg(long, default_value_t = 3_000, value_parser = clap::value_parser!(u32).range(2..))]
    pub(crate) connects: u32,
    /// Subscribers of `fanout`, for a quick look; figures of others don't compare
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(2..))]
    pub(crate) subscribers: u32,
    /// Writes all figures into this file
    #[arg(long)]
    pub(crate) json: Option<PathBuf>,
    /// What `cargo bench` adds
    #[arg(long, hide = true, global = true)]
    bench: bool,
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
}

#[derive(Subcommand, Debug)]
pub(crate) enum Command {
    /// Draws the figures that --json wrote, of one or several runs
    Chart {
        /// The picture to write
        svg: PathBuf,
        /// What --json wrote
        #[arg(required = true)]
        figures: Vec<PathBuf>,
    },
    /// Becomes another program that ends with the one that started it
    #[command(hide = true)]
    Hold {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
        words: Vec<OsString>,
    },
    /// One node of the floor
    #[command(hide = true)]
    Floor {
        #[arg(long)]
        clients: SocketAddr,
        #[arg(long)]
        mesh: Option<SocketAddr>,
        #[arg(long)]
        join: Option<SocketAddr>,
    },
}

impl Options {
    /// The scenarios that are asked for, sized as asked.
    pub(crate) fn scenarios(&self) -> Vec<Scenario> {
        let wanted = |scenario: &Scenario| {
            let named = |word: &String| scenario.name == word || scenario.family() == word;
            self.scenario.is_empty() && !scenario.is_long() || self.scenario.iter().any(named)
        };
        let mut found: Vec<_> = Scenario::all().into_iter().filter(wanted).collect();
        for scenario in &mut found {
            match scenario.work {
                Work::Traffic { .. } if scenario.name.contains("fanout") => {
                    scenario.sized(self.subscribers);
                }
                Work::Traffic { .. } | Work::Saturate | Work::Churn { .. } => {}
                Work::Idle => scenario.sized(self.connections),
                Work::Connect => scenario.sized(self.connects),
            }
        }
        found
    }
}

fn known(word: &str) -> Result<String, String> {
    let all = Scenario::all();
    if all.iter().any(|scenario| scenario.name == word || scenario.family() == word) {
        return Ok(word.to_owned());
    }
    let names: Vec<_> = all.iter().map(|scenario| scenario.name).collect();
    Err(format!("scenarios are {}", names.join(", ")))
}
