//! The clocks that nodes are started with: the paused clock of the runtime, seen from a start of its
//! own, by each machine in its own way.
use std::sync::OnceLock;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use orbweb::node::Clocks;
use orbweb::protocol::time::Millis;
use tokio::time::Instant;

/// Machines that have clocks: ten nodes, five guests and one to spare.
pub(crate) const MACHINES: usize = 16;
/// How long the machine has run when a run begins.
const UPTIME: Duration = Duration::from_secs(3_600);
/// When a run begins, since 1970.
const EPOCH: Duration = Duration::from_secs(1_800_000_000);

static BEGAN: OnceLock<Instant> = OnceLock::new();
/// Of each machine: how many more of a thousand milliseconds its monotonic clock shows.
static FAST: [AtomicI64; MACHINES] = [const { AtomicI64::new(0) }; MACHINES];
/// Of each machine: how many milliseconds its wall clock is ahead.
static AHEAD: [AtomicI64; MACHINES] = [const { AtomicI64::new(0) }; MACHINES];
/// Clocks are plain functions, so each machine has its own.
static CLOCKS: [Clocks; MACHINES] = [
    of::<0>(),
    of::<1>(),
    of::<2>(),
    of::<3>(),
    of::<4>(),
    of::<5>(),
    of::<6>(),
    of::<7>(),
    of::<8>(),
    of::<9>(),
    of::<10>(),
    of::<11>(),
    of::<12>(),
    of::<13>(),
    of::<14>(),
    of::<15>(),
];

/// Virtual time since the run began. The first call, on the run's runtime, begins it.
pub(crate) fn elapsed() -> Duration {
    BEGAN.get_or_init(Instant::now).elapsed()
}

/// The same in milliseconds, which is as fine as virtual time is.
pub(crate) fn now_ms() -> u64 {
    elapsed().as_millis() as u64
}

/// Those of a machine.
pub(crate) fn clocks(machine: usize) -> Clocks {
    CLOCKS[machine]
}

/// A machine's monotonic clock shows so many more of a thousand milliseconds, fewer if negative. Before
/// it runs anything, since such a clock doesn't jump.
pub(crate) fn set_rate(machine: usize, fast_per_mille: i64) {
    FAST[machine].store(fast_per_mille, Ordering::Relaxed);
}

/// A machine's wall clock is set to so many milliseconds ahead, behind if negative.
pub(crate) fn set_wall(machine: usize, ahead_ms: i64) {
    AHEAD[machine].store(ahead_ms, Ordering::Relaxed);
}

const fn of<const MACHINE: usize>() -> Clocks {
    Clocks { cores: || monotonic(MACHINE, elapsed()), wall: || wall(MACHINE, elapsed()) }
}

fn monotonic(machine: usize, elapsed: Duration) -> Millis {
    let per_mille = 1_000 + FAST[machine].load(Ordering::Relaxed);
    let shown = elapsed.as_millis() as u64 * per_mille.unsigned_abs() / 1_000;
    Millis(UPTIME.as_millis() as u64 + shown)
}

fn wall(machine: usize, elapsed: Duration) -> Duration {
    let ahead = AHEAD[machine].load(Ordering::Relaxed);
    let (right, off) = (EPOCH + elapsed, Duration::from_millis(ahead.unsigned_abs()));
    if ahead < 0 { right - off } else { right + off }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_may_be_fast_and_behind_and_no_other_is() {
        set_rate(3, 100);
        set_wall(3, -60_000);
        let later = Duration::from_secs(10);
        let shown = [3, 4]
            .map(|machine| monotonic(machine, later).since(monotonic(machine, Duration::ZERO)));
        assert_eq!(shown, [11_000, 10_000]);
        assert_eq!(wall(4, later) - wall(3, later), Duration::from_secs(60));
    }
}
