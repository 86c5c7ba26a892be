//! Who is there: gossip's live nodes, collapsed to one incarnation a name, and held a little longer
//! than gossip calls them live. Who is known to be dead isn't held.
use std::collections::BTreeMap;
use std::sync::Arc;

use super::snapshot::LiveMember;
use super::verdicts::Verdicts;
use crate::protocol::ids::NodeName;
use crate::protocol::time::Millis;

/// Live nodes that are believed in: far above what gossip carries, so that a mad member can't fill
/// the memory of the others.
pub const MEMBERS_MAX: usize = 2_048;

/// A process that gossip calls live.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Sighting {
    /// Greater for a later start of the same name.
    pub generation: u64,
    /// The process.
    pub member: Arc<LiveMember>,
}

#[derive(Clone, Debug)]
struct Held {
    sighting: Sighting,
    missing_since: Option<Millis>,
}

/// Remembers who is live.
#[derive(Clone, Debug)]
pub struct Liveness {
    hold_ms: u64,
    held: BTreeMap<NodeName, Held>,
}

impl Liveness {
    /// Nobody is live yet. A node that gossip drops is held for `hold_ms`.
    pub fn new(hold_ms: u64) -> Self {
        Self { hold_ms, held: BTreeMap::new() }
    }

    /// Takes in whom gossip calls live; while this process is `stalled`, nobody dies of silence.
    /// Those whom verdicts call dead aren't live, whatever gossip says. Returns who died.
    pub fn observe(
        &mut self,
        now: Millis,
        stalled: bool,
        sightings: &[Sighting],
        verdicts: &Verdicts,
    ) -> Vec<Arc<LiveMember>> {
        let is_dead = |sighting: &Sighting| verdicts.is_dead(sighting.member.id.incarnation);
        let mut newest: BTreeMap<&NodeName, &Sighting> = BTreeMap::new();
        for sighting in sightings.iter().filter(|seen| !is_dead(seen)).take(MEMBERS_MAX) {
            let seen = newest.entry(&sighting.member.id.name).or_insert(sighting);
            if sighting.generation > seen.generation {
                *seen = sighting;
            }
        }
        for (&name, &sighting) in &newest {
            self.see(name, sighting);
        }
        let (hold_ms, mut died) = (self.hold_ms, Vec::new());
        self.held.retain(|name, held| {
            let seen = newest.get(name);
            if seen.is_some_and(|seen| seen.generation >= held.sighting.generation) {
                held.missing_since = None;
                return true;
            }
            let since = *held.missing_since.get_or_insert(now);
            let silent = !stalled && now.since(since) >= hold_ms;
            let dead = silent || is_dead(&held.sighting);
            if dead {
                died.push(held.sighting.member.clone());
            }
            !dead
        });
        died
    }

    /// An older incarnation never takes the place of a later one that is held still.
    fn see(&mut self, name: &NodeName, sighting: &Sighting) {
        match self.held.get_mut(name) {
            Some(held) if held.sighting.generation <= sighting.generation => {
                held.sighting = sighting.clone();
            }
            Some(_) => {}
            None => {
                let held = Held { sighting: sighting.clone(), missing_since: None };
                self.held.insert(name.clone(), held);
            }
        }
    }

