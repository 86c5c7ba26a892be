//! What goes wrong, and how it ends.
use rand::Rng;

use orbweb::delivery::event::Event;
use orbweb::protocol::ids::Incarnation;
use orbweb::protocol::peer::Lane;

use super::{Due, World};
use crate::membership::{Seen, State};
use crate::scenario::Scenario;

/// How long an operator stops a process at most.
pub(super) const LONGEST_PAUSE_MS: u64 = 30_000;

impl World {
    /// A node leaves, or one joins.
    pub(super) fn move_one(&mut self) -> anyhow::Result<()> {
        // While nodes hang for so long that their links have ended nobody takes others away: to who is
        // left alone there is nobody to hand over to.
        let busy = |node: &super::Node| {
            node.state != State::Up || self.network.is_isolated(node.id.incarnation)
        };
        if self.nodes.values().any(busy) {
            return Ok(());
        }
        if self.nodes.len() > 3 && self.random.random_bool(0.5) {
            let Some(node) = self.any_up() else { return Ok(()) };
            if let Some(leaver) = self.nodes.get_mut(&node) {
                leaver.state = State::Leaving;
            }
            self.log(format_args!("{node:?} leaves"));
            self.spread(node, State::Leaving);
            self.tell(node, Event::Leave)?;
        } else {
            let taken: Vec<usize> = self.nodes.values().map(|node| node.number).collect();
            let free = (0..).find(|number| !taken.contains(number)).unwrap_or(0);
            self.outcome.mark("join", 1);
            self.start(free, false)?;
        }
        Ok(())
    }

    /// A node takes another for dead that isn't, for a while.
    pub(super) fn suspect(&mut self) -> anyhow::Result<()> {
        let (Some(by), Some(whom)) = (self.any_up(), self.any_up()) else { return Ok(()) };
        let Some(node) = self.nodes.get_mut(&by).filter(|_| by != whom) else { return Ok(()) };
        // Who is away already is believed in again in its own time.
        if node.seen.get(&whom).is_none_or(|seen| seen.state != State::Up) {
            return Ok(());
        }
        let Some(seen) = node.seen.remove(&whom) else { return Ok(()) };
        self.log(format_args!("{by:?} takes {whom:?} for dead"));
        self.doubted = Some(whom);
        self.outcome.mark("taken for dead", 1);
        self.look(by, true)?;
        let wait = self.random.random_range(100..2_500);
        self.plan(Due::Learn { by, seen }, wait);
        Ok(())
    }

    /// A link loses everything for a while, both ways or one way.
    pub(super) fn cut(&mut self) {
        let (Some(one), Some(other)) = (self.any_up(), self.any_up()) else { return };
        if one == other {
            return;
        }
        let one_way = self.random.random_bool(0.3);
        let wait = self.random.random_range(50..2_500);
        self.log(format_args!("the link of {one:?} to {other:?} is cut, one way: {one_way}"));
        self.outcome.mark(if one_way { "one-way cut" } else { "cut" }, 1);
        self.network.cut(one, other, true);
        self.plan(Due::Mend(one, other), wait);
        if !one_way {
            self.network.cut(other, one, true);
            self.plan(Due::Mend(other, one), wait);
        }
    }

    pub(super) fn mend(&mut self, from: Incarnation, to: Incarnation) -> anyhow::Result<()> {
        self.log(format_args!("the link of {from:?} to {to:?} is back"));
        self.network.cut(from, to, false);
        if self.nodes.contains_key(&to) {
            self.tell(from, Event::LinkDown(to))?;
            self.tell(from, Event::LinkUp(to))?;
        }
        Ok(())
    }

    /// A node handles nothing for a while, then everything. If it takes long, all others take it
    /// for dead.
    pub(super) fn pause(&mut self) {
        let Some(whom) = self.any_up() else { return };
        // Where nothing may be lost, only one node at a time is out of order.
        let alone = self.swarm.scenario != Scenario::Crashes || self.is_whole();
        let paused = self.nodes.values().any(|node| node.paused.is_some());
        if !alone || paused && self.swarm.scenario == Scenario::Crashes {
            return;
        }
        let Some(node) = self.nodes.get_mut(&whom).filter(|node| node.paused.is_none()) else {
            return;
        };
        node.paused = Some(Vec::new());
        // Not for more publications than one answer carries to a client that was there.
        let answered = self.swarm.publish_every_ms * self.swarm.channels as u64 * 200;
        let longest = answered.clamp(1_000, 2_500);
        let longest = if self.swarm.long_pauses { LONGEST_PAUSE_MS } else { longest };
        let wait = self.random.random_range(100..longest);
        self.log(format_args!("{whom:?} pauses for {wait} ms"));
        self.outcome.mark("pause", 1);
        self.plan(Due::Resume(whom), wait);
        if wait > self.swarm.idle_ms {
            self.plan(Due::LinksEnd(whom), self.swarm.idle_ms);
        }
        if wait > 800 {
            for by in self.nodes.keys().copied().filter(|by| *by != whom).collect::<Vec<_>>() {
                let noticed = self.random.random_range(500..800);
                self.plan(Due::Unsee(by, whom), noticed);
            }
        }
    }

