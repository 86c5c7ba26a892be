//! `orbweb demo`: a cluster of child processes on this machine, a page on each, and a key that kills
//! one. Ends with all of them, however it ends.
use std::fs::DirBuilder;
use std::io::{self, IsTerminal as _, Write};
use std::os::unix::fs::DirBuilderExt as _;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::Args;
use humantime_serde::re::humantime;
use rand::seq::IteratorRandom as _;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

mod child;
mod keys;
mod plan;

use child::{DemoNode, Shared, until_ready};
use keys::Keys;

/// How long a killed node stays away.
const AWAY: Duration = Duration::from_secs(2);
/// How often it is looked whether nodes are still there.
const WATCH_PAUSE: Duration = Duration::from_millis(250);
/// How long nodes may take to end; afterwards they are killed.
const END_TIMEOUT: Duration = Duration::from_secs(5);

#[derive(Args, Debug)]
pub(super) struct DemoFlags {
    /// How many nodes
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=20))]
    nodes: u16,
    /// End by itself after this time
    #[arg(long = "for", value_name = "DURATION", value_parser = humantime::parse_duration)]
    end_after: Option<Duration>,
}

pub(super) fn demo(flags: &DemoFlags, out: &mut dyn Write) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let code = runtime.block_on(run(flags, out));
    // The thread that reads keys may hang in its read for ever.
    runtime.shutdown_background();
    code
}

async fn run(flags: &DemoFlags, out: &mut dyn Write) -> anyhow::Result<ExitCode> {
    let end = flags.end_after.map(|after| Instant::now() + after);
    // From here on, signals end the loop below and not the process.
    let mut stop = Stop::new()?;
    let mut demo = Demo::start(flags.nodes)?;
    let result = tokio::select! {
        result = demo.show_ready(out) => result,
        () = stop.next(end) => Ok(()),
    };
    let result = match result {
        Ok(()) if !stop.asked => {
            show_end(flags.end_after, out)?;
            demo.play(&mut stop, end, out).await
        }
        result => result,
    };
    demo.end(result.is_ok()).await;
    result.map(|()| ExitCode::SUCCESS)
}

/// Tells what can be done now, and what ends it.
fn show_end(end_after: Option<Duration>, out: &mut dyn Write) -> io::Result<()> {
    if io::stdin().is_terminal() {
        let away = AWAY.as_secs();
        writeln!(out, "\npress k to kill a node (it is back after {away} s), q to quit")?;
    }
    if let Some(after) = end_after {
        writeln!(out, "\nends by itself {} after its start", humantime::format_duration(after))?;
    }
    out.flush()
}

/// What ends a demo from outside.
struct Stop {
    interrupt: Signal,
    terminate: Signal,
    asked: bool,
}

impl Stop {
    fn new() -> io::Result<Self> {
        let interrupt = signal(SignalKind::interrupt())?;
        Ok(Self { interrupt, terminate: signal(SignalKind::terminate())?, asked: false })
    }

    /// Waits for a signal or the end of the time. Cancel-safe.
    async fn next(&mut self, end: Option<Instant>) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            () = at(end) => {}
        }
        self.asked = true;
    }
}

/// Waits for a moment, for ever if there is none.
async fn at(moment: Option<Instant>) {
    match moment {
        Some(moment) => sleep_until(moment).await,
        None => std::future::pending().await,
    }
}

struct Demo {
    nodes: Vec<DemoNode>,
    shared: Shared,
}

impl Demo {
    fn start(nodes: u16) -> anyhow::Result<Self> {
        let all = plan::plan(nodes).context("no free ports on 127.0.0.1")?;
        let folder = std::env::temp_dir().join(format!("orbweb-demo-{}", std::process::id()));
        let made = DirBuilder::new().mode(0o700).create(&folder);
        made.with_context(|| format!("cannot make {} for the logs", folder.display()))?;
        let (secret, api_key) = (super::secret::draw()?, super::secret::draw()?);
        let mut nodes: Vec<_> = all.iter().cloned().map(DemoNode::new).collect();
        let shared = Shared { all, folder, secret, api_key };
        for node in &mut nodes {
            node.start(&shared)?;
        }
        Ok(Self { nodes, shared })
    }

    /// Waits for all nodes and tells where they are.
    async fn show_ready(&mut self, out: &mut dyn Write) -> anyhow::Result<()> {
        writeln!(out, "starting {} nodes …", self.nodes.len())?;
        out.flush()?;
        let mut watch = interval(WATCH_PAUSE);
        watch.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let all =
            futures_util::future::join_all(self.nodes.iter().map(|node| until_ready(node.url())));
        tokio::pin!(all);
        let ready = loop {
            tokio::select! {
                ready = &mut all => break ready,
                _ = watch.tick() => {
                    for node in &mut self.nodes {
                        if let Some(status) = node.ended() {
                            let words = node.last_words(&self.shared);
                            bail!("{} ended at its start with {status}:\n{words}", node.plan.name);
                        }
                    }
                }
            }
        };
        let late = self.nodes.iter().zip(&ready).find(|(_, ready)| ready.is_none());
        if let Some((node, _)) = late {
            let log = node.log(&self.shared);
            bail!("{} does not become ready; its log is {}", node.plan.name, log.display());
        }
        self.show(out)
    }

