//! What happens as time passes: pings, ends of patience, expiry, pacing, draining.
use std::time::Duration;

use bytes::Bytes;

use crate::delivery::operations::OPERATION_MS;
use crate::delivery::router::QUESTION_MS;
use crate::protocol::codes::Disconnect;

use super::{Shard, Shared, TICK, TICKS_PER_SECOND};
use crate::gateway::connection::{Due, Key, Leaving};
use crate::gateway::session::{Effects, Scene};
use crate::gateway::socket::Socket;
use crate::gateway::ws;

/// A connect command is answered after this with the subscriptions that are ready. SDKs wait 5 s.
pub(super) const CONNECT_WAIT_TICKS: u64 = 3 * TICKS_PER_SECOND;
/// How long a client may take to answer a close frame.
pub(super) const CLOSE_WAIT_TICKS: u64 = 2 * TICKS_PER_SECOND;
/// Between two attempts at server-side subscriptions that weren't ready.
const RETRY_TICKS: u64 = TICKS_PER_SECOND;
/// Subscriptions ended with 2500 a tick and shard: each comes back as a subscribe with recovery.
pub(super) const RESUBSCRIBES_A_TICK: usize = 250;
/// How long past the end of its credentials a connection may use its time to refresh them.
const REFRESH_GRACE_SECONDS: u64 = 25;

/// How long a connection whose turn to leave has come may begin requests while others are open. Most
/// have none open within milliseconds; this is for clients that always have some.
pub(super) const LEAVE_BUSY_TICKS: u64 = TICKS_PER_SECOND;
/// How long a connection whose turn to leave has come stays at most: by then the cores have answered
/// all that it began, if only that they don't know. Well below the 30 s of `drain_timeout`.
pub(super) const LEAVE_WAIT_TICKS: u64 = 6 * TICKS_PER_SECOND;
const _: () = assert!(
    (LEAVE_WAIT_TICKS - LEAVE_BUSY_TICKS - 1) * (TICK.as_millis() as u64) > OPERATION_MS
        && QUESTION_MS <= OPERATION_MS,
    "requests have their answers before connections are closed over them"
);

/// As ticks, rounded up.
pub(super) fn ticks(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis().div_ceil(TICK.as_millis())).unwrap_or(u64::MAX / 2)
}

impl<S: Socket> Shard<S> {
    pub(super) fn handle_tick(shared: &Shared<S>) {
        let shard = &mut *shared.borrow_mut();
        shard.tell_unsent();
        for key in shard.wheel.advance() {
            let now = shard.wheel.now();
            if shard.connection(key).is_some_and(|connection| connection.due.armed == now) {
                shard.handle_due(key, now);
                shard.arm(key);
            }
        }
        shard.lapsed_budget = RESUBSCRIBES_A_TICK;
        shard.tell_lapsed();
        shard.drain_some();
        shard.write_dirty(shared);
    }

    /// Sets the wheel for what is due next. An earlier entry for the connection is then stale.
    pub(super) fn arm(&mut self, key: Key) {
        let (unix, now) = (self.rules.unix_ms() / 1000, self.wheel.now());
        let Some(connection) = self.connections.get_mut(key.index) else { return };
        if connection.generation != key.generation {
            return;
        }
        let expires = connection.session.expires().filter(|_| !connection.closing);
        let expiry = expires.map(|at| {
            let left = (at + REFRESH_GRACE_SECONDS).saturating_sub(unix);
            now.saturating_add(left.saturating_mul(TICKS_PER_SECOND))
        });
        let Some(next) = connection.due.next().into_iter().chain(expiry).min() else { return };
        let tick = self.wheel.within_reach(next);
        if connection.due.armed != tick {
            connection.due.armed = tick;
            self.wheel.set(tick, key);
        }
    }

