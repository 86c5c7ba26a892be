//! Clients over WebSocket: accepts them, keeps to the rules of the client protocol, asks the cores
//! on their behalf, and writes what is delivered straight to their sockets. The composition root
//! starts it. It decides nothing about channels: the cores do.
mod connection;
mod http;
mod places;
mod rules;
mod session;
mod shard;
pub mod socket;
mod stats;
pub mod token;
mod wheel;
pub mod ws;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use thiserror::Error;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::delivery::event::ShardId;
use crate::delivery::mailbox::{CoreSender, ShardReceiver, ShardSender};

pub use connection::{COMMANDS_BURST, COMMANDS_PER_SECOND, HELD_BYTES_MAX};
pub use http::{ClientAddress, PATH};
pub use rules::{
    CHANNELS_MAX, ConfigError, GatewayConfig, HISTORY_BYTES_MAX, HISTORY_MAX, Limits, Origins,
    REQUESTS_MAX, Times,
};
pub use stats::{Count, GatewayStats};

use places::Places;
use shard::{ACCEPT_QUEUE_LEN, Accepted, Order, ShardSeed};
use socket::{Listener, Transport};

/// Where the shards of a gateway run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Threads {
    /// Each on a thread of its own.
    Own,
    /// All on the calling thread, which must be inside a `LocalSet`.
    Shared,
}

/// The gateway can't start.
#[derive(Debug, Error)]
pub enum StartError {
    /// The configuration contradicts itself.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// No thread, or no runtime on it.
    #[error("a shard has no thread to run on: {0}")]
    Thread(#[from] std::io::Error),
}

/// A running gateway.
#[derive(Debug)]
pub struct Gateway<L: Listener> {
    shards: Vec<mpsc::Sender<Order<L::Transport>>>,
    stats: Arc<GatewayStats>,
    accepting: CancellationToken,
    /// Closed when every shard has ended.
    ended: mpsc::Receiver<()>,
}

/// The mailboxes of `n` shards, which the cores must have before the gateway starts.
pub fn shards(n: usize) -> (Vec<ShardSender>, Vec<ShardReceiver>) {
    (0..n).map(|_| ShardSender::channel()).unzip()
}

impl<L: Listener> Gateway<L> {
    /// Starts a shard for each mailbox, and accepts clients. `router` serves all other paths. Needs
    /// a tokio runtime.
    pub fn start(
        config: GatewayConfig,
        listener: L,
        router: Router,
        core: CoreSender,
        mailboxes: Vec<ShardReceiver>,
        threads: Threads,
    ) -> Result<Self, StartError> {
        let rules = Arc::new(config.rules()?);
        let stats = Arc::new(GatewayStats::default());
        let (alive, ended) = mpsc::channel(1);
        let mut shards = Vec::new();
        for (n, mailbox) in (0..).zip(mailboxes) {
            let (orders, inbox) = mpsc::channel(ACCEPT_QUEUE_LEN);
            shards.push(orders);
            let seed = ShardSeed {
                id: ShardId(n),
                rules: rules.clone(),
                stats: stats.clone(),
                core: core.clone(),
                mailbox,
                orders: inbox,
            };
            run(seed, threads, alive.clone())?;
        }
        let accepting = CancellationToken::new();
        let limits = rules.limits;
        let door = http::Door::<L> {
            rules,
            stats: stats.clone(),
            http: Places::new(limits.http_max, limits.http_per_ip_max),
            places: Places::new(limits.connections_max, limits.connections_per_ip_max),
            hand_over: Box::new(in_turn(shards.clone())),
            stop: accepting.clone(),
        };
        tokio::spawn(http::serve(listener, router, door));
        Ok(Self { shards, stats, accepting, ended })
    }

    /// Connections now.
    pub fn connections(&self) -> usize {
        usize::try_from(self.stats.connections.get()).unwrap_or(usize::MAX)
    }

    /// The counters.
    pub fn stats(&self) -> Arc<GatewayStats> {
        self.stats.clone()
    }

    /// Accepts nobody any more, closes all connections with 3001 spread evenly over `over`, and
    /// returns when all are gone.
    pub async fn drain(&self, over: Duration) {
        self.accepting.cancel();
        for shard in &self.shards {
            // An error means that the shard has ended already.
            let _ended = shard.send(Order::Drain(over)).await;
        }
        let mut look = tokio::time::interval(Duration::from_millis(50));
        while self.connections() > 0 {
            look.tick().await;
        }
    }

    /// Ends all shards, with what connections are left, and waits for them.
    pub async fn stop(mut self) {
        self.accepting.cancel();
        for shard in self.shards.drain(..) {
            let _ended = shard.send(Order::Stop).await;
        }
        while self.ended.recv().await.is_some() {}
    }
}

/// Each shard in turn; one whose queue is full is passed over.
fn in_turn<T: Transport>(
    shards: Vec<mpsc::Sender<Order<T>>>,
) -> impl Fn(Accepted<T>) -> bool + Send + Sync {
    let turn = AtomicUsize::new(0);
    move |accepted| {
        let first = turn.fetch_add(1, Ordering::Relaxed);
        let mut order = Order::Accept(accepted);
        for n in 0..shards.len() {
            match shards[(first + n) % shards.len()].try_send(order) {
                Ok(()) => return true,
                Err(
                    mpsc::error::TrySendError::Full(back) | mpsc::error::TrySendError::Closed(back),
                ) => {
                    order = back;
                }
            }
        }
        false
    }
}

/// Runs a shard; `alive` is dropped when it ends.
fn run<T: Transport>(
    seed: ShardSeed<T>,
    threads: Threads,
    alive: mpsc::Sender<()>,
) -> Result<(), std::io::Error> {
    if threads == Threads::Shared {
        tokio::task::spawn_local(async move {
            seed.run().await;
            drop(alive);
        });
        return Ok(());
    }
    let name = format!("shard-{}", seed.id.0);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    std::thread::Builder::new().name(name).spawn(move || {
        let local = tokio::task::LocalSet::new();
        local.block_on(&runtime, seed.run());
        drop(alive);
    })?;
    Ok(())
}

#[cfg(test)]
mod tests;
