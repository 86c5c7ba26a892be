//! The command line.
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use clap::Parser;

use super::fault::Class;

/// Real processes of Orbweb under faults. Needs root.
#[derive(Parser, Debug)]
#[command(name = "chaos")]
pub(super) struct Arguments {
    /// What sizes and schedule are drawn from; random if not given
    #[arg(long)]
    pub(super) seed: Option<u64>,
    /// How long faults go on; the round that is under way then is played to its end
    #[arg(long = "for", value_name = "DURATION", default_value = "2m", value_parser = humantime::parse_duration)]
    pub(super) lasting: Duration,
    /// Only these classes of faults, parted by commas; all if not given
    #[arg(long, value_name = "CLASS", value_delimiter = ',')]
    pub(super) only: Vec<Class>,
    /// Kill as many nodes at once as there are copies, which is more than is promised: the run must fail
    #[arg(long)]
    pub(super) overkill: bool,
    /// So many clients of npm `centrifuge` beside the virtual ones, as `.ci/test setup` installs it
    #[arg(long, value_name = "CLIENTS", default_value_t = 0)]
    pub(super) sdk: usize,
    /// The nodes' binary [default: `orbweb` beside this program]
    #[arg(long, value_name = "FILE")]
    pub(super) binary: Option<PathBuf>,
    /// Keep the summary in a file, too
    #[arg(long, value_name = "FILE")]
    pub(super) json: Option<PathBuf>,
    /// Print what clients see of it; twice: every publication, too
    #[arg(long, action = clap::ArgAction::Count)]
    pub(super) trace: u8,
    /// In processes and network of its own already, with this seed
    #[arg(long, hide = true)]
    pub(super) inside: Option<u64>,
}

impl Arguments {
    /// The binary that the nodes are started from.
    pub(super) fn orbweb(&self) -> anyhow::Result<PathBuf> {
        let binary = match &self.binary {
            Some(binary) => binary.clone(),
            None => own_path()?.with_file_name("orbweb"),
        };
        ensure!(
            binary.is_file(),
            "{} isn't there; build it: cargo build --release --workspace",
            binary.display()
        );
        Ok(binary.canonicalize()?)
    }

    /// The command that plays the same schedule.
    pub(super) fn again(&self, seed: u64) -> String {
        let lasting = humantime::format_duration(self.lasting).to_string().replace(' ', "");
        let mut command = format!("target/release/chaos --seed {seed} --for {lasting}");
        if !self.only.is_empty() {
            let only: Vec<String> = self.only.iter().map(ToString::to_string).collect();
            command += &format!(" --only {}", only.join(","));
        }
        if self.overkill {
            command += " --overkill";
        }
        if self.sdk > 0 {
            command += &format!(" --sdk {}", self.sdk);
        }
        command
    }
}

/// What a run keeps for reading: configuration and logs of its nodes.
pub(super) fn folder() -> anyhow::Result<PathBuf> {
    Ok(target()?.join("chaos"))
}

/// Where `.ci/test setup` installs npm `centrifuge`.
pub(super) fn sdk_modules() -> anyhow::Result<PathBuf> {
    Ok(std::env::var_os("ORBWEB_E2E_JS").map_or(target()?.join("e2e/js"), PathBuf::from))
}

/// The folder that this program was built into.
pub(super) fn target() -> anyhow::Result<PathBuf> {
    let own = own_path()?;
    let target = own.ancestors().nth(2).map(Path::to_owned);
    target.with_context(|| format!("{} is in no target folder", own.display()))
}

fn own_path() -> anyhow::Result<PathBuf> {
    std::env::current_exe().context("where is this program?")
}
