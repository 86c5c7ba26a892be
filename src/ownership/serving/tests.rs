//! When a node may serve: each rule, and what ends it.
use super::*;
use crate::ownership::view::Member;
use crate::protocol::ids::{Incarnation, NodeId};

/// A gate and what it is shown; each verb changes one thing.
struct Watch {
    gate: ServingGate,
    now: Millis,
    view: View,
    seeded: bool,
    linked: bool,
    stalled: bool,
    repaired: bool,
    leaving: Vec<NodeName>,
}

fn watch(copies: u8, degraded: Degraded) -> Watch {
    Watch {
        gate: ServingGate::new(copies, degraded),
        now: Millis(1_000),
        view: View::default(),
        seeded: true,
        linked: false,
        stalled: false,
        repaired: true,
        leaving: Vec::new(),
    }
}

impl Watch {
    /// Sees these nodes, one letter each, and a link to a peer if there is one.
    fn sees(&mut self, names: &str) -> Serving {
        self.view = View::new(names.chars().map(|name| Member {
            id: NodeId { name: name.to_string().parse().unwrap(), incarnation: Incarnation(1) },
            weight: 1,
        }));
        self.linked = names.len() > 1;
        self.after(0)
    }

    fn after(&mut self, ms: u64) -> Serving {
        self.now = self.now + ms;
        let sight = Sight {
            view: &self.view,
            seeded: self.seeded,
            linked: self.linked,
            stalled: self.stalled,
            repaired: self.repaired,
            leaving: &self.leaving,
        };
        self.gate.observe(self.now, sight)
    }

    /// Sees these nodes until they are the stable membership.
    fn settles_with(&mut self, names: &str) {
        self.sees(names);
        self.after(STABLE_AFTER_MS);
        assert_eq!(self.stable(), names);
    }

    fn hears_leave_of(&mut self, name: &str) {
        self.leaving.push(name.parse().unwrap());
    }

    fn stable(&self) -> String {
        self.gate.stable().map(NodeName::as_str).collect()
    }
}

#[test]
fn a_view_of_enough_nodes_serves_in_full() {
    let mut watch = watch(2, Degraded::Refuse);
    assert_eq!(watch.sees("ab"), Serving::Full);
    assert_eq!(watch.sees("abc"), Serving::Full);
    assert!(Serving::Full.allowed() && !Serving::No.allowed());
}

#[test]
fn a_node_with_seeds_waits_for_a_link() {
    let mut watch = watch(1, Degraded::Accept);
    assert_eq!(watch.sees("a"), Serving::No);
    assert_eq!(watch.after(60_000), Serving::No);
    watch.linked = true;
    assert_eq!(watch.after(1), Serving::Full);
}

#[test]
fn a_node_without_seeds_is_standalone_until_it_had_a_peer() {
    let mut watch = watch(2, Degraded::Refuse);
    watch.seeded = false;
    assert_eq!(watch.sees("a"), Serving::Standalone);
    assert_eq!(watch.sees("ab"), Serving::Full);
    assert_eq!(watch.sees("a"), Serving::No);
    assert_eq!(watch.after(600_000), Serving::No);
}

#[test]
fn an_empty_view_serves_nothing() {
    let mut watch = watch(1, Degraded::Accept);
    watch.seeded = false;
    assert_eq!(watch.sees(""), Serving::No);
}

#[test]
fn half_of_the_stable_membership_serves_after_three_seconds() {
    let mut watch = watch(2, Degraded::Half);
    watch.settles_with("ab");
    assert_eq!(watch.sees("a"), Serving::No);
    assert_eq!(watch.after(DEGRADED_AFTER_MS - 1), Serving::No);
    assert_eq!(watch.after(1), Serving::Degraded);
    assert_eq!(watch.sees("ab"), Serving::Full);
    assert_eq!(watch.sees("a"), Serving::No, "the three seconds begin anew");
}

#[test]
fn less_than_half_never_serves() {
    let mut watch = watch(2, Degraded::Half);
    watch.settles_with("abc");
    assert_eq!(watch.sees("a"), Serving::No);
    assert_eq!(watch.after(600_000), Serving::No);
    assert_eq!(watch.stable(), "abc", "a view that isn't repaired changes nothing");
}

