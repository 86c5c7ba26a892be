//! Starts the parts of a node in order and connects them.
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use arc_swap::ArcSwap;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval};

use super::clock::Clocks;
use super::environment::{Environment, Mesh};
use super::facts::{Facts, Inspections};
use super::shortage::{Notice, Shortage};
use super::{Node, fatal, turn_up};
use crate::api::{Api, ApiMetrics, router};
use crate::config::{self, Config};
use crate::delivery::core::{Core, Settings};
use crate::delivery::event::{CoreStatus, Event, Outlook, ShardId};
use crate::delivery::mailbox::{CoreSender, ShardSender};
use crate::engine::{Engine, LinkNews, Progress};
use crate::gateway::socket::Listener;
use crate::gateway::{self, Gateway, GatewayConfig, Limits, Origins, Times};
use crate::membership::{self, Lookout, Membership, MembershipConfig, Snapshot};
use crate::ownership::attendance::Sessions;
use crate::ownership::placement::Placement;
use crate::ownership::serving::{Degraded, Serving, ServingGate};
use crate::ownership::view::{Member, View};
use crate::peers::{
    self, Credentials, Gossip, OperatorPem, PeerEvent, Peers, PeersConfig, Secret, Target,
};
use crate::protocol::ids::{Incarnation, NodeId};
use crate::tasks::Tasks;

/// Batches of frames that may wait for the engine; a link that finds this full waits, which slows
/// the peer that sends.
const PEER_EVENTS_LEN: usize = 1_024;
/// What lifelines find, on its way to membership.
const FINDINGS_LEN: usize = 16;
/// News for the node beside the data path.
const NEWS_LEN: usize = 256;
/// How often the outlook is made anew without news: whether to serve depends on time, too.
const LOOK_EVERY: Duration = Duration::from_millis(100);

pub(super) async fn start<L: Listener>(
    config: Config,
    environment: Environment<L>,
) -> anyhow::Result<Node<L>> {
    let Environment { listener, bound, mesh, clocks, threads, tasks: runs } = environment;
    let id = NodeId { name: config.name.clone(), incarnation: Incarnation(rand::random()) };
    let client_url = config.client_url(bound);
    let shard_count = config.client.threads();

    let (core, mailbox) = CoreSender::channel();
    let (mut shards, mailboxes) = gateway::shards(usize::from(shard_count));
    let (api_shard, api_mailbox) = ShardSender::channel();
    shards.push(api_shard);
    let (news, news_in) = mpsc::channel(NEWS_LEN);
    let (failures, failures_in) = mpsc::channel(4);
    let (progress, progress_in) = watch::channel(Progress::default());
    let status = Arc::new(ArcSwap::from_pointee(CoreStatus::default()));
    let outlook = Arc::new(ArcSwap::from_pointee(Outlook::default()));
    let (peer_events, peer_events_in) = mpsc::channel(PEER_EVENTS_LEN);
    let mut tasks = Vec::new();

    let me = Me { id: &id, client_url: &client_url, started: (clocks.wall)() };
    let mesh = match mesh {
        Some(mesh) => Some(join_mesh((&config, &runs), me, mesh, peer_events, &mut tasks)?),
        None => None,
    };
    let (peers, membership) = mesh.unzip();

    let engine = Engine {
        core: Core::new(id.incarnation, settings(&config), rand::random()),
        mailbox,
        peers: peers.clone(),
        peer_events: peer_events_in,
        shards,
        news,
        progress,
        status: status.clone(),
        clock: clocks.cores,
    };
    let engine = runs.spawn(engine.run());
    tasks.push(runs.spawn(watch_engine(engine, failures.clone())));

    let inspections = Arc::new(Inspections::default());
    let facts = Arc::new(Facts::new(
        id.clone(),
        client_url,
        config.slots,
        peers.clone(),
        membership.as_ref().map(Membership::snapshots),
        outlook.clone(),
        status.clone(),
        inspections.clone(),
    ));
    let metrics = {
        let mut registry = facts.registry_mut()?;
        ApiMetrics::register(&mut registry)
    };
    let api =
        Api::new(&config, core.clone(), ShardId(shard_count), facts.clone(), metrics, clocks.wall);
    tasks.push(runs.spawn(api.read_replies(api_mailbox)));

    let gateway = Gateway::start(
        gateway_config(&config, &id, clocks),
        listener,
        router(api),
        core.clone(),
        mailboxes,
        threads,
    )?;
    facts.set_gateway(gateway.stats());
    tasks.push(runs.spawn(hear(news_in, facts.clone(), inspections, failures.clone())));

    match &membership {
        Some(membership) => {
            let look = Look {
                lookout: Lookout::new(
                    config.slots,
                    ServingGate::new(config.copies, degraded(&config)),
                ),
                core: core.clone(),
                peers: peers.clone(),
                outlook,
                status: status.clone(),
                failures,
                dead: Vec::new(),
                shortage: Shortage::default(),
                clocks,
            };
            tasks.push(runs.spawn(look.run(membership.snapshots())));
            let state = membership.state_setter();
            tasks.push(runs.spawn(turn_up(membership.state(), progress_in.clone(), state)));
        }
        None => {
            let alone = Arc::new(alone(&id, &config));
            Notice::Serves(alone.serving).log();
            outlook.store(alone.clone());
            core.push(Event::Outlook(alone)).await.context("the engine has just started")?;
        }
    }
    tracing::info!(node = %id, clients = %bound, "node.listening");
    Ok(Node {
        core,
        gateway,
        membership,
        peers,
        progress: progress_in,
        failures: failures_in,
        status,
        facts,
        tasks,
    })
}

