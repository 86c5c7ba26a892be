//! Whole nodes: the shipped start-up with its gossip, links and gateway, and virtual clients, all on
//! one thread under a paused clock. A scenario makes one, does something to it, and lets it rest.
//!
//! In reading order: [`setup`] draws the sizes, [`network`] and [`port`] carry datagrams as
//! [`conditions`] say, [`clock`] tells the time, [`brake`] lets nodes stand still, [`doors`], [`client`]
//! and [`wire`] are the clients' side, [`history`] what clients saw, [`story`] what nodes did, [`faults`]
//! what is done to them, [`guests`] who doesn't belong to them, [`rest`] when all is well again, [`plan`]
//! what a swarm is made of, [`course`] which run it is, [`run`] how it becomes a verdict, [`report`] the
//! picture of it.
mod brake;
pub(crate) mod client;
pub(crate) mod clock;
pub(crate) mod conditions;
pub(crate) mod course;
pub(crate) mod doors;
mod faults;
mod guests;
pub(crate) mod history;
pub(crate) mod network;
pub(crate) mod plan;
mod port;
mod report;
pub(crate) mod rest;
pub(crate) mod run;
pub(crate) mod scenarios;
pub(crate) mod setup;
pub(crate) mod story;
pub(crate) mod trace;
pub(crate) mod wire;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use orbweb::api::{NodeFacts, NodeRef};
use orbweb::config::Config;
use orbweb::gateway::Threads;
use orbweb::gateway::socket::memory::{MemoryDialer, MemoryListener};
use orbweb::node::{Environment, Mesh, Node};
use orbweb::protocol::peer::SlotRange;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::sync::watch;
use tokio::task::{JoinHandle, spawn_local};
use tokio::time::{Instant, sleep};

use brake::Brake;
use client::{Client, Doing, Sdk};
use conditions::Conditions;
use doors::MemoryDoors;
use network::Network;
use setup::{Setup, client_address, inbox, mesh_address, name};
use story::{Mark, Story};
use trace::Trace;

/// Clients that a node's listener lets wait.
const BACKLOG: usize = 64;
/// How long a killed node's tasks get to end, out of everybody's reach.
const BURIAL: Duration = Duration::from_millis(50);
/// When a view has lasted this long, a node takes it for the membership that it must see half of.
pub(crate) const SETTLED: Duration = Duration::from_secs(11);
/// After this, what a node says of its slots is from now.
const STATUS_LATE: Duration = Duration::from_millis(250);
/// How long a node may take to see that another is gone or leaves.
const NOTICED: Duration = Duration::from_secs(3);
/// How long a node may take to leave.
const DRAIN: Duration = Duration::from_secs(30);

/// A node on its way out.
pub(crate) struct Leaving {
    node: usize,
    task: JoinHandle<()>,
}

impl Leaving {
    /// Whether it has left.
    pub(crate) fn is_over(&self) -> bool {
        self.task.is_finished()
    }
}

/// Those that run, by number.
type Nodes = Rc<RefCell<BTreeMap<usize, Node<MemoryListener>>>>;

/// See the module.
pub(crate) struct Cluster {
    pub(crate) setup: Setup,
    network: Network,
    pub(crate) history: history::Shared,
    pub(crate) trace: Trace,
    pub(crate) story: Story,
    pub(crate) random: StdRng,
    nodes: Nodes,
    doors: MemoryDoors,
    /// What lets nodes stand still, by machine.
    brakes: RefCell<BTreeMap<usize, Brake>>,
    /// Those that do.
    stopped: watch::Sender<BTreeSet<usize>>,
    /// Nodes of another cluster, by machine.
    strangers: BTreeMap<usize, guests::Stranger>,
    doing: watch::Sender<Doing>,
    /// The clients that neither read nor send.
    still: watch::Sender<BTreeSet<history::Client>>,
}

impl Cluster {
    pub(crate) fn new(seed: u64, setup: Setup, trace: Trace) -> Self {
        let fair = Conditions::fair(setup.weather);
        let network = Network::new(seed, fair, trace.clone());
        Self {
            network,
            history: history::Shared::default(),
            trace,
            story: Story::default(),
            random: StdRng::seed_from_u64(seed),
            nodes: Nodes::default(),
            doors: MemoryDoors::default(),
            brakes: RefCell::default(),
            stopped: watch::Sender::default(),
            strangers: BTreeMap::new(),
            doing: watch::Sender::new(Doing::Publish),
            still: watch::Sender::default(),
            setup,
        }
    }

