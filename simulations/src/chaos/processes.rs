//! Nodes, their hosts and their clients, together.
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Context as _, bail};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::sync::watch;
use tokio::task::{JoinHandle, spawn_local};

use super::balancer;
use super::doors::TcpDoors;
use super::hosts::Hosts;
use super::node::{Installation, Node};
use super::options::{self, Arguments};
use super::questions::Questions;
use super::sdk::Sdk;
use super::setup;
use crate::cluster::client::{self, Client, Doing};
use crate::cluster::history;
use crate::cluster::setup::{Setup, inbox, name};
use crate::cluster::trace::Trace;

/// See the module.
pub(super) struct Processes {
    pub(super) setup: Setup,
    pub(super) hosts: Hosts,
    pub(super) doors: TcpDoors,
    pub(super) questions: Questions,
    pub(super) history: history::Shared,
    pub(super) trace: Trace,
    /// How often clients were asked who is there.
    pub(super) asked: u64,
    installation: Installation,
    nodes: BTreeMap<usize, Node>,
    sdks: Vec<JoinHandle<anyhow::Result<()>>>,
    doing: watch::Sender<Doing>,
    /// None: no client stands still.
    still: watch::Sender<BTreeSet<history::Client>>,
    /// None: that is up to their kernel.
    stopped: watch::Sender<BTreeSet<usize>>,
    random: StdRng,
}

impl Processes {
    /// Makes the hosts, on which nothing runs yet.
    pub(super) async fn new(arguments: &Arguments, seed: u64) -> anyhow::Result<Self> {
        let setup = setup::draw(seed);
        Ok(Self {
            hosts: Hosts::make(setup.nodes).await?,
            doors: TcpDoors::new(setup.nodes),
            questions: Questions::new(),
            history: history::Shared::default(),
            trace: Trace::new(arguments.trace),
            asked: 0,
            installation: Installation::new(arguments.orbweb()?, &options::folder()?, &setup)?,
            nodes: BTreeMap::new(),
            sdks: Vec::new(),
            doing: watch::Sender::new(Doing::Publish),
            still: watch::Sender::default(),
            stopped: watch::Sender::default(),
            random: StdRng::seed_from_u64(seed),
            setup,
        })
    }

    /// Starts all nodes, the first as a cluster of its own, and the clients when all are ready.
    pub(super) async fn start(&mut self, sdks: usize) -> anyhow::Result<()> {
        for node in 0..self.setup.nodes {
            self.start_node(node, node > 0)?;
        }
        self.ready().await?;
        for number in 0..self.setup.clients {
            self.start_client(number)?;
        }
        if sdks > 0 {
            self.start_sdks(sdks).await?;
        }
        Ok(())
    }

    /// Starts a node that isn't running.
    pub(super) fn start_node(&mut self, node: usize, join: bool) -> anyhow::Result<()> {
        self.nodes.insert(node, self.installation.start(node, join)?);
        self.doors.open(node);
        self.trace.tell(format_args!("node {} started", name(node)));
        Ok(())
    }

    pub(super) async fn kill(&mut self, node: usize) -> anyhow::Result<()> {
        let killed = self.nodes.remove(&node).context("killed a node that doesn't run")?;
        self.doors.shut(node);
        killed.kill().await?;
        self.trace.tell(format_args!("node {} killed", name(node)));
        Ok(())
    }

    pub(super) fn node(&self, node: usize) -> anyhow::Result<&Node> {
        self.nodes.get(&node).context("a node that doesn't run")
    }

    /// The nodes that run.
    pub(super) fn running(&self) -> Vec<usize> {
        self.nodes.keys().copied().collect()
    }

    /// Nothing has ended that nobody killed.
    pub(super) async fn all_live(&mut self) -> anyhow::Result<()> {
        for (node, process) in &mut self.nodes {
            if let Some(status) = process.ended()? {
                bail!("{} ended by itself: {status}; its log says why", name(*node));
            }
        }
        for sdk in self.sdks.extract_if(.., |sdk| sdk.is_finished()) {
            sdk.await?.context("a real SDK")?;
        }
        Ok(())
    }

    /// What clients do from now on.
    pub(super) fn tell_clients(&self, doing: Doing) {
        self.trace.tell(format_args!("clients: {doing:?}"));
        self.doing.send_replace(doing);
    }

    fn start_client(&mut self, number: history::Client) -> anyhow::Result<()> {
        let user = self.setup.user(number);
        let channels = self.follow(number, user.as_deref());
        let javascript = self.random.random_bool(0.5);
        let client = Client {
            number,
            sdk: if javascript { client::Sdk::JavaScript } else { client::Sdk::Other },
            token: user.as_deref().map(Setup::token).transpose()?,
            channels,
            home: Some(number % self.setup.nodes),
            pace: Duration::from_millis(self.setup.pace_ms),
            padding: self.setup.padding,
            keeps: false,
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

    async fn start_sdks(&mut self, sdks: usize) -> anyhow::Result<()> {
        let random = StdRng::seed_from_u64(self.random.random());
        let address = balancer::start(self.doors.clone(), random).await?;
        let (url, modules) =
            (format!("ws://{address}{}", orbweb::gateway::PATH), options::sdk_modules()?);
        let numbers = (self.setup.clients..).filter(|number| self.setup.user(*number).is_none());
        for number in numbers.take(sdks).collect::<Vec<_>>() {
            let sdk = Sdk {
                number,
                channels: self.follow(number, None),
                pace: Duration::from_millis(self.setup.pace_ms),
                doing: self.doing.subscribe(),
                history: self.history.clone(),
                trace: self.trace.clone(),
                random: StdRng::seed_from_u64(self.random.random()),
            };
            self.history.borrow_mut().epochless.insert(number);
            let (url, modules) = (url.clone(), modules.clone());
            self.sdks.push(spawn_local(async move { sdk.run(&modules, &url).await }));
        }
        Ok(())
    }

    /// The channels of a client, which it is to follow from now on, as it is its user's inbox.
    fn follow(
        &mut self,
        number: history::Client,
        user: Option<&str>,
    ) -> Vec<orbweb::protocol::channel::Channel> {
        let first = self.random.random_range(0..self.setup.channels);
        let channels = first..first + self.setup.subscriptions;
        let channels: Vec<_> = channels.map(|channel| self.setup.channel(channel)).collect();
        let followed = channels.iter().cloned().chain(user.map(inbox));
        self.history.borrow_mut().expected.extend(followed.map(|channel| (number, channel)));
        channels
    }
}
