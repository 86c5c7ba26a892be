//! What chitchat calls live, as the roster wants it: read once a change. Used by the gossip task.
use std::collections::BTreeMap;
use std::sync::Arc;

use chitchat::{ChitchatId, NodeState};

use super::facts::Facts;
use super::liveness::Sighting;
use super::roster::Roster;
use super::snapshot::LiveMember;
use crate::protocol::ids::NodeId;

/// What chitchat calls live.
#[derive(Default)]
pub(super) struct Live {
    pub(super) sightings: Vec<Sighting>,
    /// Version that a member's facts were read at; `None` if they couldn't be read.
    known: BTreeMap<ChitchatId, (u64, Option<Sighting>)>,
}

impl Live {
    /// Takes in the live nodes, and warns of those of another cluster.
    pub(super) fn read(&mut self, states: &BTreeMap<ChitchatId, NodeState>, roster: &Roster) {
        self.known.retain(|id, _| states.contains_key(id));
        for (id, state) in states {
            let version = state.max_version();
            let known = self.known.get(id);
            if known.is_some_and(|(read_at, _)| *read_at == version) {
                continue;
            }
            let sighting = read_sighting(id, state);
            let is_new = known.is_none_or(|(_, before)| before.is_none());
            if let Some(stranger) =
                sighting.as_ref().filter(|s| is_new && !roster.is_kin(&s.member))
            {
                let (facts, mine) = (&stranger.member.facts, &roster.me().facts);
                tracing::warn!(
                    peer = %stranger.member.id, slots = facts.slots, copies = facts.copies,
                    expected_slots = mine.slots, expected_copies = mine.copies, "member.refused"
                );
            }
            self.known.insert(id.clone(), (version, sighting));
        }
        self.sightings = self.known.values().filter_map(|(_, s)| s.clone()).collect();
    }
}

fn read_sighting(id: &ChitchatId, state: &NodeState) -> Option<Sighting> {
    let facts = match Facts::read(|key| state.get(key)) {
        Ok(facts) => facts,
        Err(error) => {
            tracing::debug!(peer = %id.node_id, %error, "member.unreadable");
            return None;
        }
    };
    let name = id.node_id.parse().ok()?;
    let member = LiveMember {
        id: NodeId { name, incarnation: facts.incarnation },
        address: id.gossip_advertise_addr,
        facts,
    };
    Some(Sighting { generation: id.generation_id, member: Arc::new(member) })
}
