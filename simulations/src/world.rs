//! The world of a run: one thread, one clock, one seeded generator; nodes, each with a view of its
//! own, and clients on them. A faulty phase, then a quiet one in which everything must settle.
//!
//! Here: what is due when, and the course of a run. [`nodes`]: their life, and what they do and are
//! told. [`growth`]: what it costs. [`faults`]: what goes wrong. [`crashes`]: when nodes die.
//! [`traffic`]: what clients do. [`told`]: what they are told. [`people`]: users who come and go.
//! [`timeline`]: what is told of it all.
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::fmt;

use anyhow::Context as _;
use orbweb::delivery::core::{Core, Settings};
use orbweb::delivery::event::{Event, TICK_MS};
use orbweb::ownership::attendance::Sessions;
use orbweb::ownership::placement::Placement;
use orbweb::ownership::serving::Serving;
use orbweb::protocol::channel::{Channel, ChannelOptions};
use orbweb::protocol::ids::{ClientId, Incarnation, Slot};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::checkers::attendance::{OFFLINE_AFTER_MS, OFFLINE_SOON_MS};
use crate::checkers::names::Names;
use crate::checkers::promises::Promises;
use crate::checkers::released::Released;
use crate::checkers::{bounds, converged, kept, present};
use crate::clients::{BRIEF, Clients, FLEETING, STREAM};
use crate::membership::{Seen, outlook};
use crate::network::{Flight, Harm, Network};
use crate::options::Swarm;
use crate::outcome::Outcome;
use crate::scenario::Scenario;

mod crashes;
mod faults;
pub(crate) mod growth;
mod nodes;
mod people;
pub(crate) mod timeline;
mod told;
mod traffic;

use crashes::{Amid, RESTART_MS};
use growth::Sent;
use nodes::Node;
use timeline::Timeline;

/// Within this everything is where it belongs once faults have stopped: ten intervals of gossip, and 5 s.
const SETTLED_MS: u64 = 6_000;
/// How long before that it is looked for the first time, and how often then.
const CONVERGING_MS: u64 = 1_000;
const CONVERGED_LOOK_MS: u64 = 200;
/// How long a run goes on once faults have stopped: what was left undone in it would show.
const QUIET_MS: u64 = 9_000;
/// The same where people are watched: who is away is called offline by then, and it has been told.
const QUIET_WITH_PEOPLE_MS: u64 = 16_000;
/// How long before the end it is asked who is present.
const PRESENCE_MS: u64 = 1_500;
/// A user's record is changed once in the time of so many publications.
const CHANGE_EVERY: u64 = 4;
/// How often all holdings are compared with what they were.
const LOOK_MS: u64 = 2_000;
/// Every how many ticks a node looks whether it may serve.
const LOOK_TICKS: u64 = 5;

enum Due {
    Tick(Incarnation),
    Arrive(Flight),
    /// A node learns of another's state.
    Learn {
        by: Incarnation,
        seen: Seen,
    },
    Publish,
    /// Somebody publishes with the same idempotency key again.
    Repeat {
        channel: Channel,
        payload: u64,
    },
    ChangeUser,
    Person(usize),
    Read,
    Crash,
    CrashAmid(Amid, Incarnation),
    Restart(usize),
    Move,
    Suspect,
    SuspectMore,
    Roam,
    Resubscribe(ClientId),
    JoinTimeout(Incarnation),
    Cut,
    Mend(Incarnation, Incarnation),
    Pause,
    Resume(Incarnation),
    Unsee(Incarnation, Incarnation),
    LinksEnd(Incarnation),
    LinksBegin(Incarnation),
    LookAtHoldings,
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
    sent: Sent,
    /// Looks at each step of each node; not where it is measured what a step costs.
    checks: bool,
    clients: Clients,
    /// The channels that outlast the run.
    channels: BTreeMap<Slot, Vec<Channel>>,
    promises: Promises,
    names: Names,
    released: Released,
    /// Who answers what is being handled; none if nobody but the node itself.
    answerer: Option<Incarnation>,
    /// Nodes that died, and when.
    dead: Vec<(u64, Incarnation, Core)>,
    /// Nodes that nobody hears any more, or that hear nobody.
    outcasts: BTreeSet<Incarnation>,
    /// Nodes that died since all copies were there.
    missing: u8,
    /// Amid what the next one dies while a copy is missing.
    worst: Option<Amid>,
    /// Who was taken for dead last, without being it.
    doubted: Option<Incarnation>,
    timeline: Timeline,
    outcome: Outcome,
    quiet: bool,
    /// When a node started last, or was gone.
    last_change: u64,
}

