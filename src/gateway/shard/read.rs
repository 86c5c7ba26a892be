//! Accepting connections, and reading from them.
use std::rc::Rc;

use crate::protocol::client::commands;
use crate::protocol::codes::Disconnect;
use crate::protocol::ids::ClientId;

use super::{Accepted, Shard, Shared, TICKS_PER_SECOND, Transport, timers};
use crate::delivery::outbox::Outbox;
use crate::gateway::connection::{Bucket, Connection, Due, Key};
use crate::gateway::session::{Effects, Scene, Session};
use crate::gateway::socket::Socket;
use crate::gateway::ws::{self, Decoder, Flow, Incoming};

/// Reads of one connection before others have their turn.
const READS_A_TURN: usize = 4;

impl<S: Socket> Shard<S> {
    pub(super) fn accept<T: Transport<Socket = S>>(shared: &Shared<S>, accepted: Accepted<T>) {
        let socket = match accepted.transport.attach() {
            Ok(socket) => Rc::new(socket),
            Err(error) => {
                tracing::warn!(%error, "connection.attach");
                return;
            }
        };
        let shard = &mut *shared.borrow_mut();
        shard.generation = shard.generation.wrapping_add(1);
        let client = ClientId(rand::random());
        let now = shard.wheel.now();
        let generation = shard.generation;
        if shard.connections.len() == shard.connections.capacity() {
            // By an eighth: of thousands of connections, room for as many again would be empty.
            shard.connections.reserve_exact(shard.connections.len().max(512) / 8);
        }
        let index = shard.connections.insert(Connection {
            generation,
            socket: socket.clone(),
            session: Session::new(client, accepted.format, accepted.query_user),
            decoder: Decoder::default(),
            outbox: Outbox::default(),
            held: None,
            bucket: Bucket::new(now),
            dirty: false,
            closing: false,
            leaving: None,
            deaf: false,
            reader: None,
            writer: None,
            due: Due {
                end: now + timers::ticks(shard.rules.times.connect_timeout),
                ..Due::default()
            },
            _place: accepted.place,
        });
        let key = Key { index, generation };
        shard.stats.connections.add(1);
        shard.stats.connections_opened.add(1);
        shard.arm(key);
        let reader = tokio::task::spawn_local(read_loop(shared.clone(), socket, key));
        if let Some(connection) = shard.connection(key) {
            connection.reader = Some(reader.abort_handle());
        }
        let mut early = accepted.early;
        if !early.is_empty() {
            shard.handle_bytes(key, &mut early);
            shard.write_dirty(shared);
        }
    }

    /// Reads what is there; false = the connection is gone.
    fn handle_readable(&mut self, key: Key) -> bool {
        let mut buffer = std::mem::take(&mut self.read_buffer);
        for _ in 0..READS_A_TURN {
            let Some(connection) = self.connection(key) else { break };
            match connection.socket.try_read(&mut buffer) {
                Ok(0) => self.remove(key),
                Ok(read) => self.handle_bytes(key, &mut buffer[..read]),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => break,
                Err(_) => self.remove(key),
            }
        }
        self.read_buffer = buffer;
        self.connection(key).is_some()
    }

    fn handle_bytes(&mut self, key: Key, bytes: &mut [u8]) {
        self.stats.bytes_in.add(bytes.len() as u64);
        let Some(connection) = self.connection(key).filter(|it| !it.deaf) else { return };
        let mut decoder = std::mem::take(&mut connection.decoder);
        let fed = decoder.feed(bytes, |incoming| self.handle_incoming(key, incoming));
        let Some(connection) = self.connection(key) else { return };
        connection.decoder = decoder;
        if let Err(error) = fed {
            connection.deaf = true;
            // Its close frame can't be awaited, so the end of what it sends is.
            self.stats.closed_bad.add(1);
            self.close_with(key, error.code(), &error.to_string());
            self.mark_dirty(key);
        }
    }

    fn handle_incoming(&mut self, key: Key, incoming: Incoming<'_>) -> Flow {
        if let Incoming::Close(code) = incoming {
            self.handle_close(key, code);
            return Flow::Stop;
        }
        let now = self.wheel.now();
        if self.open(key).is_none_or(|it| it.leaving.is_some_and(|leaving| leaving.deaf <= now)) {
            // Closing, or about to: only the client's close frame is of interest. Whatever else it
            // sent has crossed the close on its way, for nothing is done about it.
            return Flow::Continue;
        }
        match incoming {
            Incoming::Text(text) => self.handle_text(key, text),
            Incoming::Binary(_) => self.close(key, Disconnect::InappropriateProtocol),
            Incoming::Ping(payload) => self.handle_ping(key, payload),
            Incoming::Pong | Incoming::Close(_) => {}
        }
        Flow::Continue
    }

    fn handle_ping(&mut self, key: Key, payload: &[u8]) {
        let now = self.wheel.now();
        let Some(connection) = self.open(key) else { return };
        if !connection.bucket.take(now, TICKS_PER_SECOND) {
            return self.close(key, Disconnect::TooManyRequests);
        }
        match connection.outbox.try_push_reply(ws::pong(payload)) {
            Ok(()) => self.mark_dirty(key),
            Err(_) => self.close(key, Disconnect::Slow),
        }
    }

    /// All commands of a frame; their replies leave in one frame.
    pub(super) fn handle_text(&mut self, key: Key, text: &str) {
        let rules = self.rules.clone();
        let scene = Scene { rules: &rules, unix_ms: rules.unix_ms() };
        let mut effects = Effects::default();
        let now = self.wheel.now();
        let Some(connection) = self.open(key) else { return };
        let mut stream = commands(text);
        let mut count = 0;
        while effects.close.is_none() {
            if connection.session.is_connecting() {
                let rest = text.get(stream.byte_offset()..).unwrap_or_default();
                if !connection.hold(rest) {
                    effects.close = Some(Disconnect::TooManyRequests);
                }
                break;
            }
            let Some(command) = stream.next() else { break };
            count += 1;
            if !connection.bucket.take(now, TICKS_PER_SECOND) {
                effects.close = Some(Disconnect::TooManyRequests);
                break;
            }
            match command {
                Ok(command) => connection.session.handle(command, scene, &mut effects),
                Err(_) => connection.session.handle_garbage(&mut effects),
            }
        }
        if connection.session.is_connecting() {
            let wait = now + timers::CONNECT_WAIT_TICKS;
            connection.due = Due { connect: wait, end: 0, ..connection.due };
            self.arm(key);
        }
        self.stats.commands.add(count);
        self.carry_out(key, effects, scene);
    }
}

async fn read_loop<S: Socket>(shard: Shared<S>, socket: Rc<S>, key: Key) {
    loop {
        let ready = socket.readable().await;
        let mut borrowed = shard.borrow_mut();
        if ready.is_err() {
            borrowed.remove(key);
        }
        let there = borrowed.handle_readable(key);
        borrowed.write_dirty(&shard);
        if !there {
            return;
        }
    }
}
