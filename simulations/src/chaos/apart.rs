//! A run has processes, a network and mounts of its own: whatever becomes of it, the kernel takes away
//! what it started and made, and the machine's network isn't touched.
use std::process::{ExitCode, Stdio};

use anyhow::{Context as _, ensure};
use tokio::process::Command;
use tokio::runtime::Builder;
use tokio::signal::unix::{SignalKind, signal};

use super::options::Arguments;

/// What `unshare` is told.
const OWN: [&str; 6] = ["--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"];

/// Runs this program again, with what is its own, and waits for it. Its input is held open for as long
/// as it may run.
pub(super) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    ensure!(rustix::process::geteuid().is_root(), "making network namespaces needs root");
    let seed = arguments.seed.unwrap_or_else(|| u64::from(rand::random::<u32>()));
    println!("seed {seed}; {}", arguments.again(seed));
    Builder::new_current_thread().enable_all().build()?.block_on(inside(seed))
}

async fn inside(seed: u64) -> anyhow::Result<ExitCode> {
    let (mut interrupt, mut terminate) =
        (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let mut child = Command::new("unshare")
        .args(OWN)
        .arg(std::env::current_exe()?)
        .args(std::env::args_os().skip(1))
        .args(["--inside", &seed.to_string()])
        .stdin(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .context("unshare (of util-linux) doesn't start")?;
    let input = child.stdin.take();
    tokio::select! {
        _ = child.wait() => {}
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    drop(input);
    let ended = child.wait().await?;
    Ok(if ended.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
