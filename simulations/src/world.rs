//! The world of a run: one thread, one clock, one seeded generator; nodes, each with a view of its
//! own, and clients on them. A faulty phase, then a quiet one in which everything must settle.
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::fmt;
use std::sync::Arc;

use anyhow::Context as _;
use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use xxhash_rust::xxh3::Xxh3;

use orbweb::delivery::core::Core;
use orbweb::delivery::event::{
    Action, Ask, Delivery, DeliveryBody, Event, Outlook, Recover, Reply, Request, RequestId,
    ShardId, TICK_MS,
};
use orbweb::ownership::placement::Placement;
use orbweb::protocol::channel::Channel;
use orbweb::protocol::ids::{ClientId, Incarnation, NodeId};
use orbweb::protocol::message::{ClientInfo, Message};
use orbweb::protocol::peer::PeerFrame;
use orbweb::protocol::time::Millis;

use crate::checkers::{converged, kept, promises::Promises};
use crate::clients::{Asked, Clients, STREAM, Subscriber};
use crate::membership::{Seen, State, node_id, outlook};
use crate::network::{Flight, Network};
use crate::options::{Scenario, Swarm};

/// How long everything has to settle once faults have stopped.
const QUIET_MS: u64 = 16_000;

struct Node {
    id: NodeId,
    number: usize,
    core: Core,
    state: State,
    /// The states that this node believes others to be in.
    seen: BTreeMap<Incarnation, Seen>,
    first: bool,
    /// What has come while the node is paused.
    paused: Option<Vec<Event>>,
}

enum Due {
    Tick(Incarnation),
    Arrive(Flight),
    /// A node learns of another's state.
    Learn {
        by: Incarnation,
        seen: Seen,
    },
    Publish,
    Crash,
    Restart(usize),
    Move,
    Suspect,
    Roam,
    Resubscribe(ClientId),
    JoinTimeout(Incarnation),
    Cut,
    Mend(Incarnation, Incarnation),
    Pause,
    Resume(Incarnation),
    Unsee(Incarnation, Incarnation),
}

/// What a run did, and what all runs did together.
#[derive(Clone, Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) runs: u64,
    pub(crate) virtual_ms: u64,
    pub(crate) acknowledged: u64,
    pub(crate) failed: u64,
    pub(crate) marks: BTreeMap<&'static str, u64>,
    pub(crate) fingerprint: u64,
}

/// Rare things that must have happened in a whole set of runs, or it has shown nothing of them.
const MARKS: [&str; 9] = [
    "claim won",
    "claim rejected",
    "claim incomplete",
    "crash",
    "join",
    "leave",
    "position recovered",
    "position not recovered",
    "taught before up",
];

impl Outcome {
    pub(crate) fn add(&mut self, other: &Self) {
        self.runs += other.runs;
        self.virtual_ms += other.virtual_ms;
        self.acknowledged += other.acknowledged;
        self.failed += other.failed;
        for (mark, count) in &other.marks {
            *self.marks.entry(mark).or_insert(0) += count;
        }
    }

    pub(crate) fn unmet(&self) -> Vec<&'static str> {
        MARKS.into_iter().filter(|mark| !self.marks.contains_key(mark)).collect()
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hours = self.virtual_ms as f64 / 3_600_000.0;
        writeln!(
            f,
            "{} runs passed: {hours:.2} virtual hours, {} publications acknowledged, {} refused",
            self.runs, self.acknowledged, self.failed
        )?;
        for (mark, count) in &self.marks {
            writeln!(f, "  {mark}: {count}")?;
        }
        Ok(())
    }
}

/// See the module.
pub(crate) struct World {
    swarm: Swarm,
    random: StdRng,
    now: u64,
    order: u64,
    due: BinaryHeap<Reverse<(u64, u64)>>,
    what: BTreeMap<(u64, u64), Due>,
    nodes: BTreeMap<Incarnation, Node>,
    network: Network,
    clients: Clients,
    promises: Promises,
    trace: bool,
    hash: Xxh3,
    outcome: Outcome,
    quiet: bool,
}

impl World {
    pub(crate) fn new(swarm: Swarm, seed: u64, trace: bool) -> Self {
        Self {
            random: StdRng::seed_from_u64(seed),
            now: 1,
            order: 0,
            due: BinaryHeap::new(),
            what: BTreeMap::new(),
            nodes: BTreeMap::new(),
            network: Network::new(swarm.latency_ms, swarm.loss),
            clients: Clients::default(),
            promises: Promises::default(),
            trace,
            hash: Xxh3::new(),
            outcome: Outcome { runs: 1, ..Outcome::default() },
            quiet: false,
            swarm,
        }
    }

