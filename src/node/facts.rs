//! What the API is told of the node and its cluster. Other nodes are asked over the links.
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use async_trait::async_trait;
use bytes::Bytes;
use prometheus_client::registry::Registry;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, timeout_at};

use super::metrics::NodeMetrics;
use crate::api::{Located, NodeFacts, NodeRef, NodeReport, NodeState};
use crate::delivery::event::{CoreStatus, Outlook};
use crate::engine::Inspected;
use crate::gateway::GatewayStats;
use crate::membership::{Snapshot, State};
use crate::peers::Peers;
use crate::protocol::ids::{Incarnation, NodeId, Slot};
use crate::protocol::peer::{Lane, PeerFrame};

/// How long other nodes may take to say what they say of themselves.
const INSPECT_TIMEOUT: Duration = Duration::from_secs(1);
/// Questions about the cluster that may wait at once.
const INSPECTIONS_MAX: usize = 64;

/// See the module.
pub(super) struct Facts {
    id: NodeId,
    client_url: String,
    slots: u16,
    started: Instant,
    peers: Option<Peers>,
    snapshots: Option<watch::Receiver<Arc<Snapshot>>>,
    outlook: Arc<ArcSwap<Outlook>>,
    status: Arc<ArcSwap<CoreStatus>>,
    gateway: OnceLock<Arc<GatewayStats>>,
    inspections: Arc<Inspections>,
    registry: Arc<OnceLock<Arc<Registry>>>,
    building: Mutex<Registry>,
    was_ready: AtomicBool,
}

/// Questions about other nodes that wait for answers.
#[derive(Default)]
pub(super) struct Inspections {
    waiting: Mutex<BTreeMap<u64, mpsc::Sender<Inspected>>>,
}

impl Inspections {
    /// Hands an answer to whoever asked.
    pub(super) fn complete(&self, inspected: Inspected) {
        if let Some(asker) = lock(&self.waiting).get(&inspected.number) {
            // A full queue means more answers than nodes were asked: what is over is not ours.
            let _over = asker.try_send(inspected);
        }
    }

    fn begin(&self, nodes: usize) -> Option<(u64, mpsc::Receiver<Inspected>)> {
        let mut waiting = lock(&self.waiting);
        if waiting.len() >= INSPECTIONS_MAX {
            return None;
        }
        let number = rand::random();
        let (asker, answers) = mpsc::channel(nodes.max(1));
        waiting.insert(number, asker);
        Some((number, answers))
    }

