//! `orbweb serve`: runs a node until a signal stops it.
use std::fmt::Write as _;
use std::io::{self, IsTerminal as _, Read as _, Write};
use std::num::NonZero;
use std::process::ExitCode;

use anyhow::Context as _;
use tokio::runtime;
use tokio::task::LocalSet;
use tracing_subscriber::EnvFilter;

use super::flags::ServeFlags;
use crate::config::{Config, Log, LogFormat, Surroundings};

pub(super) fn serve(
    flags: &ServeFlags,
    around: &Surroundings,
    out: &mut dyn Write,
) -> anyhow::Result<ExitCode> {
    let config = flags.load(around)?.read_secrets()?;
    start_log(&config.log)?;
    if flags.stop_with_stdin {
        std::thread::Builder::new().name("stdin".to_owned()).spawn(stop_with_stdin)?;
    }
    out.write_all(greeting(&config).as_bytes())?;
    out.flush()?;
    for warning in config.warnings() {
        tracing::warn!(%warning, "config.questionable");
    }
    let one = config.client.threads() == 1;
    let mut builder = match one {
        true => runtime::Builder::new_current_thread(),
        false => runtime::Builder::new_multi_thread(),
    };
    // A message goes through several tasks: each that another thread takes over costs a wake-up.
    let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
    let runtime = builder.worker_threads((cores / 2).max(1)).enable_all().build();
    let runtime = runtime.context("cannot start threads")?;
    let node = crate::node::run(config);
    match one {
        true => LocalSet::new().block_on(&runtime, node)?,
        false => runtime.block_on(node)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Where to connect.
pub(super) fn greeting(config: &Config) -> String {
    let mut text = format!("Orbweb {}, node {}\n", env!("CARGO_PKG_VERSION"), config.name);
    let mut line = |what: &str, value: String| {
        writeln!(text, "  {what:<8} {value}").expect("writing to a string never fails");
    };
    if config.listen.port() == 0 {
        line("clients", "a free port, named in the log".to_owned());
    } else {
        let url = config.client_url(config.listen);
        let socket = url.replacen("http", "ws", 1);
        line("clients", format!("{socket}/connection/websocket"));
        line(
            "API",
            match config.api.keys.is_empty() {
                true => format!("{url}/api (closed: no `api.keys`)"),
                false => format!("{url}/api"),
            },
        );
        if config.dev {
            line("demo", format!("{url}/demo"));
        }
    }
    line(
        "peers",
        match config.mesh_address() {
            None => "none: a node alone".to_owned(),
            Some(address) if config.join.is_empty() => format!("{address} (UDP)"),
            Some(address) => {
                let seeds: Vec<String> = config.join.iter().map(ToString::to_string).collect();
                format!("{address} (UDP), joining {}", seeds.join(", "))
            }
        },
    );
    text
}

fn start_log(log: &Log) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(&log.level).context("`log.level`")?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    let builder = builder.with_ansi(io::stderr().is_terminal());
    let started = match log.format {
        LogFormat::Text => builder.try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
    started.map_err(|error| anyhow::anyhow!("cannot start the log: {error}"))
}

/// Ends the process when whoever started it is gone.
fn stop_with_stdin() {
    let mut ignored = [0; 64];
    while matches!(io::stdin().read(&mut ignored), Ok(read) if read > 0) {}
    std::process::exit(0);
}
