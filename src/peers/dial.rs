//! Whom to dial, and when: targets that are kept linked, and addresses that gossip wants to reach
//! once. Backs off with jitter; never dials this node itself.
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use rand::Rng as _;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::Mesh;
use super::endpoint::dial;
use super::link::Link;
use super::refusal::{Failure, Unmet};
use crate::protocol::ids::NodeId;
use crate::protocol::link::{LinkFrame, Refusal};

/// First pause between two attempts.
const BACKOFF_MIN: Duration = Duration::from_millis(50);
/// Longest pause.
const BACKOFF_MAX: Duration = Duration::from_secs(5);
/// A link that lived this long was a success: the next pause is the first again.
const LIVED: Duration = Duration::from_secs(1);
/// Addresses remembered for gossip; the one that may be dialled again soonest is forgotten first.
const WANTED_MAX: usize = 256;
/// Dials for gossip at one time.
const WANTED_DIALS_MAX: usize = 64;
/// Addresses that turned out to be this node's own.
const OWN_MAX: usize = 256;

/// A node to be linked with.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Target {
    /// Who it is, if that is known: a seed is an address alone.
    pub id: Option<NodeId>,
    /// Where it is reached.
    pub address: SocketAddr,
}

/// Pauses that double up to a limit, each between half of itself and all of itself.
#[derive(Default, Clone, Copy)]
pub(super) struct Backoff {
    failures: u32,
}

impl Backoff {
    pub(super) fn pause(self) -> Duration {
        let longest = BACKOFF_MIN.saturating_mul(1 << self.failures.min(16)).min(BACKOFF_MAX);
        longest.mul_f64(rand::rng().random_range(0.5..=1.0))
    }

    pub(super) fn failed(&mut self) {
        self.failures = self.failures.saturating_add(1);
    }

    /// Something that was up for so long ended.
    pub(super) fn ended(&mut self, lived: Duration) {
        if lived >= LIVED { self.failures = 0 } else { self.failed() }
    }
}

/// What is being dialled.
#[derive(Default)]
pub(super) struct Dials(Mutex<State>);

#[derive(Default)]
struct State {
    targets: BTreeMap<Target, CancellationToken>,
    wanted: BTreeMap<SocketAddr, Wanted>,
    own: BTreeSet<SocketAddr>,
}

/// An address that gossip sent something to.
struct Wanted {
    backoff: Backoff,
    not_before: Instant,
    /// While a dial is in progress: the latest message, to be sent if it succeeds.
    dialling: Option<Bytes>,
}

impl Dials {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[cfg(test)]
    pub(super) fn targets(&self) -> Vec<Target> {
        self.lock().targets.keys().cloned().collect()
    }

    fn is_own(&self, address: SocketAddr) -> bool {
        self.lock().own.contains(&address)
    }

    fn set_own(&self, address: SocketAddr) {
        let mut state = self.lock();
        if state.own.len() < OWN_MAX {
            state.own.insert(address);
        }
    }
}

impl Mesh {
    /// Keeps links with these and stops dialling all others.
    pub(super) fn set_targets(self: &Arc<Self>, targets: Vec<Target>) {
        let mut state = self.dials.lock();
        let wanted: BTreeSet<Target> = targets
            .into_iter()
            .filter(|target| target.address != self.config.advertise)
            .filter(|target| target.id.as_ref() != Some(&self.config.node))
            .filter(|target| !state.own.contains(&target.address))
            .collect();
        state.targets.retain(|target, stop| {
            let stays = wanted.contains(target);
            if !stays {
                stop.cancel();
            }
            stays
        });
        for target in wanted {
            state.targets.entry(target).or_insert_with_key(|target| {
                let stop = self.stop.child_token();
                let keep = keep(self.clone(), target.clone());
                self.tasks.spawn(stop.clone().run_until_cancelled_owned(keep));
                stop
            });
        }
    }

    /// Gossip has a message for a node without a link: dials it, unless that is too soon or too
    /// much. True if the message waits for the outcome.
    pub(super) fn want(self: &Arc<Self>, address: SocketAddr, message: Bytes) -> bool {
        let mut state = self.dials.lock();
        if address == self.config.advertise || state.own.contains(&address) {
            return false;
        }
        if state.targets.keys().any(|target| target.address == address) {
            return false; // its own task dials it
        }
        let busy = state.wanted.values().filter(|wanted| wanted.dialling.is_some()).count();
        make_room(&mut state.wanted, address);
        let wanted = state.wanted.entry(address).or_insert_with(|| Wanted {
            backoff: Backoff::default(),
            not_before: Instant::now(),
            dialling: None,
        });
        if wanted.dialling.is_none()
            && (wanted.not_before > Instant::now() || busy >= WANTED_DIALS_MAX)
        {
            return false;
        }
        let dials = wanted.dialling.replace(message).is_some();
        drop(state);
        if !dials {
            let stop = self.stop.clone();
            self.tasks.spawn(stop.run_until_cancelled_owned(dial_wanted(self.clone(), address)));
        }
        true
    }
}

