//! Asks the cores for the API: hands requests over, and completes them as replies arrive on the
//! API's own mailbox. Never waits for room: a busy node refuses.
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;

use super::error::ApiError;
use crate::delivery::event::{Ask, Event, Reply, Request, RequestId, ShardId};
use crate::delivery::mailbox::{CoreSender, ShardMessage, ShardReceiver};
use crate::protocol::channel::{Channel, ChannelOptions};

/// Requests that may wait for replies: as many as the mailbox for the replies has room for.
pub const WAITING_MAX: usize = crate::delivery::mailbox::SHARD_MAILBOX_LEN;
/// How long a reply may take: longer than a change of owners, shorter than callers' patience.
pub const REPLY_TIMEOUT: Duration = Duration::from_secs(5);
/// Replies taken out of the mailbox at once.
const BATCH: usize = 256;

/// Requests of the API to the cores.
#[derive(Debug)]
pub struct Asker {
    cores: CoreSender,
    shard: ShardId,
    number: AtomicU64,
    waiting: Mutex<HashMap<u64, oneshot::Sender<Reply>>>,
}

impl Asker {
    /// Asks in the name of `shard`, whose mailbox goes to [`Asker::read_replies`].
    pub fn new(cores: CoreSender, shard: ShardId) -> Self {
        Self { cores, shard, number: AtomicU64::new(1), waiting: Mutex::default() }
    }

    /// Asks and waits for the reply, at most [`REPLY_TIMEOUT`]. A reply of failure is an error.
    pub async fn ask(
        &self,
        channel: Channel,
        options: ChannelOptions,
        ask: Ask,
    ) -> Result<Reply, ApiError> {
        let (number, reply) = self.enter()?;
        let _forget = Forget { asker: self, number };
        let id = RequestId { shard: self.shard, number };
        let request = Event::Request(Request { id, channel, options, ask });
        self.cores.try_push(request).map_err(|_| ApiError::Busy)?;
        match tokio::time::timeout(REPLY_TIMEOUT, reply).await {
            Ok(Ok(Reply::Failed(code))) => Err(ApiError::Refused(code)),
            Ok(Ok(reply)) => Ok(reply),
            Ok(Err(_)) | Err(_) => Err(ApiError::NoAnswer),
        }
    }

    /// Completes requests until no sender of the mailbox is left. One task runs this.
    pub async fn read_replies(self: Arc<Self>, mut mailbox: ShardReceiver) {
        let mut messages = Vec::with_capacity(BATCH);
        while mailbox.recv_many(&mut messages, BATCH).await > 0 {
            for message in messages.drain(..) {
                // The API subscribes to nothing, so nothing is delivered to it.
                let ShardMessage::Reply { number, reply } = message else { continue };
                if let Some(asked) = self.lock().remove(&number) {
                    // The asker may have given up in between.
                    let _ = asked.send(reply);
                }
            }
            if mailbox.take_overflowed() {
                // Some replies are lost and nobody knows whose: all that wait learn it now.
                let lost = std::mem::take(&mut *self.lock()).len();
                tracing::warn!(requests = lost, "api.replies.lost");
            }
        }
    }

    /// How many requests wait.
    pub fn waiting(&self) -> usize {
        self.lock().len()
    }

    fn enter(&self) -> Result<(u64, oneshot::Receiver<Reply>), ApiError> {
        let mut waiting = self.lock();
        if waiting.len() >= WAITING_MAX {
            return Err(ApiError::Busy);
        }
        let number = self.number.fetch_add(1, Ordering::Relaxed);
        let (sender, receiver) = oneshot::channel();
        waiting.insert(number, sender);
        Ok((number, receiver))
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, oneshot::Sender<Reply>>> {
        // Nothing panics under this lock, and the map is sound after every step.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Removes a request that is answered, given up or dropped with its HTTP connection.
struct Forget<'a> {
    asker: &'a Asker,
    number: u64,
}

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        self.asker.lock().remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::delivery::mailbox::ShardSender;
    use crate::protocol::codes::ErrorCode;

    fn channel() -> Channel {
        Channel::parse("news").expect("a short name")
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_without_reply_ends_as_unknown_and_is_forgotten() {
        let (cores, _events) = CoreSender::channel();
        let asker = Asker::new(cores, ShardId(9));
        let asked = asker.ask(channel(), ChannelOptions::default(), Ask::Presence).await;
        assert_eq!(asked, Err(ApiError::NoAnswer));
        assert_eq!(asker.waiting(), 0);
    }

    #[tokio::test]
    async fn replies_find_their_requests() {
        let (cores, mut events) = CoreSender::channel();
        let (replies, mailbox) = ShardSender::channel();
        let asker = Arc::new(Asker::new(cores, ShardId(9)));
        let reader = tokio::spawn(asker.clone().read_replies(mailbox));
        let cores = async move {
            for reply in
                [Reply::Published { position: None, copies: 0 }, Reply::Failed(ErrorCode::Internal)]
            {
                let Some(Event::Request(request)) = events.recv().await else {
                    panic!("no request")
                };
                assert_eq!(request.id.shard, ShardId(9));
                replies.push(ShardMessage::Reply { number: request.id.number, reply });
            }
        };
        let ask = || asker.ask(channel(), ChannelOptions::default(), Ask::Presence);
        let ((), first, second) = tokio::join!(cores, ask(), ask());
        assert_eq!(first, Ok(Reply::Published { position: None, copies: 0 }));
        assert_eq!(second, Err(ApiError::Refused(ErrorCode::Internal)));
        reader.await.expect("ends with its senders");
        assert_eq!(asker.waiting(), 0);
    }

    #[tokio::test]
    async fn a_node_without_cores_is_busy() {
        let (cores, events) = CoreSender::channel();
        drop(events);
        let asker = Asker::new(cores, ShardId(9));
        let asked = asker.ask(channel(), ChannelOptions::default(), Ask::Presence).await;
        assert_eq!((asked, asker.waiting()), (Err(ApiError::Busy), 0));
    }
}
