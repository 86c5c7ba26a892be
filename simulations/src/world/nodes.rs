//! The life of nodes, what they are told, and what they do.
use std::collections::BTreeMap;

use anyhow::Context as _;
use rand::Rng;

use orbweb::delivery::core::Core;
use orbweb::delivery::event::{Action, Event};
use orbweb::membership::stall::StallGuard;
use orbweb::ownership::serving::{Degraded, Serving, ServingGate};
use orbweb::protocol::ids::{Incarnation, NodeId};
use orbweb::protocol::peer::{Lane, Outcome, PeerFrame};
use orbweb::protocol::time::Millis;

use super::faults::LONGEST_PAUSE_MS;
use super::{Due, World};
use crate::checkers::holders::{self, Held};
use crate::clients::Gone;
use crate::membership::{Seen, State, node_id, outlook, serving};

/// Within this everybody has learned of a death, nodes that are paused briefly, too, so that nobody
/// counts who is dead for longer.
const REMEMBERED_MS: u64 = 3_500;
/// How often nodes gossip.
const GOSSIP_MS: u64 = 100;
/// How long a joining node waits for copies.
const JOIN_TIMEOUT_MS: u64 = 3_000;

pub(super) struct Node {
    pub(super) id: NodeId,
    pub(super) number: usize,
    pub(super) core: Core,
    pub(super) state: State,
    /// The states that this node believes others to be in.
    pub(super) seen: BTreeMap<Incarnation, Seen>,
    gate: ServingGate,
    /// Whether it was given a seed.
    seeded: bool,
    /// What its gate allowed last, and what it has heard of that.
    allowed: Option<Serving>,
    pub(super) told: Option<Serving>,
    pub(super) ticks: u64,
    /// What has come while the node is paused.
    pub(super) paused: Option<Vec<Event>>,
    /// Whether it doubts what it sees, because it has just resumed.
    stall: StallGuard,
}

impl World {
    /// Starts a node: the very first starts the cluster, others join as learners.
    pub(super) fn start(&mut self, number: usize, first: bool) -> anyhow::Result<Incarnation> {
        let id = node_id(number, self.random.random());
        let node = id.incarnation;
        let core = Core::new(node, self.settings(), self.random.random());
        let gate = ServingGate::new(self.swarm.copies, Degraded::Half);
        let state = if first { State::Up } else { State::Joining };
        let heard = self.nodes.values().filter(|n| !self.outcasts.contains(&n.id.incarnation));
        // Who was paused for so long that its links have ended is seen by nobody new: not before it goes
        // on, and then a moment later.
        let (isolated, seen): (Vec<&Node>, Vec<&Node>) =
            heard.partition(|n| self.network.is_isolated(n.id.incarnation));
        let as_seen = |n: &Node| Seen { id: n.id.clone(), state: n.state };
        let late: Vec<Seen> =
            isolated.into_iter().filter(|n| n.paused.is_none()).map(as_seen).collect();
        let mut seen: BTreeMap<Incarnation, Seen> =
            seen.into_iter().map(|n| (n.id.incarnation, as_seen(n))).collect();
        seen.insert(node, Seen { id: id.clone(), state });
        self.log(format_args!("{id} starts"));
        let (seeded, allowed, told) = (!first, None, None);
        let (ticks, paused, stall) = (0, None, StallGuard::new(GOSSIP_MS));
        let new = Node {
            id,
            number,
            core,
            state,
            seen,
            gate,
            seeded,
            allowed,
            told,
            ticks,
            paused,
            stall,
        };
        self.nodes.insert(node, new);
        self.last_change = self.now;
        self.plan(Due::Tick(node), 1);
        if !first {
            self.plan(Due::JoinTimeout(node), JOIN_TIMEOUT_MS);
        }
        self.spread(node, state);
        for seen in late {
            let wait = self.random.random_range(300..600);
            self.plan(Due::Learn { by: node, seen }, wait);
        }
        self.look(node, true)?;
        Ok(node)
    }

    /// Everybody learns of a node's state, each after a time of its own.
    pub(super) fn spread(&mut self, node: Incarnation, state: State) {
        let Some(id) = self.nodes.get(&node).map(|n| n.id.clone()) else { return };
        for by in self.nodes.keys().copied().collect::<Vec<_>>() {
            let wait = match state {
                State::Dead => self.random.random_range(400..900),
                _ if by == node => 1,
                _ => self.random.random_range(20..300),
            };
            self.plan(Due::Learn { by, seen: Seen { id: id.clone(), state } }, wait);
        }
    }

