//! Learners: a joining node is given copies of what it will own or follow before it counts, as a
//! follower of the owners, so that its claim carries a small delta only. This is its own side: it
//! turns up once every owner says that it holds whole copies.
use std::collections::BTreeSet;

use super::out::Out;
use super::owner::Ownership;
use crate::protocol::ids::Incarnation;
use crate::protocol::time::Millis;

/// Joining nodes that see nobody in the view for this long, and always the same others, found a
/// cluster.
pub const FOUND_MS: u64 = 500;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Learning {
    /// The live nodes while the view is empty, and since when they are these.
    founding: Option<(Vec<Incarnation>, Millis)>,
    covered_by: BTreeSet<Incarnation>,
    announced: bool,
}

impl Ownership {
    /// Notes that an owner has told everything.
    pub(super) fn handle_covered(&mut self, from: Incarnation, out: &mut Out) {
        self.learning.covered_by.insert(from);
        self.check_caught_up(out);
    }

    /// Says, once, that every member of the view has told this joining node everything.
    pub(super) fn check_caught_up(&mut self, out: &mut Out) {
        let joining = self.world.joining.binary_search(&self.me).is_ok();
        let members = &self.world.members;
        let all = members.iter().all(|node| self.learning.covered_by.contains(node));
        if joining && !members.is_empty() && all && !self.learning.announced {
            self.learning.announced = true;
            out.caught_up = true;
        }
    }

    /// Nodes that join nobody but each other have nothing to be told: they found the cluster.
    pub(super) fn check_founding(&mut self, now: Millis, out: &mut Out) {
        let joining = self.world.joining.binary_search(&self.me).is_ok();
        let others = self.world.live.len() > 1;
        if !joining || !others || !self.world.members.is_empty() || self.learning.announced {
            self.learning.founding = None;
            return;
        }
        match &self.learning.founding {
            Some((live, since)) if *live == self.world.live => {
                if now.since(*since) >= FOUND_MS {
                    self.learning.announced = true;
                    out.caught_up = true;
                }
            }
            _ => self.learning.founding = Some((self.world.live.clone(), now)),
        }
    }
}
