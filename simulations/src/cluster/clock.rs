//! The clocks that nodes are started with: the paused clock of the runtime, seen from a start of its
//! own.
use std::sync::OnceLock;
use std::time::Duration;

use orbweb::node::Clocks;
use orbweb::protocol::time::Millis;
use tokio::time::Instant;

/// How long the machine has run when a run begins.
const UPTIME: Duration = Duration::from_secs(3_600);
/// When a run begins, since 1970.
const EPOCH: Duration = Duration::from_secs(1_800_000_000);

static BEGAN: OnceLock<Instant> = OnceLock::new();

/// Virtual time since the run began. The first call, on the run's runtime, begins it.
pub(crate) fn elapsed() -> Duration {
    BEGAN.get_or_init(Instant::now).elapsed()
}

/// The same in milliseconds, which is as fine as virtual time is.
pub(crate) fn now_ms() -> u64 {
    elapsed().as_millis() as u64
}

pub(crate) fn clocks() -> Clocks {
    Clocks { cores: || Millis((UPTIME + elapsed()).as_millis() as u64), wall: || EPOCH + elapsed() }
}
