//! What goes wrong, and how it ends.
use rand::Rng;

use orbweb::delivery::event::Event;
use orbweb::protocol::ids::Incarnation;

use super::{Due, World};
use crate::membership::{Seen, State};
use crate::scenario::Scenario;

impl World {
    /// A node dies, if the others can bear it: an operator restarts nodes one after the other, and
    /// only what copies are promised against may happen.
    pub(super) fn crash(&mut self) -> anyhow::Result<()> {
        let Some(node) = self.any_up().filter(|_| self.up().len() > 2) else { return Ok(()) };
        if !self.is_whole() {
            return Ok(());
        }
        let Some(number) = self.nodes.get(&node).map(|n| n.number) else { return Ok(()) };
        self.log(|| format!("{node:?} crashes"));
        self.outcome.mark("crash", 1);
        self.remove(node);
        let wait = self.random.random_range(50..3_000);
        self.plan(Due::Restart(number), wait);
        Ok(())
    }

    /// Whether every node says that nothing is under way and all copies are there,
    /// and knows of all others.
    fn is_whole(&self) -> bool {
        let known = |node: &super::Node| {
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
            let whole = idle && status.copies.under_replicated == 0 && node.state == State::Up;
            // What a paused node says is what it said last.
            whole && if node.paused.is_some() { !strict } else { known(node) }
        })
    }

    /// A node leaves, or one joins.
    pub(super) fn move_one(&mut self) -> anyhow::Result<()> {
        let busy = self.nodes.values().any(|node| node.state != State::Up);
        if busy {
            return Ok(());
        }
        if self.nodes.len() > 3 && self.random.random_bool(0.5) {
            let Some(node) = self.any_up() else { return Ok(()) };
            if let Some(leaver) = self.nodes.get_mut(&node) {
                leaver.state = State::Leaving;
            }
            self.log(|| format!("{node:?} leaves"));
            self.spread(node, State::Leaving);
            self.tell(node, Event::Leave)?;
        } else {
            let taken: Vec<usize> = self.nodes.values().map(|node| node.number).collect();
            let free = (0..).find(|number| !taken.contains(number)).unwrap_or(0);
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
        self.log(|| format!("{by:?} takes {whom:?} for dead"));
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
        self.log(|| format!("the link of {one:?} to {other:?} is cut, one way: {one_way}"));
        self.outcome.mark(if one_way { "one-way cut" } else { "cut" }, 1);
        self.network.cut(one, other, true);
        self.plan(Due::Mend(one, other), wait);
        if !one_way {
            self.network.cut(other, one, true);
            self.plan(Due::Mend(other, one), wait);
        }
    }

    pub(super) fn mend(&mut self, from: Incarnation, to: Incarnation) -> anyhow::Result<()> {
        self.log(|| format!("the link of {from:?} to {to:?} is back"));
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
        let wait = self.random.random_range(100..answered.clamp(1_000, 2_500));
        self.log(|| format!("{whom:?} pauses for {wait} ms"));
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
        let waiting = self.nodes.get_mut(&node).and_then(|node| node.paused.take());
        self.log(|| format!("{node:?} resumes"));
        if self.network.is_isolated(node) {
            let wait = self.random.random_range(20..300);
            self.plan(Due::LinksBegin(node), wait);
        }
        for event in waiting.into_iter().flatten() {
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

    /// A node takes another for dead that is paused.
    pub(super) fn unsee(&mut self, by: Incarnation, whom: Incarnation) -> anyhow::Result<()> {
        let gone = self.nodes.get_mut(&by).and_then(|node| node.seen.remove(&whom));
        if gone.is_some() { self.look(by, true) } else { Ok(()) }
    }

    fn mute_for_ever(&mut self, node: Incarnation) {
        self.log(|| format!("{node:?} is mute for ever"));
        self.outcome.mark("mute for ever", 1);
        self.network.mute(node);
        self.mute = Some(node);
        for client in self.clients.forget_node(node).subscribers {
            self.plan(Due::Resubscribe(client), 100);
        }
        for by in self.nodes.keys().copied().filter(|by| *by != node).collect::<Vec<_>>() {
            self.plan(Due::Unsee(by, node), 500);
        }
    }

    /// Faults stop, but for one node that may stay mute: everybody learns the truth.
    pub(super) fn settle(&mut self) -> anyhow::Result<()> {
        self.quiet = true;
        self.network.heal();
        self.log(|| "faults stop".to_owned());
        let spared = self.up().len() > usize::from(self.swarm.copies) && self.is_whole();
        if let Some(node) = self.any_up().filter(|_| self.swarm.mute_for_ever && spared) {
            self.mute_for_ever(node);
        }
        let truth: Vec<Seen> = self.truth();
        for by in self.nodes.keys().copied().collect::<Vec<_>>() {
            for seen in &truth {
                self.plan(Due::Learn { by, seen: seen.clone() }, 500);
            }
        }
        Ok(())
    }
}