    /// Starts all nodes, the first as a cluster of its own, and the clients when all are ready.
    pub(crate) async fn start(&mut self) -> anyhow::Result<()> {
        if self.setup.skewed {
            self.skew_clocks();
        }
        for node in 0..self.setup.nodes {
            self.start_node(node, node > 0).await?;
        }
        self.ready().await?;
        for number in 0..self.setup.clients {
            self.start_client(number)?;
        }
        Ok(())
    }

    /// Starts a node that isn't running.
    pub(crate) async fn start_node(&mut self, node: usize, join: bool) -> anyhow::Result<()> {
        let (started, dialer) = self.launch(node, self.setup.config(node, join)).await?;
        let gone = self.doors.open(node, dialer);
        self.trace.tell(format_args!("node {} started", name(node)));
        self.story.tell(Mark::Started(node));
        let (watched, tellers) = (self.nodes.clone(), (self.trace.clone(), self.story.clone()));
        spawn_local(story::watch((node, watched), started.facts(), gone, tellers));
        self.nodes.borrow_mut().insert(node, started);
        Ok(())
    }

    /// The shipped start-up on a machine, and the door of its clients.
    async fn launch(
        &self,
        machine: usize,
        config: Config,
    ) -> anyhow::Result<(Node<MemoryListener>, MemoryDialer)> {
        let (listener, dialer) = MemoryListener::bind(BACKLOG);
        let brake = Brake::default();
        let mesh = Mesh {
            socket: Arc::new(self.network.bind(mesh_address(machine))),
            runtime: brake.runtime(),
            lifelines: None,
            advertise: mesh_address(machine),
            versions: self.setup.versions.clone(),
        };
        let environment = Environment {
            listener,
            bound: client_address(machine),
            mesh: Some(mesh),
            clocks: clock::clocks(machine),
            threads: Threads::Shared,
            tasks: brake.tasks(),
        };
        self.brakes.borrow_mut().insert(machine, brake);
        self.change(|conditions| _ = conditions.stopped.remove(&machine));
        let started = Node::start(config, environment).await.context("a node doesn't start")?;
        Ok((started, dialer))
    }

    fn start_client(&mut self, number: history::Client) -> anyhow::Result<()> {
        let first = self.random.random_range(0..self.setup.channels);
        let channels = first..first + self.setup.subscriptions;
        let channels: Vec<_> = channels.map(|channel| self.setup.channel(channel)).collect();
        let user = self.setup.user(number);
        let followed = channels.iter().cloned().chain(user.as_deref().map(inbox));
        self.history.borrow_mut().expected.extend(followed.map(|channel| (number, channel)));
        let client = Client {
            number,
            sdk: if self.random.random_bool(0.5) { Sdk::JavaScript } else { Sdk::Other },
            token: user.as_deref().map(Setup::token).transpose()?,
            channels,
            home: Some(number % self.setup.nodes),
            pace: Duration::from_millis(self.setup.pace_ms),
            padding: self.setup.padding,
            keeps: self.setup.attributes && user.is_some(),
            doors: self.doors.clone(),
            doing: self.doing.subscribe(),
            still: self.still.subscribe(),
            stopped: self.stopped.subscribe(),
            history: self.history.clone(),
            trace: self.trace.clone(),
            random: StdRng::seed_from_u64(self.random.random()),
            positions: BTreeMap::new(),
        };
        spawn_local(client.run());
        Ok(())
    }

    /// A node's machine loses its power.
    pub(crate) fn kill(&mut self, node: usize) -> anyhow::Result<()> {
        let killed = self.take(node)?;
        self.power_off(node);
        // Whatever its tasks still do, nobody hears of it.
        spawn_local(killed.stop(BURIAL));
        Ok(())
    }

    /// The same; how many slots it claimed at that moment.
    pub(crate) async fn kill_claimant(&mut self, node: usize) -> anyhow::Result<u32> {
        let killed = self.take(node)?;
        self.power_off(node);
        // Nobody answers any more, so what it says a little later is what it was at.
        sleep(STATUS_LATE).await;
        let claiming = killed.facts().report().slots_claiming;
        self.trace.tell(format_args!("node {} was claiming {claiming} slots", name(node)));
        spawn_local(killed.stop(BURIAL));
        Ok(claiming)
    }