    pub(crate) fn run(mut self) -> anyhow::Result<Outcome> {
        for number in 0..self.swarm.nodes {
            self.start(number, number == 0)?;
        }
        for channel in 0..self.swarm.channels {
            for _ in 0..2 {
                self.add_subscriber(channel)?;
            }
        }
        self.plan(Due::Publish, 400);
        self.plan_fault(self.swarm.crash_every_ms, Due::Crash);
        self.plan_fault(self.swarm.move_every_ms, Due::Move);
        self.plan_fault(self.swarm.suspect_every_ms, Due::Suspect);
        self.plan_fault(self.swarm.roam_every_ms, Due::Roam);
        self.plan_fault(self.swarm.cut_every_ms, Due::Cut);
        self.plan_fault(self.swarm.pause_every_ms, Due::Pause);
        self.advance(self.swarm.faulty_ms)?;
        self.settle()?;
        self.advance(self.swarm.faulty_ms + QUIET_MS - 1_500)?;
        self.ask_presence()?;
        self.advance(self.swarm.faulty_ms + QUIET_MS)?;
        self.check_end()?;
        self.outcome.virtual_ms = self.now;
        self.outcome.acknowledged = self.clients.acknowledged_count();
        self.outcome.failed = self.clients.failed;
        for (mark, count) in [
            ("position recovered", self.clients.recovered),
            ("position not recovered", self.clients.unrecovered),
        ] {
            self.mark(mark, count);
        }
        self.outcome.fingerprint = self.hash.digest();
        Ok(self.outcome)
    }

    fn mark(&mut self, mark: &'static str, count: u64) {
        if count > 0 {
            *self.outcome.marks.entry(mark).or_insert(0) += count;
        }
    }

    fn plan(&mut self, what: Due, in_ms: u64) {
        self.plan_at(what, self.now + in_ms);
    }

    fn plan_at(&mut self, what: Due, at: u64) {
        self.order += 1;
        self.due.push(Reverse((at, self.order)));
        self.what.insert((at, self.order), what);
    }

    fn plan_fault(&mut self, every_ms: u64, what: Due) {
        if every_ms > 0 && !self.quiet {
            let wait = self.random.random_range(every_ms / 2..every_ms * 3 / 2);
            self.plan(what, wait);
        }
    }

    fn log(&mut self, text: impl FnOnce() -> String) {
        if self.trace {
            #[expect(clippy::print_stdout, reason = "asked for")]
            {
                println!("{:>8} {}", self.now, text());
            }
        }
    }

    fn advance(&mut self, until: u64) -> anyhow::Result<()> {
        while let Some(Reverse(key)) = self.due.peek().copied() {
            if key.0 > until {
                break;
            }
            self.due.pop();
            self.now = key.0;
            if let Some(what) = self.what.remove(&key) {
                self.happen(what).with_context(|| format!("at {} ms", self.now))?;
            }
        }
        self.now = until;
        Ok(())
    }

