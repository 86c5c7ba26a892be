//! A node: a process of the shipped binary on a host of its own, and what can be done to it.
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};

use anyhow::Context as _;
use rustix::process::{Pid, Resource, Rlimit, Signal, kill_process, prlimit};
use tokio::process::{Child, ChildStdin};

use super::hosts::{self, client_address, mesh_address};
use super::setup;
use crate::cluster::setup::{SECRET, Setup, name};

/// Files that any process has: input, output and errors.
const FILES_MIN: u64 = 3;

/// What nodes are started from.
pub(super) struct Installation {
    binary: PathBuf,
    folder: PathBuf,
    nodes: usize,
}

impl Installation {
    /// Writes configuration and secret into a folder, in which the logs go, too.
    pub(super) fn new(binary: PathBuf, folder: &Path, setup: &Setup) -> anyhow::Result<Self> {
        if folder.exists() {
            fs::remove_dir_all(folder).with_context(|| format!("{}", folder.display()))?;
        }
        fs::create_dir_all(folder).with_context(|| format!("{}", folder.display()))?;
        fs::write(folder.join("orbweb.toml"), setup::configuration(setup))?;
        fs::write(folder.join("secret"), SECRET)?;
        Ok(Self { binary, folder: folder.to_owned(), nodes: setup.nodes })
    }

    /// Starts a node; one that is to join asks all others. The log of its earlier starts goes on.
    pub(super) fn start(&self, node: usize, join: bool) -> anyhow::Result<Node> {
        let log = self.folder.join(format!("{}.log", name(node)));
        let log = File::options().create(true).append(true).open(log)?;
        let mut command = hosts::on(node);
        command
            .arg(&self.binary)
            .args(["serve", "--stop-with-stdin", "--name", &name(node)])
            .args(["--listen", &client_address(node).to_string()])
            .args(["--mesh-listen", &mesh_address(node).to_string()])
            .arg("--config")
            .arg(self.folder.join("orbweb.toml"))
            .arg("--secret-file")
            .arg(self.folder.join("secret"));
        for other in (0..self.nodes).filter(|other| join && *other != node) {
            command.args(["--join", &mesh_address(other).to_string()]);
        }
        let mut process = command
            .stdin(Stdio::piped())
            .stdout(log.try_clone()?)
            .stderr(log)
            .env("RUST_BACKTRACE", "1")
            .kill_on_drop(true)
            .spawn()
            .context("ip (of iproute2) doesn't start")?;
        let pid = process.id().and_then(|id| Pid::from_raw(id.cast_signed()));
        let pid = pid.context("a node that ends at once")?;
        let input = process.stdin.take();
        Ok(Node { process, pid, _input: input })
    }
}

/// See the module.
pub(super) struct Node {
    process: Child,
    pid: Pid,
    /// It ends with its input.
    _input: Option<ChildStdin>,
}

impl Node {
    /// SIGKILL: it has no say in it.
    pub(super) async fn kill(mut self) -> anyhow::Result<()> {
        self.process.kill().await.context("a node that can't be killed")
    }

    /// SIGSTOP: it stands still, and its kernel goes on answering for it.
    pub(super) fn stop(&self) -> anyhow::Result<()> {
        Ok(kill_process(self.pid, Signal::STOP)?)
    }

    /// SIGCONT.
    pub(super) fn go_on(&self) -> anyhow::Result<()> {
        Ok(kill_process(self.pid, Signal::CONT)?)
    }

    /// It can open no more files and connections, and keeps those that it has; how many it could open
    /// before.
    pub(super) fn exhaust_files(&self) -> anyhow::Result<Rlimit> {
        let pid = self.pid.as_raw_nonzero();
        let before = read_limit(&fs::read_to_string(format!("/proc/{pid}/limits"))?)?;
        self.set_files(Rlimit { current: Some(FILES_MIN), ..before })?;
        Ok(before)
    }

    /// How many files and connections it can open.
    pub(super) fn set_files(&self, limit: Rlimit) -> anyhow::Result<()> {
        prlimit(Some(self.pid), Resource::Nofile, limit)?;
        Ok(())
    }

    /// How it ended, if it has.
    pub(super) fn ended(&mut self) -> anyhow::Result<Option<ExitStatus>> {
        Ok(self.process.try_wait()?)
    }
}

/// The limit of open files among a process's limits, as its kernel lists them.
fn read_limit(limits: &str) -> anyhow::Result<Rlimit> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"));
    let mut values = line.context("no limit of open files")?.split_whitespace();
    let mut next = || values.next().context("a limit of open files without a number");
    Ok(Rlimit { current: next()?.parse().ok(), maximum: next()?.parse().ok() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_read_as_the_kernel_lists_them() {
        let limits = "Limit                     Soft Limit           Hard Limit           Units\n\
                      Max processes             9                    9                    processes\n\
                      Max open files            1024                 unlimited            files\n";
        let read = read_limit(limits).expect("a limit");
        assert_eq!(read, Rlimit { current: Some(1024), maximum: None });
        assert!(read_limit("Max processes 9 9 processes").is_err());
    }
}
