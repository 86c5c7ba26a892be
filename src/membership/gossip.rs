//! The gossip task: runs chitchat, starts it again if it ends, feeds the roster and publishes its
//! snapshots. It decides nothing.
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use chitchat::{
    Chitchat, ChitchatConfig, ChitchatHandle, ChitchatId, FailureDetectorConfig, NodeState,
    spawn_chitchat,
};
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};
use tokio_util::sync::CancellationToken;

use super::config::MembershipConfig;
use super::facts::{self, Facts, State};
use super::live::Live;
use super::probe::Probe;
use super::roster::{Inputs, Roster};
use super::seeds::Seeds;
use super::snapshot::{LiveMember, Snapshot};
use super::stall::TICK_MS;
use super::transport::ChannelTransport;
use super::verdicts::Finding;
use crate::protocol::ids::NodeId;
use crate::protocol::time::Millis;

/// Heartbeat intervals that the detector takes the mean of.
const SAMPLES: usize = 100;
/// A longer interval says nothing of how often a node is heard from.
const SAMPLE_MAX: Duration = Duration::from_secs(2);
/// Pause before gossip that ended is started again: short enough that peers don't take this node
/// as dead, long enough to log and not to spin.
const RESTART_AFTER: Duration = Duration::from_millis(150);
/// Peers that are told at once that this node leaves; they tell the others.
const FAREWELLS_MAX: usize = 32;

/// What the task works with.
pub(super) struct Wiring {
    pub(super) config: MembershipConfig,
    pub(super) transport: ChannelTransport,
    pub(super) linked: watch::Receiver<Vec<NodeId>>,
    pub(super) findings: mpsc::Receiver<Finding>,
    pub(super) seeds: watch::Receiver<Seeds>,
    pub(super) state: Arc<watch::Sender<State>>,
    pub(super) stop: CancellationToken,
}

/// The gossip task.
pub(super) struct Gossip {
    wiring: Wiring,
    state: watch::Receiver<State>,
    roster: Roster,
    snapshots: watch::Sender<Arc<Snapshot>>,
    started: Instant,
    generation: u64,
    live: Live,
    /// Heard and not yet told to the roster.
    findings: Vec<Finding>,
    probe: Probe,
}

/// Why a run of chitchat ended.
enum Ended {
    Stopped,
    Failed,
}

impl Gossip {
    pub(super) fn new(wiring: Wiring) -> Self {
        let mut roster = Roster::new(&wiring.config);
        let first = roster.observe(
            Millis(0),
            Inputs {
                sightings: &[],
                linked: &wiring.linked.borrow(),
                findings: &[],
                seeds: &wiring.seeds.borrow(),
                state: *wiring.state.borrow(),
                healthy: true,
            },
        );
        Self {
            state: wiring.state.subscribe(),
            snapshots: watch::Sender::new(Arc::new(first)),
            started: Instant::now(),
            generation: wiring.config.generation,
            live: Live::default(),
            findings: Vec::new(),
            probe: Probe::new(wiring.config.detector.gossip_interval),
            roster,
            wiring,
        }
    }

    pub(super) fn snapshots(&self) -> watch::Receiver<Arc<Snapshot>> {
        self.snapshots.subscribe()
    }

    pub(super) async fn run(mut self) {
        while !self.wiring.stop.is_cancelled() {
            let handle = self.start_chitchat().await;
            let ended = match &handle {
                Ok(handle) => self.follow(handle).await,
                Err(error) => {
                    tracing::error!(%error, "gossip.failed");
                    Ended::Failed
                }
            };
            if let Ok(handle) = handle {
                // Its result was told by the termination watcher, or nobody waits for it.
                let _ = handle.shutdown().await;
            }
            if matches!(ended, Ended::Stopped) || self.wiring.transport.is_closed().await {
                break;
            }
            tracing::error!(node = %self.wiring.config.id, "gossip.restarting");
            self.generation += 1;
            self.publish(false);
            let stop = self.wiring.stop.clone();
            stop.run_until_cancelled(sleep(RESTART_AFTER)).await;
            self.roster.doubt(self.now(), RESTART_AFTER.as_millis() as u64);
        }
        self.publish(false);
    }

    async fn start_chitchat(&self) -> anyhow::Result<ChitchatHandle> {
        let config = &self.wiring.config;
        let detector = config.detector;
        let chitchat = ChitchatConfig {
            chitchat_id: ChitchatId::new(
                config.id.name.as_str(),
                self.generation,
                config.link_address,
            ),
            cluster_id: config.cluster.clone(),
            gossip_interval: detector.gossip_interval,
            listen_addr: config.link_address,
            // Seeds are resolved and probed here.
            seed_nodes: Vec::new(),
            failure_detector_config: FailureDetectorConfig {
                phi_threshold: detector.phi,
                sampling_window_size: SAMPLES,
                max_interval: SAMPLE_MAX,
                initial_interval: detector.gossip_interval,
                dead_node_grace_period: detector.dead_grace,
            },
            marked_for_deletion_grace_period: detector.dead_grace / 2,
            catchup_callback: None,
            extra_liveness_predicate: None,
        };
        spawn_chitchat(chitchat, self.roster.me().facts.to_pairs(), &self.wiring.transport).await
    }