/// A node whose cores have ended serves nobody, though its links and gossip go on: it must end, too.
async fn watch_engine(engine: JoinHandle<()>, failures: mpsc::Sender<anyhow::Error>) {
    let ended = match engine.await {
        Ok(()) => anyhow::anyhow!("the engine ended"),
        Err(error) => anyhow::Error::new(error).context("the engine failed"),
    };
    // Nobody listens any more when the node has stopped.
    let _stopped = failures.send(ended).await;
}

/// What peers are told of this node.
struct Me<'a> {
    id: &'a NodeId,
    client_url: &'a str,
    /// Since 1970: a later start of the same name has a later one.
    started: Duration,
}

fn join_mesh(
    (config, runs): (&Config, &Tasks),
    me: Me<'_>,
    mesh: Mesh,
    events: mpsc::Sender<PeerEvent>,
    tasks: &mut Vec<JoinHandle<()>>,
) -> anyhow::Result<(Peers, Membership)> {
    let peers_config = PeersConfig {
        node: me.id.clone(),
        cluster: config.cluster.clone(),
        slots: config.slots,
        copies: config.copies,
        versions: mesh.versions.clone(),
        advertise: mesh.advertise,
        url: Some(me.client_url.to_owned()),
        credentials: credentials(config)?,
    };
    let bound = mesh.socket.local_addr()?;
    let (peers, Gossip { outgoing, incoming }) =
        Peers::start(peers_config, mesh.socket, mesh.runtime, events)?;
    let generation = me.started.as_micros() as u64;
    let mut membership = MembershipConfig::new(me.id.clone(), generation, mesh.advertise);
    membership.cluster = config.cluster.clone();
    membership.client_url = me.client_url.to_owned();
    membership.own_addresses = vec![bound];
    membership.seeds = config.join.iter().map(ToString::to_string).collect();
    membership.protocol = u32::from(*mesh.versions.end());
    membership.copies = config.copies;
    membership.slots = config.slots;
    membership.weight = config.weight;
    membership.detector.gossip_interval = config.gossip_interval;
    membership.tasks = runs.clone();
    let (linked, linked_in) = watch::channel(Vec::new());
    tasks.push(runs.spawn(pass_links(peers.linked(), linked)));
    let (findings, findings_in) = mpsc::channel(FINDINGS_LEN);
    if let Some(listener) = mesh.lifelines {
        tasks.push(runs.spawn(pass_findings(peers.keep_lifelines(listener)?, findings)));
    }
    let membership = Membership::start(membership, outgoing, incoming, linked_in, findings_in)?;
    Ok((peers, membership))
}

async fn pass_findings(
    mut from: mpsc::Receiver<peers::Finding>,
    to: mpsc::Sender<membership::Finding>,
) {
    while let Some(peers::Finding { node, door, link_answers }) = from.recv().await {
        let door = match door {
            peers::Door::Refused => membership::Door::Refused,
            peers::Door::Opened(who) => membership::Door::Opened(who),
            peers::Door::Unclear => membership::Door::Unclear,
        };
        if to.send(membership::Finding { node, door, link_answers }).await.is_err() {
            return;
        }
    }
}

async fn pass_links(mut from: watch::Receiver<Arc<[NodeId]>>, to: watch::Sender<Vec<NodeId>>) {
    loop {
        let linked = from.borrow_and_update().to_vec();
        to.send_replace(linked);
        if from.changed().await.is_err() {
            return;
        }
    }
}

fn credentials(config: &Config) -> anyhow::Result<Credentials> {
    let secret = config.secret.as_ref().context("`secret`: peers need one; see `orbweb secret`")?;
    let previous = config.previous_secret.as_ref();
    let operator = match (&config.tls.ca, &config.tls.cert, &config.tls.key) {
        (Some(ca), Some(cert), Some(key)) => {
            let read = |key: &str, path: &std::path::Path| {
                std::fs::read(path)
                    .with_context(|| format!("`{key}`: cannot read {}", path.display()))
            };
            Some(OperatorPem {
                ca: read("tls.ca", ca)?,
                cert: read("tls.cert", cert)?,
                key: read("tls.key", key)?,
            })
        }
        _ => None,
    };
    Ok(Credentials {
        secret: Secret::parse(secret.expose()).context("`secret`")?,
        previous_secret: previous
            .map(|secret| Secret::parse(secret.expose()).context("`previous_secret`"))
            .transpose()?,
        operator,
    })
}

