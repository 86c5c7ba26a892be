//! Tells when fewer nodes than configured hold what a node acknowledged, or it holds what others may
//! lack: what the log says of it. It reads no clock and decides nothing.
use crate::ownership::replication::Copies;
use crate::ownership::serving::Serving;
use crate::protocol::time::Millis;

/// How long slots must have too few copies before an operator is told: a node that died is repaired,
/// or one that restarts is back, in less.
pub(super) const TOLD_AFTER_MS: u64 = 10_000;

/// Something for the log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Notice {
    /// It acknowledges otherwise than before.
    Serves(Serving),
    /// Slots have had too few copies, or may have had, for [`TOLD_AFTER_MS`].
    Short(Copies),
    /// They have all copies again.
    Whole,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Shortage {
    serving: Serving,
    short_since: Option<Millis>,
    told: bool,
}

impl Shortage {
    /// What is news. To be asked some times a second.
    pub(super) fn observe(&mut self, serving: Serving, copies: Copies, now: Millis) -> Vec<Notice> {
        let mut news = Vec::new();
        if std::mem::replace(&mut self.serving, serving) != serving {
            news.push(Notice::Serves(serving));
        }
        if copies.is_whole() {
            self.short_since = None;
            news.extend(std::mem::take(&mut self.told).then_some(Notice::Whole));
            return news;
        }
        let since = *self.short_since.get_or_insert(now);
        if !self.told && now.since(since) >= TOLD_AFTER_MS {
            self.told = true;
            news.push(Notice::Short(copies));
        }
        news
    }
}

impl Notice {
    /// Writes it to the log; what an operator can do something about as a warning.
    pub(super) fn log(self) {
        match self {
            Self::Serves(Serving::Full) => tracing::info!(copies = "all", "node.serves"),
            Self::Serves(Serving::Standalone) => {
                tracing::info!(copies = "fewer", "node.standalone")
            }
            Self::Serves(Serving::Degraded) => tracing::warn!(copies = "fewer", "node.degraded"),
            Self::Serves(Serving::No) => tracing::info!("node.refuses"),
            Self::Short(Copies { under_replicated, unrepaired, uncommitted, astray, .. }) => {
                tracing::warn!(
                    under_replicated,
                    unrepaired,
                    uncommitted,
                    astray,
                    "slots.under_replicated"
                );
            }
            Self::Whole => tracing::info!("slots.replicated"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHORT: Copies =
        Copies { required: 2, under_replicated: 3, unrepaired: 1, uncommitted: 0, astray: 0 };
    const ASTRAY: Copies =
        Copies { required: 2, under_replicated: 0, unrepaired: 0, uncommitted: 0, astray: 1 };

    #[test]
    fn a_shortage_is_told_once_it_lasts_and_so_is_its_end() {
        let mut shortage = Shortage::default();
        let mut at = |copies, ms| shortage.observe(Serving::No, copies, Millis(ms));
        assert_eq!(at(SHORT, 0), []);
        assert_eq!(at(Copies::default(), 9_000), []);
        assert_eq!(at(SHORT, 9_500), []);
        assert_eq!(at(SHORT, 9_500 + TOLD_AFTER_MS), [Notice::Short(SHORT)]);
        assert_eq!(at(SHORT, 60_000), []);
        assert_eq!(at(Copies::default(), 60_100), [Notice::Whole]);
        assert_eq!(at(Copies::default(), 60_200), []);
        assert_eq!(at(ASTRAY, 61_000), []);
        assert_eq!(at(ASTRAY, 61_000 + TOLD_AFTER_MS), [Notice::Short(ASTRAY)]);
    }

    #[test]
    fn each_way_of_serving_is_told_when_it_begins() {
        let mut shortage = Shortage::default();
        let mut serves = |serving| shortage.observe(serving, Copies::default(), Millis(0));
        assert_eq!(serves(Serving::No), []);
        assert_eq!(serves(Serving::Degraded), [Notice::Serves(Serving::Degraded)]);
        assert_eq!(serves(Serving::Degraded), []);
    }
}