    fn happen(&mut self, what: Due) -> anyhow::Result<()> {
        if self.quiet && matches!(what, Due::Crash | Due::Move | Due::Suspect | Due::Roam) {
            return Ok(());
        }
        match what {
            Due::Tick(node) => {
                if self.nodes.contains_key(&node) {
                    self.plan(Due::Tick(node), TICK_MS);
                    self.tell(node, Event::Tick)?;
                }
            }
            Due::Arrive(flight) => {
                self.hash.update(&self.now.to_le_bytes());
                self.hash.update(&flight.len().to_le_bytes());
                let (from, frames) = (flight.from, vec![flight.frame()?]);
                self.log(|| format!("{from:?} -> {:?} {:?}", flight.to, frames[0]));
                self.tell(flight.to, Event::Frames { from, frames })?;
            }
            Due::Learn { by, seen } => self.learn(by, seen)?,
            Due::Publish => {
                if !self.quiet {
                    self.plan(Due::Publish, self.swarm.publish_every_ms);
                    self.publish()?;
                }
            }
            Due::Crash => {
                self.plan_fault(self.swarm.crash_every_ms, Due::Crash);
                self.crash()?;
            }
            Due::Restart(number) => {
                // Two nodes of one name are refused by links, which aren't simulated here.
                if !self.nodes.values().any(|node| node.number == number) {
                    self.start(number, false)?;
                }
            }
            Due::Move => {
                self.plan_fault(self.swarm.move_every_ms, Due::Move);
                self.move_one()?;
            }
            Due::Suspect => {
                self.plan_fault(self.swarm.suspect_every_ms, Due::Suspect);
                self.suspect()?;
            }
            Due::Roam => {
                self.plan_fault(self.swarm.roam_every_ms, Due::Roam);
                self.roam()?;
            }
            Due::Resubscribe(client) => self.subscribe(client)?,
            Due::JoinTimeout(node) => self.turn_up(node)?,
            Due::Cut => {
                self.plan_fault(self.swarm.cut_every_ms, Due::Cut);
                self.cut();
            }
            Due::Mend(one, other) => self.mend(one, other)?,
            Due::Pause => {
                self.plan_fault(self.swarm.pause_every_ms, Due::Pause);
                self.pause();
            }
            Due::Resume(node) => {
                let waiting = self.nodes.get_mut(&node).and_then(|node| node.paused.take());
                self.log(|| format!("{node:?} resumes"));
                for event in waiting.into_iter().flatten() {
                    self.tell(node, event)?;
                }
            }
            Due::Unsee(by, whom) => {
                let gone = self.nodes.get_mut(&by).and_then(|node| node.seen.remove(&whom));
                if let Some(seen) = gone {
                    self.plan(Due::Learn { by, seen }, 2_600);
                    self.refresh(by)?;
                }
            }
        }
        Ok(())
    }

    /// Starts a node: the very first starts the cluster, others join as learners.
    fn start(&mut self, number: usize, first: bool) -> anyhow::Result<Incarnation> {
        let id = node_id(number, self.random.random());
        let node = id.incarnation;
        let core = Core::new(node, self.swarm.slots, self.random.random());
        let state = if first { State::Up } else { State::Joining };
        let seen = self.nodes.values().map(|n| Seen { id: n.id.clone(), state: n.state });
        let mut seen: BTreeMap<Incarnation, Seen> =
            seen.map(|seen| (seen.id.incarnation, seen)).collect();
        seen.insert(node, Seen { id: id.clone(), state });
        self.log(|| format!("{id} starts"));
        self.nodes.insert(node, Node { id, number, core, state, seen, first, paused: None });
        self.plan(Due::Tick(node), 1);
        if !first {
            self.mark("join", 1);
            self.plan(Due::JoinTimeout(node), 3_000);
        }
        self.spread(node, state);
        self.refresh(node)?;
        Ok(node)
    }

