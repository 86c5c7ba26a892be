//! What this node reports of its links: the peers with a working one, by the hash of their names.
use std::collections::BTreeMap;

use super::facts::LINKS_MAX;
use crate::ownership::view::NameHash;
use crate::protocol::ids::{NodeId, NodeName};
use crate::protocol::time::Millis;

/// How long a link must be down to be reported as broken: longer than the detector needs to drop a
/// dead node, so that a crash doesn't cost the living their place in the view.
pub const BROKEN_AFTER_MS: u64 = 1_500;

/// Remembers which links work, and which did shortly before.
#[derive(Clone, Debug, Default)]
pub struct LinkReport {
    /// When the link was last seen working; `None` while it works.
    lost_at: BTreeMap<NodeName, Option<Millis>>,
}

impl LinkReport {
    /// Takes in the peers with a working link now, and returns the report: sorted.
    pub fn observe(&mut self, now: Millis, linked: &[NodeId]) -> Vec<NameHash> {
        for lost_at in self.lost_at.values_mut() {
            lost_at.get_or_insert(now);
        }
        for peer in linked.iter().take(LINKS_MAX) {
            self.lost_at.insert(peer.name.clone(), None);
        }
        self.lost_at.retain(|_, lost_at| lost_at.is_none_or(|at| now.since(at) < BROKEN_AFTER_MS));
        let mut report: Vec<NameHash> = self.lost_at.keys().map(NameHash::of).collect();
        report.sort_unstable();
        report.dedup();
        report
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::ids::Incarnation;

    fn peer(name: &str) -> NodeId {
        NodeId { name: name.parse().unwrap(), incarnation: Incarnation(1) }
    }

    #[test]
    fn a_link_is_reported_at_once_and_missed_late() {
        let mut report = LinkReport::default();
        let (a, b) = (peer("a"), peer("b"));
        let mut both = vec![NameHash::of(&a.name), NameHash::of(&b.name)];
        both.sort();
        assert_eq!(report.observe(Millis(0), &[b, a.clone()]), both);
        assert_eq!(report.observe(Millis(5_000), std::slice::from_ref(&a)), both);
        assert_eq!(
            report.observe(Millis(5_000 + BROKEN_AFTER_MS - 1), std::slice::from_ref(&a)),
            both
        );
        let left = report.observe(Millis(5_000 + BROKEN_AFTER_MS), std::slice::from_ref(&a));
        assert_eq!(left, [NameHash::of(&a.name)]);
    }

    #[test]
    fn a_link_that_is_back_in_time_was_never_broken() {
        let mut report = LinkReport::default();
        report.observe(Millis(0), &[peer("a")]);
        report.observe(Millis(100), &[]);
        report.observe(Millis(1_500), &[peer("a")]);
        report.observe(Millis(1_700), &[]);
        assert_eq!(report.observe(Millis(3_100), &[]).len(), 1);
        assert_eq!(report.observe(Millis(3_200), &[]).len(), 0);
    }
}
