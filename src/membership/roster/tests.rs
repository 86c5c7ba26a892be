//! From gossip and links to a snapshot: who is found, lost, and reached through whom.
use super::*;
use crate::membership::Lookout;
use crate::membership::stall::TICK_MS;
use crate::membership::tests::live_member;
use crate::membership::verdicts::Door;
use crate::ownership::serving::{Degraded, Serving, ServingGate};
use crate::ownership::view::NameHash;

/// A roster of node `a`, and what gossip and links tell it.
struct Desk {
    roster: Roster,
    now: Millis,
    sightings: Vec<Sighting>,
    linked: Vec<NodeId>,
    findings: Vec<Finding>,
    seeds: Seeds,
    state: State,
}

fn sighting(name: &str, address: u8) -> Sighting {
    let mut member = live_member(name, u128::from(name.as_bytes()[0]));
    member.address = ([127, 0, 0, address], 7400).into();
    member.facts.links = ["a", "b", "c"].map(|n| NameHash::of(&n.parse().unwrap())).into();
    member.facts.links.sort();
    Sighting { generation: 1, member: Arc::new(member) }
}

/// `a` with links to `b` and `c`.
fn desk() -> Desk {
    let me = live_member("a", 1);
    let config = MembershipConfig::new(me.id, 1, me.address);
    let sightings = vec![sighting("b", 2), sighting("c", 3)];
    Desk {
        roster: Roster::new(&config),
        now: Millis(0),
        linked: sightings.iter().map(|s| s.member.id.clone()).collect(),
        sightings,
        findings: Vec::new(),
        seeds: Seeds::default(),
        state: State::Up,
    }
}

impl Desk {
    fn after(&mut self, ms: u64) -> Snapshot {
        self.now = self.now + ms;
        self.roster.observe(
            self.now,
            Inputs {
                sightings: &self.sightings,
                linked: &self.linked,
                findings: &std::mem::take(&mut self.findings),
                seeds: &self.seeds,
                state: self.state,
                healthy: true,
            },
        )
    }

    /// Ticks in time for so long.
    fn runs_for(&mut self, ms: u64) -> Snapshot {
        for _ in 0..ms / TICK_MS {
            self.after(TICK_MS);
        }
        self.after(0)
    }
}

#[test]
fn a_process_that_was_stopped_believes_no_death_and_serves_nobody() {
    let mut desk = desk();
    let mut lookout = Lookout::new(64, ServingGate::new(2, Degraded::Accept));
    let before = desk.runs_for(1_000);
    assert_eq!(before.view.len(), 3);
    assert_eq!(lookout.observe(&before, true, desk.now).unwrap().serving, Serving::Full);

    desk.sightings.clear();
    desk.linked.clear();
    let resumed = desk.after(1_500);
    assert!(resumed.stalled);
    assert_eq!(resumed.view, before.view, "it sees itself alone, and doubts itself");
    assert_eq!(lookout.observe(&resumed, true, desk.now).unwrap().serving, Serving::No);
    assert_eq!(desk.runs_for(300).view, before.view);

    desk.sightings = vec![sighting("b", 2), sighting("c", 3)];
    desk.linked = desk.sightings.iter().map(|s| s.member.id.clone()).collect();
    let later = desk.runs_for(3_000);
    assert_eq!((later.stalled, &later.view), (false, &before.view));
}

#[test]
fn deaths_are_believed_when_the_doubt_is_over() {
    let mut desk = desk();
    desk.runs_for(1_000);
    desk.sightings.clear();
    assert_eq!(desk.after(1_000).view.len(), 3);
    let doubted_for = (1_000 - TICK_MS) + 3 * 100;
    assert_eq!(desk.runs_for(doubted_for - TICK_MS).view.len(), 3);
    assert_eq!(desk.runs_for(2 * TICK_MS).view.len(), 1);
}

/// Nobody is behind the port of this member.
fn refused(sighting: &Sighting) -> Finding {
    Finding { node: sighting.member.id.clone(), door: Door::Refused, link_answers: false }
}

#[test]
fn a_process_known_to_be_gone_leaves_at_once_and_gossip_does_not_bring_it_back() {
    let mut desk = desk();
    desk.runs_for(1_000);
    desk.findings = vec![refused(&desk.sightings[1])];
    let seen = desk.after(0);
    assert_eq!((seen.view.len(), seen.members.len()), (2, 2));
    assert_eq!(seen.dead, [desk.sightings[1].member.id.clone()]);
    desk.linked.pop();
    let later = desk.runs_for(3_000);
    assert_eq!(later.view, seen.view, "gossip calls it live all the time");
    let target = later.targets.iter().find(|t| t.address == desk.sightings[1].member.address);
    assert_eq!(target.map(|t| &t.id), Some(&None), "its address is tried again");
}

