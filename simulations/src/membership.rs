//! Virtual membership: what each node believes in, each at its own time. Late, and on demand wrong.
use std::sync::Arc;

use orbweb::delivery::event::Outlook;
use orbweb::ownership::placement::Placement;
use orbweb::ownership::serving::Serving;
use orbweb::ownership::view::{Member, View};
use orbweb::protocol::ids::{Incarnation, NodeId};

/// Where a node is in its life.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum State {
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

/// The outlook of a node that sees these nodes; `alone_serves` for the node that starts a cluster.
pub(crate) fn outlook(seen: &[Seen], slots: u16, alone_serves: bool) -> Arc<Outlook> {
    let member = |seen: &Seen| Member { id: seen.id.clone(), weight: 1 };
    let of = |state: State| seen.iter().filter(move |s| s.state == state);
    let view = View::new(of(State::Up).map(member));
    let joining: Vec<Member> = of(State::Joining).map(member).collect();
    let planned = View::new(view.members().iter().cloned().chain(joining.iter().cloned()));
    let serving = match view.len() {
        0 => Serving::No,
        1 if alone_serves => Serving::Standalone,
        1 => Serving::No,
        _ => Serving::Full,
    };
    Arc::new(Outlook {
        placement: Arc::new(Placement::compute(&view, slots)),
        planned: Arc::new(Placement::compute(&planned, slots)),
        joining,
        outside: of(State::Leaving).map(|s| s.id.clone()).collect(),
        serving,
        view,
    })
}

/// A name that a node keeps over its restarts.
pub(crate) fn node_id(number: usize, incarnation: u128) -> NodeId {
    let name = format!("n{number}").parse().expect("a short plain name is allowed");
    NodeId { name, incarnation: Incarnation(incarnation) }
}
