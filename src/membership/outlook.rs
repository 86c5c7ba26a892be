//! What the cores are told of a snapshot: the view with its placements, and whether to serve.
use std::sync::Arc;

use super::snapshot::Snapshot;
use crate::delivery::event::Outlook;
use crate::ownership::placement::Placement;
use crate::ownership::serving::{ServingGate, Sight};
use crate::ownership::view::{Member, View};
use crate::protocol::time::Millis;

/// How long a joining node waits to know everybody. Longer than the 1.5 s for which a member lists
/// a peer that is dead.
pub const PARTIAL_FOR_MS: u64 = 2_000;

/// The placements computed last: those of the view and of the planned view are needed most often.
#[derive(Clone, Debug, Default)]
pub struct PlacementCache {
    computed: Vec<(u64, u16, Arc<Placement>)>,
}

/// Placements kept: view and planned view, now and before the last change.
const PLACEMENTS_MAX: usize = 4;

impl PlacementCache {
    /// The placement of a view; computed only if it isn't among the last ones.
    pub fn placement(&mut self, view: &View, slots: u16) -> Arc<Placement> {
        let hash = view.hash();
        let known = self.computed.iter().position(|&(h, s, _)| (h, s) == (hash, slots));
        let placement = match known {
            Some(at) => self.computed.remove(at).2,
            None => Arc::new(Placement::compute(view, slots)),
        };
        self.computed.insert(0, (hash, slots, placement.clone()));
        self.computed.truncate(PLACEMENTS_MAX);
        placement
    }
}

/// The outlook of a snapshot. `repaired`: everything that this node owns has its copies.
pub fn outlook(
    snapshot: &Snapshot,
    slots: u16,
    repaired: bool,
    now: Millis,
    gate: &mut ServingGate,
    cache: &mut PlacementCache,
) -> Outlook {
    let view = &snapshot.view;
    let joining: Vec<Member> = snapshot.joining().map(|member| member.member()).collect();
    let planned = View::new(view.members().iter().chain(&joining).cloned());
    let serving = gate.observe(
        now,
        Sight {
            view,
            seeded: snapshot.seeded,
            linked: snapshot.linked,
            stalled: snapshot.stalled || !snapshot.healthy,
            repaired,
            leaving: &snapshot.leaving_names(),
        },
    );
    Outlook {
        placement: cache.placement(view, slots),
        planned: cache.placement(&planned, slots),
        view: view.clone(),
        joining,
        outside: snapshot.outside().map(|member| member.id.clone()).collect(),
        serving,
    }
}

/// Turns snapshots into outlooks, and says when there is a new one.
#[derive(Debug)]
pub struct Lookout {
    slots: u16,
    gate: ServingGate,
    cache: PlacementCache,
    last: Option<Arc<Outlook>>,
    partial_since: Option<Millis>,
}

impl Lookout {
    /// A lookout that has seen nothing yet.
    pub fn new(slots: u16, gate: ServingGate) -> Self {
        Self { slots, gate, cache: PlacementCache::default(), last: None, partial_since: None }
    }

    /// The outlook if it isn't the last one. To be called with each new snapshot, and every 100 ms
    /// or so: whether to serve depends on time alone, too.
    pub fn observe(
        &mut self,
        snapshot: &Snapshot,
        repaired: bool,
        now: Millis,
    ) -> Option<Arc<Outlook>> {
        if self.waits_for_all(snapshot, now) {
            return None;
        }
        let seen = outlook(snapshot, self.slots, repaired, now, &mut self.gate, &mut self.cache);
        if self.last.as_ref().is_some_and(|last| is_same(last, &seen)) {
            return None;
        }
        let seen = Arc::new(seen);
        self.last = Some(seen.clone());
        Some(seen)
    }
}

impl Lookout {
    /// A node that joins with a part of the members in sight would catch up with those alone, turn
    /// up, and take the slots of the rest.
    fn waits_for_all(&mut self, snapshot: &Snapshot, now: Millis) -> bool {
        if !snapshot.is_partial() {
            self.partial_since = None;
            return false;
        }
        now.since(*self.partial_since.get_or_insert(now)) < PARTIAL_FOR_MS
    }
}

