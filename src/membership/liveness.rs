//! Who is there: gossip's live nodes, collapsed to one incarnation a name, and held a little longer
//! than gossip calls them live.
use std::collections::BTreeMap;
use std::sync::Arc;

use super::snapshot::LiveMember;
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

    /// Takes in whom gossip calls live; while this process is `stalled`, nobody dies. Returns who
    /// died.
    pub fn observe(
        &mut self,
        now: Millis,
        stalled: bool,
        sightings: &[Sighting],
    ) -> Vec<Arc<LiveMember>> {
        let mut newest: BTreeMap<&NodeName, &Sighting> = BTreeMap::new();
        for sighting in sightings.iter().take(MEMBERS_MAX) {
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
            let dead = !stalled && now.since(since) >= hold_ms;
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
    use crate::membership::tests::live_member;

    fn sighting(name: &str, generation: u64) -> Sighting {
        let member = live_member(name, u128::from(generation));
        Sighting { generation, member: Arc::new(member) }
    }

    fn live(liveness: &Liveness) -> Vec<(String, u128)> {
        let id = |m: &Arc<LiveMember>| (m.id.name.to_string(), m.id.incarnation.0);
        liveness.live().map(id).collect()
    }

    fn alone() -> Vec<(String, u128)> {
        vec![("a".to_owned(), 1)]
    }

    #[test]
    fn a_missing_node_is_held_and_then_dead() {
        let mut liveness = Liveness::new(200);
        liveness.observe(Millis(0), false, &[sighting("a", 1), sighting("b", 1)]);
        for now in [1_000, 1_199] {
            let died = liveness.observe(Millis(now), false, &[sighting("a", 1)]);
            assert_eq!((died.len(), live(&liveness).len()), (0, 2));
        }
        let died = liveness.observe(Millis(1_200), false, &[sighting("a", 1)]);
        assert_eq!((died.len(), live(&liveness)), (1, alone()));
    }

    #[test]
    fn a_node_that_is_back_within_the_hold_never_died() {
        let mut liveness = Liveness::new(200);
        liveness.observe(Millis(0), false, &[sighting("a", 1)]);
        liveness.observe(Millis(100), false, &[]);
        liveness.observe(Millis(290), false, &[sighting("a", 1)]);
        assert!(liveness.observe(Millis(400), false, &[]).is_empty());
        assert_eq!(live(&liveness), alone(), "the hold begins anew");
    }

    #[test]
    fn a_stalled_node_believes_no_death() {
        let mut liveness = Liveness::new(200);
        liveness.observe(Millis(0), false, &[sighting("a", 1)]);
        assert!(liveness.observe(Millis(9_000), true, &[]).is_empty());
        assert!(liveness.observe(Millis(9_900), true, &[]).is_empty());
        assert_eq!(live(&liveness), alone());
        assert_eq!(liveness.observe(Millis(10_000), false, &[]).len(), 1);
    }

    #[test]
    fn the_newest_incarnation_of_a_name_counts() {
        let mut liveness = Liveness::new(200);
        liveness.observe(Millis(0), false, &[sighting("a", 1)]);
        liveness.observe(Millis(10), false, &[sighting("a", 2), sighting("a", 1)]);
        assert_eq!(live(&liveness), [("a".to_owned(), 2)]);
        let died = liveness.observe(Millis(300), false, &[sighting("a", 2)]);
        assert!(died.is_empty(), "the first one was replaced, it didn't die");
    }

    #[test]
    fn an_older_incarnation_comes_back_only_when_the_newer_is_dead() {
        let mut liveness = Liveness::new(200);
        liveness.observe(Millis(0), false, &[sighting("a", 2)]);
        liveness.observe(Millis(10), false, &[sighting("a", 1)]);
        assert_eq!(live(&liveness), [("a".to_owned(), 2)]);
        liveness.observe(Millis(210), false, &[sighting("a", 1)]);
        liveness.observe(Millis(220), false, &[sighting("a", 1)]);
        assert_eq!(live(&liveness), alone());
    }
}
