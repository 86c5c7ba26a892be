//! Whose process is known to be gone: from what was found at a member's door after a connection to
//! it had ended, to a verdict. Pure; asked by the roster. A member is dead if nobody or somebody
//! else is behind its port *and* its link is silent. The verdict outweighs gossip, which calls the
//! dead live for a while, but not the member itself: a new link or proof of it withdraws it.
use std::collections::BTreeMap;

use super::config::Detector;
use super::liveness::MEMBERS_MAX;
use crate::protocol::ids::{Incarnation, NodeId};
use crate::protocol::time::Millis;

/// Least time for which a verdict stands.
pub const STANDS_MS_MIN: u64 = 5_000;

/// What was found at a member's door.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Finding {
    /// The member.
    pub node: NodeId,
    /// Who opened.
    pub door: Door,
    /// Whether its link answered a ping.
    pub link_answers: bool,
}

/// Who is behind a member's port.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Door {
    /// Nobody: the kernel refuses connections.
    Refused,
    /// This incarnation, which proved itself.
    Opened(Incarnation),
    /// Nothing is known: no answer, or none that proves anything.
    Unclear,
}

impl Finding {
    /// Whether the process that was there is gone.
    fn is_death(&self) -> bool {
        let gone = match self.door {
            Door::Refused => true,
            Door::Opened(who) => who != self.node.incarnation,
            Door::Unclear => false,
        };
        gone && !self.link_answers
    }
}

/// The verdicts that stand.
#[derive(Clone, Debug)]
pub struct Verdicts {
    stand_ms: u64,
    dead: BTreeMap<Incarnation, Verdict>,
}

#[derive(Clone, Debug)]
struct Verdict {
    node: NodeId,
    since: Millis,
    /// Its link was seen down since: one that works is a new one.
    unlinked: bool,
}

impl Verdicts {
    /// Nobody is dead yet. A verdict stands for twice the time after which the slowest of the
    /// others stops calling the dead live.
    pub fn new(detector: &Detector) -> Self {
        let silence = detector.gossip_interval.mul_f64(detector.phi.max(1.0)) + detector.hold;
        let stand_ms = (2 * silence).as_millis() as u64;
        Self { stand_ms: stand_ms.max(STANDS_MS_MIN), dead: BTreeMap::new() }
    }

    /// Takes in what was found. A `stalled` process believes no death: it may be the one that
    /// didn't hear.
    pub fn hear(&mut self, now: Millis, stalled: bool, finding: &Finding) {
        let node = &finding.node;
        if finding.door == Door::Opened(node.incarnation) {
            self.dead.remove(&node.incarnation);
        } else if finding.is_death() && !stalled {
            let verdict = Verdict { node: node.clone(), since: now, unlinked: false };
            self.dead.entry(node.incarnation).or_insert(verdict);
            self.make_room();
        }
    }

    /// Takes in who has a working link now: withdraws and forgets.
    pub fn observe(&mut self, now: Millis, linked: &[NodeId]) {
        let stand_ms = self.stand_ms;
        self.dead.retain(|_, verdict| {
            let is_linked = linked.contains(&verdict.node);
            let is_back = is_linked && verdict.unlinked;
            verdict.unlinked |= !is_linked;
            !is_back && now.since(verdict.since) < stand_ms
        });
    }

    /// Whether a verdict stands against this incarnation.
    pub fn is_dead(&self, node: Incarnation) -> bool {
        self.dead.contains_key(&node)
    }

    /// Against whom verdicts stand.
    pub fn dead(&self) -> Vec<NodeId> {
        self.dead.values().map(|verdict| verdict.node.clone()).collect()
    }