    pub(super) fn learn(&mut self, by: Incarnation, seen: Seen) -> anyhow::Result<()> {
        let alive = self.nodes.get(&seen.id.incarnation).map(|n| n.state);
        let whom = seen.id.incarnation;
        let outcast = |node| self.outcasts.contains(&node);
        if by != whom && (self.network.is_deaf(by) || outcast(whom) && seen.state != State::Dead) {
            return Ok(());
        }
        let Some(node) = self.nodes.get_mut(&by) else { return Ok(()) };
        let known = node.seen.get(&seen.id.incarnation);
        // News may arrive out of order; a state only advances.
        if known.is_some_and(|k| k.state >= seen.state) && alive.is_none_or(|a| a != seen.state) {
            return Ok(());
        }
        node.seen.insert(seen.id.incarnation, seen);
        self.look(by, true)
    }

    /// Looks whether a node may serve, and tells it if that or what it sees has changed.
    pub(super) fn look(&mut self, by: Incarnation, changed: bool) -> anyhow::Result<()> {
        let Some(node) = self.nodes.get_mut(&by) else { return Ok(()) };
        // A process that doesn't run judges nothing.
        if node.paused.is_some() {
            return Ok(());
        }
        let stalled = node.stall.observe(Millis(self.now));
        let seen: Vec<Seen> = node.seen.values().cloned().collect();
        let status = node.core.status();
        let repaired = status.slots_claiming == 0 && status.copies.unrepaired == 0;
        let me = (&node.id, node.seeded);
        let serving = serving(&mut node.gate, &seen, me, (repaired, stalled), Millis(self.now));
        if !changed && node.allowed == Some(serving) {
            return Ok(());
        }
        node.allowed = Some(serving);
        self.tell(by, Event::Outlook(outlook(&seen, self.swarm.slots, serving)))
    }

    pub(super) fn tell(&mut self, node: Incarnation, event: Event) -> anyhow::Result<()> {
        let Some(target) = self.nodes.get_mut(&node) else { return Ok(()) };
        if let Some(waiting) = &mut target.paused {
            if !matches!(event, Event::Tick) {
                waiting.push(event);
            }
            return Ok(());
        }
        if let Event::Outlook(outlook) = &event {
            target.told = Some(outlook.serving);
        }
        self.answerer = answerer(&event);
        let before = target.core.ownership().counts();
        let mut actions = Vec::new();
        target.core.handle(event, Millis(self.now), &mut actions);
        let after = target.core.ownership().counts();
        let claimed = (after.begun > before.begun).then_some(target.told).flatten();
        if self.checks {
            let ownership = target.core.ownership();
            self.promises.check((node, ownership), self.swarm.slots, claimed, self.now)?;
        }
        if after.begun > before.begun {
            self.claims(node);
        }
        if after.begun > before.begun || after.won > before.won {
            let slots = after.won - before.won;
            self.log(format_args!("{node:?} claims, or has won {slots} slots"));
        }
        self.outcome.mark_counts(before, after);
        for action in actions {
            self.act(node, action)?;
        }
        self.answerer = None;
        Ok(())
    }

    fn act(&mut self, node: Incarnation, action: Action) -> anyhow::Result<()> {
        match action {
            Action::Send { to, lane, frame } => {
                self.check_sent(node, &frame)?;
                for to in to {
                    self.send(node, to, lane, &frame)?;
                }
            }
            Action::Reply { to, reply } => self.replied(node, to, reply)?,
            Action::Deliver { delivery, .. } => self.delivered(node, &delivery)?,
            Action::Drained => {
                self.log(format_args!("{node:?} is drained"));
                self.outcome.mark("leave", 1);
                self.remove(node);
            }
            Action::CaughtUp => {
                self.outcome.mark("taught before up", 1);
                self.turn_up(node)?;
            }
            Action::Inspect { .. } | Action::Inspected { .. } => {}
        }
        Ok(())
    }

    /// Checks what an owner says to another node at the moment that it says it. What it says to its
    /// own clients: [`World::check_told`].
    fn check_sent(&self, owner: Incarnation, frame: &PeerFrame) -> anyhow::Result<()> {
        let PeerFrame::Result { slot, outcome, .. } = frame else { return Ok(()) };
        match *outcome {
            Outcome::Published { position: Some(position), copies } if self.checks => {
                self.check_enough(owner, copies)?;
                let core = self.nodes.get(&owner).map(|node| &node.core);
                let place = (*slot, position);
                let held = core.and_then(|core| holders::publication(core, &self.channels, place));
                held.map_or(Ok(()), |held| {
                    holders::check(&self.holders(self.remembered_ms()), *slot, held, copies)
                        .with_context(|| format!("{owner:?} acknowledges {position:?}"))
                })
            }
            Outcome::Changed { copies } if self.checks => self.check_enough(owner, copies),
            _ => Ok(()),
        }
    }

