//! `may_serve`: whether this node may claim and acknowledge with the view that it has. The gate is
//! told what membership sees; it reads no clock and changes nothing but its own memory.
use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::ownership::view::View;
use crate::protocol::ids::NodeName;
use crate::protocol::time::Millis;

#[cfg(test)]
mod tests;

/// How long enough of the stable membership must have been seen before fewer copies are
/// acknowledged: longer than a paused process or a restarted peer takes to be back.
pub const DEGRADED_AFTER_MS: u64 = 3_000;
/// How long a view must not have changed to become the stable membership.
pub const STABLE_AFTER_MS: u64 = 10_000;

/// Whether a node may claim and acknowledge.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Serving {
    /// The view holds at least `copies` nodes.
    Full,
    /// No seed is configured and there never was a peer: fewer copies are acknowledged, and said so.
    Standalone,
    /// Enough of the stable membership was seen for long enough: likewise.
    Degraded,
    /// Operations are parked, then refused with a temporary error.
    #[default]
    No,
}

impl Serving {
    /// Whether claiming and acknowledging are allowed.
    pub fn allowed(self) -> bool {
        self != Self::No
    }

    /// How many nodes must hold what is acknowledged in a cluster that keeps `copies`, with `seen`
    /// nodes in the view. Only who serves with fewer copies on purpose counts what it sees.
    pub fn required(self, copies: u8, seen: usize) -> usize {
        let copies = usize::from(copies.max(1));
        match self {
            Self::No => 0,
            Self::Full => copies,
            Self::Standalone | Self::Degraded => seen.clamp(1, copies),
        }
    }
}

/// What to do when the view holds fewer nodes than there are copies.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Degraded {
    /// Serve if at least half of the stable membership is seen: two halves of an even split both
    /// do, and are united when they meet again.
    #[default]
    Half,
    /// Don't serve: nothing is ever acknowledged with fewer copies than configured.
    Refuse,
    /// Serve whoever is seen: always available, most to unite afterwards.
    Accept,
}

/// What membership sees at one moment.
#[derive(Clone, Copy, Debug)]
pub struct Sight<'a> {
    /// Who counts for the placement.
    pub view: &'a View,
    /// Whether there is a seed that isn't this node itself.
    pub seeded: bool,
    /// Whether there is a working link to a peer.
    pub linked: bool,
    /// Whether this node's own ticks come late: what it sees may be long past.
    pub stalled: bool,
    /// Whether everything that this node owns has its copies.
    pub repaired: bool,
    /// The names of the nodes that announced that they leave.
    pub leaving: &'a [NodeName],
}

/// Decides whether this node may serve, and remembers the stable membership for it.
#[derive(Clone, Debug)]
pub struct ServingGate {
    copies: usize,
    degraded: Degraded,
    /// A peer was linked or seen once: this node is no cluster of its own any more.
    had_peer: bool,
    had_link: bool,
    /// The view that has held since then.
    unchanged: Option<(u64, Millis)>,
    /// Names, so that a restarted node counts as the same one.
    stable: BTreeSet<NodeName>,
    /// Members of the last view that held enough nodes, less those that announced their leave.
    whole: BTreeSet<NodeName>,
    /// Since when there are too few nodes, but enough of the stable membership.
    enough_since: Option<Millis>,
}

impl ServingGate {
    /// A gate of a node that has seen nothing yet. `copies` is the configured number, 1 to 5.
    pub fn new(copies: u8, degraded: Degraded) -> Self {
        Self {
            copies: usize::from(copies.max(1)),
            degraded,
            had_peer: false,
            had_link: false,
            unchanged: None,
            stable: BTreeSet::new(),
            whole: BTreeSet::new(),
            enough_since: None,
        }
    }

    /// Takes in what is seen and tells whether this node may serve. To be called whenever something
    /// of it changes, and every 100 ms or so for what depends on time alone.
    pub fn observe(&mut self, now: Millis, sight: Sight<'_>) -> Serving {
        self.had_link |= sight.linked;
        self.had_peer |= sight.linked || sight.view.len() > 1;
        for name in sight.leaving {
            self.stable.remove(name);
            self.whole.remove(name);
        }
        if sight.stalled {
            // Whatever was seen before the stall doesn't count as seen without a break.
            self.unchanged = None;
            self.enough_since = None;
            return Serving::No;
        }
        let serving = self.judge(now, sight);
        self.learn(now, sight, serving);
        serving
    }

    /// The names that make up the stable membership, in order.
    pub fn stable(&self) -> impl Iterator<Item = &NodeName> {
        self.stable.iter()
    }

    fn judge(&mut self, now: Millis, sight: Sight<'_>) -> Serving {
        let waits_for_link = sight.seeded && !self.had_link;
        if waits_for_link || sight.view.is_empty() {
            self.enough_since = None;
            return Serving::No;
        }
        if sight.view.len() >= self.copies {
            self.enough_since = None;
            return Serving::Full;
        }
        if !sight.seeded && !self.had_peer {
            return Serving::Standalone;
        }
        if !self.sees_enough(sight.view) {
            self.enough_since = None;
            return Serving::No;
        }
        let since = *self.enough_since.get_or_insert(now);
        if now.since(since) >= DEGRADED_AFTER_MS || self.sees_all(sight.view) {
            return Serving::Degraded;
        }
        Serving::No
    }

    fn sees_enough(&self, view: &View) -> bool {
        match self.degraded {
            Degraded::Refuse => false,
            Degraded::Accept => true,
            Degraded::Half => {
                let half = !self.stable.is_empty() && self.holds_half_of_stable(view);
                half || self.sees_all(view)
            }
        }
    }

    /// Nobody is missing but nodes that announced their leave: there is nothing to wait for.
    fn sees_all(&self, view: &View) -> bool {
        let known = self.stable.iter().chain(&self.whole);
        let count = known.clone().count();
        count > 0 && count_in(view, known) == count
    }

    fn holds_half_of_stable(&self, view: &View) -> bool {
        2 * count_in(view, self.stable.iter()) >= self.stable.len()
    }

    fn learn(&mut self, now: Millis, sight: Sight<'_>, serving: Serving) {
        let hash = sight.view.hash();
        let since = match self.unchanged {
            Some((same, since)) if same == hash => since,
            _ => now,
        };
        self.unchanged = Some((hash, since));
        let names = || names_of(sight.view).filter(|name| !sight.leaving.contains(name)).cloned();
        match serving {
            // Alone by configuration: that is the whole cluster.
            Serving::Standalone => self.stable = names().collect(),
            Serving::Full => {
                self.whole = names().collect();
                if sight.repaired && now.since(since) >= STABLE_AFTER_MS {
                    if !self.holds_half_of_stable(sight.view) {
                        self.stable.extend(names());
                    } else {
                        self.stable = names().collect();
                    }
                }
            }
            // With fewer nodes than copies nothing is repaired, so nothing is stable.
            Serving::Degraded | Serving::No => {}
        }
    }
}

fn names_of(view: &View) -> impl Iterator<Item = &NodeName> {
    view.members().iter().map(|m| &m.id.name)
}

fn count_in<'a>(view: &View, names: impl Iterator<Item = &'a NodeName>) -> usize {
    let is_member = |name: &&NodeName| view.members().iter().any(|m| m.id.name == **name);
    names.filter(is_member).count()
}
