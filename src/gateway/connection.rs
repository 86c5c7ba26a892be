//! One connection as its shard holds it: session, socket, what waits in either direction, and the
//! ticks at which something is due.
use std::rc::Rc;

use bytes::Bytes;
use tokio::task::AbortHandle;

use crate::delivery::outbox::{Full, Outbox};

use super::places::Place;
use super::session::Session;
use super::ws::Decoder;

/// Commands of one connection that are taken at once.
pub const COMMANDS_BURST: u32 = 2000;
/// Commands of one connection a second beyond the burst; a person needs 1, a busy game 60.
pub const COMMANDS_PER_SECOND: u32 = 1000;
/// Bytes of commands that wait for the connect reply: SDKs send the subscribes of a page with it.
pub const HELD_BYTES_MAX: usize = 128 * 1024;

/// Names a connection of a shard, and no later one in the same place.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) struct Key {
    pub(super) index: usize,
    pub(super) generation: u32,
}

/// A connection.
#[derive(Debug)]
pub(super) struct Connection<S> {
    pub(super) generation: u32,
    pub(super) socket: Rc<S>,
    pub(super) session: Session,
    pub(super) decoder: Decoder,
    pub(super) outbox: Outbox,
    /// What waits for the connect reply.
    pub(super) held: Option<Box<Held>>,
    pub(super) bucket: Bucket,
    /// Listed for writing at the end of the batch.
    pub(super) dirty: bool,
    pub(super) closing: bool,
    /// Set once its turn to leave has come and answers are still to be waited for.
    pub(super) leaving: Option<Leaving>,
    /// What the client sends can't be understood any more, and is thrown away until it ends: a
    /// socket that is closed over unread bytes takes the close frame with it.
    pub(super) deaf: bool,
    pub(super) reader: Option<AbortHandle>,
    /// Set while the socket is full.
    pub(super) writer: Option<AbortHandle>,
    pub(super) due: Due,
    pub(super) _place: Place,
}

/// Ticks at which something is due; 0 = not at all.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Due {
    /// The tick of the wheel's entry that counts.
    pub(super) armed: u64,
    /// Close as stale, or drop if closing.
    pub(super) end: u64,
    /// Answer the connect command with what there is.
    pub(super) connect: u64,
    pub(super) ping: u64,
    pub(super) pong: u64,
    pub(super) retry: u64,
}

impl Due {
    /// The first tick at which something is due.
    pub(super) fn next(&self) -> Option<u64> {
        let all = [self.end, self.connect, self.ping, self.pong, self.retry];
        all.into_iter().filter(|&tick| tick != 0).min()
    }
}

/// The ticks of a connection that leaves a draining node.
#[derive(Debug, Clone, Copy)]
pub(super) struct Leaving {
    /// From here on no command is taken: a client that always has one open would never leave.
    pub(super) deaf: u64,
    /// From here on it is closed with whatever is open.
    pub(super) end: u64,
}

/// Commands and deliveries that came before the connect reply.
#[derive(Debug, Default)]
pub(super) struct Held {
    pub(super) commands: String,
    pub(super) frames: Outbox,
}

impl<S> Connection<S> {
    pub(super) fn key(&self, index: usize) -> Key {
        Key { index, generation: self.generation }
    }

    /// Takes a delivery, behind the connect reply if that is still to come.
    pub(super) fn try_push(&mut self, frame: Bytes) -> Result<(), Full> {
        match &mut self.held {
            Some(held) => held.frames.try_push(frame),
            None => self.outbox.try_push(frame),
        }
    }

    /// Keeps commands for after the connect reply; false = there are too many.
    pub(super) fn hold(&mut self, commands: &str) -> bool {
        let held = self.held.get_or_insert_default();
        held.commands.push_str(commands);
        held.commands.push('\n');
        held.commands.len() <= HELD_BYTES_MAX
    }
}

/// A token bucket whose time is the shard's ticks.
#[derive(Debug)]
pub(super) struct Bucket {
    left: u32,
    filled: u64,
}

impl Bucket {
    pub(super) fn new(now: u64) -> Self {
        Self { left: COMMANDS_BURST, filled: now }
    }

    /// Takes one; false = too many were taken.
    pub(super) fn take(&mut self, now: u64, ticks_per_second: u64) -> bool {
        if now > self.filled {
            let gained = (now - self.filled) * u64::from(COMMANDS_PER_SECOND) / ticks_per_second;
            let left = u64::from(self.left).saturating_add(gained);
            self.left = u32::try_from(left).unwrap_or(u32::MAX).min(COMMANDS_BURST);
            self.filled = now;
        }
        self.left.checked_sub(1).map(|left| self.left = left).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_refills_up_to_its_burst() {
        let mut bucket = Bucket::new(10);
        let burst = (0..).take_while(|_| bucket.take(10, 4)).count();
        assert_eq!(burst, COMMANDS_BURST as usize);
        let later = (0..).take_while(|_| bucket.take(14, 4)).count();
        assert_eq!(later, COMMANDS_PER_SECOND as usize);
        let idle = (0..).take_while(|_| bucket.take(10_000, 4)).count();
        assert_eq!(idle, COMMANDS_BURST as usize);
    }

    #[test]
    fn the_first_tick_that_is_set_is_next() {
        assert_eq!(Due::default().next(), None);
        assert_eq!(Due { end: 9, ping: 4, ..Due::default() }.next(), Some(4));
    }
}
