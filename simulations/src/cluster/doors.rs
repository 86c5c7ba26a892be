//! Where clients find the nodes, and the doors of nodes in memory. One of these that is shut ends
//! everything that came through it without a word, as the machine behind it would that lost its power.
use std::cell::{Cell, RefCell};
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;

use orbweb::gateway::socket::Socket;
use orbweb::gateway::socket::memory::{MemoryDialer, MemorySocket};
use rand::Rng;
use rand::rngs::StdRng;
use tokio_util::sync::CancellationToken;

use super::wire::Wire;

/// Bytes that a client's socket holds in each direction, as a kernel would.
const SOCKET_BYTES: usize = 256 * 1024;

/// Where clients find the nodes.
pub(crate) trait Doors: Clone + 'static {
    /// What comes of going through one.
    type Socket: Socket;

    /// A node with an open door: `wanted` if that has one, or else any.
    fn choose(&self, wanted: Option<usize>, random: &mut StdRng) -> Option<usize>;

    /// A connection, and what says that it is cut.
    async fn dial(
        &self,
        node: usize,
        from: SocketAddr,
    ) -> io::Result<(Self::Socket, CancellationToken)>;

    /// A client leaves a connection that was cut.
    fn leave(&self, wire: Wire<Self::Socket>);
}

#[derive(Clone)]
struct Door {
    dialer: MemoryDialer,
    shut: CancellationToken,
    /// The connections that came through it so far are cut.
    cut: CancellationToken,
}

/// By the number of the node; shared by all clients.
#[derive(Clone, Default)]
pub(super) struct MemoryDoors(Rc<Shared>);

#[derive(Default)]
struct Shared {
    doors: RefCell<Vec<Option<Door>>>,
    /// Whether the other end of what is cut isn't told.
    half_open: Cell<bool>,
    /// What nobody reads any more, and nobody has closed.
    abandoned: RefCell<Vec<Wire<MemorySocket>>>,
}

impl MemoryDoors {
    /// Opens a door; what is returned says when it is shut.
    pub(super) fn open(&self, node: usize, dialer: MemoryDialer) -> CancellationToken {
        let mut doors = self.0.doors.borrow_mut();
        let most = doors.len().max(node + 1);
        doors.resize_with(most, || None);
        let shut = CancellationToken::new();
        doors[node] = Some(Door { dialer, shut: shut.clone(), cut: shut.child_token() });
        shut
    }

    pub(super) fn shut(&self, node: usize) {
        if let Some(door) = self.0.doors.borrow_mut()[node].take() {
            door.shut.cancel();
        }
    }

    /// Cuts all connections; the doors stay open.
    pub(super) fn cut(&self, half_open: bool) {
        self.0.half_open.set(half_open);
        for door in self.0.doors.borrow_mut().iter_mut().flatten() {
            std::mem::replace(&mut door.cut, door.shut.child_token()).cancel();
        }
    }
}

impl Doors for MemoryDoors {
    type Socket = MemorySocket;

    fn choose(&self, wanted: Option<usize>, random: &mut StdRng) -> Option<usize> {
        let doors = self.0.doors.borrow();
        let open: Vec<usize> = (0..doors.len()).filter(|node| doors[*node].is_some()).collect();
        one_of(&open, wanted, random)
    }

    async fn dial(
        &self,
        node: usize,
        from: SocketAddr,
    ) -> io::Result<(MemorySocket, CancellationToken)> {
        let door = self.0.doors.borrow()[node].clone();
        let door = door.ok_or(io::ErrorKind::ConnectionRefused)?;
        Ok((door.dialer.dial(from, SOCKET_BYTES).await?, door.cut))
    }

    fn leave(&self, wire: Wire<MemorySocket>) {
        if self.0.half_open.get() {
            self.0.abandoned.borrow_mut().push(wire);
        }
    }
}

/// One of the open doors, `wanted` if that is among them.
pub(crate) fn one_of(open: &[usize], wanted: Option<usize>, random: &mut StdRng) -> Option<usize> {
    wanted
        .filter(|node| open.contains(node))
        .or_else(|| (!open.is_empty()).then(|| open[random.random_range(0..open.len())]))
}