    fn end(&self, number: u64) {
        lock(&self.waiting).remove(&number);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Facts {
    #[expect(clippy::too_many_arguments, reason = "the parts of a node, once")]
    pub(super) fn new(
        id: NodeId,
        client_url: String,
        slots: u16,
        peers: Option<Peers>,
        snapshots: Option<watch::Receiver<Arc<Snapshot>>>,
        outlook: Arc<ArcSwap<Outlook>>,
        status: Arc<ArcSwap<CoreStatus>>,
        inspections: Arc<Inspections>,
    ) -> Self {
        Self {
            id,
            client_url,
            slots,
            started: Instant::now(),
            peers,
            snapshots,
            outlook,
            status,
            gateway: OnceLock::new(),
            inspections,
            registry: Arc::default(),
            building: Mutex::default(),
            was_ready: AtomicBool::new(false),
        }
    }

    /// The registry while parts of the node register what they count.
    pub(super) fn registry_mut(&self) -> anyhow::Result<MutexGuard<'_, Registry>> {
        anyhow::ensure!(self.registry.get().is_none(), "metrics are registered once, at the start");
        Ok(lock(&self.building))
    }

    /// Ends the registering: the gateway has started.
    pub(super) fn set_gateway(&self, stats: Arc<GatewayStats>) {
        let mut registry = std::mem::take(&mut *lock(&self.building));
        let (status, outlook) = (self.status.clone(), self.outlook.clone());
        let metrics = NodeMetrics::new(stats.clone(), status, outlook, self.peers.clone());
        registry.register_collector(Box::new(metrics));
        // Set once: `wiring` calls this once.
        let _first = self.gateway.set(stats);
        let _first = self.registry.set(Arc::new(registry));
    }

    /// Answers a peer that asks what this node says of itself.
    pub(super) fn answer(&self, to: Incarnation, number: u64) {
        let Some(peers) = &self.peers else { return };
        let report = match serde_json::to_vec(&self.report()) {
            Ok(json) => Bytes::from(json),
            Err(error) => return tracing::error!(%error, "report.not_encoded"),
        };
        let frame = PeerFrame::Inspected { number, report };
        if let Err(error) = peers.send(&[to], Lane::Control, &frame) {
            tracing::error!(%error, "report.not_sent");
        }
    }

    fn snapshot(&self) -> Option<Arc<Snapshot>> {
        self.snapshots.as_ref().map(|snapshots| snapshots.borrow().clone())
    }

    fn state(&self) -> NodeState {
        let snapshot = self.snapshot();
        let me = snapshot.as_ref().and_then(|s| s.me());
        match (me.map(|me| me.facts.state), snapshot.is_some()) {
            (Some(State::Leaving), _) => NodeState::Leaving,
            (Some(State::Up), _) | (None, false) => NodeState::Up,
            (Some(State::Joining), _) | (None, true) => NodeState::Joining,
        }
    }

    async fn ask_others(&self, others: &[NodeId]) -> BTreeMap<Incarnation, NodeReport> {
        let mut reports = BTreeMap::new();
        let Some(peers) = self.peers.as_ref().filter(|_| !others.is_empty()) else {
            return reports;
        };
        let Some((number, mut answers)) = self.inspections.begin(others.len()) else {
            return reports;
        };
        let to: Vec<Incarnation> = others.iter().map(|other| other.incarnation).collect();
        if peers.send(&to, Lane::Control, &PeerFrame::Inspect { number }).is_ok() {
            let deadline = Instant::now() + INSPECT_TIMEOUT;
            while reports.len() < others.len() {
                let Ok(Some(answer)) = timeout_at(deadline, answers.recv()).await else { break };
                match serde_json::from_slice(&answer.report) {
                    Ok(report) => drop(reports.insert(answer.from, report)),
                    Err(error) => tracing::debug!(%error, from = ?answer.from, "report.unreadable"),
                }
            }
        }
        self.inspections.end(number);
        reports
    }

    /// Which other members are in another view, or have too few copies, as sentences. Who
    /// doesn't answer has none.
    async fn reasons_of_others(&self) -> Vec<String> {
        let snapshot = self.snapshot();
        let members = snapshot.iter().flat_map(|snapshot| &snapshot.members);
        let others = members.map(|member| member.id.clone()).filter(|id| *id != self.id);
        let reports = self.ask_others(&others.collect::<Vec<_>>()).await;
        let ours = format!("{:016x}", self.status.load().view_hash);
        let reason = |report: NodeReport| {
            let name = &report.name;
            let moving = report.view_hash != ours;
            let moving = moving.then(|| format!("{name} is in another view"));
            let short = too_few_copies(report.slots_unrepaired, report.slots_astray);
            moving.or(short.map(|why| format!("{name} {why}")))
        };
        reports.into_values().filter_map(reason).collect()
    }
}

/// What a node says of slots that could have more copies, and of those that it may be the only one
/// to hold something of.
fn too_few_copies(unrepaired: u32, astray: u32) -> Option<String> {
    match (unrepaired, astray) {
        (0, 0) => None,
        (0, astray) => Some(format!("holds what the owners of {astray} slots may lack")),
        (unrepaired, _) => Some(format!("has {unrepaired} slots with too few copies")),
    }
}

#[async_trait]
impl NodeFacts for Facts {
    async fn ready(&self) -> Result<(), Vec<String>> {
        let mut reasons = Vec::new();
        match self.state() {
            NodeState::Up => {}
            state => reasons.push(format!("{state}")),
        }
        let outlook = self.outlook.load();
        if !outlook.view.contains(self.id.incarnation) {
            reasons.push("not in the view".to_owned());
        }
        if !outlook.serving.allowed() {
            reasons.push("sees too few nodes to serve".to_owned());
        }
        let others = outlook.view.len().saturating_sub(1);
        if others > 0 && self.peers.as_ref().is_some_and(|peers| peers.links().is_empty()) {
            reasons.push("no link to any peer".to_owned());
        }
        // Only until it was ready once: when a node dies all others claim for a moment, and a load
        // balancer that took all of them out would make that moment long.
        let status = self.status.load();
        let claiming = status.slots_claiming;
        if !self.was_ready.load(Ordering::Relaxed) {
            if status.view_hash != outlook.view.hash() {
                reasons.push("takes a look at its slots".to_owned());
            }
            if claiming > 0 {
                reasons.push(format!("claims {claiming} slots"));
            }
            reasons.extend(too_few_copies(status.copies.unrepaired, status.copies.astray));
            // The next node of a rolling restart goes when this one is ready: what others own must
            // have its copies by then, too.
            if reasons.is_empty() {
                reasons = self.reasons_of_others().await;
            }
        }
        if !reasons.is_empty() {
            return Err(reasons);
        }
        self.was_ready.store(true, Ordering::Relaxed);
        Ok(())
    }

