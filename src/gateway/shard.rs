//! A shard: one task that holds a part of the connections and the hub of their channels. Everything
//! that happens to them happens on its thread, and deliveries are written straight to their sockets.
//! It never waits for a client or for the cores.
use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use slab::Slab;
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;

use crate::delivery::event::{Event, Reply as CoreReply, Request, RequestId, ShardId};
use crate::delivery::hub::Hub;
use crate::delivery::mailbox::{CoreSender, ShardMessage, ShardReceiver};
use crate::protocol::channel::Channel;
use crate::protocol::client::Format;
use crate::protocol::codes::{Disconnect, ErrorCode};

use super::connection::{Connection, Key};
use super::places::Place;
use super::rules::Rules;
use super::session::{Asked, Effects, Expects, Kind, Scene};
use super::socket::{Socket, Transport};
use super::stats::GatewayStats;
use super::wheel::Wheel;
use super::ws;

mod deliver;
mod read;
mod timers;
mod write;

/// Messages taken from the mailbox before sockets are written to: what they bring to one connection
/// leaves in one write.
const BATCH_LEN: usize = 256;
/// Accepted connections that may wait for one shard: those of some 10 ms of handshakes.
pub(super) const ACCEPT_QUEUE_LEN: usize = 1024;
/// How often due work is looked for.
const TICK: Duration = Duration::from_millis(250);
/// Ticks of [`TICK`] a second.
const TICKS_PER_SECOND: u64 = 4;
/// The largest frame that a client may send fits in, so that it is handled without a copy.
const READ_BUFFER_BYTES: usize = ws::MESSAGE_BYTES_MAX + 64;

/// A connection on its way from its handshake to a shard.
#[derive(Debug)]
pub(super) struct Accepted<T> {
    pub(super) transport: T,
    /// What the client sent right behind its handshake.
    pub(super) early: Vec<u8>,
    pub(super) format: Format,
    pub(super) query_user: Option<Box<str>>,
    pub(super) place: Place,
}

/// What the gateway tells a shard.
#[derive(Debug)]
pub(super) enum Order<T> {
    Accept(Accepted<T>),
    /// Close all connections, spread evenly over this time.
    Drain(Duration),
    /// End now.
    Stop,
}

/// What a shard is made of before it runs on its thread.
pub(super) struct ShardSeed<T> {
    pub(super) id: ShardId,
    pub(super) rules: Arc<Rules>,
    pub(super) stats: Arc<GatewayStats>,
    pub(super) core: CoreSender,
    pub(super) mailbox: ShardReceiver,
    pub(super) orders: mpsc::Receiver<Order<T>>,
}

/// The connections of a shard.
pub(super) struct Shard<S> {
    id: ShardId,
    rules: Arc<Rules>,
    stats: Arc<GatewayStats>,
    core: CoreSender,
    connections: Slab<Connection<S>>,
    generation: u32,
    hub: Hub<Channel, usize, Kind>,
    expected: HashMap<u64, (Key, Expects)>,
    number: u64,
    /// What the cores must learn but had no room for. Bounded by what is subscribed: while anything
    /// is here, nothing new is asked.
    unsent: VecDeque<Event>,
    wheel: Wheel<Key>,
    /// Connections to write to at the end of the batch.
    dirty: Vec<Key>,
    /// Subscriptions to be ended with 2500.
    lapsed: VecDeque<(Key, Channel)>,
    lapsed_budget: usize,
    /// Connections whose turn to leave comes each tick while draining.
    drain: Option<usize>,
    read_buffer: Vec<u8>,
}

type Shared<S> = Rc<RefCell<Shard<S>>>;

impl<T: Transport> ShardSeed<T> {
    /// Serves until told to stop. Needs a `LocalSet`.
    pub(super) async fn run(mut self) {
        let shard = Rc::new(RefCell::new(Shard::<T::Socket>::new(&self)));
        let mut batch = Vec::with_capacity(BATCH_LEN);
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let mut cores_gone = false;
        // Every arm is cancel-safe: nothing is taken from a source whose arm isn't chosen.
        loop {
            tokio::select! {
                taken = self.mailbox.recv_many(&mut batch, BATCH_LEN), if !cores_gone => {
                    cores_gone = taken == 0;
                    let overflowed = self.mailbox.take_overflowed();
                    Shard::handle_batch(&shard, &mut batch, overflowed);
                }
                order = self.orders.recv() => match order {
                    Some(Order::Accept(accepted)) => Shard::accept(&shard, accepted),
                    Some(Order::Drain(over)) => shard.borrow_mut().drain(over),
                    Some(Order::Stop) | None => break,
                },
                _ = ticks.tick() => Shard::handle_tick(&shard),
            }
        }
        Shard::stop(&shard);
    }
}

