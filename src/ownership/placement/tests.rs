//! Balance, moves and the golden fixture of placements.
#[path = "../../../tests/benches/name_sets.rs"]
mod name_sets;

use std::fmt::Write as _;

use proptest::prelude::*;
use xxhash_rust::xxh3::xxh3_64;

use super::*;
use crate::ownership::view::Member;
use crate::protocol::ids::{NodeId, SLOTS_DEFAULT};

const GOLDEN: &str = include_str!("../../../tests/fixtures/placement.txt");

fn member(name: &str, incarnation: u128, weight: u16) -> Member {
    let name = name.parse().unwrap();
    Member { id: NodeId { name, incarnation: Incarnation(incarnation) }, weight }
}

fn cluster(nodes: usize) -> View {
    View::new((0..nodes).map(|node| member(&format!("orbweb-{node}"), node as u128 + 1, 1)))
}

fn names(view: &View, nodes: impl Iterator<Item = Incarnation>) -> Vec<&str> {
    let name = |node| view.members().iter().find(|m| m.id.incarnation == node).unwrap();
    nodes.map(|node| name(node).id.name.as_str()).collect()
}

/// Some rows to read, and the hash of the whole table for rings of several sizes.
fn golden() -> String {
    let mut text = String::from("# slot: owner and successors, of 64 slots; b has weight 2\n");
    let weighted = [("a", 1), ("b", 2), ("c", 1), ("d", 1), ("e", 1)].into_iter().zip(1..);
    let view = View::new(weighted.map(|((name, weight), number)| member(name, number, weight)));
    let placement = Placement::compute(&view, 64);
    for slot in (0..64).map(Slot) {
        writeln!(text, "{}: {}", slot.0, names(&view, placement.preference(slot)).join(" "))
            .unwrap();
    }
    text += "# nodes orbweb-0 …, 16384 slots: xxh3 of all rows\n";
    for nodes in [1, 3, 10, 100] {
        let view = cluster(nodes);
        let placement = Placement::compute(&view, SLOTS_DEFAULT);
        let row = |slot| names(&view, placement.preference(slot)).join(" ");
        let rows: Vec<String> = (0..SLOTS_DEFAULT).map(Slot).map(row).collect();
        writeln!(text, "{nodes} nodes: {:016x}", xxh3_64(rows.join("\n").as_bytes())).unwrap();
    }
    text
}

#[test]
fn every_machine_computes_the_golden_placement() {
    let computed = golden();
    assert_eq!(computed, GOLDEN, "computed:\n{computed}");
}

#[test]
fn an_empty_view_owns_nothing() {
    let placement = Placement::compute(&View::default(), 16);
    assert_eq!(placement.slots(), 16);
    assert_eq!(placement.owner(Slot(3)), None);
    assert_eq!(Placement::default().owner(Slot(0)), None);
}

#[test]
fn a_node_alone_owns_everything() {
    let placement = Placement::compute(&cluster(1), SLOTS_DEFAULT);
    assert_eq!(placement.owned(Incarnation(1)), usize::from(SLOTS_DEFAULT));
    assert_eq!(placement.preference(Slot(0)).count(), 1);
}

#[test]
fn preference_ends_at_its_length() {
    let placement = Placement::compute(&cluster(9), 64);
    assert!((0..64).all(|slot| placement.preference(Slot(slot)).count() == PREFERENCE_LEN));
    assert_eq!(placement.preference(Slot(64)).count(), 0, "there is no such slot");
}

#[test]
fn a_restarted_node_gets_its_old_slots() {
    let before = Placement::compute(&cluster(3), SLOTS_DEFAULT);
    let restarted = [("orbweb-0", 1), ("orbweb-1", 102), ("orbweb-2", 3)];
    let view = View::new(restarted.map(|(name, incarnation)| member(name, incarnation, 1)));
    let after = Placement::compute(&view, SLOTS_DEFAULT);
    let old: Vec<Slot> = before.owned_slots(Incarnation(2)).collect();
    assert_eq!(old, after.owned_slots(Incarnation(102)).collect::<Vec<_>>());
    assert_eq!(old.len(), before.owned(Incarnation(2)));
}

#[test]
fn the_ring_is_balanced_at_every_size() {
    for nodes in [3, 10, 100] {
        let view = cluster(nodes);
        let placement = Placement::compute(&view, SLOTS_DEFAULT);
        let owned = view.members().iter().map(|m| placement.owned(m.id.incarnation));
        let mean = f64::from(SLOTS_DEFAULT) / nodes as f64;
        let most = owned.max().unwrap() as f64 / mean;
        assert!(most <= 1.35, "the busiest of {nodes} nodes has {most:.3} of the mean");
    }
}