    /// Everybody learns of a node's state, each after a time of its own.
    fn spread(&mut self, node: Incarnation, state: State) {
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

    fn learn(&mut self, by: Incarnation, seen: Seen) -> anyhow::Result<()> {
        let alive = self.nodes.get(&seen.id.incarnation).map(|n| n.state);
        let Some(node) = self.nodes.get_mut(&by) else { return Ok(()) };
        let known = node.seen.get(&seen.id.incarnation);
        // News may arrive out of order; a state only advances.
        if known.is_some_and(|k| k.state >= seen.state) && alive.is_none_or(|a| a != seen.state) {
            return Ok(());
        }
        node.seen.insert(seen.id.incarnation, seen);
        self.refresh(by)
    }

    /// Gives a node the outlook of what it believes.
    fn refresh(&mut self, by: Incarnation) -> anyhow::Result<()> {
        let Some(node) = self.nodes.get(&by) else { return Ok(()) };
        let seen: Vec<Seen> = node.seen.values().cloned().collect();
        let peers = seen.iter().filter(|s| s.state != State::Dead).count();
        let alone = node.first && peers == 1 && node.seen.len() == 1;
        let outlook: Arc<Outlook> = outlook(&seen, self.swarm.slots, alone);
        self.tell(by, Event::Outlook(outlook))
    }

    fn tell(&mut self, node: Incarnation, event: Event) -> anyhow::Result<()> {
        let Some(target) = self.nodes.get_mut(&node) else { return Ok(()) };
        if let Some(waiting) = &mut target.paused {
            if !matches!(event, Event::Tick) {
                waiting.push(event);
            }
            return Ok(());
        }
        let before = target.core.status().claims;
        let mut actions = Vec::new();
        target.core.handle(event, Millis(self.now), &mut actions);
        let after = target.core.status().claims;
        self.promises.check(node, target.core.ownership(), self.swarm.slots)?;
        self.mark("claim won", after.won - before.won);
        self.mark("claim rejected", after.rejected - before.rejected);
        self.mark("claim incomplete", after.incomplete - before.incomplete);
        for action in actions {
            self.act(node, action)?;
        }
        Ok(())
    }

    fn act(&mut self, node: Incarnation, action: Action) -> anyhow::Result<()> {
        match action {
            Action::Send { to, lane, frame } => {
                for to in to {
                    self.send(node, to, lane, &frame)?;
                }
            }
            Action::Reply { to, reply } => self.replied(node, to, reply),
            Action::Deliver { delivery, .. } => self.delivered(node, &delivery)?,
            Action::Drained => {
                self.log(|| format!("{node:?} is drained"));
                self.mark("leave", 1);
                self.remove(node);
            }
            Action::CaughtUp => {
                self.mark("taught before up", 1);
                self.turn_up(node)?;
            }
            Action::Inspect { .. } | Action::Inspected { .. } => {}
        }
        Ok(())
    }

    fn send(
        &mut self,
        from: Incarnation,
        to: Incarnation,
        lane: orbweb::protocol::peer::Lane,
        frame: &PeerFrame,
    ) -> anyhow::Result<()> {
        let sent = self.network.send((from, to, lane), frame, self.now, &mut self.random)?;
        if let Some((at, flight)) = sent {
            self.plan_at(Due::Arrive(flight), at);
        }
        Ok(())
    }

    fn turn_up(&mut self, node: Incarnation) -> anyhow::Result<()> {
        if let Some(joiner) = self.nodes.get_mut(&node)
            && joiner.state == State::Joining
        {
            joiner.state = State::Up;
            self.log(|| format!("{node:?} turns up"));
            self.spread(node, State::Up);
        }
        Ok(())
    }

    /// A node and its clients are gone.
    fn remove(&mut self, node: Incarnation) {
        if self.nodes.contains_key(&node) {
            self.spread(node, State::Dead);
            self.nodes.remove(&node);
            self.clients.forget_node(node);
        }
    }

    fn up(&self) -> Vec<Incarnation> {
        let up = self.nodes.iter().filter(|(_, node)| node.state == State::Up);
        up.map(|(node, _)| *node).collect()
    }

    fn any_up(&mut self) -> Option<Incarnation> {
        let up = self.up();
        (!up.is_empty()).then(|| up[self.random.random_range(0..up.len())])
    }

    fn crash(&mut self) -> anyhow::Result<()> {
        let Some(node) = self.any_up().filter(|_| self.up().len() > 2) else { return Ok(()) };
        let Some(number) = self.nodes.get(&node).map(|n| n.number) else { return Ok(()) };
        self.log(|| format!("{node:?} crashes"));
        self.mark("crash", 1);
        self.remove(node);
        let wait = self.random.random_range(50..3_000);
        self.plan(Due::Restart(number), wait);
        Ok(())
    }

    /// A node leaves, or one joins.
    fn move_one(&mut self) -> anyhow::Result<()> {
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
    fn suspect(&mut self) -> anyhow::Result<()> {
        let (Some(by), Some(whom)) = (self.any_up(), self.any_up()) else { return Ok(()) };
        let Some(node) = self.nodes.get_mut(&by).filter(|_| by != whom) else { return Ok(()) };
        let Some(seen) = node.seen.remove(&whom) else { return Ok(()) };
        self.log(|| format!("{by:?} takes {whom:?} for dead"));
        self.refresh(by)?;
        let wait = self.random.random_range(100..2_500);
        self.plan(Due::Learn { by, seen }, wait);
        Ok(())
    }

    /// A link loses everything for a while, both ways.
    fn cut(&mut self) {
        let (Some(one), Some(other)) = (self.any_up(), self.any_up()) else { return };
        if one != other {
            self.log(|| format!("the link of {one:?} and {other:?} is cut"));
            self.mark("cut", 1);
            self.network.cut((one, other), true);
            let wait = self.random.random_range(50..2_500);
            self.plan(Due::Mend(one, other), wait);
        }
    }

    fn mend(&mut self, one: Incarnation, other: Incarnation) -> anyhow::Result<()> {
        self.log(|| format!("the link of {one:?} and {other:?} is back"));
        self.network.cut((one, other), false);
        for (at, to) in [(one, other), (other, one)] {
            if self.nodes.contains_key(&to) {
                self.tell(at, Event::LinkDown(to))?;
                self.tell(at, Event::LinkUp(to))?;
            }
        }
        Ok(())
    }

    /// A node handles nothing for a while, then everything. If it takes long, all others take it
    /// for dead.
    fn pause(&mut self) {
        let Some(whom) = self.any_up() else { return };
        let Some(node) = self.nodes.get_mut(&whom).filter(|node| node.paused.is_none()) else {
            return;
        };
        node.paused = Some(Vec::new());
        let wait = self.random.random_range(100..2_500);
        self.log(|| format!("{whom:?} pauses for {wait} ms"));
        self.mark("pause", 1);
        self.plan(Due::Resume(whom), wait);
        if wait > 800 {
            for by in self.nodes.keys().copied().filter(|by| *by != whom).collect::<Vec<_>>() {
                let noticed = self.random.random_range(500..800);
                self.plan(Due::Unsee(by, whom), noticed);
            }
        }
    }

    fn ask_presence(&mut self) -> anyhow::Result<()> {
        for number in 0..self.swarm.channels {
            let Some(node) = self.any_up() else { return Ok(()) };
            let channel = self.channel(number);
            let asked = Asked::Presence { channel: channel.clone() };
            self.ask(node, channel, Ask::Presence, Some(asked))?;
        }
        Ok(())
    }

    fn channel(&self, number: usize) -> Channel {
        Channel::parse(&format!("c{number}")).expect("a short name is allowed")
    }

    fn ask(
        &mut self,
        node: Incarnation,
        channel: Channel,
        ask: Ask,
        asked: Option<Asked>,
    ) -> anyhow::Result<()> {
        let id = RequestId { shard: ShardId(0), number: self.clients.number() };
        if let Some(asked) = asked {
            self.clients.waiting.insert((node, id), asked);
        }
        self.tell(node, Event::Request(Request { id, channel, options: STREAM, ask }))
    }

    fn publish(&mut self) -> anyhow::Result<()> {
        let Some(node) = self.any_up() else { return Ok(()) };
        let number = self.random.random_range(0..self.swarm.channels);
        let channel = self.channel(number);
        self.clients.sent += 1;
        let payload = self.clients.sent;
        let data = Bytes::from(payload.to_string());
        let message = Arc::new(Message { data, ..Message::default() });
        let asked = Asked::Publish { channel: channel.clone(), payload };
        self.ask(node, channel, Ask::Publish { message }, Some(asked))
    }

    fn add_subscriber(&mut self, channel: usize) -> anyhow::Result<()> {
        let nodes: Vec<Incarnation> = self.nodes.keys().copied().collect();
        let node = nodes[self.random.random_range(0..nodes.len())];
        let client = ClientId(self.random.random());
        let channel = self.channel(channel);
        let subscriber =
            Subscriber { node, channel, position: None, subscribed: false, seen: vec![] };
        self.clients.subscribers.insert(client, subscriber);
        self.plan(Due::Resubscribe(client), 50);
        Ok(())
    }

    /// A subscriber loses its connection and comes back on another node with its position.
    fn roam(&mut self) -> anyhow::Result<()> {
        let clients: Vec<ClientId> = self.clients.subscribers.keys().copied().collect();
        let Some(to) = self.any_up().filter(|_| !clients.is_empty()) else { return Ok(()) };
        let client = clients[self.random.random_range(0..clients.len())];
        let Some(subscriber) = self.clients.subscribers.get_mut(&client) else { return Ok(()) };
        if !subscriber.subscribed {
            return Ok(());
        }
        subscriber.subscribed = false;
        let (from, channel) = (subscriber.node, subscriber.channel.clone());
        subscriber.node = to;
        self.ask(from, channel, Ask::Unsubscribe { client }, None)?;
        // Not away for more publications than one answer carries.
        let away = (self.swarm.publish_every_ms * self.swarm.channels as u64 * 60).min(2_000);
        let wait = self.random.random_range(1..away.max(2));
        self.plan(Due::Resubscribe(client), wait);
        Ok(())
    }

    fn subscribe(&mut self, client: ClientId) -> anyhow::Result<()> {
        let Some(subscriber) = self.clients.subscribers.get(&client) else { return Ok(()) };
        if subscriber.subscribed {
            return Ok(());
        }
        let (node, channel) = (subscriber.node, subscriber.channel.clone());
        let recover = subscriber.position.map_or(Recover::No, Recover::From);
        let (conn_info, chan_info) = (Bytes::new(), Bytes::new());
        let info = Some(ClientInfo { user: "u".into(), client, conn_info, chan_info });
        let asked = Asked::Subscribe { client };
        self.ask(node, channel, Ask::Subscribe { client, info, recover }, Some(asked))
    }

    fn replied(&mut self, node: Incarnation, to: RequestId, reply: Reply) {
        match (self.clients.waiting.remove(&(node, to)), reply) {
            (Some(Asked::Publish { channel, payload }), Reply::Published(_)) => {
                self.clients.acknowledged.entry(channel).or_default().insert(payload);
            }
            (Some(Asked::Publish { .. }), _) => self.clients.failed += 1,
            (
                Some(Asked::Subscribe { client }),
                Reply::Subscribed { position, recovered, publications },
            ) => {
                let Some(subscriber) = self.clients.subscribers.get_mut(&client) else { return };
                match (subscriber.position, recovered) {
                    (Some(_), true) => self.clients.recovered += 1,
                    (Some(_), false) => {
                        self.clients.unrecovered += 1;
                        subscriber.seen.clear();
                    }
                    (None, _) => {}
                }
                for publication in publications {
                    subscriber.seen.extend(kept::payload(&publication.message.data));
                }
                (subscriber.position, subscriber.subscribed) = (position, true);
            }
            (Some(Asked::Presence { channel }), Reply::Presence(present)) => {
                let clients = present.iter().map(|info| info.client).collect();
                self.clients.present.insert(channel, clients);
            }
            (Some(Asked::Subscribe { client }), _) => self.plan(Due::Resubscribe(client), 200),
            _ => {}
        }
    }

    fn delivered(&mut self, node: Incarnation, delivery: &Delivery) -> anyhow::Result<()> {
        let here = self.clients.subscribers.iter_mut().filter(|(_, subscriber)| {
            subscriber.node == node
                && subscriber.channel == delivery.channel
                && subscriber.subscribed
        });
        let mut lost = Vec::new();
        for (client, subscriber) in here {
            match &delivery.body {
                DeliveryBody::Publication { message, position, .. } => {
                    subscriber.seen.push(kept::payload(&message.data)?);
                    subscriber.position = *position;
                }
                DeliveryBody::Lost => {
                    subscriber.subscribed = false;
                    lost.push(*client);
                }
                DeliveryBody::Join(_) | DeliveryBody::Leave(_) => {}
            }
        }
        for client in lost {
            self.plan(Due::Resubscribe(client), 30);
        }
        Ok(())
    }

    /// Faults stop: everybody learns the truth.
    fn settle(&mut self) -> anyhow::Result<()> {
        self.quiet = true;
        self.network.heal();
        let truth: Vec<Seen> = self
            .nodes
            .values()
            .map(|node| Seen { id: node.id.clone(), state: node.state })
            .collect();
        for by in self.nodes.keys().copied().collect::<Vec<_>>() {
            for seen in &truth {
                self.plan(Due::Learn { by, seen: seen.clone() }, 500);
            }
        }
        Ok(())
    }

    fn check_end(&self) -> anyhow::Result<()> {
        let nodes: Vec<(Incarnation, &Core)> =
            self.nodes.iter().map(|(node, n)| (*node, &n.core)).collect();
        let seen: Vec<Seen> = self
            .nodes
            .values()
            .map(|node| Seen { id: node.id.clone(), state: node.state })
            .collect();
        let last = outlook(&seen, self.swarm.slots, false);
        let placement: &Placement = &last.placement;
        converged::check(&nodes, placement, self.swarm.slots)?;
        crate::checkers::present::check(&self.clients)?;
        if self.swarm.scenario == Scenario::Storms {
            kept::check_kept(&nodes, &self.clients, self.swarm.slots)?;
        }
        if self.swarm.scenario == Scenario::Moves {
            kept::check(&nodes, &self.clients, self.swarm.slots)?;
            let Clients { failed, unrecovered, .. } = self.clients;
            anyhow::ensure!(failed == 0, "I1: {failed} publishes failed");
            anyhow::ensure!(unrecovered == 0, "I1: {unrecovered} positions were not recovered");
        }
        Ok(())
    }
}