#[test]
fn refuse_refuses_and_accept_accepts() {
    let mut refusing = watch(2, Degraded::Refuse);
    refusing.settles_with("ab");
    refusing.sees("a");
    assert_eq!(refusing.after(600_000), Serving::No);

    let mut accepting = watch(2, Degraded::Accept);
    accepting.settles_with("abcde");
    assert_eq!(accepting.sees("a"), Serving::No);
    assert_eq!(accepting.after(DEGRADED_AFTER_MS), Serving::Degraded);
}

#[test]
fn stable_is_what_was_unchanged_for_ten_seconds_and_repaired() {
    let mut watch = watch(2, Degraded::Half);
    watch.sees("ab");
    watch.after(STABLE_AFTER_MS - 1);
    assert_eq!(watch.stable(), "");
    watch.sees("abc");
    watch.repaired = false;
    watch.after(STABLE_AFTER_MS);
    assert_eq!(watch.stable(), "");
    watch.repaired = true;
    watch.after(0);
    assert_eq!(watch.stable(), "abc");
}

#[test]
fn stable_shrinks_only_to_a_view_that_held_half_of_it() {
    let mut watch = watch(2, Degraded::Half);
    watch.settles_with("abcde");
    watch.sees("ab");
    watch.after(60_000);
    assert_eq!(watch.stable(), "abcde");
    watch.settles_with("abc");
    watch.sees("cxyz");
    watch.after(60_000);
    assert_eq!(watch.stable(), "abcxyz", "strangers add to it");
}

#[test]
fn an_announced_leave_shrinks_stable_at_once() {
    let mut watch = watch(2, Degraded::Half);
    watch.settles_with("abc");
    watch.hears_leave_of("c");
    watch.after(0);
    assert_eq!(watch.stable(), "ab");
    watch.after(60_000);
    assert_eq!(watch.stable(), "ab", "though the view still holds it");
}

#[test]
fn an_announced_leave_to_one_node_needs_no_waiting() {
    let mut watch = watch(2, Degraded::Half);
    watch.settles_with("ab");
    watch.hears_leave_of("b");
    assert_eq!(watch.sees("a"), Serving::Degraded);
}

#[test]
fn a_young_node_serves_at_once_when_the_only_other_one_leaves() {
    let mut young = watch(2, Degraded::Half);
    young.sees("ab");
    young.hears_leave_of("b");
    assert_eq!(young.sees("a"), Serving::Degraded);

    let mut bereft = watch(2, Degraded::Half);
    bereft.sees("ab");
    assert_eq!(bereft.sees("a"), Serving::No, "b said nothing");
    assert_eq!(bereft.after(60_000), Serving::No, "and a knows of no stable membership");
}

#[test]
fn a_crash_during_a_leave_is_waited_for() {
    let mut watch = watch(3, Degraded::Half);
    watch.settles_with("abc");
    watch.hears_leave_of("b");
    assert_eq!(watch.sees("a"), Serving::No, "c is missing and said nothing");
    assert_eq!(watch.after(DEGRADED_AFTER_MS), Serving::Degraded);
}

#[test]
fn a_stalled_node_holds_and_starts_to_count_anew() {
    let mut watch = watch(2, Degraded::Half);
    watch.settles_with("ab");
    watch.stalled = true;
    assert_eq!(watch.after(1), Serving::No);
    assert_eq!(watch.sees("a"), Serving::No);
    watch.after(10_000);
    watch.stalled = false;
    assert_eq!(watch.after(1), Serving::No);
    assert_eq!(watch.after(DEGRADED_AFTER_MS), Serving::Degraded);
    assert_eq!(watch.sees("ab"), Serving::Full);
}

#[test]
fn a_restarted_node_is_the_same_to_the_stable_membership() {
    let mut watch = watch(3, Degraded::Half);
    watch.settles_with("abcd");
    watch.view = View::new(watch.view.members().iter().take(2).cloned().map(|mut member| {
        member.id.incarnation = Incarnation(9);
        member
    }));
    assert_eq!(watch.after(0), Serving::No);
    assert_eq!(watch.after(DEGRADED_AFTER_MS), Serving::Degraded);
}
