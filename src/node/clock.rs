//! The clock of the cores: monotonic, and it counts the time that the machine was suspended.
use rustix::time::{ClockId, clock_gettime};

use crate::protocol::time::Millis;

/// Milliseconds since the machine started.
pub(super) fn now() -> Millis {
    let time = clock_gettime(ClockId::Boottime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    Millis(seconds * 1_000 + u64::try_from(time.tv_nsec).unwrap_or(0) / 1_000_000)
}
