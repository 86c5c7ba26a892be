//! Gossip over the links' own streams: messages go to the address that a node advertises, and come
//! from authenticated links alone. Never waits: a message without room is dropped, the next round
//! of gossip says more.
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::mpsc;

use super::Mesh;
use crate::protocol::link::{GOSSIP_BYTES_MAX, LinkFrame};

/// Messages between the gossip and this shell, each way: one round of 100 nodes.
const QUEUE: usize = 512;

/// Both ends that gossip holds.
#[derive(Debug)]
pub struct Gossip {
    /// Messages to advertised addresses; an address without a link is dialled.
    pub outgoing: mpsc::Sender<(SocketAddr, Bytes)>,
    /// Messages with the advertised address of their sender.
    pub incoming: mpsc::Receiver<(SocketAddr, Bytes)>,
}

/// The ends that stay here.
pub(super) struct Ends {
    pub(super) outgoing: mpsc::Receiver<(SocketAddr, Bytes)>,
    pub(super) incoming: mpsc::Sender<(SocketAddr, Bytes)>,
}

pub(super) fn channels() -> (Gossip, Ends) {
    let (out_in, out_out) = mpsc::channel(QUEUE);
    let (in_in, in_out) = mpsc::channel(QUEUE);
    let gossip = Gossip { outgoing: out_in, incoming: in_out };
    (gossip, Ends { outgoing: out_out, incoming: in_in })
}

/// Sends what gossip has to say until it says nothing any more.
pub(super) async fn pump(mesh: Arc<Mesh>, mut outgoing: mpsc::Receiver<(SocketAddr, Bytes)>) {
    while let Some((address, message)) = outgoing.recv().await {
        if !mesh.gossip_goes(address, message) {
            mesh.counters.gossip_dropped.add(1);
        }
    }
}

impl Mesh {
    fn gossip_goes(self: &Arc<Self>, address: SocketAddr, message: Bytes) -> bool {
        if message.len() > GOSSIP_BYTES_MAX {
            tracing::warn!(bytes = message.len(), limit = GOSSIP_BYTES_MAX, "gossip.too_long");
            return false;
        }
        let link = self.registry.routes().addresses.get(&address).cloned();
        match link {
            Some(link) => link.push_control(&LinkFrame::Gossip(message)).is_ok(),
            None => self.want(address, message),
        }
    }

    pub(super) fn gossip_came(&self, from: SocketAddr, message: Bytes) {
        if self.gossip_in.try_send((from, message)).is_err() {
            self.counters.gossip_dropped.add(1);
        }
    }
}