/// Forgets idle addresses until one more fits.
fn make_room(wanted: &mut BTreeMap<SocketAddr, Wanted>, address: SocketAddr) {
    while wanted.len() >= WANTED_MAX && !wanted.contains_key(&address) {
        let idle = wanted.iter().filter(|(_, wanted)| wanted.dialling.is_none());
        let Some((&soonest, _)) = idle.min_by_key(|(_, wanted)| wanted.not_before) else { return };
        wanted.remove(&soonest);
    }
}

async fn dial_wanted(mesh: Arc<Mesh>, address: SocketAddr) {
    let outcome = dial(&mesh, address).await;
    let mut state = mesh.dials.lock();
    let Some(wanted) = state.wanted.get_mut(&address) else { return };
    let message = wanted.dialling.take();
    match outcome {
        Ok(link) => {
            let sent = message.map(|message| link.push_control(&LinkFrame::Gossip(message)));
            if matches!(sent, Some(Err(_))) {
                mesh.counters.gossip_dropped.add(1);
            }
            state.wanted.remove(&address);
        }
        Err(failure) => {
            wanted.not_before = Instant::now() + wanted.backoff.pause();
            wanted.backoff.failed();
            mesh.counters.gossip_dropped.add(1);
            drop(state);
            note_own(&mesh, address, &failure);
        }
    }
}

fn note_own(mesh: &Mesh, address: SocketAddr, failure: &Failure) {
    if let Unmet::Refusing(Refusal::Myself(_)) | Unmet::Refused(Refusal::Myself(_)) = failure.unmet
    {
        mesh.dials.set_own(address);
    }
}

/// Keeps a link with a target for as long as it is one.
async fn keep(mesh: Arc<Mesh>, target: Target) {
    let mut backoff = Backoff::default();
    // Who answered at the address: it may be linked under another address.
    let mut known = target.id.clone();
    while !mesh.dials.is_own(target.address) {
        let link = match find(&mesh, target.address, known.as_ref()) {
            Some(link) => Ok(link),
            None => dial(&mesh, target.address).await,
        };
        match link {
            Ok(link) => {
                link.ended.cancelled().await;
                backoff.ended(link.age());
            }
            Err(failure) => {
                note_own(&mesh, target.address, &failure);
                known = failure.peer.map(|hello| hello.node).or(known);
                tokio::time::sleep(backoff.pause()).await;
                backoff.failed();
                continue;
            }
        }
        tokio::time::sleep(backoff.pause()).await;
    }
}

fn find(mesh: &Mesh, address: SocketAddr, id: Option<&NodeId>) -> Option<Arc<Link>> {
    let routes = mesh.registry.routes();
    let by_id = id.and_then(|id| routes.link(id.incarnation));
    by_id.or_else(|| routes.addresses.get(&address)).cloned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_between_their_bounds() {
        for failures in 0..40 {
            let pause = Backoff { failures }.pause();
            let longest = BACKOFF_MIN.saturating_mul(1 << failures.min(16)).min(BACKOFF_MAX);
            assert!(pause >= longest / 2 && pause <= longest, "{failures}: {pause:?}");
        }
        assert!(Backoff { failures: 40 }.pause() >= BACKOFF_MAX / 2);
    }

    #[test]
    fn addresses_in_use_are_not_forgotten() {
        let now = Instant::now();
        let address = |i: usize| SocketAddr::from(([10, 0, (i / 256) as u8, i as u8], 1));
        let wanted = |i: usize| Wanted {
            backoff: Backoff::default(),
            not_before: now + Duration::from_secs(i as u64),
            dialling: (i == 0).then(Bytes::new),
        };
        let mut all: BTreeMap<_, _> = (0..WANTED_MAX).map(|i| (address(i), wanted(i))).collect();
        make_room(&mut all, address(WANTED_MAX));
        assert_eq!(all.len(), WANTED_MAX - 1);
        assert!(all.contains_key(&address(0)) && !all.contains_key(&address(1)));
    }
}