impl World {
    pub(crate) fn new(swarm: Swarm, seed: u64, timeline: Timeline) -> Self {
        let mut channels: BTreeMap<Slot, Vec<Channel>> = BTreeMap::new();
        for channel in all_channels(&swarm).into_iter().filter(is_lasting) {
            channels.entry(channel.slot(swarm.slots)).or_default().push(channel);
        }
        Self {
            random: StdRng::seed_from_u64(seed),
            now: 1,
            order: 0,
            due: BinaryHeap::new(),
            what: BTreeMap::new(),
            nodes: BTreeMap::new(),
            network: Network::new(swarm),
            sent: Sent::default(),
            checks: true,
            clients: Clients::default(),
            channels,
            promises: Promises::default(),
            names: Names::default(),
            released: Released::default(),
            answerer: None,
            dead: Vec::new(),
            outcasts: BTreeSet::new(),
            missing: 0,
            worst: None,
            doubted: None,
            timeline,
            outcome: Outcome { runs: 1, ..Outcome::default() },
            quiet: false,
            last_change: 0,
            swarm,
        }
    }

    pub(crate) fn run(mut self) -> anyhow::Result<Outcome> {
        for number in 0..self.swarm.nodes {
            self.start(number, number == 0)?;
        }
        for channel in all_channels(&self.swarm) {
            for _ in 0..2 {
                self.add_subscriber(&channel)?;
            }
        }
        self.meet_people();
        self.plan(Due::Publish, 400);
        self.plan(Due::ChangeUser, 400);
        self.plan(Due::LookAtHoldings, LOOK_MS);
        self.plan_fault(self.swarm.read_every_ms, Due::Read);
        self.plan_fault(self.swarm.crash_every_ms, Due::Crash);
        self.plan_fault(self.swarm.move_every_ms, Due::Move);
        self.plan_fault(self.swarm.suspect_every_ms, Due::Suspect);
        self.plan_fault(self.swarm.roam_every_ms, Due::Roam);
        self.plan_fault(self.swarm.cut_every_ms, Due::Cut);
        self.plan_fault(self.swarm.pause_every_ms, Due::Pause);
        self.advance(self.swarm.faulty_ms)?;
        self.settle()?;
        self.await_converged()?;
        self.advance(self.end() - PRESENCE_MS)?;
        self.ask_presence()?;
        self.ask_status()?;
        self.advance(self.end())?;
        self.check_end()?;
        self.outcome.virtual_ms = self.now;
        self.outcome.acknowledged = self.clients.acknowledged_count();
        self.outcome.failed = self.clients.failed;
        self.outcome.mark("repeated by key", self.clients.repeated);
        self.outcome.mark("position recovered", self.clients.recovered);
        self.outcome.mark("subscribed and published in one breath", self.clients.own_count());
        self.outcome.mark("position not recovered", self.clients.unrecovered);
        let Harm { lost, twice, overtook } = self.network.harm();
        self.outcome.mark("frame lost", lost);
        self.outcome.mark("frame twice", twice);
        self.outcome.mark("frame overtook others", overtook);
        self.outcome.fingerprint = self.timeline.fingerprint();
        Ok(self.outcome)
    }

    /// When the last fault has ended: who has died is back, and who was leaving is gone. Others may
    /// wait for either for as long as somebody counts who vanishes.
    fn calm_at(&self) -> u64 {
        self.swarm.faulty_ms.max(self.last_change)
    }

