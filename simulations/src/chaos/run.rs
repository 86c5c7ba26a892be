//! From a seed to a verdict: rounds of one fault each, after each of which clients rest and everything
//! that they saw is checked.
use std::collections::BTreeMap;
use std::io::Read as _;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use tokio::runtime::Builder;
use tokio::sync::oneshot;
use tokio::task::LocalSet;
use tokio::time::{Instant, sleep};

use super::fault::{Class, Faults};
use super::options::Arguments;
use super::processes::Processes;
use super::schedule::{Kills, Round, Schedule};
use super::summary::{self, Summary};
use crate::checkers::names::Names;
use crate::checkers::{contiguous, in_order, once};
use crate::cluster::client::Doing;
use crate::cluster::clock;

/// How long before a client may miss more than one answer carries its fault must be over, so that nodes
/// have agreed by then.
const BACK_MS: u64 = 3_000;

/// What was done so far.
#[derive(Default)]
pub(super) struct Progress {
    pub(super) rounds: u64,
    pub(super) faults: BTreeMap<Class, u64>,
    /// What happened amid them.
    pub(super) amid: BTreeMap<Class, u64>,
    /// From the end of each fault until all agreed.
    pub(super) healed: BTreeMap<Class, Vec<Duration>>,
    pub(super) duplicates: usize,
    names: Names,
}

/// Plays a seed's schedule in processes and a network of its own, and prints what came of it.
pub(super) fn run(arguments: &Arguments, seed: u64) -> anyhow::Result<ExitCode> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, verdict(arguments, seed))
}

async fn verdict(arguments: &Arguments, seed: u64) -> anyhow::Result<ExitCode> {
    clock::elapsed();
    // Others may be made while it runs.
    let commit = summary::commit();
    let mut processes = Processes::new(arguments, seed).await?;
    println!("{:?}", processes.setup);
    let mut progress = Progress::default();
    let played = tokio::select! {
        played = play(arguments, seed, &mut processes, &mut progress) => played,
        () = called_off() => Err(anyhow::anyhow!("called off")),
    };
    let failure = played.err().map(|error| format!("{error:#}"));
    if let Some(failure) = &failure {
        println!("{}{failure}", processes.trace.timeline());
        println!("the same schedule again: {}", arguments.again(seed));
    }
    let summary = Summary::new((seed, commit), &processes, &progress, failure.as_deref());
    let text = serde_json::to_string_pretty(&summary)?;
    println!("{text}");
    if let Some(file) = &arguments.json {
        std::fs::write(file, text + "\n").with_context(|| format!("{}", file.display()))?;
    }
    Ok(if failure.is_none() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Until whoever started this run is gone or wants it to end. A thread of its own waits for that, so
/// that nothing else waits for the thread.
async fn called_off() {
    let (ended, called_off) = oneshot::channel::<()>();
    std::thread::spawn(move || {
        let _nothing = std::io::stdin().read(&mut [0]);
        drop(ended);
    });
    let _ended = called_off.await;
}

async fn play(
    arguments: &Arguments,
    seed: u64,
    processes: &mut Processes,
    progress: &mut Progress,
) -> anyhow::Result<()> {
    processes.start(arguments.sdk).await?;
    let setup = &processes.setup;
    let away_ms = setup.absence_ms_max().saturating_sub(BACK_MS);
    let copies = usize::from(setup.copies);
    let kills = if arguments.overkill { Kills::TooMany(copies) } else { Kills::FewerThan(copies) };
    let mut schedule = Schedule::new(seed, &arguments.only, (setup.nodes, kills), away_ms);
    let over = Instant::now() + arguments.lasting;
    while Instant::now() < over {
        let round = schedule.next();
        println!("{:>8} ms  round {}: {round:?}", clock::now_ms(), progress.rounds + 1);
        play_round(&round, processes, progress)
            .await
            .with_context(|| format!("{round:?}, at {} ms", clock::now_ms()))?;
    }
    something_was_shown(processes, progress)
}

async fn play_round(
    Round { busy_ms, faults }: &Round,
    processes: &mut Processes,
    progress: &mut Progress,
) -> anyhow::Result<()> {
    processes.tell_clients(Doing::Publish);
    let gaps = processes.history.borrow().gaps();
    sleep(Duration::from_millis(*busy_ms)).await;
    processes.trace.tell(format_args!("{faults:?}"));
    let class = faults.fault.class();
    *progress.faults.entry(class).or_default() += 1;
    if let Some((_, amid)) = faults.amid {
        *progress.amid.entry(amid.class()).or_default() += 1;
    }
    let healed = processes.inflict(faults).await?;
    progress.healed.entry(class).or_default().push(healed);
    let rested = processes.rest().await;
    check(faults, rested, gaps, processes, progress)?;
    progress.rounds += 1;
    let mut history = processes.history.borrow_mut();
    println!(
        "{:>8} ms  well after {} ms; {} duplicates, {} gaps",
        clock::now_ms(),
        healed.as_millis(),
        history.duplicates(),
        history.gaps() - gaps
    );
    progress.duplicates += history.duplicates();
    history.settle(faults.splits());
    Ok(())
}

/// All that was promised in spite of the fault; all that was broken is the failure.
fn check(
    faults: &Faults,
    rested: anyhow::Result<()>,
    gaps_before: usize,
    processes: &Processes,
    progress: &mut Progress,
) -> anyhow::Result<()> {
    let history = processes.history.borrow();
    let split = faults.splits();
    let mut verdicts = vec![
        rested,
        progress.names.check_seen(&history),
        contiguous::check(&history, split),
        once::check(&history, split),
    ];
    if !split {
        verdicts.push(in_order::check(&history));
    }
    if !faults.loses_positions() {
        verdicts.push(no_gaps(history.gaps() - gaps_before));
    }
    let broken: Vec<String> =
        verdicts.into_iter().filter_map(|v| Some(format!("{:#}", v.err()?))).collect();
    ensure!(broken.is_empty(), "{}", broken.join("\n"));
    Ok(())
}

fn no_gaps(gaps: usize) -> anyhow::Result<()> {
    ensure!(gaps == 0, "I1: {gaps} gaps were announced");
    Ok(())
}

/// Faults happened, publications were acknowledged and arrived, and positions were resumed.
fn something_was_shown(processes: &Processes, progress: &Progress) -> anyhow::Result<()> {
    let history = processes.history.borrow();
    for (what, number) in [
        ("round was played", progress.rounds),
        ("publication was acknowledged", history.acknowledged() as u64),
        ("publication was received", history.received() as u64),
        ("position was resumed", history.resumed),
    ] {
        if number == 0 {
            bail!("no {what}: nothing was shown");
        }
    }
    Ok(())
}
