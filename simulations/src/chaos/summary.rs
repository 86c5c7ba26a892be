//! What came of a run, as JSON.
use std::collections::BTreeMap;
use std::process::Command;
use std::time::Duration;

use serde::Serialize;

use super::fault::Class;
use super::options;
use super::processes::Processes;
use super::run::Progress;
use crate::checkers::delivered;
use crate::cluster::clock;

/// See the module.
#[derive(Serialize)]
pub(super) struct Summary {
    seed: u64,
    /// Of the checkout that this program was built in: a `+` says that something in it was changed.
    commit: String,
    seconds: u64,
    nodes: usize,
    copies: u8,
    slots: u16,
    clients: usize,
    real_sdk_clients: usize,
    rounds: u64,
    faults: BTreeMap<String, u64>,
    /// What happened amid them.
    amid: BTreeMap<String, u64>,
    publications_sent: usize,
    publications_acknowledged: usize,
    publications_refused: u64,
    /// Neither: their connection or their client's patience ended first.
    publications_unknown: usize,
    deliveries: usize,
    connections: u64,
    positions_resumed: u64,
    gaps_announced: usize,
    /// Acknowledged ones that a client that should have seen them hasn't.
    lost: usize,
    /// What came again, where two parts had served at once.
    duplicates: usize,
    /// From the end of a fault (of a kill: from the death) until all agreed.
    heal_ms: BTreeMap<String, Heal>,
    failure: Option<String>,
}

/// Of faults of one class.
#[derive(Serialize)]
struct Heal {
    p50: u128,
    p99: u128,
    longest: u128,
}

impl Heal {
    fn of(took: &[Duration]) -> Self {
        let mut ms: Vec<u128> = took.iter().map(Duration::as_millis).collect();
        ms.sort_unstable();
        // The least that so many of a hundred don't exceed.
        let at = |percent: usize| {
            let rank = (ms.len() * percent).div_ceil(100).max(1);
            ms.get(rank - 1).copied().unwrap_or_default()
        };
        Self { p50: at(50), p99: at(99), longest: at(100) }
    }
}

impl Summary {
    pub(super) fn new(
        (seed, commit): (u64, String),
        processes: &Processes,
        progress: &Progress,
        failure: Option<&str>,
    ) -> Self {
        let (history, setup) = (processes.history.borrow(), &processes.setup);
        let (sent, acknowledged) = (history.sent.len(), history.acknowledged());
        let named = |(class, number): (&Class, &u64)| (class.to_string(), *number);
        let (faults, amid) = (progress.faults.iter().map(named), progress.amid.iter().map(named));
        let healed = progress.healed.iter();
        Self {
            seed,
            commit,
            seconds: clock::elapsed().as_secs(),
            nodes: setup.nodes,
            copies: setup.copies,
            slots: setup.slots,
            clients: setup.clients,
            real_sdk_clients: history.epochless.len(),
            rounds: progress.rounds,
            faults: faults.collect(),
            amid: amid.collect(),
            publications_sent: sent,
            publications_acknowledged: acknowledged,
            publications_refused: history.refused,
            publications_unknown: sent - acknowledged - history.refused as usize,
            deliveries: history.received(),
            connections: history.connections,
            positions_resumed: history.resumed,
            gaps_announced: history.gaps(),
            lost: delivered::lost(&history),
            duplicates: progress.duplicates,
            heal_ms: healed.map(|(class, took)| (class.to_string(), Heal::of(took))).collect(),
            failure: failure.map(str::to_owned),
        }
    }
}

/// What is checked out now.
pub(super) fn commit() -> String {
    let git = |arguments: &[&str]| {
        let built = options::target().ok()?;
        let done = Command::new("git").current_dir(built).args(arguments).output().ok()?;
        done.status.success().then(|| String::from_utf8_lossy(&done.stdout).trim().to_owned())
    };
    let Some(commit) = git(&["rev-parse", "HEAD"]) else { return "unknown".to_owned() };
    let changed = git(&["status", "--porcelain", "--untracked-files=no"]);
    if changed.is_none_or(|changed| changed.is_empty()) { commit } else { commit + "+" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_few_faults_the_longest_is_as_many_as_ninety_nine_of_a_hundred() {
        let took: Vec<Duration> = [40, 10, 30, 20].map(Duration::from_millis).to_vec();
        let Heal { p50, p99, longest } = Heal::of(&took);
        assert_eq!((p50, p99, longest), (20, 40, 40));
        assert_eq!(Heal::of(&[]).longest, 0);
    }
}
