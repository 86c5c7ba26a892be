//! The queues between shells and cores: bounded, never waited on.
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use thiserror::Error;
use tokio::sync::mpsc;

use super::event::{Delivery, Event, Reply};

/// Events that may wait for the cores: some 10 ms of their work at full load.
pub const CORE_MAILBOX_LEN: usize = 16_384;
/// Messages that may wait for one shard.
pub const SHARD_MAILBOX_LEN: usize = 16_384;

/// The mailbox is full or its reader is gone: nothing was handed over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the node is too busy to take this")]
pub struct Busy;

/// Sends events to the cores.
#[derive(Clone, Debug)]
pub struct CoreSender(mpsc::Sender<Event>);

impl CoreSender {
    /// A mailbox and its reader's end.
    pub fn channel() -> (Self, mpsc::Receiver<Event>) {
        let (tx, rx) = mpsc::channel(CORE_MAILBOX_LEN);
        (Self(tx), rx)
    }

    /// Hands an event over unless the mailbox is full.
    pub fn try_push(&self, event: Event) -> Result<(), Busy> {
        self.0.try_send(event).map_err(|_| Busy)
    }

    /// Hands an event over, waiting for room: only for tasks that read from one peer's link, whose
    /// flow control then slows that peer, and for events that mustn't be lost.
    pub async fn push(&self, event: Event) -> Result<(), Busy> {
        self.0.send(event).await.map_err(|_| Busy)
    }
}

/// What a shard is told.
#[derive(Debug)]
pub enum ShardMessage {
    /// The answer to the request of this number.
    Reply {
        /// The number that the shard chose.
        number: u64,
        /// The answer.
        reply: Reply,
    },
    /// For all subscribers of its channel on the shard.
    Deliver(Arc<Delivery>),
}

/// Sends messages to one shard. If the shard can't keep up, messages are lost and it is told so:
/// it must then close its connections, whose streams bring them up to date elsewhere.
#[derive(Clone, Debug)]
pub struct ShardSender {
    queue: mpsc::Sender<ShardMessage>,
    overflowed: Arc<AtomicBool>,
}

/// A shard's end of its mailbox.
#[derive(Debug)]
pub struct ShardReceiver {
    queue: mpsc::Receiver<ShardMessage>,
    overflowed: Arc<AtomicBool>,
}

impl ShardSender {
    /// A mailbox and its reader's end.
    pub fn channel() -> (Self, ShardReceiver) {
        let (tx, rx) = mpsc::channel(SHARD_MAILBOX_LEN);
        let overflowed = Arc::new(AtomicBool::new(false));
        (
            Self { queue: tx, overflowed: overflowed.clone() },
            ShardReceiver { queue: rx, overflowed },
        )
    }

    /// Hands a message over, or notes that one was lost.
    pub fn push(&self, message: ShardMessage) {
        if self.queue.try_send(message).is_err() {
            self.overflowed.store(true, Ordering::Release);
        }
    }
}

impl ShardReceiver {
    /// Waits for messages and takes up to `limit` of them. 0 = no sender is left. Cancel-safe.
    pub async fn recv_many(&mut self, into: &mut Vec<ShardMessage>, limit: usize) -> usize {
        self.queue.recv_many(into, limit).await
    }

    /// Whether messages were lost since the last call.
    pub fn take_overflowed(&self) -> bool {
        self.overflowed.swap(false, Ordering::AcqRel)
    }
}
