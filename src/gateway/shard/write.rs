//! Writing to connections, and closing them.
use std::io::ErrorKind;
use std::rc::Rc;

use crate::protocol::codes::Disconnect;

use super::{Shard, Shared, timers};
use crate::gateway::connection::Key;
use crate::gateway::session::{Effects, Scene};
use crate::gateway::socket::Socket;
use crate::gateway::ws;

/// Where a connection's outbox stands after writing.
#[derive(PartialEq, Eq)]
enum Written {
    All,
    SocketFull,
    Gone,
}

impl<S: Socket> Shard<S> {
    pub(super) fn mark_dirty(&mut self, key: Key) {
        if let Some(connection) = self.connection(key)
            && !std::mem::replace(&mut connection.dirty, true)
        {
            self.dirty.push(key);
        }
    }

    /// Writes what the batch brought, one vectored write a connection.
    pub(super) fn write_dirty(&mut self, shared: &Shared<S>) {
        // Removing a connection can end subscriptions, but never makes another dirty.
        let mut dirty = std::mem::take(&mut self.dirty);
        for key in dirty.drain(..) {
            let Some(connection) = self.connection(key) else { continue };
            connection.dirty = false;
            if connection.writer.is_some() {
                continue;
            }
            if self.write(key) == Written::SocketFull
                && let Some(connection) = self.connection(key)
            {
                let writer = write_loop(shared.clone(), connection.socket.clone(), key);
                connection.writer = Some(tokio::task::spawn_local(writer).abort_handle());
            }
        }
        self.dirty = dirty;
    }

    fn write(&mut self, key: Key) -> Written {
        let Some(connection) = self.connection(key) else { return Written::Gone };
        let mut total = 0;
        let end = loop {
            if connection.outbox.is_empty() {
                break Written::All;
            }
            let written = connection.socket.try_write_vectored(&connection.outbox.slices());
            match written {
                Ok(0) => break Written::Gone,
                Ok(written) => {
                    total += written as u64;
                    connection.outbox.advance(written);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break Written::SocketFull,
                Err(_) => break Written::Gone,
            }
        };
        if end == Written::All && connection.deaf {
            connection.socket.end_writing();
        }
        self.stats.bytes_out.add(total);
        if end == Written::Gone {
            self.remove(key);
        }
        end
    }

    /// Closes with a code of the protocol, behind what waits already; a slow client only gets the
    /// rest of the frame that has been begun.
    pub(super) fn close(&mut self, key: Key, code: Disconnect) {
        let count = match code {
            Disconnect::Slow => &self.stats.closed_slow,
            Disconnect::NoPong => &self.stats.closed_silent,
            Disconnect::BadRequest | Disconnect::TooManyRequests => &self.stats.closed_bad,
            _ => return self.close_with(key, code.code(), code.reason()),
        };
        count.add(1);
        self.close_with(key, code.code(), code.reason());
    }

    pub(super) fn close_with(&mut self, key: Key, code: u16, reason: &str) {
        let end = self.wheel.now() + timers::CLOSE_WAIT_TICKS;
        let Some(connection) = self.open(key) else { return };
        connection.closing = true;
        connection.held = None;
        connection.due.end = end;
        let frame = ws::close(code, reason);
        let slow = code == Disconnect::Slow.code();
        if slow || connection.outbox.try_push_reply(frame.clone()).is_err() {
            connection.outbox.cut_short(frame);
        }
        tracing::debug!(client = %connection.session.client, code, reason, "connection.close");
        self.end_session(key);
        self.mark_dirty(key);
        self.arm(key);
    }

    /// The client closes, or answers our close.
    pub(super) fn handle_close(&mut self, key: Key, code: u16) {
        if self.open(key).is_some() {
            let code = if code == 1005 { 1000 } else { code };
            self.close_with(key, code, "");
            self.write(key);
        }
        self.remove(key);
    }

    /// Forgets a connection: its socket closes.
    pub(super) fn remove(&mut self, key: Key) {
        if self.connection(key).is_none() {
            return;
        }
        self.end_session(key);
        let connection = self.connections.remove(key.index);
        self.stats.connections.sub(1);
        // Either may be the caller: it then ends when it next waits.
        for task in [connection.reader, connection.writer].into_iter().flatten() {
            task.abort();
        }
    }

    fn end_session(&mut self, key: Key) {
        let rules = self.rules.clone();
        let scene = Scene { rules: &rules, unix_ms: rules.unix_ms() };
        let mut effects = Effects::default();
        if let Some(connection) = self.connection(key) {
            connection.session.end(scene, &mut effects);
            self.carry_out(key, effects, scene);
        }
    }

    /// Says farewell to all as far as their sockets take it at once.
    pub(super) fn stop(shared: &Shared<S>) {
        let shard = &mut *shared.borrow_mut();
        for key in shard.keys() {
            shard.close(key, Disconnect::Shutdown);
            shard.write(key);
            shard.remove(key);
        }
    }
}

/// Runs only while the socket is full.
async fn write_loop<S: Socket>(shard: Shared<S>, socket: Rc<S>, key: Key) {
    loop {
        let ready = socket.writable().await;
        let mut borrowed = shard.borrow_mut();
        if ready.is_err() {
            borrowed.remove(key);
        }
        if borrowed.write(key) != Written::SocketFull {
            if let Some(connection) = borrowed.connection(key) {
                connection.writer = None;
            }
            return;
        }
    }
}
