//! What a node holds of one slot, as its owner, as a follower or left over from an earlier
//! ownership: the streams, publications that have no place in them yet, records of users, which
//! operations were applied, and idempotency keys. Used by the slot table.
mod copies;
mod digest;
mod keys;
mod loose;
mod pieces;
mod records;

use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::Arc;

use super::rare::Rare;
use super::stream::{Entry, Stream};
use super::user::Record;
use crate::protocol::channel::{Channel, ChannelOptions};
use crate::protocol::ids::{Epoch, Incarnation, Position, StreamEpoch};
use crate::protocol::message::{Message, OperationId, Publication};
use crate::protocol::peer::Change;
use crate::protocol::time::Millis;
use crate::small_map::SmallMap;
pub use copies::COPY_BYTES;
pub(super) use copies::ENTRY_BYTES;
pub(super) use digest::update_position;
use keys::Keys;
pub use keys::{KEY_MS, KEYS_MAX};
pub use loose::{LINES_MAX, LOOSE_MIN};
use loose::{Loose, Settled};
pub use pieces::Pieces;

/// Gateways whose last operation number is remembered, a slot. Above it the numbers of gateways
/// that left the cluster are forgotten first.
pub const GATEWAYS_MAX: usize = 1_024;
/// See the module.
#[derive(Clone, Debug, Default)]
pub struct Holding {
    streams: SmallMap<Channel, Box<Stream>>,
    applied: SmallMap<Incarnation, u64>,
    loose: BTreeMap<Channel, Vec<Loose>>,
    keys: Rare<Keys>,
    /// By the users' inboxes.
    users: SmallMap<Channel, Record>,
    /// Of the present content, once it was asked for.
    digest: Cell<Option<u64>>,
}

impl PartialEq for Holding {
    fn eq(&self, other: &Self) -> bool {
        (&self.streams, &self.applied, &self.loose, &self.keys, &self.users)
            == (&other.streams, &other.applied, &other.loose, &other.keys, &other.users)
    }
}

// What is held.
impl Holding {
    /// The stream of a channel.
    pub fn stream(&self, channel: &Channel) -> Option<&Stream> {
        self.streams.get(channel).map(Box::as_ref)
    }

    /// All streams, in the order of their channels.
    pub fn streams(&self) -> impl Iterator<Item = (&Channel, &Stream)> {
        self.streams.iter().map(|(channel, stream)| (channel, &**stream))
    }

    /// How many streams there are.
    pub fn streams_len(&self) -> usize {
        self.streams.len()
    }

    /// All publications that are held, on lines and beside them: channel, operation, message.
    pub fn publications(&self) -> impl Iterator<Item = (&Channel, OperationId, &Message)> {
        let lines = self
            .streams
            .iter()
            .flat_map(|(channel, stream)| stream.entries().map(move |entry| (channel, entry)));
        let loose = self.loose.iter();
        let loose = loose.flat_map(|(channel, all)| all.iter().map(move |l| (channel, &l.entry)));
        lines.chain(loose).map(|(c, entry)| (c, entry.operation, &*entry.publication.message))
    }

    /// The highest number applied of a gateway's operations; 0 = none.
    pub fn applied(&self, gateway: Incarnation) -> u64 {
        self.applied.get(&gateway).copied().unwrap_or(0)
    }

    /// Whether there is nothing worth a copy.
    pub fn is_empty(&self) -> bool {
        self.streams.is_empty()
            && self.applied.is_empty()
            && self.loose.is_empty()
            && self.keys.is_empty()
            && self.users.is_empty()
    }

    /// Where each stream stands.
    pub fn tops(&self) -> Vec<(Channel, Position)> {
        self.streams.iter().map(|(channel, s)| (channel.clone(), s.position())).collect()
    }

    /// The highest epoch that any of these streams, or of the records of these inboxes, has.
    pub fn epoch_of(&self, channels: &[Channel]) -> Option<Epoch> {
        let streams = channels.iter().filter_map(|channel| self.streams.get(channel));
        let users = channels.iter().filter_map(|channel| self.users.get(channel)?.epoch());
        streams.map(|stream| stream.position().epoch.epoch).chain(users).max()
    }

    /// What isn't known to be committed of the lines.
    pub fn uncommitted(&self) -> Vec<(Channel, Position)> {
        let streams = self.streams.iter().flat_map(|(channel, stream)| {
            let entries = stream.uncommitted().map(|entry| entry.publication.position());
            entries.map(move |position| (channel.clone(), position))
        });
        streams.collect()
    }

    /// Streams that are empty and have outlived their last publication for so long that no position
    /// in them can resume.
    pub fn idle(&self, now: Millis) -> Vec<(Channel, Position)> {
        let idle = self.streams.iter().filter(|(_, stream)| stream.is_idle(now));
        idle.map(|(channel, stream)| (channel.clone(), stream.position())).collect()
    }
}

// What its owner, and who follows the owner, do to it.
impl Holding {
    /// Notes that an operation was applied.
    fn note(&mut self, operation: OperationId) {
        let last = self.applied.get_or_default(operation.gateway);
        *last = operation.number.max(*last);
    }

