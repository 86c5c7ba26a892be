//! The links of this node: at most one a node name, with a snapshot for the data path. Holds and
//! answers; who may enter is decided in [`super::greeting`].
use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;
use tokio::sync::watch;

use super::link::Link;
use crate::protocol::ids::{Incarnation, NodeId, NodeName};

/// Which linked nodes reach a node that has no link here, the preferred first.
pub type Relays = BTreeMap<Incarnation, Vec<Incarnation>>;

/// What the data path reads.
#[derive(Default)]
pub(super) struct Routes {
    pub(super) links: HashMap<Incarnation, Arc<Link>>,
    pub(super) addresses: HashMap<SocketAddr, Arc<Link>>,
    relays: Relays,
}

impl Routes {
    /// The link to a node.
    pub(super) fn link(&self, node: Incarnation) -> Option<&Arc<Link>> {
        self.links.get(&node)
    }

    /// The link to the first linked node that reaches `node`.
    pub(super) fn relay(&self, node: Incarnation) -> Option<&Arc<Link>> {
        self.relays.get(&node)?.iter().find_map(|via| self.links.get(via))
    }
}

/// The links by name.
pub(super) struct Registry {
    state: Mutex<State>,
    routes: ArcSwap<Routes>,
    linked: watch::Sender<Arc<[NodeId]>>,
}

#[derive(Default)]
struct State {
    links: BTreeMap<NodeName, Arc<Link>>,
    /// Links that are gone and whose `Down` isn't in the queue of events yet.
    leaving: BTreeMap<NodeName, Arc<Link>>,
    relays: Relays,
    closed: bool,
}

impl Registry {
    pub(super) fn new() -> Self {
        Self {
            state: Mutex::default(),
            routes: ArcSwap::default(),
            linked: watch::Sender::new(Arc::from([])),
        }
    }

    pub(super) fn routes(&self) -> arc_swap::Guard<Arc<Routes>> {
        self.routes.load()
    }

    pub(super) fn linked(&self) -> watch::Receiver<Arc<[NodeId]>> {
        self.linked.subscribe()
    }

    pub(super) fn count(&self) -> usize {
        self.linked.borrow().len()
    }

    pub(super) fn links(&self) -> Vec<Arc<Link>> {
        self.lock().links.values().cloned().collect()
    }

    pub(super) fn by_name(&self, name: &NodeName) -> Option<Arc<Link>> {
        self.lock().links.get(name).cloned()
    }

    /// Enters a link in the place of `old`, if that is still what is there.
    pub(super) fn install(&self, link: &Arc<Link>, old: Option<&Arc<Link>>) -> Installed {
        let mut state = self.lock();
        let current = state.links.get(&link.id.name);
        let unchanged = match (current, old) {
            (Some(current), Some(old)) => Arc::ptr_eq(current, old),
            (current, _) => current.is_none(),
        };
        if state.closed {
            return Installed::Closing;
        }
        if !unchanged {
            return Installed::Changed;
        }
        let replaced = state.links.insert(link.id.name.clone(), link.clone());
        let before = replaced.or_else(|| state.leaving.remove(&link.id.name));
        self.publish(&state);
        Installed::After(before)
    }

    /// Strikes a link, unless another has taken its place; the next of its name waits for its end.
    pub(super) fn remove(&self, link: &Arc<Link>) {
        let mut state = self.lock();
        if state.links.get(&link.id.name).is_some_and(|current| Arc::ptr_eq(current, link)) {
            state.links.remove(&link.id.name);
            state.leaving.insert(link.id.name.clone(), link.clone());
            self.publish(&state);
        }
    }

    /// Forgets a link whose last event is in the queue.
    pub(super) fn forget(&self, link: &Arc<Link>) {
        let mut state = self.lock();
        if state.leaving.get(&link.id.name).is_some_and(|leaving| Arc::ptr_eq(leaving, link)) {
            state.leaving.remove(&link.id.name);
        }
    }

    pub(super) fn set_relays(&self, relays: Relays) {
        let mut state = self.lock();
        state.relays = relays;
        self.publish(&state);
    }

    /// Lets nobody in any more.
    pub(super) fn close(&self) {
        self.lock().closed = true;
    }

    fn publish(&self, state: &State) {
        let links = state.links.values();
        self.routes.store(Arc::new(Routes {
            links: links.clone().map(|link| (link.id.incarnation, link.clone())).collect(),
            addresses: links.clone().map(|link| (link.address, link.clone())).collect(),
            relays: state.relays.clone(),
        }));
        let nodes: Arc<[NodeId]> = links.map(|link| link.id.clone()).collect();
        self.linked.send_if_modified(|linked| {
            let changed = *linked != nodes;
            *linked = nodes;
            changed
        });
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What became of a link that wanted to be entered.
pub(super) enum Installed {
    /// It is in; the link before it, if any, has to end before it says a word.
    After(Option<Arc<Link>>),
    /// Something else is there by now.
    Changed,
    /// The node is closing.
    Closing,
}
