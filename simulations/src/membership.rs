//! Virtual membership: what each node believes in, each at its own time. Late, and on demand wrong.
use std::cell::RefCell;
use std::collections::VecDeque;
use std::sync::Arc;

use orbweb::delivery::event::Outlook;
use orbweb::ownership::placement::Placement;
use orbweb::ownership::serving::{Serving, ServingGate, Sight};
use orbweb::ownership::view::{Member, View};
use orbweb::protocol::ids::{Incarnation, NodeId, NodeName};
use orbweb::protocol::time::Millis;

/// Where a node is in its life.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum State {
    /// Back after a pause, and not in the view again yet.
    Away,
    Joining,
    Up,
    Leaving,
    Dead,
}

/// A node as others may see it.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) id: NodeId,
    pub(crate) state: State,
}

/// The view of a node that sees these nodes.
fn view(seen: &[Seen]) -> View {
    let up = seen.iter().filter(|s| s.state == State::Up);
    View::new(up.map(|seen| Member { id: seen.id.clone(), weight: 1 }))
}

/// Whether a node that sees these nodes may serve, by the gate that nodes ship with.
pub(crate) fn serving(
    gate: &mut ServingGate,
    seen: &[Seen],
    (me, seeded): (&NodeId, bool),
    (repaired, stalled): (bool, bool),
    now: Millis,
) -> Serving {
    let leaving = seen.iter().filter(|s| s.state == State::Leaving);
    let leaving: Vec<NodeName> = leaving.map(|s| s.id.name.clone()).collect();
    let linked = seen.iter().any(|s| s.id != *me && s.state != State::Dead);
    let view = view(seen);
    let (view, leaving) = (&view, &leaving[..]);
    gate.observe(now, Sight { view, seeded, linked, stalled, repaired, leaving })
}

/// The outlook of a node that sees these nodes.
pub(crate) fn outlook(seen: &[Seen], slots: u16, serving: Serving) -> Arc<Outlook> {
    let member = |seen: &Seen| Member { id: seen.id.clone(), weight: 1 };
    let of = |state: State| seen.iter().filter(move |s| s.state == state);
    let view = view(seen);
    let joining: Vec<Member> = of(State::Joining).map(member).collect();
    let planned = View::new(view.members().iter().cloned().chain(joining.iter().cloned()));
    Arc::new(Outlook {
        placement: placement(&view, slots),
        planned: placement(&planned, slots),
        joining,
        outside: of(State::Leaving).chain(of(State::Away)).map(|s| s.id.clone()).collect(),
        serving,
        view,
    })
}

/// Placements that are kept: nodes see the same views, one after the other.
const KEPT: usize = 16;

/// The placement of a view, kept from the last time that it was asked for.
fn placement(view: &View, slots: u16) -> Arc<Placement> {
    thread_local! {
        static LAST: RefCell<VecDeque<(u64, u16, Arc<Placement>)>> = RefCell::default();
    }
    let hash = view.hash();
    LAST.with_borrow_mut(|last| {
        if let Some((.., known)) = last.iter().find(|(h, s, _)| (*h, *s) == (hash, slots)) {
            return known.clone();
        }
        let computed = Arc::new(Placement::compute(view, slots));
        last.push_front((hash, slots, computed.clone()));
        last.truncate(KEPT);
        computed
    })
}

/// A name that a node keeps over its restarts.
pub(crate) fn node_id(number: usize, incarnation: u128) -> NodeId {
    let name = format!("n{number}").parse().expect("a short plain name is allowed");
    NodeId { name, incarnation: Incarnation(incarnation) }
}
