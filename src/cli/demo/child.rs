//! One node of the demo as a child process: started, killed, asked whether it is ready.
use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::Context as _;
use rustix::process::{Pid, Signal, kill_process};
use tokio::time::{Instant, sleep};

use super::plan::Planned;
use crate::cli::target::Target;
use crate::config::knobs::ENV_PREFIX;

/// How long a node may take until it is ready.
const READY_TIMEOUT: Duration = Duration::from_secs(20);
/// Pause between two questions whether it is.
const READY_PAUSE: Duration = Duration::from_millis(50);
/// Bytes of a log that are shown when a node fails.
const LOG_TAIL_BYTES: usize = 2000;

/// What all nodes of a demo share.
pub(super) struct Shared {
    pub(super) all: Vec<Planned>,
    pub(super) folder: PathBuf,
    pub(super) secret: String,
    pub(super) api_key: String,
}

/// A node of the demo.
pub(super) struct DemoNode {
    pub(super) plan: Planned,
    child: Option<Child>,
    /// When it is to come back.
    pub(super) restart_at: Option<Instant>,
}

impl DemoNode {
    pub(super) fn new(plan: Planned) -> Self {
        Self { plan, child: None, restart_at: None }
    }

    pub(super) fn url(&self) -> String {
        format!("http://{}", self.plan.listen)
    }

    /// Starts the process. Its standard input is a pipe that ends with this process.
    pub(super) fn start(&mut self, shared: &Shared) -> anyhow::Result<()> {
        let program = std::env::current_exe().context("cannot find the program itself")?;
        let log = File::options().create(true).append(true).open(self.log(shared))?;
        let mut command = Command::new(&program);
        command.args(self.plan.arguments(&shared.all));
        // The operator's own configuration is for other nodes than these.
        for (name, _) in std::env::vars_os() {
            let kept = name == "ORBWEB_LOG_LEVEL";
            if name.to_string_lossy().starts_with(ENV_PREFIX) && !kept {
                command.env_remove(name);
            }
        }
        command.env("ORBWEB_SECRET", &shared.secret).env("ORBWEB_API_KEYS", &shared.api_key);
        command.stdin(Stdio::piped()).stdout(log.try_clone()?).stderr(log);
        let child = command.spawn();
        self.child = Some(child.with_context(|| format!("cannot start {}", program.display()))?);
        self.restart_at = None;
        Ok(())
    }

    pub(super) fn alive(&self) -> bool {
        self.child.is_some()
    }

    /// Ends the process as a power cut would.
    pub(super) fn kill(&mut self) -> io::Result<()> {
        match self.child.take() {
            Some(mut child) => child.kill().and_then(|()| child.wait()).map(drop),
            None => Ok(()),
        }
    }

    /// Asks the process to leave the cluster and end.
    pub(super) fn stop(&self) {
        if let Some(child) = &self.child {
            // It may have ended already.
            let _ = kill_process(Pid::from_child(child), Signal::TERM);
        }
    }

    /// How the process ended by itself, told once.
    pub(super) fn ended(&mut self) -> Option<ExitStatus> {
        let status = self.child.as_mut()?.try_wait().ok()??;
        self.child = None;
        Some(status)
    }

    pub(super) fn log(&self, shared: &Shared) -> PathBuf {
        shared.folder.join(format!("{}.log", self.plan.name))
    }

    /// The end of its log.
    pub(super) fn last_words(&self, shared: &Shared) -> String {
        let log = std::fs::read(self.log(shared)).unwrap_or_default();
        let tail = &log[log.len().saturating_sub(LOG_TAIL_BYTES)..];
        String::from_utf8_lossy(tail).trim_end().to_owned()
    }
}

/// Waits until the node at a URL is ready; how long it took, or `None` if it takes too long.
pub(super) async fn until_ready(url: String) -> Option<Duration> {
    let begin = Instant::now();
    while begin.elapsed() < READY_TIMEOUT {
        let url = url.clone();
        let asked = tokio::task::spawn_blocking(move || Target::new(&url, None)?.readiness());
        if let Ok(Ok(readiness)) = asked.await
            && readiness.ready
        {
            return Some(begin.elapsed());
        }
        // Polling, because a node tells nobody that it has become ready.
        sleep(READY_PAUSE).await;
    }
    None
}
