//! Who is reached through whom: one hop over a peer that both reach. Pure.
use std::collections::BTreeMap;
use std::sync::Arc;

use super::snapshot::LiveMember;
use crate::ownership::view::NameHash;
use crate::protocol::ids::{Incarnation, NodeId};

/// Relays kept a member: enough to have another one when one fails.
pub const RELAYS_MAX: usize = 4;

/// For each live member that this node has no link with, the linked peers that list it as linked:
/// first those that it lists too, since of a link that breaks one end tells before the other, then by
/// their names. Members that nobody reaches are left out.
pub fn relays(
    me: &NodeId,
    members: &[Arc<LiveMember>],
    linked: &[NodeId],
) -> BTreeMap<Incarnation, Vec<Incarnation>> {
    let (near, far): (Vec<_>, Vec<_>) =
        members.iter().filter(|m| m.id != *me).partition(|member| linked.contains(&member.id));
    let relays_of = |member: &Arc<LiveMember>| -> Vec<Incarnation> {
        let name = NameHash::of(&member.id.name);
        let mut reach: Vec<_> = near.iter().filter(|peer| peer.lists(name)).collect();
        reach.sort_by_key(|peer| !member.lists(NameHash::of(&peer.id.name)));
        reach.iter().map(|peer| peer.id.incarnation).take(RELAYS_MAX).collect()
    };
    let reached = far.iter().map(|member| (member.id.incarnation, relays_of(member)));
    reached.filter(|(_, relays)| !relays.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::membership::tests::live_member;

    fn member(name: &str, links: &[&str]) -> Arc<LiveMember> {
        let mut member = live_member(name, u128::from(name.as_bytes()[0]));
        member.facts.links = links.iter().map(|l| NameHash::of(&l.parse().unwrap())).collect();
        member.facts.links.sort();
        Arc::new(member)
    }

    #[test]
    fn a_member_out_of_reach_is_relayed_by_who_reaches_both() {
        let members = [
            member("a", &["b", "c"]),
            member("b", &["a", "c", "d"]),
            member("c", &["a", "b"]),
            member("d", &["b"]),
            member("e", &[]),
        ];
        let linked = [members[1].id.clone(), members[2].id.clone()];
        let relays = relays(&members[0].id, &members, &linked);
        let expected = [(Incarnation(u128::from(b'd')), vec![Incarnation(u128::from(b'b'))])];
        assert_eq!(relays, BTreeMap::from(expected));
    }

    #[test]
    fn who_is_listed_by_both_ends_relays_first() {
        let members = [
            member("a", &["b", "c"]),
            member("b", &["a", "c", "d"]),
            member("c", &["a", "b", "d"]),
            member("d", &["c"]),
        ];
        let linked = [members[1].id.clone(), members[2].id.clone()];
        let [b, c, d] = [1, 2, 3].map(|index| members[index].id.incarnation);
        let relays = relays(&members[0].id, &members, &linked);
        assert_eq!(relays, BTreeMap::from([(d, vec![c, b])]));
    }

    #[test]
    fn a_link_to_an_older_incarnation_reaches_nobody() {
        let members = [member("a", &[]), member("b", &["c"]), member("c", &["b"])];
        let mut old = members[1].id.clone();
        old.incarnation = Incarnation(0);
        assert!(relays(&members[0].id, &members, &[old]).is_empty());
    }
}
