//! Nodes that die: when they may, amid what, and what dies with them.
use std::collections::BTreeMap;

use rand::Rng;

use orbweb::protocol::ids::Incarnation;
use orbweb::protocol::peer::{Lane, PeerFrame};

use super::{Due, Node, World};
use crate::checkers::kept;
use crate::membership::State;
use crate::scenario::Scenario;

/// Who has died is back within this.
pub(super) const RESTART_MS: u64 = 3_000;

/// How often it is looked whether a node may die that is to.
const BORNE_LOOK_MS: u64 = 100;

/// Within this others are confused: until what the dead one owned has been taken over.
const CONFUSED_MS: u64 = 1_500;

/// Amid what a node dies while a copy is missing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Amid {
    /// It claims slots.
    Claim,
    /// It is sent a copy, or sends one.
    Copy,
}

impl Amid {
    fn mark(self) -> &'static str {
        match self {
            Self::Claim => "crash amid a claim",
            Self::Copy => "crash amid a copy",
        }
    }
}

impl World {
    /// A node dies, as soon as the others can bear it: an operator restarts nodes one after the other,
    /// and only what copies are promised against may happen.
    pub(super) fn crash(&mut self) -> anyhow::Result<()> {
        // Who was in trouble lately is restarted as often as all others.
        let doubted = self.doubted.filter(|node| self.up().contains(node));
        let doubted = doubted.filter(|_| self.random.random_bool(0.5));
        let node = doubted.or_else(|| self.any_up());
        let node = node.filter(|_| self.up().len() > 2 && self.is_whole());
        let wait = if node.is_some() { self.swarm.crash_every_ms } else { BORNE_LOOK_MS };
        self.plan_fault(wait, Due::Crash);
        let Some(node) = node else { return Ok(()) };
        self.missing = 0;
        // Of three copies two may be lost.
        let spared = self.swarm.copies > 2;
        self.worst = match self.random.random_range(0..4) {
            0 if spared => Some(Amid::Claim),
            1 if spared => Some(Amid::Copy),
            _ => None,
        };
        self.die(node)
    }

    /// A node claims.
    pub(super) fn claims(&mut self, node: Incarnation) {
        if self.worst.take_if(|amid| *amid == Amid::Claim).is_some() {
            // A question and its answer.
            let wait = self.random.random_range(0..=2 * self.swarm.latency_ms);
            self.plan(Due::CrashAmid(Amid::Claim, node), wait);
        }
    }

    /// A part of a copy is on its way until then.
    pub(super) fn copies(&mut self, from: Incarnation, to: Incarnation, until: u64) {
        if self.worst.take_if(|amid| *amid == Amid::Copy).is_some() {
            let node = if self.random.random_bool(0.5) { from } else { to };
            let wait = self.random.random_range(0..=until - self.now);
            self.plan(Due::CrashAmid(Amid::Copy, node), wait);
        }
    }

    /// A second node dies before what the first one held is held by others, if it is still amid that.
    pub(super) fn crash_amid(&mut self, amid: Amid, node: Incarnation) -> anyhow::Result<()> {
        let up = self.up();
        if self.missing != 1 || self.is_whole() {
            return Ok(());
        }
        if up.len() < 3 || !up.contains(&node) || !self.is_amid(amid, node) {
            self.worst = Some(amid);
            return Ok(());
        }
        self.outcome.mark(amid.mark(), 1);
        self.log(amid.mark());
        self.die(node)
    }

    fn is_amid(&self, amid: Amid, node: Incarnation) -> bool {
        match amid {
            Amid::Claim => {
                self.nodes.get(&node).is_some_and(|n| n.core.status().slots_claiming > 0)
            }
            Amid::Copy => self.what.values().any(|due| {
                let Due::Arrive(flight) = due else { return false };
                flight.lane == Lane::Bulk && [flight.from, flight.to].contains(&node)
            }),
        }
    }

    fn die(&mut self, node: Incarnation) -> anyhow::Result<()> {
        let Some(number) = self.nodes.get(&node).map(|n| n.number) else { return Ok(()) };
        self.log(format_args!("{node:?} crashes"));
        self.outcome.mark("crash", 1);
        self.missing += 1;
        self.confuse();
        self.cut_short(node)?;
        self.remove(node);
        let wait = self.random.random_range(50..RESTART_MS);
        self.plan(Due::Restart(number), wait);
        let living: Vec<_> = self.nodes.iter().map(|(node, n)| (*node, &n.core)).collect();
        kept::check_held(&living, &self.clients, self.swarm.slots)
    }

    /// What ends a node may disturb others, too: of those who take over from it some take some more
    /// for dead, while they claim or a little before or after.
    fn confuse(&mut self) {
        if self.swarm.suspect_every_ms > 0 && self.random.random_bool(0.5) {
            for _ in 0..self.random.random_range(0..2 * self.nodes.len()) {
                let wait = self.random.random_range(0..CONFUSED_MS);
                self.plan(Due::SuspectMore, wait);
            }
        }
    }

    /// Of what a dying node has sent each lane of each link loses what is behind some point.
    fn cut_short(&mut self, node: Incarnation) -> anyhow::Result<()> {
        let mut lanes: BTreeMap<(Incarnation, Lane), Vec<(u64, u64)>> = BTreeMap::new();
        for (key, due) in &self.what {
            if let Due::Arrive(flight) = due
                && flight.from == node
            {
                lanes.entry((flight.to, flight.lane)).or_default().push(*key);
            }
        }
        for mut keys in lanes.into_values() {
            let arrive = self.random.random_range(0..=keys.len());
            let lost = keys.split_off(arrive);
            self.network.lose(lost.len());
            for key in lost {
                let Some(Due::Arrive(flight)) = self.what.remove(&key) else { continue };
                if let PeerFrame::Replicate { tails } = flight.frame()?
                    && tails.iter().any(|tail| !tail.changes.is_empty())
                {
                    self.outcome.mark("crash before replicate", 1);
                }
            }
        }
        Ok(())
    }

    /// Whether every node says that nothing is under way and all copies are there,
    /// and knows of all others.
    pub(super) fn is_whole(&self) -> bool {
        let known = |node: &Node| {
            let living = self.nodes.values().all(|other| {
                node.seen.get(&other.id.incarnation).is_some_and(|seen| seen.state == other.state)
            });
            let dead = node
                .seen
                .iter()
                .all(|(other, seen)| seen.state == State::Dead || self.nodes.contains_key(other));
            living && dead
        };
        // Two that are out of order at once may be all that hold something.
        let strict = self.swarm.scenario == Scenario::Crashes;
        self.nodes.values().all(|node| {
            let status = node.core.status();
            let idle = status.slots_claiming == 0 && status.parked == 0;
            let whole = idle && status.copies.is_whole() && node.state == State::Up;
            // What a paused node says is what it said last.
            whole && if node.paused.is_some() { !strict } else { known(node) }
        })
    }
}