/// Equal views have equal placements, so those needn't be compared.
fn is_same(one: &Outlook, other: &Outlook) -> bool {
    one.view == other.view
        && one.joining == other.joining
        && one.outside == other.outside
        && one.serving == other.serving
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::membership::facts::State;
    use crate::membership::tests::{live_member, snapshot_of};
    use crate::ownership::serving::{Degraded, Serving};
    use crate::ownership::view::NameHash;
    use crate::protocol::ids::{Incarnation, Slot};

    fn lookout() -> Lookout {
        Lookout::new(1024, ServingGate::new(2, Degraded::Half))
    }

    fn seen(states: &[(&str, State)]) -> Snapshot {
        let member = |(name, state): &(&str, State)| {
            let mut member = live_member(name, u128::from(name.as_bytes()[0]));
            member.facts.state = *state;
            Arc::new(member)
        };
        snapshot_of(states.iter().map(member).collect())
    }

    #[test]
    fn joiners_are_planned_and_leavers_stand_outside() {
        let snapshot = seen(&[
            ("a", State::Up),
            ("b", State::Up),
            ("c", State::Joining),
            ("d", State::Leaving),
        ]);
        let outlook = lookout().observe(&snapshot, true, Millis(0)).unwrap();
        assert_eq!(outlook.serving, Serving::Full);
        let (c, d) = (Incarnation(u128::from(b'c')), Incarnation(u128::from(b'd')));
        assert_eq!(outlook.joining.iter().map(|m| m.id.incarnation).collect::<Vec<_>>(), [c]);
        assert_eq!(outlook.outside.iter().map(|id| id.incarnation).collect::<Vec<_>>(), [d]);
        assert_eq!((outlook.placement.owned(c), outlook.placement.owned(d)), (0, 0));
        assert!(outlook.planned.owned(c) > 100, "a third of 1024 slots is planned");
        let moves =
            (0..1024).map(Slot).filter(|&s| outlook.placement.owner(s) != outlook.planned.owner(s));
        assert!(moves.map(|slot| outlook.planned.owner(slot)).all(|owner| owner == Some(c)));
    }

    #[test]
    fn only_news_is_told() {
        let mut lookout = lookout();
        let two = seen(&[("a", State::Up), ("b", State::Up)]);
        let first = lookout.observe(&two, true, Millis(0)).unwrap();
        assert!(Arc::ptr_eq(&first.placement, &first.planned), "nobody joins");
        assert!(lookout.observe(&two, true, Millis(20_000)).is_none());
        let one = seen(&[("a", State::Up)]);
        assert_eq!(lookout.observe(&one, false, Millis(20_100)).unwrap().serving, Serving::No);
        assert!(lookout.observe(&one, false, Millis(20_200)).is_none());
        let late = lookout.observe(&one, false, Millis(23_100)).unwrap();
        assert_eq!(late.serving, Serving::Degraded, "time alone is news");
        let again = lookout.observe(&two, false, Millis(23_200)).unwrap();
        assert!(Arc::ptr_eq(&again.placement, &first.placement), "it was computed before");
    }

    #[test]
    fn a_joining_node_waits_until_it_knows_everybody() {
        let links = |mut snapshot: Snapshot| {
            let one = Arc::make_mut(&mut snapshot.members[1]);
            one.facts.links = ["c", "j"].map(|name| NameHash::of(&name.parse().unwrap())).into();
            one.facts.links.sort_unstable();
            snapshot
        };
        let part = links(seen(&[("j", State::Joining), ("b", State::Up)]));
        let all = links(seen(&[("j", State::Joining), ("b", State::Up), ("c", State::Up)]));
        let mut lookout = lookout();
        assert!(lookout.observe(&part, true, Millis(0)).is_none(), "b is linked with c");
        assert!(lookout.observe(&part, true, Millis(PARTIAL_FOR_MS - 1)).is_none());
        let outlook = lookout.observe(&all, true, Millis(PARTIAL_FOR_MS)).unwrap();
        assert_eq!(outlook.view.len(), 2);

        assert!(lookout.observe(&part, true, Millis(10_000)).is_none());
        let late = lookout.observe(&part, true, Millis(10_000 + PARTIAL_FOR_MS)).unwrap();
        assert_eq!(late.view.len(), 1, "c seems to be dead");

        let up = links(seen(&[("j", State::Up), ("b", State::Up)]));
        assert_eq!(lookout.observe(&up, true, Millis(20_000)).unwrap().view.len(), 2);
    }

    #[test]
    fn a_stalled_or_unhealthy_node_holds() {
        for (stalled, healthy) in [(true, true), (false, false)] {
            let mut snapshot = seen(&[("a", State::Up), ("b", State::Up)]);
            (snapshot.stalled, snapshot.healthy) = (stalled, healthy);
            let outlook = lookout().observe(&snapshot, true, Millis(0)).unwrap();
            assert_eq!(outlook.serving, Serving::No);
        }
    }
}