impl<S: Socket> Shard<S> {
    fn new<T>(seed: &ShardSeed<T>) -> Self {
        Self {
            id: seed.id,
            rules: seed.rules.clone(),
            stats: seed.stats.clone(),
            core: seed.core.clone(),
            connections: Slab::new(),
            generation: 0,
            hub: Hub::default(),
            expected: HashMap::new(),
            number: 0,
            unsent: VecDeque::new(),
            wheel: Wheel::default(),
            dirty: Vec::new(),
            lapsed: VecDeque::new(),
            lapsed_budget: timers::RESUBSCRIBES_A_TICK,
            drain: None,
            read_buffer: vec![0; READ_BUFFER_BYTES],
        }
    }

    fn connection(&mut self, key: Key) -> Option<&mut Connection<S>> {
        self.connections.get_mut(key.index).filter(|c| c.generation == key.generation)
    }

    /// A connection that isn't closing.
    fn open(&mut self, key: Key) -> Option<&mut Connection<S>> {
        self.connection(key).filter(|connection| !connection.closing)
    }

    fn handle_batch(shared: &Shared<S>, batch: &mut Vec<ShardMessage>, overflowed: bool) {
        let shard = &mut *shared.borrow_mut();
        if overflowed {
            shard.overflowed();
            batch.clear();
        }
        for message in batch.drain(..) {
            match message {
                ShardMessage::Reply { number, reply } => shard.handle_reply(number, reply),
                ShardMessage::Deliver(delivery) => shard.deliver(&delivery),
            }
        }
        shard.tell_lapsed();
        shard.write_dirty(shared);
    }

    fn handle_reply(&mut self, number: u64, reply: CoreReply) {
        let Some((key, expects)) = self.expected.remove(&number) else { return };
        let server_side = matches!(expects, Expects::ServerSide { .. });
        self.session(key, |session, scene, effects| {
            session.handle_reply(expects, reply, scene, effects);
        });
        if server_side {
            self.set_retry(key);
            self.arm(key);
        }
    }

    /// Messages were lost: nobody can be told what, so every client starts from its positions.
    fn overflowed(&mut self) {
        self.stats.overflows.add(1);
        tracing::warn!(shard = self.id.0, connections = self.connections.len(), "shard.overflow");
        self.expected.clear();
        self.lapsed.clear();
        for key in self.keys() {
            self.close(key, Disconnect::InsufficientState);
        }
    }

    fn keys(&self) -> Vec<Key> {
        self.connections.iter().map(|(index, connection)| connection.key(index)).collect()
    }

    /// Calls a session and carries out what it wants. A connection that is closing isn't called.
    fn session(
        &mut self,
        key: Key,
        call: impl FnOnce(&mut super::session::Session, Scene<'_>, &mut Effects),
    ) {
        let rules = self.rules.clone();
        let scene = Scene { rules: &rules, unix_ms: rules.unix_ms() };
        let mut effects = Effects::default();
        if let Some(connection) = self.open(key) {
            call(&mut connection.session, scene, &mut effects);
            self.carry_out(key, effects, scene);
        }
    }

    fn carry_out(&mut self, key: Key, mut effects: Effects, scene: Scene<'_>) {
        while !effects.asks.is_empty() {
            for asked in std::mem::take(&mut effects.asks) {
                self.ask(key, asked, scene, &mut effects);
            }
        }
        let Some(connection) = self.connections.get_mut(key.index) else { return };
        for channel in &effects.left {
            self.hub.unsubscribe(channel, key.index);
        }
        for (channel, kind) in effects.joined {
            self.hub.subscribe(channel, key.index, kind);
        }
        let answered = connection.leaving.is_some() && !connection.session.awaits();
        let mut full = false;
        if !effects.replies.is_empty() {
            full = connection.outbox.try_push_reply(ws::text(&effects.replies)).is_err();
            self.mark_dirty(key);
        }
        if effects.pong {
            self.handle_pong(key);
        }
        match effects.close {
            _ if full => self.close(key, Disconnect::Slow),
            Some(code) => self.close(key, code),
            None if effects.connected => self.handle_connected(key),
            None if answered => self.close(key, Disconnect::Shutdown),
            None => {}
        }
    }

    fn ask(&mut self, key: Key, asked: Asked, scene: Scene<'_>, effects: &mut Effects) {
        let Asked { channel, options, ask, expects } = asked;
        let number = if expects.is_some() { self.number + 1 } else { 0 };
        let id = RequestId { shard: self.id, number };
        let event = Event::Request(Request { id, channel, options, ask });
        let Some(expects) = expects else { return self.tell(event) };
        if self.unsent.is_empty() && self.core.try_push(event).is_ok() {
            self.number = number;
            self.expected.insert(number, (key, expects));
        } else if let Some(connection) = self.connection(key) {
            let busy = CoreReply::Failed(ErrorCode::TooManyRequests);
            connection.session.handle_reply(expects, busy, scene, effects);
        }
    }

    /// Hands over what the cores must not miss.
    fn tell(&mut self, event: Event) {
        self.unsent.push_back(event);
        self.tell_unsent();
    }

    fn tell_unsent(&mut self) {
        while let Some(event) = self.unsent.pop_front() {
            let copy = match &event {
                Event::Request(request) => Event::Request(request.clone()),
                _ => return,
            };
            if self.core.try_push(event).is_err() {
                self.unsent.push_front(copy);
                return;
            }
        }
    }
}
