//! Servers as child processes that end with this one, however it ends.
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::net::{SocketAddr, TcpStream};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use rustix::process::{Resource, Rlimit, Signal, getrlimit, setrlimit};

/// How long a server may take until it answers.
const START_TIMEOUT: Duration = Duration::from_secs(20);
/// How often it is asked.
const POLL: Duration = Duration::from_millis(10);
/// Lines of its log that are told if it fails.
const LAST_WORDS: usize = 15;

/// A server that runs; killed when dropped.
pub(crate) struct Server {
    child: Child,
    name: String,
    log: PathBuf,
}

impl Server {
    /// Starts a program; what it prints goes into a file of this folder.
    pub(crate) fn start<S: AsRef<OsStr>>(
        folder: &Path,
        name: &str,
        program: &Path,
        words: impl IntoIterator<Item = S>,
    ) -> Result<Self> {
        let log = folder.join(format!("{name}.log"));
        let out = File::create(&log).with_context(|| format!("{}", log.display()))?;
        let child = Command::new(std::env::current_exe()?)
            .args(["hold", "--"])
            .arg(program)
            .args(words)
            .current_dir(folder)
            .stdin(Stdio::null())
            .stdout(out.try_clone()?)
            .stderr(out)
            .spawn()
            .with_context(|| format!("{}", program.display()))?;
        Ok(Self { child, name: name.to_owned(), log })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits until something listens there.
    pub(crate) fn listens(&mut self, address: SocketAddr) -> Result<()> {
        self.until("listens", || TcpStream::connect(address).is_ok())
    }

    /// Waits until it is so, or the server has ended.
    pub(crate) fn until(&mut self, what: &str, mut so: impl FnMut() -> bool) -> Result<()> {
        let end = Instant::now() + START_TIMEOUT;
        while !so() {
            if let Some(status) = self.child.try_wait()? {
                bail!("{} ended at its start with {status}:\n{}", self.name, self.last_words());
            }
            if Instant::now() > end {
                bail!("{} still isn't so far: {what}\n{}", self.name, self.last_words());
            }
            sleep(POLL);
        }
        Ok(())
    }

    fn last_words(&self) -> String {
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<_> = log.lines().collect();
        lines[lines.len().saturating_sub(LAST_WORDS)..].join("\n")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Becomes the program; the kernel kills it when the process that started it is gone.
pub(crate) fn become_held(words: &[OsString]) -> Result<()> {
    let parent = rustix::process::getppid();
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    if rustix::process::getppid() != parent {
        bail!("what started this is gone already");
    }
    let (program, words) = words.split_first().context("a program is needed")?;
    Err(Command::new(program).args(words).exec()).with_context(|| format!("{}", program.display()))
}

/// As many open files as may be, for this process and the servers.
pub(crate) fn raise_file_limit() -> Result<()> {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit })?;
    Ok(())
}

/// The limit of open files; none if there isn't one.
pub(crate) fn file_limit() -> Option<u64> {
    getrlimit(Resource::Nofile).current
}