    fn report(&self) -> NodeReport {
        let status = self.status.load();
        let outlook = self.outlook.load();
        let gateway = self.gateway.get();
        let snapshot = self.snapshot();
        let links = self.peers.as_ref().map(Peers::links).unwrap_or_default();
        let mut link_versions = BTreeMap::new();
        for link in &links {
            *link_versions.entry(link.version).or_default() += 1;
        }
        NodeReport {
            name: self.id.name.clone(),
            incarnation: self.id.incarnation,
            state: self.state(),
            serving: outlook.serving.into(),
            client_url: self.client_url.clone(),
            link_address: snapshot.and_then(|s| Some(s.me()?.address.to_string())),
            slots_owned: status.slots_owned,
            slots_claiming: status.slots_claiming,
            slots_under_replicated: status.copies.under_replicated,
            slots_unrepaired: status.copies.unrepaired,
            slots_astray: status.copies.astray,
            changes_uncommitted: status.copies.uncommitted,
            links: links.len() as u32,
            link_versions,
            connections: gateway.map_or(0, |stats| stats.connections.get()),
            users: None,
            subscriptions: None,
            channels: Some(status.channels),
            uptime_s: self.started.elapsed().as_secs(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            view_hash: format!("{:016x}", status.view_hash),
        }
    }

    async fn cluster(&self) -> Vec<NodeReport> {
        let snapshot = self.snapshot();
        let members = snapshot.iter().flat_map(|snapshot| &snapshot.members);
        let others: Vec<_> = members.filter(|member| member.id != self.id).collect();
        let ids: Vec<NodeId> = others.iter().map(|member| member.id.clone()).collect();
        let mut reports = self.ask_others(&ids).await;
        let told = others.into_iter().map(|member| {
            let silent = NodeReport {
                name: member.id.name.clone(),
                incarnation: member.id.incarnation,
                state: NodeState::Silent,
                serving: crate::api::ServingState::No,
                client_url: member.facts.client_url.clone(),
                link_address: Some(member.address.to_string()),
                slots_owned: 0,
                slots_claiming: 0,
                slots_under_replicated: 0,
                slots_unrepaired: 0,
                slots_astray: 0,
                changes_uncommitted: 0,
                links: 0,
                link_versions: BTreeMap::new(),
                connections: 0,
                users: None,
                subscriptions: None,
                channels: None,
                uptime_s: 0,
                version: String::new(),
                view_hash: String::new(),
            };
            reports.remove(&member.id.incarnation).unwrap_or(silent)
        });
        std::iter::once(self.report()).chain(told).collect()
    }

    async fn locate(&self, key: &str) -> Located {
        let outlook = self.outlook.load();
        let slot = Slot::of(key, self.slots);
        let node = |incarnation: Incarnation| {
            let members = outlook.view.members();
            let member = members.iter().find(|member| member.id.incarnation == incarnation);
            member.map(|member| NodeRef::from(member.id.clone()))
        };
        let mut nodes = outlook.placement.preference(slot).filter_map(node);
        Located { slot, owner: nodes.next(), successors: nodes.collect() }
    }

    fn metrics(&self) -> Arc<Registry> {
        self.registry.get().cloned().unwrap_or_default()
    }
}
