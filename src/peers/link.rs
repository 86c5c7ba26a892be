//! A working link as the rest of this shell sees it: outboxes that take a frame or drop it, a probe,
//! and why it ended. Never waits for the peer, except where a probe says so.
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use quinn::{Connection, ConnectionError, ReadError, VarInt, WriteError};
use thiserror::Error;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use super::frames::{FrameError, Wire};
use super::lanes::LANES;
use super::outbox::{Bounds, Full, Outbox};
use super::stats::{LinkCounters, LinkStatus};
use crate::protocol::ids::NodeId;
use crate::protocol::link::{CloseCode, Hello, LinkFrame};
use crate::protocol::peer::Lane;

/// A node that doesn't answer a ping for this long makes room for a newcomer of its name.
pub(super) const PROBE_TIMEOUT: Duration = Duration::from_millis(500);
/// Why a link ended.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum LinkEnd {
    /// The other node said that it leaves.
    #[error("it is leaving")]
    Left,
    /// This node is closing.
    #[error("this node is closing")]
    Closed,
    /// Another link to the same name took its place.
    #[error("another link took its place")]
    Replaced,
    /// The process at the other end is known to be gone.
    #[error("its process is gone")]
    Dead,
    /// The process at the other end is a new one.
    #[error("it restarted")]
    Reset,
    /// Nothing came within the idle timeout.
    #[error("nothing came from it for too long")]
    Silent,
    /// It sent something that breaks the protocol.
    #[error("{0}")]
    Invalid(String),
    /// Anything else.
    #[error("{0}")]
    Lost(String),
}

impl From<ConnectionError> for LinkEnd {
    fn from(error: ConnectionError) -> Self {
        match error {
            ConnectionError::ApplicationClosed(close) => {
                let is = |code: CloseCode| close.error_code == VarInt::from_u32(code as u32);
                if is(CloseCode::Shutdown) {
                    Self::Left
                } else if is(CloseCode::Replaced) {
                    Self::Replaced
                } else {
                    Self::Lost(format!("it closed the link: {close}"))
                }
            }
            ConnectionError::Reset => Self::Reset,
            ConnectionError::TimedOut => Self::Silent,
            ConnectionError::LocallyClosed => Self::Closed,
            other => Self::Lost(other.to_string()),
        }
    }
}

impl From<FrameError> for LinkEnd {
    fn from(error: FrameError) -> Self {
        match error {
            FrameError::Read(ReadError::ConnectionLost(error)) => error.into(),
            error => Self::Invalid(error.to_string()),
        }
    }
}

impl From<WriteError> for LinkEnd {
    fn from(error: WriteError) -> Self {
        match error {
            WriteError::ConnectionLost(error) => error.into(),
            error => Self::Lost(error.to_string()),
        }
    }
}

/// One link.
pub(super) struct Link {
    pub(super) id: NodeId,
    /// Where the node says that it is reached.
    pub(super) address: SocketAddr,
    pub(super) url: Option<String>,
    /// How long the peer's process ran when the link began.
    peer_age_ms: u64,
    /// The version of peer frames that both ends speak.
    version: u16,
    pub(super) dialled: bool,
    pub(super) connection: Connection,
    pub(super) own: Outbox,
    pub(super) lanes: [Outbox; LANES.len()],
    pings: AtomicU64,
    pub(super) pongs: watch::Sender<u64>,
    pub(super) counters: LinkCounters,
    since: Instant,
    /// Why this node ended it, if it did.
    given_up: OnceLock<LinkEnd>,
    /// Set when the last event of the link is in the queue.
    pub(super) ended: CancellationToken,
}

impl Link {
    /// A link to the node that said `hello`.
    pub(super) fn new(
        hello: &Hello,
        version: u16,
        dialled: bool,
        connection: Connection,
    ) -> Arc<Self> {
        Arc::new(Self {
            id: hello.node.clone(),
            address: hello.advertise,
            url: hello.url.clone(),
            peer_age_ms: hello.age_ms,
            version,
            dialled,
            connection,
            own: Outbox::new(Bounds::LINK),
            lanes: LANES.map(|(_, _, bounds)| Outbox::new(bounds)),
            pings: AtomicU64::new(0),
            pongs: watch::Sender::new(0),
            counters: LinkCounters::default(),
            since: Instant::now(),
            given_up: OnceLock::new(),
            ended: CancellationToken::new(),
        })
    }

