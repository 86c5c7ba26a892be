//! Where clients find the nodes: their TCP ports. Nobody is sent to a node that was killed; what else
//! happens to one nobody tells.
use std::cell::{Cell, RefCell};
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use rand::rngs::StdRng;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::hosts::client_address;
use crate::cluster::doors::{Doors, one_of};
use crate::cluster::wire::Wire;

/// How long SDKs wait for a connection.
const DIAL_TIMEOUT: Duration = Duration::from_secs(5);

/// By the number of the node; shared by all clients.
#[derive(Clone)]
pub(super) struct TcpDoors(Rc<Shared>);

struct Shared {
    open: Vec<Cell<bool>>,
    /// The connections so far are cut.
    cut: RefCell<CancellationToken>,
}

impl TcpDoors {
    /// Of so many nodes, none of which is there yet.
    pub(super) fn new(nodes: usize) -> Self {
        let open = (0..nodes).map(|_| Cell::new(false)).collect();
        Self(Rc::new(Shared { open, cut: RefCell::default() }))
    }

    pub(super) fn open(&self, node: usize) {
        self.0.open[node].set(true);
    }

    pub(super) fn shut(&self, node: usize) {
        self.0.open[node].set(false);
    }

    /// Cuts all connections; the doors stay open.
    pub(super) fn cut(&self) {
        self.0.cut.take().cancel();
    }
}

impl Doors for TcpDoors {
    type Socket = TcpStream;

    fn choose(&self, wanted: Option<usize>, random: &mut StdRng) -> Option<usize> {
        let nodes = 0..self.0.open.len();
        let open: Vec<usize> = nodes.filter(|node| self.0.open[*node].get()).collect();
        one_of(&open, wanted, random)
    }

    async fn dial(
        &self,
        node: usize,
        _from: SocketAddr,
    ) -> io::Result<(TcpStream, CancellationToken)> {
        let cut = self.0.cut.borrow().clone();
        let stream = timeout(DIAL_TIMEOUT, TcpStream::connect(client_address(node))).await??;
        stream.set_nodelay(true)?;
        Ok((stream, cut))
    }

    fn leave(&self, wire: Wire<TcpStream>) {
        drop(wire);
    }
}