    /// How many slots a node owns or claims.
    pub(crate) fn slots_of(&self, node: usize) -> anyhow::Result<u32> {
        let nodes = self.nodes.borrow();
        let running = nodes.get(&node).with_context(|| format!("{} doesn't run", name(node)))?;
        let report = running.facts().report();
        Ok(report.slots_owned + report.slots_claiming)
    }

    /// A node that isn't to run any more.
    fn take(&mut self, node: usize) -> anyhow::Result<Node<MemoryListener>> {
        self.nodes.borrow_mut().remove(&node).with_context(|| format!("{} doesn't run", name(node)))
    }

    /// Nothing comes from a node any more, and nothing reaches it.
    fn power_off(&self, node: usize) {
        self.network.unplug(mesh_address(node));
        self.doors.shut(node);
        self.trace.tell(format_args!("node {} killed", name(node)));
        self.story.tell(Mark::Killed(node));
    }

    /// A node leaves as `orbweb` does on a signal.
    pub(crate) async fn drain(&mut self, node: usize) -> anyhow::Result<()> {
        let leaving = self.begin_drain(node)?;
        self.end_drain(leaving).await
    }

    /// A node begins to leave.
    pub(crate) fn begin_drain(&mut self, node: usize) -> anyhow::Result<Leaving> {
        let leaving = self.take(node)?;
        self.trace.tell(format_args!("node {} leaves", name(node)));
        self.story.tell(Mark::Leaves(node));
        Ok(Leaving { node, task: spawn_local(leaving.drain(DRAIN)) })
    }

    /// Until it has left.
    pub(crate) async fn end_drain(&self, leaving: Leaving) -> anyhow::Result<()> {
        let Leaving { node, task } = leaving;
        task.await.context("a leaving node fails")?;
        self.doors.shut(node);
        self.network.unplug(mesh_address(node));
        self.trace.tell(format_args!("node {} left", name(node)));
        self.story.tell(Mark::Left(node));
        Ok(())
    }

    /// A leaving node's machine loses its power; whether it was still leaving.
    pub(crate) fn kill_leaving(&self, leaving: &Leaving) -> bool {
        let amid = !leaving.is_over();
        self.power_off(leaving.node);
        amid
    }

    /// Until a node sees another cluster than now.
    pub(crate) async fn view_changes(&self, node: usize) -> anyhow::Result<()> {
        let facts = self.facts(node)?;
        let before = facts.report().view_hash;
        let deadline = Instant::now() + NOTICED;
        while facts.report().view_hash == before {
            ensure!(Instant::now() < deadline, "{} notices nothing in {NOTICED:?}", name(node));
            sleep(Duration::from_millis(1)).await;
        }
        Ok(())
    }

    /// The nodes that run.
    pub(crate) fn running(&self) -> Vec<usize> {
        self.nodes.borrow().keys().copied().collect()
    }

    pub(crate) fn facts(&self, node: usize) -> anyhow::Result<Arc<dyn NodeFacts>> {
        let nodes = self.nodes.borrow();
        Ok(nodes.get(&node).context("asked a node that doesn't run")?.facts())
    }

    /// The slots that a node owns.
    pub(crate) fn owned(&self, node: usize) -> anyhow::Result<Vec<SlotRange>> {
        let nodes = self.nodes.borrow();
        Ok(nodes.get(&node).context("asked a node that doesn't run")?.owned())
    }

    /// Who owns a channel, as the first node says.
    pub(crate) async fn owner_of(&self, channel: &str) -> anyhow::Result<usize> {
        Ok(self.owner_and_heir_of(channel).await?.0)
    }

    /// Who owns a channel, and who is to when that one is gone.
    pub(crate) async fn owner_and_heir_of(&self, channel: &str) -> anyhow::Result<(usize, usize)> {
        let running = self.running();
        let asked = *running.first().context("no node runs")?;
        let located = self.facts(asked)?.locate(channel).await;
        let number = |of: Option<NodeRef>| {
            let of = of.context("nobody is to own it")?;
            let found = running.iter().find(|node| name(**node) == of.name.as_str());
            found.copied().context("whoever is to own it doesn't run")
        };
        Ok((number(located.owner)?, number(located.successors.into_iter().next())?))
    }

    /// Datagrams that were too many for the socket that they were for.
    pub(crate) fn overflown(&self) -> u64 {
        self.network.overflown()
    }

    /// What clients do from now on.
    fn tell_clients(&self, doing: Doing) {
        self.note(format_args!("clients: {doing:?}"));
        self.doing.send_replace(doing);
    }
}