    /// Queues a frame on a lane.
    pub(super) fn push(&self, lane: Lane, wire: Wire) -> Result<(), Full> {
        let outbox = match lane {
            Lane::Control => &self.lanes[0],
            Lane::Data => &self.lanes[1],
            Lane::Bulk => &self.lanes[2],
        };
        self.counted(outbox.try_push(wire))
    }

    /// The same for a frame that is passed on for another node.
    pub(super) fn push_relay(&self, lane: Lane, wire: Wire) -> Result<(), Full> {
        self.push(lane, wire).inspect(|()| self.counters.relayed.add(1))
    }

    /// Queues a frame on the link's own stream.
    pub(super) fn push_control(&self, frame: &LinkFrame) -> Result<(), Full> {
        self.counted(Wire::control(frame).map_err(|_| Full).and_then(|w| self.own.try_push(w)))
    }

    fn counted(&self, pushed: Result<(), Full>) -> Result<(), Full> {
        pushed.inspect_err(|_| self.counters.dropped.add(1))
    }

    /// Whether the node at the other end answers a ping in time. False at once if the link breaks.
    pub(super) async fn answers(&self) -> bool {
        self.answers_within(PROBE_TIMEOUT).await
    }

    /// The same with another idea of "in time".
    pub(super) async fn answers_within(&self, patience: Duration) -> bool {
        let number = self.pings.fetch_add(1, Ordering::Relaxed) + 1;
        let mut pongs = self.pongs.subscribe();
        if self.push_control(&LinkFrame::Ping { number }).is_err() {
            return false;
        }
        tokio::select! {
            pong = timeout(patience, pongs.wait_for(|&pong| pong >= number)) => {
                matches!(pong, Ok(Ok(_)))
            }
            _ = self.connection.closed() => false,
        }
    }

    pub(super) fn close(&self, code: CloseCode) {
        self.connection.close(VarInt::from_u32(code as u32), code.to_string().as_bytes());
    }

    /// Makes room for another link to the same name.
    pub(super) fn displace(&self) {
        self.give_up(LinkEnd::Replaced, CloseCode::Replaced);
    }

    /// Ends the link to a process that is gone.
    pub(super) fn bury(&self) {
        self.give_up(LinkEnd::Dead, CloseCode::Dead);
    }

    /// Why this node ended the link, if it did.
    pub(super) fn given_up(&self) -> Option<&LinkEnd> {
        self.given_up.get()
    }

    fn give_up(&self, why: LinkEnd, code: CloseCode) {
        let _first = self.given_up.set(why); // the first reason stands
        self.close(code);
    }

    pub(super) fn age(&self) -> Duration {
        self.since.elapsed()
    }

    /// How long the peer's process runs.
    pub(super) fn peer_age_ms(&self) -> u64 {
        self.peer_age_ms.saturating_add(self.age().as_millis() as u64)
    }

    pub(super) fn status(&self) -> LinkStatus {
        let counters = &self.counters;
        LinkStatus {
            id: self.id.clone(),
            address: self.address,
            version: self.version,
            dialled: self.dialled,
            rtt: self.connection.rtt(),
            since: self.age(),
            sent_frames: counters.sent_frames.get(),
            sent_bytes: counters.sent_bytes.get(),
            received_frames: counters.received_frames.get(),
            received_bytes: counters.received_bytes.get(),
            dropped: counters.dropped.get(),
            relayed: counters.relayed.get(),
        }
    }

    pub(super) fn received(&self, frames: &[Bytes]) {
        self.counters.received_frames.add(frames.len() as u64);
        self.counters.received_bytes.add(frames.iter().map(|f| f.len() as u64).sum());
    }
}