    pub(super) fn resume(&mut self, node: Incarnation) -> anyhow::Result<()> {
        let Some(waiting) = self.nodes.get_mut(&node).and_then(|node| node.paused.take()) else {
            return Ok(());
        };
        self.log(format_args!("{node:?} resumes"));
        if self.network.is_isolated(node) {
            let wait = self.random.random_range(20..300);
            self.plan(Due::LinksBegin(node), wait);
        }
        for event in waiting {
            self.tell(node, event)?;
        }
        self.look(node, true)?;
        // Who took it for dead sees it soon, and counts it again after a while.
        let Some(id) = self.nodes.get(&node).map(|node| node.id.clone()) else { return Ok(()) };
        for by in self.nodes.keys().copied().filter(|by| *by != node).collect::<Vec<_>>() {
            let away = Seen { id: id.clone(), state: State::Away };
            let back = Seen { id: id.clone(), state: State::Up };
            let soon = self.random.random_range(50..200);
            let counted = self.random.random_range(2_000..2_300);
            let counts =
                |by: &super::Node| by.seen.get(&node).is_some_and(|seen| seen.state == State::Up);
            if self.nodes.get(&by).is_some_and(|by| !counts(by)) {
                self.plan(Due::Learn { by, seen: away }, soon);
                self.plan(Due::Learn { by, seen: back }, counted);
            }
        }
        Ok(())
    }

    /// The links of a node that is paused end.
    pub(super) fn links_end(&mut self, node: Incarnation) {
        if self.nodes.get(&node).is_some_and(|node| node.paused.is_some()) {
            self.network.isolate(node, true);
        }
    }

    /// The links of a node that was paused for long are new, unless it is paused again.
    pub(super) fn links_begin(&mut self, node: Incarnation) -> anyhow::Result<()> {
        if self.nodes.get(&node).is_none_or(|node| node.paused.is_some()) {
            return Ok(());
        }
        self.network.isolate(node, false);
        for other in self.nodes.keys().copied().filter(|other| *other != node).collect::<Vec<_>>() {
            self.mend(node, other)?;
            self.mend(other, node)?;
        }
        Ok(())
    }

    /// A node takes another for dead that is paused still, or that it can't hear.
    pub(super) fn unsee(&mut self, by: Incarnation, whom: Incarnation) -> anyhow::Result<()> {
        let paused = self.nodes.get(&whom).is_some_and(|node| node.paused.is_some());
        if !paused && ![by, whom].iter().any(|node| self.outcasts.contains(node)) {
            return Ok(());
        }
        let gone = self.nodes.get_mut(&by).and_then(|node| node.seen.remove(&whom));
        if gone.is_some() { self.look(by, true) } else { Ok(()) }
    }

    /// Some are heard by nobody or hear nobody for ever: a minority of the nodes, and of the holders of
    /// whatever it is.
    fn cast_out(&mut self) {
        if !self.is_whole() {
            return;
        }
        let all = self.up().len();
        let mute = std::iter::repeat_n(true, self.swarm.mute_for_ever.into());
        let deaf = std::iter::repeat_n(false, self.swarm.deaf_for_ever.into());
        for mute in mute.chain(deaf) {
            let out = self.outcasts.len() + 1;
            let copies = usize::from(self.swarm.copies);
            if out < copies && all - out >= copies && out * 2 < all {
                let up = self.up();
                let node = up[self.random.random_range(0..up.len())];
                self.cast_out_one(node, mute);
            }
        }
    }

    fn cast_out_one(&mut self, node: Incarnation, mute: bool) {
        let kind = if mute { "mute for ever" } else { "deaf for ever" };
        self.log(format_args!("{node:?} is {kind}"));
        self.outcome.mark(kind, 1);
        if !self.outcasts.is_empty() {
            self.outcome.mark("two out for ever", 1);
        }
        self.outcasts.insert(node);
        for client in self.clients.forget_node(node).subscribers {
            self.plan(Due::Resubscribe(client), 100);
        }
        let others: Vec<Incarnation> =
            self.nodes.keys().copied().filter(|other| *other != node).collect();
        for other in others {
            self.plan(Due::Unsee(other, node), 500);
            if !mute {
                self.plan(Due::Unsee(node, other), 500);
            }
        }
        if mute {
            self.network.mute(node);
        } else {
            self.network.deafen(node);
        }
    }

    /// What was long on its way arrives by `soon`, in the order in which it was to.
    fn hurry(&mut self, soon: u64) {
        let slow = |((at, _), what): (&(u64, u64), &Due)| {
            *at > soon && matches!(what, Due::Arrive(flight) if flight.lane == Lane::Bulk)
        };
        let slow: Vec<(u64, u64)> =
            self.what.iter().filter(|planned| slow(*planned)).map(|(key, _)| *key).collect();
        for key in slow {
            let arrives = self.what.remove(&key);
            arrives.into_iter().for_each(|what| self.plan_at(what, soon));
        }
    }

    /// Faults stop, but for nodes that may stay mute or deaf: links are whole, who is paused goes on,
    /// and everybody learns the truth.
    pub(super) fn settle(&mut self) -> anyhow::Result<()> {
        self.quiet = true;
        let soon = self.network.heal(self.now);
        self.hurry(soon);
        self.log("faults stop");
        for (from, to) in self.network.cuts().clone() {
            self.mend(from, to)?;
        }
        for node in self.nodes.keys().copied().collect::<Vec<_>>() {
            self.resume(node)?;
        }
        self.cast_out();
        let truth: Vec<Seen> = self.truth();
        for by in self.nodes.keys().copied().collect::<Vec<_>>() {
            for seen in &truth {
                self.plan(Due::Learn { by, seen: seen.clone() }, 500);
            }
        }
        Ok(())
    }
}
