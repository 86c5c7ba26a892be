//! The command line: one file a subcommand. Parses, checks, prints; nodes are asked over HTTP.
use std::ffi::OsString;
use std::io::{self, Write};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::config::{ConfigError, Surroundings};

mod config;
mod demo;
mod flags;
mod owner;
mod secret;
mod serve;
mod status;
mod target;
#[cfg(test)]
mod tests;
mod token;

/// Exit code for a wrong configuration, as for wrong arguments.
const EXIT_USAGE: u8 = 2;

/// Orbweb: a self-coordinating mesh of realtime messaging nodes.
#[derive(Parser, Debug)]
#[command(name = "orbweb", version, args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    serve: flags::ServeFlags,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Run a node (the same as no command at all)
    Serve(Box<flags::ServeFlags>),
    /// Make a secret for a cluster
    Secret,
    /// Make a connect token for a user, for trying out
    Token(token::TokenFlags),
    /// Check or show the configuration
    #[command(subcommand)]
    Config(config::ConfigCommand),
    /// Show the nodes of a cluster; exit code 0 = the node asked is ready
    Status(status::StatusFlags),
    /// Show which node owns a user or channel
    Owner(owner::OwnerFlags),
    /// Run a cluster of some nodes on this machine, with a page to try it
    Demo(demo::DemoFlags),
}

/// Runs the command that the arguments name.
pub fn run(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are "errors" too, for the standard output; if that is closed, nobody
            // reads it.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(EXIT_USAGE));
        }
    };
    match execute(cli, &Surroundings::here(), &mut io::stdout()) {
        Ok(code) => code,
        Err(error) => fail(&error),
    }
}

fn execute(cli: Cli, around: &Surroundings, out: &mut dyn Write) -> anyhow::Result<ExitCode> {
    match cli.command {
        None => serve::serve(&cli.serve, around, out),
        Some(Command::Serve(flags)) => serve::serve(&flags, around, out),
        Some(Command::Secret) => secret::secret(out),
        Some(Command::Token(flags)) => token::token(&flags, around, out),
        Some(Command::Config(command)) => config::config(&command, around, out),
        Some(Command::Status(flags)) => status::status(&flags, around, out),
        Some(Command::Owner(flags)) => owner::owner(&flags, around, out),
        Some(Command::Demo(flags)) => demo::demo(&flags, out),
    }
}

fn fail(error: &anyhow::Error) -> ExitCode {
    let io = error.downcast_ref::<io::Error>();
    if io.is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe) {
        // Whoever read our output has had enough.
        return ExitCode::SUCCESS;
    }
    let _ = writeln!(io::stderr(), "orbweb: {error:#}");
    match error.downcast_ref::<ConfigError>() {
        Some(_) => ExitCode::from(EXIT_USAGE),
        None => ExitCode::FAILURE,
    }
}
