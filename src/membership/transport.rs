//! chitchat's socket: two channels that somebody else's links serve. It never waits to send, and
//! drops what it can't read.
use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context;
use async_trait::async_trait;
use chitchat::transport::{Socket, Transport};
use chitchat::{ChitchatMessage, Deserializable, Serializable};
use tokio::sync::{Mutex, mpsc};

use super::GossipMessage;

/// Longest gossip message in bytes: chitchat's own are below 64 KiB.
pub const MESSAGE_BYTES_MAX: usize = 128 * 1024;

/// Opens sockets over one pair of channels; gossip that is started again takes them over.
#[derive(Clone, Debug)]
pub struct ChannelTransport {
    gossip_out: mpsc::Sender<GossipMessage>,
    gossip_in: Arc<Mutex<mpsc::Receiver<GossipMessage>>>,
}

impl ChannelTransport {
    pub(super) fn new(
        gossip_out: mpsc::Sender<GossipMessage>,
        gossip_in: mpsc::Receiver<GossipMessage>,
    ) -> Self {
        Self { gossip_out, gossip_in: Arc::new(Mutex::new(gossip_in)) }
    }

    /// Whether the links are gone for good.
    pub(super) async fn is_closed(&self) -> bool {
        self.gossip_in.lock().await.is_closed()
    }
}

#[async_trait]
impl Transport for ChannelTransport {
    async fn open(&self, _listen: SocketAddr) -> anyhow::Result<Box<dyn Socket>> {
        Ok(Box::new(self.clone()))
    }
}

#[async_trait]
impl Socket for ChannelTransport {
    async fn send(&mut self, to: SocketAddr, message: ChitchatMessage) -> anyhow::Result<()> {
        // Gossip repeats itself: what a full queue drops, a later round brings.
        let _ = self.gossip_out.try_send((to, message.serialize_to_vec().into()));
        Ok(())
    }

    /// Cancel-safe: taking a message and returning it are one step.
    async fn recv(&mut self) -> anyhow::Result<(SocketAddr, ChitchatMessage)> {
        let mut gossip_in = self.gossip_in.lock().await;
        loop {
            let (from, bytes) = gossip_in.recv().await.context("the links are gone")?;
            if bytes.len() > MESSAGE_BYTES_MAX {
                tracing::debug!(%from, bytes = bytes.len(), "gossip.oversized");
                continue;
            }
            match ChitchatMessage::deserialize(&mut &bytes[..]) {
                Ok(message) => return Ok((from, message)),
                Err(error) => tracing::debug!(%from, %error, "gossip.unreadable"),
            }
        }
    }
}
