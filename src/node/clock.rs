//! The clocks of a node, which its caller brings.
use rustix::time::{ClockId, clock_gettime};

use crate::protocol::time::{Millis, WallClock, wall};

/// What a node reads time from, beside the timers of its runtime.
#[derive(Clone, Copy, Debug)]
pub struct Clocks {
    /// The clock of the cores: monotonic, and it counts the time that the machine was suspended.
    pub cores: fn() -> Millis,
    /// For credentials, display, and telling starts of a node apart.
    pub wall: WallClock,
}

impl Clocks {
    /// Those of the machine.
    pub fn of_machine() -> Self {
        Self { cores: since_boot, wall }
    }
}

/// Milliseconds since the machine started.
fn since_boot() -> Millis {
    let time = clock_gettime(ClockId::Boottime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    Millis(seconds * 1_000 + u64::try_from(time.tv_nsec).unwrap_or(0) / 1_000_000)
}
