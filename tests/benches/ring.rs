//! The ring's figures: balance, slots moved by a join, and the time to compute it. Run by
//! `cargo bench --bench ring`; it prints, and measures nothing but the placement.
#![expect(clippy::print_stdout, clippy::unwrap_used, reason = "a bench prints and may panic")]
mod name_sets;

use std::time::Instant;

use orbweb::ownership::placement::Placement;
use orbweb::ownership::view::{Member, View};
use orbweb::protocol::ids::{Incarnation, NodeId, SLOTS_DEFAULT, Slot};

use name_sets::{SETS, name};

const SIZES: [usize; 3] = [3, 10, 100];
const ROUNDS: usize = 21;

fn main() {
    println!("{SETS} sets of names, {SLOTS_DEFAULT} slots; median / worst of the sets");
    for nodes in SIZES {
        let sets = 0..SETS;
        let balance = sets.clone().map(|set| most_by_mean(set, nodes)).collect();
        let moved = sets.clone().map(|set| moved_by_ideal(set, nodes)).collect();
        let millis = (0..ROUNDS).map(|round| compute_millis(round % SETS, nodes)).collect();
        println!(
            "{nodes:>4} nodes: max/mean owned {}, moved by a join/ideal {}, computed in ms {}",
            median_worst(balance),
            median_worst(moved),
            median_worst(millis)
        );
    }
}

fn view(set: usize, nodes: usize) -> View {
    View::new((0..nodes).map(|node| Member {
        id: NodeId {
            name: name(set, node).parse().unwrap(),
            incarnation: Incarnation(node as u128 + 1),
        },
        weight: 1,
    }))
}

fn most_by_mean(set: usize, nodes: usize) -> f64 {
    let view = view(set, nodes);
    let placement = Placement::compute(&view, SLOTS_DEFAULT);
    let most = view.members().iter().map(|m| placement.owned(m.id.incarnation)).max().unwrap();
    most as f64 * nodes as f64 / f64::from(SLOTS_DEFAULT)
}

fn moved_by_ideal(set: usize, nodes: usize) -> f64 {
    let before = Placement::compute(&view(set, nodes), SLOTS_DEFAULT);
    let after = Placement::compute(&view(set, nodes + 1), SLOTS_DEFAULT);
    let moved = (0..SLOTS_DEFAULT).map(Slot).filter(|&s| before.owner(s) != after.owner(s)).count();
    moved as f64 * (nodes + 1) as f64 / f64::from(SLOTS_DEFAULT)
}

fn compute_millis(set: usize, nodes: usize) -> f64 {
    let view = view(set, nodes);
    let start = Instant::now();
    let placement = Placement::compute(&view, SLOTS_DEFAULT);
    let took = start.elapsed();
    assert_eq!(placement.slots(), SLOTS_DEFAULT);
    took.as_secs_f64() * 1e3
}

fn median_worst(mut figures: Vec<f64>) -> String {
    figures.sort_by(f64::total_cmp);
    format!("{:.3} / {:.3}", figures[figures.len() / 2], figures[figures.len() - 1])
}
