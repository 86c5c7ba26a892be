//! Who is eligible: the same for all from the same gossip.
use proptest::prelude::*;

use super::*;

fn member(node: usize) -> Member {
    let name = format!("n{node:02}").parse().unwrap();
    Member { id: NodeId { name, incarnation: Incarnation(node as u128) }, weight: 1 }
}

/// `nodes` members; `linked(a, b)` tells whether `a` lists `b`.
fn candidates(nodes: usize, linked: impl Fn(usize, usize) -> bool) -> Vec<Candidate> {
    let candidate = |a: usize| {
        let listed = (0..nodes).filter(|&b| b != a && linked(a, b));
        let mut links: Vec<NameHash> = listed.map(|b| NameHash::of(&member(b).id.name)).collect();
        links.sort();
        Candidate { member: member(a), links, awaits: vec![] }
    };
    (0..nodes).map(candidate).collect()
}

fn numbers(view: &View) -> Vec<u128> {
    view.members().iter().map(|m| m.id.incarnation.0).collect()
}

#[test]
fn linked_members_are_all_eligible() {
    assert_eq!(numbers(&View::eligible(&candidates(4, |_, _| true))), [0, 1, 2, 3]);
}

#[test]
fn a_deaf_node_drops_out() {
    assert_eq!(numbers(&View::eligible(&candidates(4, |a, _| a != 2))), [0, 1, 3]);
}

#[test]
fn a_mute_node_drops_out() {
    assert_eq!(numbers(&View::eligible(&candidates(4, |_, b| b != 2))), [0, 1, 3]);
}

#[test]
fn one_cut_link_costs_nobody_its_place() {
    let cut = |a, b| !matches!((a, b), (0, 1) | (1, 0));
    assert_eq!(numbers(&View::eligible(&candidates(3, cut))), [0, 1, 2]);
}

#[test]
fn a_node_cut_from_most_drops_out() {
    // Of four others, 0 keeps its link to 1 alone.
    let cut = |a: usize, b: usize| a.min(b) != 0 || a.max(b) == 1;
    assert_eq!(numbers(&View::eligible(&candidates(5, cut))), [1, 2, 3, 4]);
}

#[test]
fn if_nobody_qualifies_all_are_eligible() {
    let candidates = candidates(3, |_, _| false);
    assert!(View::qualified(&candidates).is_empty());
    assert_eq!(numbers(&View::eligible(&candidates)), [0, 1, 2]);
}

#[test]
fn nobody_and_one_alone_are_views() {
    assert!(View::eligible(&[]).is_empty());
    assert_eq!(numbers(&View::eligible(&candidates(1, |_, _| false))), [0]);
}

proptest! {
    #[test]
    fn equal_gossip_gives_equal_views(
        cut in proptest::collection::btree_set((0..9_usize, 0..9_usize), 0..60),
        order in Just((0..9_usize).collect::<Vec<_>>()).prop_shuffle(),
    ) {
        let sorted = candidates(9, |a, b| !cut.contains(&(a, b)));
        let shuffled: Vec<Candidate> = order.into_iter().map(|i| sorted[i].clone()).collect();
        let (one, other) = (View::eligible(&sorted), View::eligible(&shuffled));
        prop_assert_eq!(one.hash(), other.hash());
        prop_assert_eq!(one, other);
    }

    #[test]
    fn a_deaf_or_mute_node_is_never_eligible_among_linked_ones(nodes in 3..30_usize, bad: prop::sample::Index, deaf: bool) {
        let bad = bad.index(nodes);
        let view = View::eligible(&candidates(nodes, |a, b| if deaf { a != bad } else { b != bad }));
        prop_assert_eq!(view.len(), nodes - 1);
        prop_assert!(!view.contains(Incarnation(bad as u128)));
    }
}