    fn handle_due(&mut self, key: Key, now: u64) {
        let Some(connection) = self.connection(key) else { return };
        let reached = |tick: u64| tick != 0 && tick <= now;
        let Due { end, connect, ping, pong, retry, .. } = connection.due;
        if connection.closing {
            if reached(end) {
                self.remove(key);
            }
            return;
        }
        let credentials = connection.session.expires();
        let unix = self.rules.unix_ms() / 1000;
        if reached(end) {
            self.close(key, Disconnect::Stale);
        } else if reached(pong) {
            self.close(key, Disconnect::NoPong);
        } else if credentials.is_some_and(|at| at + REFRESH_GRACE_SECONDS <= unix) {
            self.close(key, Disconnect::Expired);
        } else if reached(connect) {
            self.session(key, |session, scene, effects| session.finish_connect(scene, effects));
        } else {
            if reached(ping) {
                self.ping(key, now);
            }
            if reached(retry) {
                self.session(key, |session, scene, effects| session.retry_unready(scene, effects));
                self.set_retry(key);
            }
        }
    }

    fn ping(&mut self, key: Key, now: u64) {
        let times = self.rules.times;
        let Some(connection) = self.open(key) else { return };
        connection.due.ping = now + ticks(times.ping_interval);
        connection.due.pong = now + ticks(times.pong_timeout);
        let frame = match connection.session.format.ping() {
            b"{}" => Bytes::from_static(b"\x81\x02{}"),
            other => ws::text(other),
        };
        if connection.try_push(frame).is_ok() {
            self.mark_dirty(key);
        } else {
            self.close(key, Disconnect::Slow);
        }
    }

    pub(super) fn handle_pong(&mut self, key: Key) {
        let Some(connection) = self.open(key) else { return };
        if connection.due.pong == 0 {
            return self.close(key, Disconnect::BadRequest);
        }
        connection.due.pong = 0;
    }

    /// The connect reply is written: what waited for it follows, and pings begin, spread over time.
    pub(super) fn handle_connected(&mut self, key: Key) {
        let interval = ticks(self.rules.times.ping_interval);
        let first = self.wheel.now() + rand::random_range(interval.div_ceil(2)..=interval);
        let Some(connection) = self.open(key) else { return };
        connection.due = Due { ping: first, ..Due::default() };
        let held = connection.held.take().unwrap_or_default();
        connection.outbox.append(held.frames);
        self.mark_dirty(key);
        self.set_retry(key);
        self.arm(key);
        if !held.commands.is_empty() {
            self.handle_text(key, &held.commands);
        }
    }

    pub(super) fn set_retry(&mut self, key: Key) {
        let at = self.wheel.now() + RETRY_TICKS;
        if let Some(connection) = self.open(key) {
            connection.due.retry = if connection.session.has_unready() { at } else { 0 };
        }
    }

    /// Ends subscriptions that have lapsed, as many as this tick allows.
    pub(super) fn tell_lapsed(&mut self) {
        while self.lapsed_budget > 0 {
            let Some((key, channel)) = self.lapsed.pop_front() else { return };
            self.lapsed_budget -= 1;
            self.stats.resubscribes.add(1);
            let rules = self.rules.clone();
            let scene = Scene { rules: &rules, unix_ms: rules.unix_ms() };
            let mut effects = Effects::default();
            if let Some(connection) = self.open(key) {
                connection.session.tell_lapsed(&channel, &mut effects);
                self.carry_out(key, effects, scene);
            }
        }
    }

    /// Begins to close all connections, evenly over the time given.
    pub(super) fn drain(&mut self, over: Duration) {
        let ticks = usize::try_from(ticks(over)).unwrap_or(usize::MAX).max(1);
        self.drain = Some(self.connections.len().div_ceil(ticks).max(1));
    }

    fn drain_some(&mut self) {
        let Some(count) = self.drain else { return };
        let now = self.wheel.now();
        let mut turns = count;
        let mut over = Vec::new();
        for (index, connection) in &mut self.connections {
            let idle = !connection.session.awaits();
            let leaves = match connection.leaving {
                _ if connection.closing => false,
                Some(leaving) => idle || leaving.end <= now,
                None if turns == 0 => false,
                None => {
                    turns -= 1;
                    let (deaf, end) = (now + LEAVE_BUSY_TICKS, now + LEAVE_WAIT_TICKS);
                    connection.leaving = Some(Leaving { deaf, end });
                    idle
                }
            };
            if leaves {
                over.push(connection.key(index));
            }
        }
        for key in over {
            self.close(key, Disconnect::Shutdown);
        }
    }
}