    /// Follows one run of chitchat until it ends or this task is stopped.
    async fn follow(&mut self, handle: &ChitchatHandle) -> Ended {
        let mut live = handle.with_chitchat(|chitchat| chitchat.live_nodes_watcher()).await;
        live.mark_changed();
        // The watcher tells what has come at this node's next round. Who leaves is known at once.
        let states = Arc::new(Notify::new());
        let notify = |chitchat: &mut Chitchat| {
            let changed = Arc::clone(&states);
            chitchat.subscribe_event(facts::STATE, move |_| changed.notify_one())
        };
        let _listener = handle.with_chitchat(notify).await;
        let mut said = self.roster.me().facts.clone();
        let mut ended = std::pin::pin!(handle.termination_watcher());
        let mut tick = interval(Duration::from_millis(TICK_MS));
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let stop = self.wiring.stop.clone();
        loop {
            // A source whose other end is gone is left out. All arms are cancel-safe.
            tokio::select! {
                () = stop.cancelled() => return Ended::Stopped,
                result = &mut ended => {
                    tracing::error!(?result, "gossip.ended");
                    return Ended::Failed;
                }
                Ok(()) = live.changed() => self.live.read(&live.borrow_and_update(), &self.roster),
                () = states.notified() => {
                    let live = handle.with_chitchat(|chitchat| live_nodes(chitchat)).await;
                    self.live.read(&live, &self.roster);
                }
                Some(finding) = self.wiring.findings.recv() => self.findings.push(finding),
                Ok(()) = self.wiring.linked.changed() => {}
                Ok(()) = self.wiring.seeds.changed() => {}
                Ok(()) = self.state.changed() => {}
                _ = tick.tick() => {}
            }
            self.publish(true);
            self.say(handle, &mut said).await;
            self.probe(handle);
        }
    }

    fn now(&self) -> Millis {
        Millis(self.started.elapsed().as_millis() as u64)
    }

    /// Publishes a snapshot if it differs from the last one.
    fn publish(&mut self, healthy: bool) {
        let now = self.now();
        let seeds = self.wiring.seeds.borrow_and_update();
        if !seeds.foreign {
            // Every name turned out to be this node: it starts a cluster.
            facts::raise(&self.wiring.state, State::Up);
        }
        let snapshot = self.roster.observe(
            now,
            Inputs {
                sightings: &self.live.sightings,
                linked: &self.wiring.linked.borrow_and_update(),
                findings: &std::mem::take(&mut self.findings),
                seeds: &seeds,
                state: *self.state.borrow_and_update(),
                healthy,
            },
        );
        self.snapshots.send_if_modified(|last| {
            if **last == snapshot {
                return false;
            }
            log_changes(last, &snapshot);
            *last = Arc::new(snapshot);
            true
        });
    }

    /// Gossips what has changed of this node.
    async fn say(&self, handle: &ChitchatHandle, said: &mut Facts) {
        let facts = &self.roster.me().facts;
        if facts == said {
            return;
        }
        handle
            .with_chitchat(|chitchat| {
                let state = chitchat.self_node_state();
                // A value that stays the same isn't sent again.
                state.set(facts::LINKS, facts.links_text());
                state.set(facts::AWAITS, facts.awaits_text());
                state.set(facts::STATE, facts.state_text());
            })
            .await;
        if facts.state == State::Leaving && said.state != State::Leaving {
            let snapshot = self.snapshots.borrow().clone();
            let peers = snapshot.members.iter().filter(|member| member.id != snapshot.me);
            for peer in peers.take(FAREWELLS_MAX) {
                // Fails only if chitchat has ended.
                let _ = handle.gossip(peer.address);
            }
        }
        *said = facts.clone();
    }

    /// Gossips with seeds and lost members, which chitchat doesn't know of.
    fn probe(&mut self, handle: &ChitchatHandle) {
        let now = self.now();
        let snapshot = self.snapshots.borrow().clone();
        for address in self.probe.due(now, &snapshot) {
            // Fails only if chitchat has ended.
            let _ = handle.gossip(address);
        }
    }
}

/// What chitchat's watcher would tell now.
fn live_nodes(chitchat: &Chitchat) -> BTreeMap<ChitchatId, NodeState> {
    let live = chitchat.live_nodes();
    live.filter_map(|id| Some((id.clone(), chitchat.node_state(id)?.clone()))).collect()
}

fn log_changes(before: &Snapshot, after: &Snapshot) {
    let is_in =
        |snapshot: &Snapshot, member: &LiveMember| snapshot.member(member.id.incarnation).is_some();
    for member in after.members.iter().filter(|member| !is_in(before, member)) {
        tracing::info!(peer = %member.id, address = %member.address, "member.found");
    }
    for member in before.members.iter().filter(|member| !is_in(after, member)) {
        tracing::info!(peer = %member.id, address = %member.address, "member.lost");
    }
    for node in after.dead.iter().filter(|node| !before.dead.contains(node)) {
        tracing::info!(peer = %node, "member.dead");
    }
    if before.view != after.view {
        let names: Vec<&str> = after.view.members().iter().map(|m| m.id.name.as_str()).collect();
        tracing::info!(hash = format_args!("{:016x}", after.view.hash()), ?names, "view.changed");
    }
    if let (None, Some(later)) = (&before.replaced_by, &after.replaced_by) {
        tracing::error!(node = %after.me, by = %later.id, address = %later.address, "node.replaced");
    }
    if !before.stalled && after.stalled {
        tracing::warn!("node.stalled");
    }
}