fn settings(config: &Config) -> Settings {
    let sessions = Sessions {
        offline_after_ms: millis(config.session.offline_after),
        ttl_ms: millis(config.session.ttl),
    };
    Settings { slots: config.slots, copies: config.copies, sessions }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn gateway_config(config: &Config, id: &NodeId, clocks: Clocks) -> GatewayConfig {
    let mut gateway = GatewayConfig::new(id.name.clone(), config.channels.clone());
    let secret = config.token.hmac_secret.as_ref();
    gateway.token_secret = secret.map(|secret| secret.expose().as_bytes().to_vec());
    gateway.allow_anonymous = config.client.allow_anonymous;
    gateway.allow_sessions = config.client.allow_sessions;
    gateway.origins = match config.client.allowed_origins.as_slice() {
        [] => Origins::SameHost,
        all if all.iter().any(|origin| origin == "*") => Origins::Any,
        listed => Origins::Listed(listed.to_vec()),
    };
    let connections_max = config.client.connections_max as usize;
    gateway.limits =
        Limits { connections_max, connections_per_ip_max: connections_max, ..Limits::default() };
    gateway.times = Times {
        ping_interval: config.client.ping_interval,
        pong_timeout: config.client.pong_timeout,
        connect_timeout: config.client.auth_timeout,
    };
    gateway.wall = clocks.wall;
    gateway
}

fn degraded(config: &Config) -> Degraded {
    match config.degraded {
        config::Degraded::Half => Degraded::Half,
        config::Degraded::Refuse => Degraded::Refuse,
        config::Degraded::Accept => Degraded::Accept,
    }
}

/// The outlook of a node without a mesh.
fn alone(id: &NodeId, config: &Config) -> Outlook {
    let view = View::new([Member { id: id.clone(), weight: config.weight }]);
    let placement = Arc::new(Placement::compute(&view, config.slots));
    let planned = placement.clone();
    let serving = if config.copies > 1 { Serving::Standalone } else { Serving::Full };
    Outlook { view, placement, planned, joining: vec![], outside: vec![], serving }
}

/// Takes what membership sees to the cores and the links.
struct Look {
    lookout: Lookout,
    core: CoreSender,
    peers: Option<Peers>,
    outlook: Arc<ArcSwap<Outlook>>,
    status: Arc<ArcSwap<CoreStatus>>,
    failures: mpsc::Sender<anyhow::Error>,
    /// Whose links were closed because their process is gone.
    dead: Vec<NodeId>,
    shortage: Shortage,
    clocks: Clocks,
}

impl Look {
    async fn run(mut self, mut snapshots: watch::Receiver<Arc<Snapshot>>) {
        let mut again = interval(LOOK_EVERY);
        again.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                changed = snapshots.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    let snapshot = snapshots.borrow_and_update().clone();
                    self.link(&snapshot).await;
                }
                _ = again.tick() => {}
            }
            let snapshot = snapshots.borrow().clone();
            let status = self.status.load();
            let repaired = status.slots_claiming == 0 && status.copies.unrepaired == 0;
            let now = (self.clocks.cores)();
            if let Some(outlook) = self.lookout.observe(&snapshot, repaired, now) {
                self.outlook.store(outlook.clone());
                if self.core.push(Event::Outlook(outlook)).await.is_err() {
                    return;
                }
            }
            let serving = self.outlook.load().serving;
            let notices = self.shortage.observe(serving, status.copies, now);
            notices.into_iter().for_each(Notice::log);
        }
    }

    async fn link(&mut self, snapshot: &Snapshot) {
        if let Some(newer) = &snapshot.replaced_by {
            let reason = format!("{} at {} took over this node's name", newer.id, newer.address);
            if let Err(error) = fatal(reason) {
                let _ended = self.failures.send(error).await;
            }
        }
        let Some(peers) = &self.peers else { return };
        // Once: a link that such a node makes afterwards shows that it lives.
        let newly_dead = snapshot.dead.iter().filter(|node| !self.dead.contains(node));
        newly_dead.for_each(|node| peers.bury(node));
        self.dead.clone_from(&snapshot.dead);
        let targets = snapshot.targets.iter();
        let targets = targets.map(|t| Target { id: t.id.clone(), address: t.address }).collect();
        peers.set_targets(targets);
        peers.set_relays(snapshot.relays.clone());
    }
}

/// Answers what other nodes ask, and hears what they answer.
async fn hear(
    mut news: mpsc::Receiver<LinkNews>,
    facts: Arc<Facts>,
    inspections: Arc<Inspections>,
    failures: mpsc::Sender<anyhow::Error>,
) {
    while let Some(news) = news.recv().await {
        match news {
            LinkNews::Refused(reason) => {
                if let Err(error) = fatal(reason) {
                    let _ended = failures.send(error).await;
                }
            }
            LinkNews::Inspect { from, number } => facts.answer(from, number),
            LinkNews::Inspected(inspected) => inspections.complete(inspected),
        }
    }
}
