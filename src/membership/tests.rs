use super::*;
use crate::ownership::view::View;
use crate::protocol::ids::Incarnation;
use facts::Facts;
use snapshot::LiveMember;
use std::sync::Arc;

/// A live `up` member without links.
pub(super) fn live_member(name: &str, incarnation: u128) -> LiveMember {
    LiveMember {
        id: NodeId { name: name.parse().unwrap(), incarnation: Incarnation(incarnation) },
        address: ([127, 0, 0, 1], 7400).into(),
        facts: Facts {
            incarnation: Incarnation(incarnation),
            client_url: String::new(),
            state: State::Up,
            links: Vec::new(),
            protocol: 1,
            copies: 2,
            slots: 16384,
            weight: 1,
        },
    }
}

/// What the first of these sees if all the `up` ones are in the view.
pub(super) fn snapshot_of(members: Vec<Arc<LiveMember>>) -> Snapshot {
    let up = members.iter().filter(|member| member.facts.state == State::Up);
    Snapshot {
        me: members[0].id.clone(),
        view: View::new(up.map(|member| member.member())),
        targets: Vec::new(),
        relays: Default::default(),
        seeds: Vec::new(),
        seeded: true,
        linked: members.len() > 1,
        stalled: false,
        healthy: true,
        members,
    }
}