    /// Who is live, by name.
    pub fn live(&self) -> impl Iterator<Item = &Arc<LiveMember>> {
        self.held.values().map(|held| &held.sighting.member)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::membership::config::Detector;
    use crate::membership::tests::live_member;
    use crate::membership::verdicts::{Door, Finding};

    fn sighting(name: &str, generation: u64) -> Sighting {
        let member = live_member(name, u128::from(generation));
        Sighting { generation, member: Arc::new(member) }
    }

    fn live(liveness: &Liveness) -> Vec<(String, u128)> {
        let id = |m: &Arc<LiveMember>| (m.id.name.to_string(), m.id.incarnation.0);
        liveness.live().map(id).collect()
    }

    /// What gossip alone does.
    fn observe(
        liveness: &mut Liveness,
        now: Millis,
        stalled: bool,
        sightings: &[Sighting],
    ) -> Vec<Arc<LiveMember>> {
        liveness.observe(now, stalled, sightings, &Verdicts::new(&Detector::default()))
    }

    fn alone() -> Vec<(String, u128)> {
        vec![("a".to_owned(), 1)]
    }

    #[test]
    fn a_missing_node_is_held_and_then_dead() {
        let mut liveness = Liveness::new(200);
        observe(&mut liveness, Millis(0), false, &[sighting("a", 1), sighting("b", 1)]);
        for now in [1_000, 1_199] {
            let died = observe(&mut liveness, Millis(now), false, &[sighting("a", 1)]);
            assert_eq!((died.len(), live(&liveness).len()), (0, 2));
        }
        let died = observe(&mut liveness, Millis(1_200), false, &[sighting("a", 1)]);
        assert_eq!((died.len(), live(&liveness)), (1, alone()));
    }

    #[test]
    fn a_node_that_is_back_within_the_hold_never_died() {
        let mut liveness = Liveness::new(200);
        observe(&mut liveness, Millis(0), false, &[sighting("a", 1)]);
        observe(&mut liveness, Millis(100), false, &[]);
        observe(&mut liveness, Millis(290), false, &[sighting("a", 1)]);
        assert!(observe(&mut liveness, Millis(400), false, &[]).is_empty());
        assert_eq!(live(&liveness), alone(), "the hold begins anew");
    }

    #[test]
    fn a_stalled_node_believes_no_death() {
        let mut liveness = Liveness::new(200);
        observe(&mut liveness, Millis(0), false, &[sighting("a", 1)]);
        assert!(observe(&mut liveness, Millis(9_000), true, &[]).is_empty());
        assert!(observe(&mut liveness, Millis(9_900), true, &[]).is_empty());
        assert_eq!(live(&liveness), alone());
        assert_eq!(observe(&mut liveness, Millis(10_000), false, &[]).len(), 1);
    }

    #[test]
    fn the_newest_incarnation_of_a_name_counts() {
        let mut liveness = Liveness::new(200);
        observe(&mut liveness, Millis(0), false, &[sighting("a", 1)]);
        observe(&mut liveness, Millis(10), false, &[sighting("a", 2), sighting("a", 1)]);
        assert_eq!(live(&liveness), [("a".to_owned(), 2)]);
        let died = observe(&mut liveness, Millis(300), false, &[sighting("a", 2)]);
        assert!(died.is_empty(), "the first one was replaced, it didn't die");
    }

    #[test]
    fn an_older_incarnation_comes_back_only_when_the_newer_is_dead() {
        let mut liveness = Liveness::new(200);
        observe(&mut liveness, Millis(0), false, &[sighting("a", 2)]);
        observe(&mut liveness, Millis(10), false, &[sighting("a", 1)]);
        assert_eq!(live(&liveness), [("a".to_owned(), 2)]);
        observe(&mut liveness, Millis(210), false, &[sighting("a", 1)]);
        observe(&mut liveness, Millis(220), false, &[sighting("a", 1)]);
        assert_eq!(live(&liveness), alone());
    }

    #[test]
    fn who_is_known_to_be_dead_dies_at_once_whatever_gossip_says() {
        let mut liveness = Liveness::new(200);
        let both = [sighting("a", 1), sighting("b", 2)];
        observe(&mut liveness, Millis(0), false, &both);
        let mut verdicts = Verdicts::new(&Detector::default());
        let bob = live_member("b", 2).id;
        let finding = Finding { node: bob, door: Door::Refused, link_answers: false };
        verdicts.hear(Millis(10), false, &finding);
        assert_eq!(liveness.observe(Millis(10), false, &both, &verdicts).len(), 1);
        assert_eq!(live(&liveness), alone());
        assert!(liveness.observe(Millis(60), false, &both, &verdicts).is_empty(), "it died once");

        let restarted = [sighting("a", 1), sighting("b", 2), sighting("b", 3)];
        liveness.observe(Millis(110), false, &restarted, &verdicts);
        assert_eq!(live(&liveness).last(), Some(&("b".to_owned(), 3)));
    }
}