    /// Checks what a node tells its client that is held.
    pub(super) fn check_told(
        &self,
        node: Incarnation,
        held: Held<'_>,
        copies: u8,
    ) -> anyhow::Result<()> {
        if !self.checks {
            return Ok(());
        }
        if self.answerer.is_none() {
            self.check_enough(node, copies)?;
        }
        let (Held::Publication(channel, ..) | Held::Change(channel, _)) = held;
        // It may have hung itself since it was told.
        let holders = self.holders(2 * self.remembered_ms());
        holders::check(&holders, channel.slot(self.swarm.slots), held, copies)
            .with_context(|| format!("{node:?} tells a client"))
    }

    fn check_enough(&self, owner: Incarnation, copies: u8) -> anyhow::Result<()> {
        let serving = self.nodes.get(&owner).and_then(|node| node.told);
        holders::check_enough(owner, serving, self.swarm.copies, copies)
    }

    /// Who lives, and who died within this: it held what it said that it held.
    fn holders(&self, died_within_ms: u64) -> Vec<(Incarnation, &Core)> {
        let living = self.nodes.iter().map(|(node, n)| (*node, &n.core));
        let dead = self.dead.iter().filter(|(at, ..)| self.now - at < died_within_ms);
        living.chain(dead.map(|(_, node, core)| (*node, core))).collect()
    }

    fn send(
        &mut self,
        from: Incarnation,
        to: Incarnation,
        lane: Lane,
        frame: &PeerFrame,
    ) -> anyhow::Result<()> {
        for (at, flight) in
            self.network.send((from, to, lane), frame, self.now, &mut self.random)?
        {
            self.sent.frames += 1;
            self.sent.bytes += flight.bytes().len() as u64;
            if flight.lane == Lane::Bulk {
                self.copies(from, to, at);
            }
            self.plan_at(Due::Arrive(flight), at);
        }
        Ok(())
    }

    pub(super) fn turn_up(&mut self, node: Incarnation) -> anyhow::Result<()> {
        if let Some(joiner) = self.nodes.get_mut(&node)
            && joiner.state == State::Joining
        {
            joiner.state = State::Up;
            self.log(format_args!("{node:?} turns up"));
            self.spread(node, State::Up);
        }
        Ok(())
    }

    /// A node and its connections are gone; its clients look for another.
    pub(super) fn remove(&mut self, node: Incarnation) {
        if self.nodes.contains_key(&node) {
            self.spread(node, State::Dead);
            let gone = self.nodes.remove(&node);
            self.last_change = self.now;
            let longest_ms = 2 * self.remembered_ms();
            self.dead.retain(|(at, ..)| self.now - at < longest_ms);
            self.dead.extend(gone.map(|gone| (self.now, node, gone.core)));
            let Gone { subscribers, unknown } = self.clients.forget_node(node);
            for client in subscribers {
                let wait = self.random.random_range(20..500);
                self.plan(Due::Resubscribe(client), wait);
            }
            for (channel, payload) in unknown {
                self.plan(Due::Repeat { channel, payload }, 300);
            }
        }
    }

    /// For how long somebody may count on who is dead.
    fn remembered_ms(&self) -> u64 {
        let paused_ms = if self.swarm.long_pauses { LONGEST_PAUSE_MS } else { 0 };
        REMEMBERED_MS + paused_ms
    }

    pub(super) fn up(&self) -> Vec<Incarnation> {
        let up = self
            .nodes
            .iter()
            .filter(|(node, n)| n.state == State::Up && !self.outcasts.contains(node));
        up.map(|(node, _)| *node).collect()
    }

    pub(super) fn any_up(&mut self) -> Option<Incarnation> {
        let up = self.up();
        (!up.is_empty()).then(|| up[self.random.random_range(0..up.len())])
    }

    /// The nodes that can be heard, as they are.
    pub(super) fn truth(&self) -> Vec<Seen> {
        let heard = self.nodes.values().filter(|n| !self.outcasts.contains(&n.id.incarnation));
        heard.map(|node| Seen { id: node.id.clone(), state: node.state }).collect()
    }
}

/// Who answers what clients of the node asked that this happens to.
fn answerer(event: &Event) -> Option<Incarnation> {
    let Event::Frames { from, frames } = event else { return None };
    let answers =
        |frame: &PeerFrame| matches!(frame, PeerFrame::Result { .. } | PeerFrame::Answer { .. });
    frames.iter().any(answers).then_some(*from)
}
