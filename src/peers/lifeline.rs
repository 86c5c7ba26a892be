//! Lifelines: one TCP connection with each linked node, dialled by the lesser incarnation, over
//! which nothing goes but a proof of both nodes. The kernel ends those of a dead process at once.
//! That is a hint, no more: [`inspect`] then looks who is behind the peer's door and reports it to
//! whoever decides. No link depends on this: without TCP, deaths are noticed by gossip alone.
mod accept;
mod inspect;
mod proof;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::io::AsyncReadExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::Mesh;
use super::dial::Backoff;
use super::gate::Gate;
use super::identity::ProofKeys;
use crate::protocol::ids::{Incarnation, NodeId};
use proof::Purpose;

/// Findings that wait for whoever decides; a cluster in which more die at once has other worries.
const FINDINGS_LEN: usize = 256;
/// Lifelines at one time: as many as there can be members.
const LINES_MAX: usize = 2_048;
/// Longest time until a caller has proved itself.
pub(super) const PROOF_TIMEOUT: Duration = Duration::from_secs(2);
/// After this long the kernel asks whether the other end is still there, so that a lifeline to a
/// host without power doesn't stay for ever and no middlebox forgets it.
const KEEPALIVE_AFTER: Duration = Duration::from_secs(10);
/// Pause between such questions.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);
/// Questions without an answer that end it.
const KEEPALIVE_RETRIES: u32 = 3;

/// What was found at a peer's door after its lifeline had ended, or when a new one was made.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Finding {
    /// The peer.
    pub node: NodeId,
    /// Who opened.
    pub door: Door,
    /// Whether its link answered a ping.
    pub link_answers: bool,
}

/// Who is behind a peer's port.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Door {
    /// Nobody: the kernel refuses connections.
    Refused,
    /// This incarnation, which proved itself.
    Opened(Incarnation),
    /// Nothing is known: no answer, or none that proves anything.
    Unclear,
}

/// What the tasks of this part share.
struct Lifelines {
    mesh: Arc<Mesh>,
    keys: ProofKeys,
    /// Of its own, so that strangers on TCP take no place from links.
    gate: Arc<Gate>,
    findings: mpsc::Sender<Finding>,
}

/// Starts dialling and accepting.
pub(super) fn start(
    mesh: &Arc<Mesh>,
    listener: std::net::TcpListener,
) -> io::Result<mpsc::Receiver<Finding>> {
    listener.set_nonblocking(true)?;
    let listener = TcpListener::from_std(listener)?;
    let (findings, found) = mpsc::channel(FINDINGS_LEN);
    let lifelines = Arc::new(Lifelines {
        keys: ProofKeys::new(&mesh.config.credentials, "lifeline proof", &mesh.config.cluster),
        gate: Arc::default(),
        findings,
        mesh: mesh.clone(),
    });
    let stop = &mesh.stop;
    let accept = accept::accept(lifelines.clone(), listener);
    mesh.tasks.spawn(stop.clone().run_until_cancelled_owned(accept));
    mesh.tasks.spawn(stop.clone().run_until_cancelled_owned(keep_all(lifelines)));
    Ok(found)
}

/// Keeps a lifeline with each linked node that is this one's to dial.
async fn keep_all(lifelines: Arc<Lifelines>) {
    let mut linked = lifelines.mesh.registry.linked();
    let (mut kept, mut tasks) = (BTreeSet::new(), JoinSet::new());
    loop {
        for node in linked.borrow_and_update().iter() {
            let mine = lifelines.mesh.me() < node.incarnation;
            if mine && kept.insert(node.incarnation) {
                tasks.spawn(keep(lifelines.clone(), node.clone()));
            }
        }
        tokio::select! {
            changed = linked.changed() => if changed.is_err() { return },
            Some(ended) = tasks.join_next() => match ended {
                Ok(node) => drop(kept.remove(&node)),
                Err(error) => tracing::error!(%error, "lifeline.failed"),
            },
        }
    }
}

