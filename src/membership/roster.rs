//! From gossip and links to a snapshot. Pure: called by the gossip task with what it has, and with
//! the time.
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use super::config::MembershipConfig;
use super::facts::State;
use super::links::LinkReport;
use super::liveness::{Liveness, Sighting};
use super::relay::relays;
use super::seeds::Seeds;
use super::snapshot::{LiveMember, Snapshot, Target};
use super::stall::StallGuard;
use super::verdicts::{Finding, Verdicts};
use super::view_tracker::ViewTracker;
use crate::ownership::view::Candidate;
use crate::protocol::ids::NodeId;
use crate::protocol::time::Millis;

#[cfg(test)]
mod tests;

/// Addresses of lost members that are tried again, so that a long partition heals without seeds.
pub const LOST_MAX: usize = 64;
/// How long they are.
pub const LOST_FOR_MS: u64 = 3_600_000;

/// What the gossip task has at one moment.
#[derive(Clone, Copy, Debug)]
pub struct Inputs<'a> {
    /// Whom gossip calls live; of this node itself it needn't speak.
    pub sightings: &'a [Sighting],
    /// Peers with a working link.
    pub linked: &'a [NodeId],
    /// What was found since the last time, at doors of members whose connection ended.
    pub findings: &'a [Finding],
    /// What is known of the seeds.
    pub seeds: &'a Seeds,
    /// Where this node is in its life.
    pub state: State,
    /// Whether gossip runs.
    pub healthy: bool,
}

/// Remembers what a snapshot needs of the past.
#[derive(Debug)]
pub struct Roster {
    me: Arc<LiveMember>,
    generation: u64,
    stall: StallGuard,
    liveness: Liveness,
    verdicts: Verdicts,
    links: LinkReport,
    tracker: ViewTracker,
    lost: BTreeMap<SocketAddr, Millis>,
}

impl Roster {
    /// A roster that holds this node alone.
    pub fn new(config: &MembershipConfig) -> Self {
        let millis = |duration: std::time::Duration| duration.as_millis() as u64;
        let me = LiveMember {
            id: config.id.clone(),
            address: config.link_address,
            facts: config.facts(State::Joining),
        };
        Self {
            me: Arc::new(me),
            generation: config.generation,
            stall: StallGuard::new(millis(config.detector.gossip_interval)),
            liveness: Liveness::new(millis(config.detector.hold)),
            verdicts: Verdicts::new(&config.detector),
            links: LinkReport::default(),
            tracker: ViewTracker::new(config.id.incarnation),
            lost: BTreeMap::new(),
        }
    }

    /// What this node is to say of itself.
    pub fn me(&self) -> &LiveMember {
        &self.me
    }

    /// What is seen at this moment. To be called at least every [`super::stall::TICK_MS`].
    pub fn observe(&mut self, now: Millis, inputs: Inputs<'_>) -> Snapshot {
        let stalled = self.stall.observe(now);
        inputs.findings.iter().for_each(|finding| self.verdicts.hear(now, stalled, finding));
        self.verdicts.observe(now, inputs.linked);
        self.describe_me(now, inputs);
        let members = self.members(now, stalled, inputs.sightings);
        let up = members.iter().filter(|member| member.facts.state == State::Up);
        let candidate = |m: &Arc<LiveMember>| {
            let (links, awaits) = (m.facts.links.clone(), m.facts.awaits.clone());
            Candidate { member: m.member(), links, awaits }
        };
        let candidates = up.map(candidate).collect();
        let view = self.tracker.observe(now, candidates);
        let awaits = self.tracker.awaits();
        if self.me.facts.awaits != awaits {
            Arc::make_mut(&mut self.me).facts.awaits = awaits;
        }
        Snapshot {
            me: self.me.id.clone(),
            view,
            targets: self.targets(&members, inputs.seeds),
            relays: relays(&self.me.id, &members, inputs.linked),
            seeds: inputs.seeds.addresses.clone(),
            seeded: inputs.seeds.foreign,
            linked: !inputs.linked.is_empty(),
            dead: self.verdicts.dead(),
            stalled,
            healthy: inputs.healthy,
            replaced_by: self.replaced_by(inputs.sightings),
            members,
        }
    }

    /// Gossip begins anew after `deaf_ms` without it: that nobody is live yet is no news.
    pub fn doubt(&mut self, now: Millis, deaf_ms: u64) {
        self.stall.doubt(now, deaf_ms);
    }

    fn describe_me(&mut self, now: Millis, inputs: Inputs<'_>) {
        let links = self.links.observe(now, inputs.linked);
        let facts = &self.me.facts;
        if facts.links != links || facts.state != inputs.state {
            let me = Arc::make_mut(&mut self.me);
            me.facts.links = links;
            me.facts.state = inputs.state;
        }
    }

    /// Live members of this cluster by name, this node as it knows itself.
    fn members(
        &mut self,
        now: Millis,
        stalled: bool,
        sightings: &[Sighting],
    ) -> Vec<Arc<LiveMember>> {
        for dead in self.liveness.observe(now, stalled, sightings, &self.verdicts) {
            if dead.facts.state != State::Leaving {
                self.lost.insert(dead.address, now);
            }
        }
        let others =
            self.liveness.live().filter(|m| m.id.name != self.me.id.name && self.is_kin(m));
        let mut members: Vec<Arc<LiveMember>> = others.chain([&self.me]).cloned().collect();
        members.sort_by(|one, other| one.id.cmp(&other.id));
        self.forget_lost(now, &members);
        members
    }

    fn replaced_by(&self, sightings: &[Sighting]) -> Option<Arc<LiveMember>> {
        let (id, generation) = (&self.me.id, self.generation);
        let later = sightings.iter().find(|s| {
            let its = &s.member.id;
            its.name == id.name && its.incarnation != id.incarnation && s.generation > generation
        });
        later.map(|sighting| sighting.member.clone())
    }

    /// A member with other slots or copies is of another cluster, whatever it calls itself.
    pub fn is_kin(&self, member: &LiveMember) -> bool {
        let (mine, its) = (&self.me.facts, &member.facts);
        (mine.slots, mine.copies) == (its.slots, its.copies)
    }

    fn forget_lost(&mut self, now: Millis, members: &[Arc<LiveMember>]) {
        self.lost.retain(|address, at| {
            now.since(*at) < LOST_FOR_MS && members.iter().all(|member| member.address != *address)
        });
        while self.lost.len() > LOST_MAX {
            let oldest = self.lost.iter().min_by_key(|(_, at)| **at).map(|(address, _)| *address);
            self.lost.remove(&oldest.unwrap_or(self.me.address));
        }
    }

    fn targets(&self, members: &[Arc<LiveMember>], seeds: &Seeds) -> Vec<Target> {
        let others = members.iter().filter(|member| member.id != self.me.id);
        let mut targets: Vec<Target> =
            others.map(|m| Target { address: m.address, id: Some(m.id.clone()) }).collect();
        for &address in seeds.addresses.iter().chain(self.lost.keys()) {
            if targets.iter().all(|target| target.address != address) {
                targets.push(Target { address, id: None });
            }
        }
        targets
    }
}
