//! From a seed to a verdict. Hash maps, clocks and libraries keep state for as long as a process
//! lives, so each run has a process of its own: many seeds are many children.
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use anyhow::{Context as _, bail, ensure};
use tokio::runtime::Builder;
use tokio::task::LocalSet;

use super::course::Course;
use super::trace::Trace;
use super::{Cluster, clock, report, scenarios};
use crate::entropy;
use crate::options::Arguments;

/// What comes before the fingerprint in a run's last line.
const FINGERPRINT: &str = "fingerprint ";
/// What comes before the moment of a failure, and what was broken.
const AFTER: &str = "\nafter ";
/// What comes before the command that replays a failure.
pub(crate) const REPLAY: &str = "replay: ";

static PANICKED: AtomicBool = AtomicBool::new(false);

/// Runs a seed in this process, which must not have run one before. Prints what it is made of, what
/// came of it and, for a failure, the timeline. A page that shows it all is written if the command line says so.
pub(crate) fn here(course: &Course, arguments: &Arguments) -> anyhow::Result<()> {
    println!("{}, seed {}: {:?}", course.scenario, course.seed, course.setup());
    course.plan().steps.iter().for_each(|step| println!("  step {step}"));
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        PANICKED.store(true, Ordering::SeqCst);
        hook(panic);
    }));
    entropy::seed(course.seed);
    // A thread that hasn't drawn any entropy yet.
    let verdict = std::thread::scope(|scope| scope.spawn(|| virtually(course, arguments)).join());
    match verdict {
        Ok(verdict) => verdict,
        Err(_) => bail!("the scenario panicked"),
    }
}

fn virtually(course: &Course, arguments: &Arguments) -> anyhow::Result<()> {
    let began = Instant::now();
    let runtime = Builder::new_current_thread().enable_time().start_paused(true).build()?;
    let trace = Trace::new(arguments.trace);
    let told = trace.clone();
    LocalSet::new()
        .block_on(&runtime, async move {
            clock::elapsed();
            let mut cluster = Cluster::new(course.seed, course.setup(), trace.clone());
            let mut verdict =
                scenarios::play((course.scenario, &course.plan()), &mut cluster).await;
            if verdict.is_ok() && PANICKED.load(Ordering::SeqCst) {
                verdict = Err(anyhow::anyhow!("a task panicked"));
            }
            if let Some(page) = &arguments.report {
                let without = arguments.without.as_deref();
                let shown = report::page((course, without), &cluster, verdict.as_ref().err());
                std::fs::write(page, shown).context("the report can't be written")?;
            }
            verdict
                .with_context(|| format!("{}{} virtual ms", AFTER.trim_start(), clock::now_ms()))?;
            conclude(course, &cluster, began.elapsed().as_secs_f64());
            Ok(())
        })
        .map_err(|broken: anyhow::Error| anyhow::anyhow!("{}{broken:#}", told.timeline()))
}

fn conclude(course: &Course, cluster: &Cluster, real: f64) {
    let Course { scenario, seed, .. } = course;
    let time = clock::elapsed().as_secs_f64();
    let history = cluster.history.borrow();
    println!(
        "{scenario}, seed {seed}: {time:.1} virtual s in {real:.2} s ({:.0} x): {} sent, \
         {} acknowledged, {} refused, {} received, {} connections, {} positions resumed, {} gaps, \
         {} datagrams, {} of them too many for a socket, {FINGERPRINT}{:016x}",
        time / real,
        history.sent.len(),
        history.acknowledged(),
        history.refused,
        history.received(),
        history.connections,
        history.resumed,
        history.gaps(),
        cluster.trace.datagrams(),
        cluster.overflown(),
        cluster.trace.fingerprint(),
    );
}

/// A run in a process of its own, without a rule if one is named; whether it passes, and what it says.
fn child(course: &Course, without: Option<&str>) -> anyhow::Result<(bool, String, String)> {
    let output = Command::new(std::env::current_exe()?)
        .args(course.arguments())
        .args(without.iter().flat_map(|rule| ["--without", rule]))
        .output()?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ok((output.status.success(), text(&output.stdout), text(&output.stderr)))
}

/// Runs a seed in a process of its own, without a rule if one is named; its last line.
pub(crate) fn apart(course: &Course, without: Option<&str>) -> anyhow::Result<String> {
    let (passes, told, complained) = child(course, without)?;
    ensure!(passes, "{told}{complained}");
    told.lines().last().map(str::to_owned).context("a run that says nothing")
}

/// The same; what the run fails with, if it does.
pub(crate) fn verdict(course: &Course, without: Option<&str>) -> anyhow::Result<Option<String>> {
    let (passes, told, complained) = child(course, without)?;
    let told = told.rsplit_once(REPLAY).map_or(&*told, |(told, _)| told).trim_end();
    let broken = told.rfind(AFTER).and_then(|at| told[at..].split_once(": "));
    let last = || format!("{}{complained}", told.lines().last().unwrap_or_default());
    Ok((!passes).then(|| broken.map_or_else(last, |(_, broken)| broken.to_owned())))
}

/// One seed twice must be the same run twice.
pub(crate) fn twice(course: &Course, without: Option<&str>) -> anyhow::Result<()> {
    let Course { scenario, seed, .. } = course;
    let print = || -> anyhow::Result<String> {
        let line = apart(course, without)?;
        let (_, print) = line.split_once(FINGERPRINT).context("a run without a fingerprint")?;
        Ok(print.to_owned())
    };
    let (first, second) = (print()?, print()?);
    ensure!(first == second, "{scenario}, seed {seed}: one time {first}, another time {second}");
    println!("{scenario}, seed {seed}: twice the same ({first})");
    Ok(())
}
