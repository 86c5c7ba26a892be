//! What membership sees at one moment, for the node, the links, the API and the cores.
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;

use super::facts::{Facts, State};
use crate::ownership::view::{Member, NameHash, View};
use crate::protocol::ids::{Incarnation, NodeId, NodeName};

/// A live node of this cluster.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LiveMember {
    /// Who it is.
    pub id: NodeId,
    /// Where peers reach it.
    pub address: SocketAddr,
    /// What it says of itself.
    pub facts: Facts,
}

impl LiveMember {
    /// As a part of a view.
    pub fn member(&self) -> Member {
        Member { id: self.id.clone(), weight: self.facts.weight }
    }

    /// Whether it says that it has a link with the node of this name.
    pub fn lists(&self, name: NameHash) -> bool {
        self.facts.links.binary_search(&name).is_ok()
    }
}

/// An address to have a link to.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Target {
    /// Where.
    pub address: SocketAddr,
    /// Who is there, by gossip; unknown for seeds, and for members that were lost.
    pub id: Option<NodeId>,
}

/// What membership sees at one moment.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Snapshot {
    /// This node.
    pub me: NodeId,
    /// Every live member, this node included, by name; one incarnation a name.
    pub members: Vec<Arc<LiveMember>>,
    /// Who counts for the placement.
    pub view: View,
    /// Whom to have links with: live members but this node, seeds, members lost of late.
    pub targets: Vec<Target>,
    /// For each live member without a direct link: the linked peers that list it as linked, in
    /// order of their names.
    pub relays: BTreeMap<Incarnation, Vec<Incarnation>>,
    /// Addresses behind the configured seeds, but for this node's own.
    pub seeds: Vec<SocketAddr>,
    /// Whether there is a seed that isn't this node itself.
    pub seeded: bool,
    /// Whether there is a working link to a peer.
    pub linked: bool,
    /// Incarnations whose process is known to be gone; of those gossip isn't believed for a while.
    pub dead: Vec<NodeId>,
    /// This node's own ticks came late: what it sees may be long past, and no death is believed.
    pub stalled: bool,
    /// Gossip runs; if not, this is what was seen last, and the node isn't ready.
    pub healthy: bool,
    /// A live process of this node's name that started later: the others believe in that one, and
    /// this node is to exit.
    pub replaced_by: Option<Arc<LiveMember>>,
}

impl Snapshot {
    /// What this node says of itself.
    pub fn me(&self) -> Option<&LiveMember> {
        self.member(self.me.incarnation)
    }

    /// A live member.
    pub fn member(&self, node: Incarnation) -> Option<&LiveMember> {
        self.members.iter().find(|member| member.id.incarnation == node).map(AsRef::as_ref)
    }

    /// Members that want to enter the view, this node included if it does.
    pub fn joining(&self) -> impl Iterator<Item = &LiveMember> {
        self.in_state(State::Joining)
    }

    /// Members that announced that they leave, this node included if it does.
    pub fn leaving(&self) -> impl Iterator<Item = &LiveMember> {
        self.in_state(State::Leaving)
    }

    /// Other members outside the view that don't join either: leaving, not eligible, or waiting
    /// to come back.
    pub fn outside(&self) -> impl Iterator<Item = &LiveMember> {
        let members = self.members.iter().map(AsRef::as_ref);
        members.filter(|member: &&LiveMember| {
            let apart = member.id != self.me && member.facts.state != State::Joining;
            apart && !self.view.contains(member.id.incarnation)
        })
    }

    /// Whether this node joins and doesn't know yet everybody whom the members that it knows are
    /// linked with: gossip reaches it one member at a time.
    pub fn is_partial(&self) -> bool {
        let known: BTreeSet<NameHash> =
            self.members.iter().map(|member| NameHash::of(&member.id.name)).collect();
        let joins = self.me().is_some_and(|me| me.facts.state == State::Joining);
        joins && self.members.iter().any(|m| m.facts.links.iter().any(|link| !known.contains(link)))
    }

    /// The names of the leaving.
    pub fn leaving_names(&self) -> Vec<NodeName> {
        self.leaving().map(|member| member.id.name.clone()).collect()
    }

    fn in_state(&self, state: State) -> impl Iterator<Item = &LiveMember> {
        let members = self.members.iter().map(AsRef::as_ref);
        members.filter(move |member: &&LiveMember| member.facts.state == state)
    }
}