    fn show(&self, out: &mut dyn Write) -> anyhow::Result<()> {
        writeln!(
            out,
            "\nOne cluster of {} nodes. Open two of these, as two users:\n",
            self.nodes.len()
        )?;
        for node in &self.nodes {
            writeln!(out, "  {}  {}/demo", node.plan.name, node.url())?;
        }
        let Shared { folder, api_key, .. } = &self.shared;
        let first = self.nodes.first().map_or_else(String::new, DemoNode::url);
        writeln!(out, "\nlogs    {}", folder.display())?;
        let program = std::env::args_os().next().unwrap_or_else(|| "orbweb".into());
        let program = program.to_string_lossy();
        writeln!(out, "status  {program} status --node {first} --api-key {api_key}")?;
        Ok(())
    }

    /// Kills and restarts nodes as keys say, until it is time to end.
    async fn play(
        &mut self,
        stop: &mut Stop,
        end: Option<Instant>,
        out: &mut dyn Write,
    ) -> anyhow::Result<()> {
        let mut keys = Keys::listen()?;
        let mut watch = interval(WATCH_PAUSE);
        watch.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (back, mut returned) = tokio::sync::mpsc::channel(self.nodes.len());
        loop {
            let next_restart = self.nodes.iter().filter_map(|node| node.restart_at).min();
            tokio::select! {
                () = stop.next(end) => return Ok(()),
                key = keys.next() => match key {
                    b'k' => self.kill_one(out)?,
                    b'q' => return Ok(()),
                    _ => {}
                },
                () = at(next_restart) => self.restart(&back, out)?,
                Some((name, ready)) = returned.recv() => tell_ready(&name, ready, out)?,
                _ = watch.tick() => self.look_for_ended(out)?,
            }
            out.flush()?;
        }
    }

    fn kill_one(&mut self, out: &mut dyn Write) -> anyhow::Result<()> {
        let alive = self.nodes.iter_mut().filter(|node| node.alive());
        let Some(node) = alive.choose(&mut rand::rng()) else {
            writeln!(out, "no node is left to kill")?;
            return Ok(());
        };
        node.kill()?;
        node.restart_at = Some(Instant::now() + AWAY);
        writeln!(out, "{} killed ({})", node.plan.name, node.url())?;
        Ok(())
    }

    fn restart(
        &mut self,
        back: &tokio::sync::mpsc::Sender<(String, Option<Duration>)>,
        out: &mut dyn Write,
    ) -> anyhow::Result<()> {
        let now = Instant::now();
        for node in self.nodes.iter_mut().filter(|node| node.restart_at.is_some_and(|at| at <= now))
        {
            node.start(&self.shared)?;
            writeln!(out, "{} started again", node.plan.name)?;
            let (back, name, url) = (back.clone(), node.plan.name.clone(), node.url());
            tokio::spawn(async move {
                let ready = until_ready(url).await;
                // Nobody listens any more if the demo has ended.
                let _ = back.send((name, ready)).await;
            });
        }
        Ok(())
    }

    fn look_for_ended(&mut self, out: &mut dyn Write) -> anyhow::Result<()> {
        for node in &mut self.nodes {
            if let Some(status) = node.ended() {
                let words = node.last_words(&self.shared);
                writeln!(out, "{} ended by itself with {status}:\n{words}", node.plan.name)?;
            }
        }
        if self.nodes.iter().all(|node| !node.alive() && node.restart_at.is_none()) {
            bail!("no node is left");
        }
        Ok(())
    }

    /// Ends all nodes: politely first. The logs stay if something went wrong.
    async fn end(mut self, well: bool) {
        self.nodes.iter().for_each(DemoNode::stop);
        let end = Instant::now() + END_TIMEOUT;
        while self.nodes.iter().any(DemoNode::alive) && Instant::now() < end {
            // The standard library can't await the end of a child.
            tokio::time::sleep(Duration::from_millis(20)).await;
            for node in &mut self.nodes {
                node.ended();
            }
        }
        for node in &mut self.nodes {
            if let Err(error) = node.kill() {
                tracing::warn!(node = node.plan.name, %error, "demo.node.unkillable");
            }
        }
        if well {
            // Only logs are in it; leaving them behind does no harm.
            let _ = std::fs::remove_dir_all(&self.shared.folder);
        }
    }
}

fn tell_ready(name: &str, ready: Option<Duration>, out: &mut dyn Write) -> anyhow::Result<()> {
    match ready {
        Some(after) => writeln!(out, "{name} is ready again after {} ms", after.as_millis())?,
        None => writeln!(out, "{name} does not become ready again")?,
    }
    Ok(())
}