#[test]
fn a_new_link_of_a_node_taken_for_dead_brings_it_back() {
    let mut desk = desk();
    desk.runs_for(1_000);
    desk.findings = vec![refused(&desk.sightings[1])];
    let linked = desk.linked.clone();
    desk.after(0);
    desk.linked.pop();
    desk.after(TICK_MS);
    desk.linked = linked;
    let seen = desk.after(TICK_MS);
    assert_eq!((seen.members.len(), seen.dead.len()), (3, 0));
    assert_eq!(desk.runs_for(3_000).view.len(), 3, "as stable as anybody who was away");
}

#[test]
fn a_process_that_was_stopped_believes_nothing_of_doors() {
    let mut desk = desk();
    desk.runs_for(1_000);
    desk.findings = vec![refused(&desk.sightings[0]), refused(&desk.sightings[1])];
    let resumed = desk.after(1_500);
    assert_eq!((resumed.stalled, resumed.view.len(), resumed.dead.len()), (true, 3, 0));
}

#[test]
fn gossip_that_begins_anew_kills_nobody() {
    let mut desk = desk();
    desk.runs_for(1_000);
    desk.sightings.clear();
    desk.roster.doubt(desk.now, 150);
    assert_eq!(desk.runs_for(400).members.len(), 3);
    assert_eq!(desk.runs_for(200).members.len(), 1);
}

#[test]
fn what_gossip_says_of_this_node_is_of_no_account() {
    let mut desk = desk();
    let mut namesake = live_member("a", 99);
    namesake.facts.state = State::Leaving;
    desk.sightings.push(Sighting { generation: 9, member: Arc::new(namesake) });
    let snapshot = desk.after(TICK_MS);
    assert_eq!(snapshot.members.len(), 3);
    assert_eq!(snapshot.me().map(|me| (me.id.incarnation.0, me.facts.state)), Some((1, State::Up)));
    assert_eq!(snapshot.replaced_by.map(|member| member.id.incarnation.0), Some(99));
    desk.sightings[2].generation = 0;
    assert_eq!(desk.after(TICK_MS).replaced_by, None, "it started earlier");
}

#[test]
fn lost_members_are_targets_until_they_are_back_or_long_gone() {
    let mut desk = desk();
    desk.seeds.addresses = vec![([127, 0, 0, 3], 7400).into(), ([127, 0, 0, 9], 7400).into()];
    let targets = |snapshot: Snapshot| -> Vec<(u8, bool)> {
        let last = |address: SocketAddr| match address.ip() {
            std::net::IpAddr::V4(ip) => ip.octets()[3],
            std::net::IpAddr::V6(_) => 0,
        };
        snapshot.targets.into_iter().map(|t| (last(t.address), t.id.is_some())).collect()
    };
    assert_eq!(targets(desk.after(TICK_MS)), [(2, true), (3, true), (9, false)]);
    desk.sightings.remove(0);
    assert_eq!(targets(desk.runs_for(300)), [(3, true), (9, false), (2, false)]);
    desk.sightings.push(sighting("x", 2));
    assert_eq!(targets(desk.after(TICK_MS)), [(3, true), (2, true), (9, false)]);
    desk.sightings.pop();
    assert_eq!(targets(desk.runs_for(300)).len(), 3);
    desk.now = desk.now + LOST_FOR_MS;
    assert_eq!(targets(desk.runs_for(300)), [(3, true), (9, false)]);
}

#[test]
fn who_left_in_peace_is_no_target() {
    let mut desk = desk();
    Arc::make_mut(&mut desk.sightings[0].member).facts.state = State::Leaving;
    desk.after(TICK_MS);
    desk.sightings.remove(0);
    assert_eq!(desk.runs_for(300).targets.len(), 1);
}

#[test]
fn lost_addresses_are_bounded() {
    let mut desk = desk();
    desk.sightings = (0..100).map(|n| sighting(&format!("n{n}"), n)).collect();
    desk.after(TICK_MS);
    desk.sightings.clear();
    assert_eq!(desk.runs_for(300).targets.len(), LOST_MAX);
}