/// Keeps a lifeline with a node for as long as it is linked.
async fn keep(lifelines: Arc<Lifelines>, peer: NodeId) -> Incarnation {
    let mut backoff = Backoff::default();
    while let Some(address) = lifelines.address(&peer) {
        match inspect::call(&lifelines, address, &peer, Purpose::Keep).await {
            Ok(met) if met.node == peer && met.purpose == Purpose::Keep => {
                let since = Instant::now();
                hold(&lifelines, met.stream, &peer, address).await;
                backoff.ended(since.elapsed());
            }
            Ok(_) => backoff.failed(),
            Err(error) => {
                tracing::debug!(%peer, %address, %error, "lifeline.not_made");
                backoff.failed();
            }
        }
        sleep(backoff.pause()).await;
    }
    peer.incarnation
}

/// Holds a lifeline until it ends, and then sees what that means.
async fn hold(lifelines: &Lifelines, mut stream: TcpStream, peer: &NodeId, address: SocketAddr) {
    let Some(entry) = lifelines.mesh.lifelines.enter(peer.incarnation) else { return };
    if let Err(error) = keep_alive(&stream) {
        tracing::debug!(%peer, %error, "lifeline.without_keepalive");
    }
    tracing::debug!(%peer, %address, "lifeline.up");
    let door = Door::Opened(peer.incarnation);
    lifelines.report(Finding { node: peer.clone(), door, link_answers: true });
    let ended = tokio::select! {
        () = entry.replaced.cancelled() => return,
        // Nobody says a word on a lifeline: reading one byte is reading the end.
        ended = stream.read_u8() => ended,
    };
    drop((entry, stream));
    let Err(why) = ended else {
        tracing::warn!(%peer, "lifeline.invalid");
        return;
    };
    lifelines.mesh.counters.lifelines_cut.add(1);
    let finding = inspect::inspect(lifelines, address, peer).await;
    let (door, link_answers) = (finding.door, finding.link_answers);
    tracing::info!(%peer, %why, ?door, link_answers, "lifeline.cut");
    lifelines.report(finding);
}

fn keep_alive(stream: &TcpStream) -> io::Result<()> {
    let keepalive = TcpKeepalive::new()
        .with_time(KEEPALIVE_AFTER)
        .with_interval(KEEPALIVE_INTERVAL)
        .with_retries(KEEPALIVE_RETRIES);
    SockRef::from(stream).set_tcp_keepalive(&keepalive)
}

impl Lifelines {
    /// Where a peer is reached, if there is a link with it.
    fn address(&self, peer: &NodeId) -> Option<SocketAddr> {
        self.mesh.registry.routes().link(peer.incarnation).map(|link| link.address)
    }

    fn report(&self, finding: Finding) {
        if self.findings.try_send(finding).is_err() {
            tracing::debug!("lifeline.finding_dropped");
        }
    }
}

/// The lifelines that are held, at most one a node: a new one takes the place of the one before.
#[derive(Default)]
pub(super) struct Lines(Mutex<BTreeMap<Incarnation, CancellationToken>>);

impl Lines {
    /// How many there are.
    pub(super) fn count(&self) -> u64 {
        self.lock().len() as u64
    }

    /// Drops all lifelines without a word, as a middlebox might.
    #[cfg(test)]
    pub(super) fn cut(&self) {
        std::mem::take(&mut *self.lock()).into_values().for_each(|line| line.cancel());
    }

    fn is_full(&self) -> bool {
        self.lock().len() >= LINES_MAX
    }

    fn enter(&self, peer: Incarnation) -> Option<Entry<'_>> {
        let mut lines = self.lock();
        if lines.len() >= LINES_MAX && !lines.contains_key(&peer) {
            return None;
        }
        let replaced = CancellationToken::new();
        if let Some(before) = lines.insert(peer, replaced.clone()) {
            before.cancel();
        }
        Some(Entry { lines: self, peer, replaced })
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Incarnation, CancellationToken>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A held lifeline; struck off when dropped.
struct Entry<'a> {
    lines: &'a Lines,
    peer: Incarnation,
    replaced: CancellationToken,
}

impl Drop for Entry<'_> {
    fn drop(&mut self) {
        let mut lines = self.lines.lock();
        // Its successor, if there is one, stays.
        if !self.replaced.is_cancelled() {
            lines.remove(&self.peer);
        }
    }
}
