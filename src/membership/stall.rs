//! The stall guard: a node whose own ticks come late doubts itself, not the others. A process that
//! was stopped and goes on sees everybody else silent; nothing of that is news about them.
use crate::mutant::{Rule, without};
use crate::protocol::time::Millis;

/// How often the guard expects to be asked, in milliseconds.
pub const TICK_MS: u64 = 50;
/// A tick this late is a stall: schedulers under load stay well below.
pub const LATE_MS: u64 = 150;
/// The longest that one stall is held against this node.
pub const DOUBT_MS_MAX: u64 = 2_000;
/// Gossip rounds that it takes to hear from everybody again.
const ROUNDS: u64 = 3;

/// Tells from the times at which it is asked whether this process was held up.
#[derive(Clone, Debug)]
pub struct StallGuard {
    gossip_interval_ms: u64,
    last: Option<Millis>,
    stalled_until: Millis,
}

impl StallGuard {
    /// A guard of a process that hasn't stalled yet.
    pub fn new(gossip_interval_ms: u64) -> Self {
        Self { gossip_interval_ms, last: None, stalled_until: Millis(0) }
    }

    /// Whether this process is stalled, or was so shortly before that it knows nothing yet. To be
    /// asked at least every [`TICK_MS`].
    pub fn observe(&mut self, now: Millis) -> bool {
        let late = self.last.map_or(0, |last| now.since(last).saturating_sub(TICK_MS));
        self.last = Some(now);
        if late > LATE_MS {
            self.doubt(now, late);
        }
        now < self.stalled_until && !without(Rule::SelfDoubt)
    }

    /// Takes this process for one that heard nothing for the last `deaf_ms`.
    pub fn doubt(&mut self, now: Millis, deaf_ms: u64) {
        let doubt = deaf_ms.min(DOUBT_MS_MAX) + ROUNDS * self.gossip_interval_ms;
        self.stalled_until = self.stalled_until.max(now + doubt);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_in_time_are_no_stall() {
        let mut guard = StallGuard::new(100);
        let late_but_not_too_late = TICK_MS + LATE_MS;
        for tick in 0..100 {
            assert!(!guard.observe(Millis(tick * late_but_not_too_late)));
        }
    }

    #[test]
    fn a_late_tick_is_doubted_for_its_lateness_and_three_rounds() {
        let mut guard = StallGuard::new(100);
        guard.observe(Millis(1_000));
        assert!(guard.observe(Millis(1_750)), "700 ms late");
        let mut now = Millis(1_750);
        while guard.observe(now + TICK_MS) {
            now = now + TICK_MS;
        }
        assert_eq!(now + TICK_MS, Millis(1_750 + 700 + 300));
    }

    #[test]
    fn a_long_stall_is_not_doubted_for_ever() {
        let mut guard = StallGuard::new(100);
        guard.observe(Millis(0));
        let resumed = Millis(3_600_000);
        assert!(guard.observe(resumed));
        let over = resumed + DOUBT_MS_MAX + 300;
        let mut now = resumed;
        while now + TICK_MS < over {
            now = now + TICK_MS;
            assert!(guard.observe(now));
        }
        assert!(!guard.observe(over));
    }
}