/// A cluster whose names differ from those of every other set.
fn set(set: usize, nodes: usize) -> View {
    View::new((0..nodes).map(|node| member(&name_sets::name(set, node), node as u128 + 1, 1)))
}

fn median_and_worst(mut figures: Vec<f64>) -> (f64, f64) {
    figures.sort_by(f64::total_cmp);
    (figures[figures.len() / 2], figures[figures.len() - 1])
}

#[test]
fn names_of_any_kind_balance_the_ring_and_a_join_moves_its_share() {
    let all = f64::from(SLOTS_DEFAULT);
    for nodes in [3, 10, 100] {
        let (mut most, mut moved) = (vec![], vec![]);
        for number in 0..name_sets::SETS {
            let (view, joined) = (set(number, nodes), set(number, nodes + 1));
            let before = Placement::compute(&view, SLOTS_DEFAULT);
            let after = Placement::compute(&joined, SLOTS_DEFAULT);
            let owned = view.members().iter().map(|m| before.owned(m.id.incarnation)).max();
            most.push(owned.unwrap() as f64 * nodes as f64 / all);
            let other = |slot: &Slot| before.owner(*slot) != after.owner(*slot);
            let moves = (0..SLOTS_DEFAULT).map(Slot).filter(other).count();
            moved.push(moves as f64 * (nodes + 1) as f64 / all);
        }
        let (median, worst) = median_and_worst(most);
        assert!(median <= 1.25 && worst <= 1.35, "{nodes} nodes: {median:.3}, {worst:.3}");
        let (median, worst) = median_and_worst(moved);
        assert!(worst <= 1.15, "{nodes} nodes and one more: {median:.3}, {worst:.3} of the ideal");
    }
}

#[test]
fn weight_is_a_share_of_the_ring() {
    let view = View::new([member("a", 1, 1), member("b", 2, 1), member("c", 3, 2)]);
    let placement = Placement::compute(&view, SLOTS_DEFAULT);
    let share = placement.owned(Incarnation(3)) as f64 / f64::from(SLOTS_DEFAULT);
    assert!((0.43..0.57).contains(&share), "half of the weight owns {share:.3} of the slots");
}

fn views() -> impl Strategy<Value = View> {
    let member = ("[a-z0-9]{1,12}", any::<u128>(), 1..4_u16);
    proptest::collection::vec(member, 2..12).prop_map(|members| {
        View::new(members.iter().map(|(name, incarnation, weight)| {
            member_with_unique_incarnation(name, *incarnation, *weight)
        }))
    })
}

fn member_with_unique_incarnation(name: &str, incarnation: u128, weight: u16) -> Member {
    let of_name = u128::from(xxh3_64(name.as_bytes()));
    member(name, incarnation << 64 | of_name, weight)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn rows_are_distinct_and_full(view in views()) {
        let placement = Placement::compute(&view, 512);
        for slot in (0..512).map(Slot) {
            let mut row: Vec<Incarnation> = placement.preference(slot).collect();
            prop_assert_eq!(row.len(), view.len().min(PREFERENCE_LEN));
            row.sort();
            row.dedup();
            prop_assert_eq!(row.len(), view.len().min(PREFERENCE_LEN));
        }
    }

    #[test]
    fn a_dead_owner_is_followed_by_its_first_successor(view in views(), dead in any::<prop::sample::Index>()) {
        let dead = view.members()[dead.index(view.len())].id.incarnation;
        let left = View::new(view.members().iter().filter(|m| m.id.incarnation != dead).cloned());
        let (before, after) = (Placement::compute(&view, 512), Placement::compute(&left, 512));
        for slot in (0..512).map(Slot) {
            let expected: Vec<Incarnation> =
                before.preference(slot).filter(|&node| node != dead).take(PREFERENCE_LEN - 1).collect();
            let row: Vec<Incarnation> = after.preference(slot).take(expected.len()).collect();
            prop_assert_eq!(row, expected);
        }
    }

    #[test]
    fn the_order_of_members_is_of_no_account(view in views()) {
        let reversed = View::new(view.members().iter().rev().cloned());
        prop_assert_eq!(Placement::compute(&view, 128), Placement::compute(&reversed, 128));
    }
}