    fn make_room(&mut self) {
        while self.dead.len() > MEMBERS_MAX {
            let oldest = self.dead.iter().min_by_key(|(_, verdict)| verdict.since);
            let Some((&oldest, _)) = oldest else { return };
            self.dead.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::membership::tests::live_member;

    fn verdicts() -> Verdicts {
        Verdicts::new(&Detector::default())
    }

    fn bob() -> NodeId {
        live_member("bob", 7).id
    }

    fn found(door: Door) -> Finding {
        Finding { node: bob(), door, link_answers: false }
    }

    /// Verdicts with one against Bob, whose broken link is still listed.
    fn against_bob() -> Verdicts {
        let mut verdicts = verdicts();
        verdicts.hear(Millis(0), false, &found(Door::Refused));
        verdicts.observe(Millis(0), &[bob()]);
        assert_eq!(verdicts.dead(), [bob()]);
        verdicts
    }

    #[test]
    fn a_refused_connection_and_a_silent_link_are_a_death() {
        assert!(against_bob().is_dead(bob().incarnation));
    }

    #[test]
    fn another_process_at_the_address_is_a_death_of_the_first() {
        let mut verdicts = verdicts();
        verdicts.hear(Millis(0), false, &found(Door::Opened(Incarnation(8))));
        assert!(verdicts.is_dead(Incarnation(7)) && !verdicts.is_dead(Incarnation(8)));
    }

    #[test]
    fn a_link_that_answers_outweighs_a_refused_connection() {
        for door in [Door::Refused, Door::Opened(Incarnation(8))] {
            let mut verdicts = verdicts();
            verdicts.hear(Millis(0), false, &Finding { link_answers: true, ..found(door) });
            assert_eq!(verdicts.dead(), []);
        }
    }

    #[test]
    fn the_same_process_and_an_unclear_answer_are_no_death() {
        for door in [Door::Opened(Incarnation(7)), Door::Unclear] {
            let mut verdicts = verdicts();
            verdicts.hear(Millis(0), false, &found(door));
            assert_eq!(verdicts.dead(), []);
        }
    }

    #[test]
    fn a_stalled_process_believes_no_death_but_a_proof_of_life() {
        let mut verdicts = verdicts();
        verdicts.hear(Millis(0), true, &found(Door::Refused));
        assert_eq!(verdicts.dead(), []);
        let mut verdicts = against_bob();
        verdicts.hear(Millis(0), true, &found(Door::Opened(Incarnation(7))));
        assert_eq!(verdicts.dead(), []);
    }

    #[test]
    fn a_verdict_stands_longer_than_gossip_needs_and_not_for_ever() {
        let mut verdicts = against_bob();
        verdicts.observe(Millis(STANDS_MS_MIN - 1), &[]);
        assert_eq!(verdicts.dead(), [bob()]);
        verdicts.observe(Millis(STANDS_MS_MIN), &[]);
        assert_eq!(verdicts.dead(), []);

        let seconds = std::time::Duration::from_secs;
        let slow = Detector { gossip_interval: seconds(5), hold: seconds(1), ..Default::default() };
        assert_eq!(Verdicts::new(&slow).stand_ms, 2 * (8 * 5_000 + 1_000));
    }

    #[test]
    fn hearing_of_a_death_again_does_not_lengthen_the_verdict() {
        let mut verdicts = against_bob();
        verdicts.hear(Millis(4_000), false, &found(Door::Refused));
        verdicts.observe(Millis(STANDS_MS_MIN), &[]);
        assert_eq!(verdicts.dead(), []);
    }

    #[test]
    fn only_a_new_link_withdraws_a_verdict() {
        let mut verdicts = against_bob();
        verdicts.observe(Millis(50), &[bob()]);
        assert_eq!(verdicts.dead(), [bob()], "it is the old link, which isn't known to be broken");
        verdicts.observe(Millis(100), &[live_member("bob", 8).id]);
        assert_eq!(verdicts.dead(), [bob()], "it is another incarnation's");
        verdicts.observe(Millis(150), &[bob()]);
        assert_eq!(verdicts.dead(), []);
    }

    #[test]
    fn verdicts_are_bounded_and_the_oldest_goes() {
        let mut verdicts = verdicts();
        for number in 0..=MEMBERS_MAX as u64 {
            let node = live_member("n", u128::from(number)).id;
            let finding = Finding { node, ..found(Door::Refused) };
            verdicts.hear(Millis(number), false, &finding);
        }
        assert_eq!(verdicts.dead().len(), MEMBERS_MAX);
        assert!(!verdicts.is_dead(Incarnation(0)) && verdicts.is_dead(Incarnation(1)));
    }
}