    /// Makes an empty stream unless there is one. An empty one of an earlier epoch, which somebody else
    /// made, goes.
    pub fn begin(
        &mut self,
        channel: &Channel,
        options: ChannelOptions,
        epoch: StreamEpoch,
        now: Millis,
    ) {
        match self.streams.get_mut(channel) {
            Some(stream) if stream.yields_to(epoch) => stream.yield_to(options, epoch, now),
            Some(_) => return,
            None => {
                let new = Stream::new(options, epoch, now);
                self.streams.insert(channel.clone(), Box::new(new));
            }
        }
        self.changed();
    }

    /// Appends a publication under the owner's `epoch`; `index` is that of the change. Returns the
    /// position that it follows, and its entry.
    #[expect(clippy::too_many_arguments, reason = "one publication and its place")]
    pub fn append(
        &mut self,
        channel: &Channel,
        options: ChannelOptions,
        (epoch, index): (Epoch, u64),
        operation: OperationId,
        message: Arc<Message>,
        key: Option<Arc<str>>,
        now: Millis,
    ) -> (Position, Publication) {
        self.changed();
        self.note(operation);
        self.keys.remember(channel, key, operation, now);
        let begin = || Box::new(Stream::new(options, StreamEpoch { epoch, index }, now));
        let stream = self.streams.get_or_insert_with(channel.clone(), begin);
        stream.append(epoch, index, options, operation, message, now)
    }

    /// Notes that a position's publication, and all before it on the line, are committed. Returns
    /// the publication with what it follows; `None` if the line doesn't have it.
    pub fn commit(
        &mut self,
        channel: &Channel,
        position: Position,
    ) -> Option<(Position, Publication)> {
        let stream = self.streams.get_mut(channel)?;
        let (follows, entry) = stream.entry(position.offset)?;
        let publication = entry.publication.clone();
        if publication.epoch != position.epoch {
            return None;
        }
        stream.commit(position.offset);
        let follows = stream.shown_behind(follows);
        Some((follows, publication))
    }

    /// Notes that everything up to a position is committed, if the position is on the line: its
    /// holder has been shown it.
    pub fn commit_seen(&mut self, channel: &Channel, position: Position) {
        if let Some(stream) = self.streams.get_mut(channel).filter(|s| s.passes(position)) {
            stream.commit(position.offset);
        }
    }

    /// Everything on the lines and in the records is committed.
    pub fn commit_all(&mut self) {
        self.users.values_mut().for_each(Record::commit_all);
        self.streams.values_mut().for_each(|stream| stream.commit(u64::MAX));
    }

    /// Applies a change of the slot's owner.
    pub fn apply(&mut self, change: &Change, now: Millis) {
        self.changed();
        match change {
            Change::Publish { channel, options, follows, entry, key } => {
                let entry = Entry::from_copy(entry.clone(), now);
                let Position { epoch, offset } = entry.publication.position();
                let plain = Position { epoch, offset: offset.saturating_sub(1) };
                let follows = follows.unwrap_or(plain);
                if offset == 1 && follows == plain {
                    self.begin(channel, *options, epoch, now);
                }
                let operation = entry.operation;
                self.note(operation);
                self.keys.remember(channel, key.clone(), operation, now);
                let entry = match self.streams.get_mut(channel) {
                    Some(stream) => {
                        stream.set_options(*options);
                        stream.place(follows, entry, now).err()
                    }
                    None => Some(entry),
                };
                if let Some(entry) = entry {
                    self.take_in(channel, Loose { options: *options, follows, entry }, now);
                }
                self.settle(channel, Settled::Only(operation), now);
            }
            Change::Begin { channel, options, epoch } => {
                self.begin(channel, *options, *epoch, now);
            }
            Change::Forget { channel, position } => self.forget(channel, *position),
            Change::User { user, ttl_ms, operation, stamped } => {
                self.change_user(user, *ttl_ms, *operation, stamped.clone(), now);
            }
            Change::ForgetUser { user, upto } => self.forget_user(user, *upto),
        }
    }

    /// Forgets a stream that stands where it stood when that was decided.
    pub fn forget(&mut self, channel: &Channel, position: Position) {
        let stands = |stream: &Stream| stream.position() == position && stream.is_empty();
        if self.stream(channel).is_some_and(stands) {
            self.changed();
            self.streams.remove(channel);
        }
    }

    /// Keeps a stream while somebody follows it.
    pub fn touch(&mut self, channel: &Channel, now: Millis) {
        if let Some(stream) = self.streams.get_mut(channel) {
            stream.touch(now);
        }
    }

    /// Drops what has expired; streams stay, see [`Holding::idle`].
    pub fn expire(&mut self, now: Millis) {
        let mut forgot = false;
        for stream in self.streams.values_mut() {
            forgot |= stream.expire(now);
        }
        if forgot {
            self.changed();
        }
        self.keys.expire(now);
        let before = self.loose();
        self.loose.retain(|_, loose| {
            loose.retain(|l| l.entry.expires > now);
            !loose.is_empty()
        });
        if self.loose() != before {
            self.changed();
        }
    }

    /// Forgets the numbers of gateways that are not `live`, if there are too many.
    pub fn forget_gateways(&mut self, live: impl Fn(Incarnation) -> bool) {
        if self.applied.len() > GATEWAYS_MAX {
            self.changed();
            self.applied.retain(|gateway, _| live(*gateway));
        }
    }
}

#[cfg(test)]
mod tests;