    /// When the run ends.
    fn end(&self) -> u64 {
        let watched = self.swarm.people > 0;
        self.calm_at() + if watched { QUIET_WITH_PEOPLE_MS } else { QUIET_MS }
    }

    fn settings(&self) -> Settings {
        let strict = self.swarm.scenario.is_strict();
        let offline_after_ms = if strict { OFFLINE_AFTER_MS } else { OFFLINE_SOON_MS };
        let sessions = Sessions { offline_after_ms, ttl_ms: 120_000 };
        Settings { slots: self.swarm.slots, copies: self.swarm.copies, sessions }
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

    fn log(&self, event: impl fmt::Display) {
        self.timeline.tell(self.now, event);
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
        match what {
            Due::Tick(node) => self.tick(node),
            Due::Arrive(flight) => self.arrive(&flight),
            Due::Learn { by, seen } => self.learn(by, seen),
            Due::Repeat { channel, payload } => self.repeat(channel, payload),
            Due::Resubscribe(client) => self.subscribe(client),
            Due::Person(person) => self.person(person),
            Due::JoinTimeout(node) => self.turn_up(node),
            Due::Mend(from, to) if !self.network.cuts().contains(&(from, to)) => Ok(()),
            Due::Mend(from, to) => self.mend(from, to),
            Due::Resume(node) => self.resume(node),
            Due::Unsee(by, whom) => self.unsee(by, whom),
            Due::LinksEnd(node) => {
                self.links_end(node);
                Ok(())
            }
            Due::LinksBegin(node) => self.links_begin(node),
            Due::LookAtHoldings => self.look_at_holdings(),
            // Two nodes of one name are refused by links, which aren't simulated here.
            Due::Restart(number) if self.nodes.values().any(|node| node.number == number) => Ok(()),
            Due::Restart(number) => {
                self.outcome.mark("restart", 1);
                self.start(number, false).map(drop)
            }
            // The rest begins something new, so it ends when all is to fall quiet.
            _ if self.quiet => Ok(()),
            Due::Publish => {
                self.plan(Due::Publish, self.swarm.publish_every_ms);
                self.publish()
            }
            Due::ChangeUser => {
                self.plan(Due::ChangeUser, self.swarm.publish_every_ms * CHANGE_EVERY);
                self.change_user()
            }
            Due::Read => {
                self.plan_fault(self.swarm.read_every_ms, Due::Read);
                self.read()
            }
            Due::Crash => self.crash(),
            Due::CrashAmid(amid, node) => self.crash_amid(amid, node),
            Due::Move => {
                self.plan_fault(self.swarm.move_every_ms, Due::Move);
                self.move_one()
            }
            Due::Suspect => {
                self.plan_fault(self.swarm.suspect_every_ms, Due::Suspect);
                self.suspect()
            }
            Due::SuspectMore => self.suspect(),
            Due::Roam => {
                self.plan_fault(self.swarm.roam_every_ms, Due::Roam);
                self.roam()
            }
            Due::Cut => {
                self.plan_fault(self.swarm.cut_every_ms, Due::Cut);
                self.cut();
                Ok(())
            }
            Due::Pause => {
                self.plan_fault(self.swarm.pause_every_ms, Due::Pause);
                self.pause();
                Ok(())
            }
        }
    }

    fn arrive(&mut self, flight: &Flight) -> anyhow::Result<()> {
        self.timeline.frame(self.now, flight);
        let (from, frames) = (flight.from, vec![flight.frame()?]);
        self.tell(flight.to, Event::Frames { from, frames })
    }

    fn tick(&mut self, node: Incarnation) -> anyhow::Result<()> {
        let Some(ticking) = self.nodes.get_mut(&node) else { return Ok(()) };
        ticking.ticks += 1;
        let looks = ticking.ticks.is_multiple_of(LOOK_TICKS);
        self.plan(Due::Tick(node), TICK_MS);
        self.tell(node, Event::Tick)?;
        if looks { self.look(node, false) } else { Ok(()) }
    }

    fn look_at_holdings(&mut self) -> anyhow::Result<()> {
        self.plan(Due::LookAtHoldings, LOOK_MS);
        for (node, watched) in &self.nodes {
            self.released.check(*node, &watched.core, self.swarm.slots, self.now)?;
            bounds::check(*node, &watched.core)?;
        }
        Ok(())
    }

    /// Within some seconds everything is where it belongs. It needn't stay so at each moment: who was
    /// away for long enough is called offline even then, for example.
    fn await_converged(&mut self) -> anyhow::Result<()> {
        self.advance(self.swarm.faulty_ms + RESTART_MS)?;
        let until = self.calm_at() + SETTLED_MS;
        self.advance(until - CONVERGING_MS)?;
        while self.now < until && self.check_converged().is_err() {
            self.advance(self.now + CONVERGED_LOOK_MS)?;
        }
        self.check_converged().with_context(|| format!("{SETTLED_MS} ms after faults stopped"))
    }

    /// Whether every slot is where it belongs, with its copies.
    fn check_converged(&self) -> anyhow::Result<()> {
        let last = outlook(&self.truth(), self.swarm.slots, Serving::Full);
        let placement: &Placement = &last.placement;
        converged::check(&self.heard(), placement, self.swarm.slots, self.swarm.copies)
    }

    /// The nodes that are neither mute nor deaf for ever.
    fn heard(&self) -> Vec<(Incarnation, &Core)> {
        let heard = self.nodes.iter().filter(|(node, _)| !self.outcasts.contains(node));
        heard.map(|(node, n)| (*node, &n.core)).collect()
    }

    fn check_end(&self) -> anyhow::Result<()> {
        self.check_converged()?;
        let nodes = self.heard();
        converged::check_home(&nodes)?;
        present::check(&self.clients)?;
        let streams = kept::check_kept(&nodes, &self.clients, self.swarm.slots)?;
        let split = !self.swarm.scenario.is_strict();
        self.clients.writes.check(&nodes, self.swarm.slots, split)?;
        if self.swarm.scenario.is_strict() {
            kept::check_seen(&streams, &self.clients)?;
            kept::check_in_order(&streams, &self.clients)?;
            kept::check_brief(&self.clients)?;
            let unrecovered = self.clients.unrecovered;
            anyhow::ensure!(unrecovered == 0, "I1: {unrecovered} positions were not recovered");
        }
        if self.swarm.scenario != Scenario::Chaos {
            // Nobody dies with what was acknowledged.
            kept::check_delivered(&self.clients)?;
        }
        self.names.check_order(&self.clients.sent_by)?;
        if self.swarm.scenario.is_strict() && self.swarm.pause_every_ms == 0 {
            kept::check_sender_order(&self.clients)?;
        }
        if self.swarm.scenario == Scenario::Moves {
            let failed = self.clients.failed;
            anyhow::ensure!(failed == 0, "I1: {failed} publishes failed");
            // Where nothing is asked twice.
            kept::check_own(&self.clients)?;
        }
        Ok(())
    }
}

/// The channels of a run: those that outlast it, and those that are soon forgotten.
fn all_channels(swarm: &Swarm) -> Vec<Channel> {
    let lasting = (0..swarm.channels).map(|number| format!("c{number}"));
    let names = lasting.chain((0..swarm.brief).map(|number| format!("b{number}")));
    let names = names.chain((0..swarm.fleeting).map(|number| format!("x{number}")));
    names.map(|name| Channel::parse(&name).expect("a short name is allowed")).collect()
}

/// Whether a channel's stream keeps all publications of a run.
fn is_lasting(channel: &Channel) -> bool {
    channel.as_str().starts_with('c')
}

/// Whether it is as busy as those, and keeps little.
fn is_brief(channel: &Channel) -> bool {
    channel.as_str().starts_with('b')
}

fn is_fleeting(channel: &Channel) -> bool {
    channel.as_str().starts_with('x')
}

fn options(channel: &Channel) -> ChannelOptions {
    match channel {
        _ if is_fleeting(channel) => FLEETING,
        _ if is_brief(channel) => BRIEF,
        _ if channel.status_user().is_some() => ChannelOptions::default(),
        _ => STREAM,
    }
}
