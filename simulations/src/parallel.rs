//! Many runs at once, one a thread; what is reported doesn't depend on how many there are.
use std::panic::{self, AssertUnwindSafe};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError, mpsc};
use std::thread;

use anyhow::bail;

use crate::scenario::Scenario;

/// Of the runs that failed, the first in their order.
pub(crate) struct Failed {
    pub(crate) scenario: Scenario,
    pub(crate) seed: u64,
    pub(crate) why: anyhow::Error,
}

/// How many threads make use of this machine.
pub(crate) fn all_cores() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}

/// Does all runs on so many threads, tells `done` of each that passes, in whatever order, and begins no
/// more once one has failed.
pub(crate) fn run_all<T: Send>(
    threads: usize,
    runs: impl Iterator<Item = (u64, Scenario)> + Send,
    run: impl Fn(Scenario, u64) -> anyhow::Result<T> + Sync,
    mut done: impl FnMut(T),
) -> Result<(), Failed> {
    let (runs, over) = (Mutex::new(runs.enumerate()), AtomicBool::new(false));
    let (sender, results) = mpsc::channel();
    thread::scope(|scope| {
        for _ in 0..threads {
            let (sender, runs, run, over) = (sender.clone(), &runs, &run, &over);
            scope.spawn(move || {
                let next = || match over.load(Ordering::Relaxed) {
                    true => None,
                    false => runs.lock().unwrap_or_else(PoisonError::into_inner).next(),
                };
                while let Some((number, (seed, scenario))) = next() {
                    let run = AssertUnwindSafe(|| run(scenario, seed));
                    let result = panic::catch_unwind(run).unwrap_or_else(|_| bail!("it panicked"));
                    over.fetch_or(result.is_err(), Ordering::Relaxed);
                    if sender.send((number, scenario, seed, result)).is_err() {
                        return;
                    }
                }
            });
        }
        drop(sender);
        let mut first: Option<(usize, Failed)> = None;
        for (number, scenario, seed, result) in results {
            match result {
                Ok(result) => done(result),
                Err(why) if first.as_ref().is_none_or(|(other, _)| number < *other) => {
                    first = Some((number, Failed { scenario, seed, why }));
                }
                Err(_) => {}
            }
        }
        first.map_or(Ok(()), |(_, failed)| Err(failed))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_failure_is_reported_and_every_run_before_it_is_done() {
        let runs = || (0..1_000).map(|seed| (seed, Scenario::Moves));
        let run = |_, seed: u64| match seed % 50 {
            17 => bail!("{seed} is bad"),
            18 => panic!("{seed} panics"),
            _ => Ok(seed),
        };
        for threads in [1, 2, 8] {
            let mut passed = Vec::new();
            let failed = run_all(threads, runs(), run, |seed| passed.push(seed)).err();
            let failed = failed.expect("17 fails");
            assert_eq!((failed.seed, failed.why.to_string()), (17, "17 is bad".into()));
            assert!((0..17).all(|seed| passed.contains(&seed)), "{passed:?}");
            assert!(passed.len() < 500, "it goes on: {}", passed.len());
        }
        let mut passed = 0;
        assert!(run_all(3, runs(), |_, _| Ok(()), |()| passed += 1).is_ok());
        assert_eq!(passed, 1_000);
    }
}
