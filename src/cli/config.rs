//! `orbweb config`: check a file, or show what is in effect.
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Subcommand;

use super::flags::ServeFlags;
use crate::config::{Config, Layers, Surroundings};

#[derive(Subcommand, Debug)]
pub(super) enum ConfigCommand {
    /// Check a configuration file by itself, without environment and flags
    Check {
        /// The file
        file: PathBuf,
    },
    /// Show the configuration in effect, with where each value came from; secrets are masked
    Show(Box<ServeFlags>),
}

pub(super) fn config(
    command: &ConfigCommand,
    around: &Surroundings,
    out: &mut dyn Write,
) -> anyhow::Result<ExitCode> {
    match command {
        ConfigCommand::Check { file } => {
            let layers = Layers { file: Some(file.clone()), flags: Vec::new() };
            let alone = Surroundings { host: around.host.clone(), ..Surroundings::default() };
            let config = Config::load(&layers, &alone)?;
            for warning in config.warnings() {
                writeln!(out, "warning: {warning}")?;
            }
            writeln!(out, "{} is sound", file.display())?;
        }
        ConfigCommand::Show(flags) => write!(out, "{}", flags.load(around)?.to_toml())?,
    }
    Ok(ExitCode::SUCCESS)
}
