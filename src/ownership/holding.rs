//! What a node holds of one slot, as its owner, as a follower or left over from an earlier
//! ownership: the streams, publications that have no place in them yet, records of users, which
//! operations were applied, and idempotency keys. Used by the slot table.
use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use xxhash_rust::xxh3::Xxh3;

use super::stream::{Entry, Merged, Stream};
use super::user::{News, Record};
use crate::protocol::channel::{Channel, ChannelOptions};
use crate::protocol::ids::{Epoch, Incarnation, Position, Slot, StreamEpoch};
use crate::protocol::message::{Message, OperationId, Publication};
use crate::protocol::peer::{Change, KeyCopy, LooseCopy, SlotCopy, StreamCopy};
use crate::protocol::time::Millis;
use crate::protocol::user::{Stamp, Stamped};

/// Gateways whose last operation number is remembered, a slot. Above it the numbers of gateways
/// that left the cluster are forgotten first.
pub const GATEWAYS_MAX: usize = 1_024;
/// Idempotency keys remembered, a slot: over it a publication with a new one is refused for now.
pub const KEYS_MAX: usize = 16_384;
/// How long an idempotency key is remembered.
pub const KEY_MS: u64 = 300_000;
/// Payload bytes that one part of a copy carries, so that copies interleave with other traffic.
pub const COPY_BYTES: usize = 256 * 1024;
/// Bytes of one entry in a copy beside its payload, for the count above.
pub(super) const ENTRY_BYTES: usize = 96;

/// A publication without a place on its channel's line: what it follows isn't here, or its line and
/// the channel's have parted. It belongs to what is held, and travels with it, until it finds its
/// place or an owner has appended it anew.
#[derive(Clone, PartialEq, Debug)]
struct Loose {
    options: ChannelOptions,
    follows: Position,
    entry: Entry,
}

impl Loose {
    /// Whether a line has the publication, under this name or one of a later epoch: of two names the
    /// later is the one that will be on the line.
    fn is_known(&self, line: &Stream) -> bool {
        let (operation, position) = (self.entry.operation, self.entry.publication.position());
        let here = line.entry(position.offset).is_some_and(|(_, entry)| {
            entry.operation == operation && entry.publication.position() == position
        });
        here || line.find(operation).is_some_and(|name| name >= position)
    }
}

/// What may have become known on a line beside what finds its place there now.
#[derive(Clone, Copy)]
enum Settled {
    /// This operation.
    Only(OperationId),
    /// Any operation.
    Any,
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct Holding {
    streams: BTreeMap<Channel, Stream>,
    applied: BTreeMap<Incarnation, u64>,
    loose: BTreeMap<Channel, Vec<Loose>>,
    keys: BTreeMap<(Channel, Arc<str>), (OperationId, Millis)>,
    /// By the users' inboxes.
    users: BTreeMap<Channel, Record>,
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
        self.streams.get(channel)
    }

    /// All streams, in the order of their channels.
    pub fn streams(&self) -> impl Iterator<Item = (&Channel, &Stream)> {
        self.streams.iter()
    }

    /// The operations of all publications that are held.
    pub fn operations(&self) -> impl Iterator<Item = (&Channel, OperationId)> {
        let lines = self.streams.iter().flat_map(|(channel, stream)| {
            stream.entries().map(move |entry| (channel, entry.operation))
        });
        let loose = self.loose.iter();
        lines.chain(loose.flat_map(|(c, all)| all.iter().map(move |l| (c, l.entry.operation))))
    }

    /// How many publications have no place on a line.
    pub fn loose(&self) -> usize {
        self.loose.values().map(Vec::len).sum()
    }

    /// The highest number applied of a gateway's operations; 0 = none.
    pub fn applied(&self, gateway: Incarnation) -> u64 {
        self.applied.get(&gateway).copied().unwrap_or(0)
    }

    /// The operation that an idempotency key stands for.
    pub fn key(&self, channel: &Channel, key: &Arc<str>, now: Millis) -> Option<OperationId> {
        let (operation, expires) = self.keys.get(&(channel.clone(), key.clone()))?;
        (*expires > now).then_some(*operation)
    }

    /// Whether there is room for one more idempotency key.
    pub fn takes_keys(&self) -> bool {
        self.keys.len() < KEYS_MAX
    }

    /// Whether there is nothing worth a copy.
    pub fn is_empty(&self) -> bool {
        self.streams.is_empty()
            && self.applied.is_empty()
            && self.loose.is_empty()
            && self.users.is_empty()
    }

    /// Equal for equal content, on every node.
    pub fn digest(&self) -> u64 {
        if let Some(known) = self.digest.get() {
            return known;
        }
        let mut hash = Xxh3::new();
        for (channel, stream) in &self.streams {
            hash.update(channel.as_str().as_bytes());
            update_position(&mut hash, stream.position());
        }
        for (gateway, number) in &self.applied {
            hash.update(&gateway.0.to_le_bytes());
            hash.update(&number.to_le_bytes());
        }
        for (channel, loose) in &self.loose {
            hash.update(channel.as_str().as_bytes());
            for Loose { entry, .. } in loose {
                hash.update(&entry.operation.gateway.0.to_le_bytes());
                hash.update(&entry.operation.number.to_le_bytes());
            }
        }
        for (user, record) in &self.users {
            hash.update(user.as_str().as_bytes());
            record.update(&mut hash);
        }
        let digest = hash.digest();
        self.digest.set(Some(digest));
        digest
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
    fn changed(&mut self) {
        self.digest.set(None);
    }

    /// Notes that an operation was applied.
    fn note(&mut self, operation: OperationId) {
        let last = self.applied.entry(operation.gateway).or_insert(0);
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
        if self.streams.get(channel).is_none_or(|stream| stream.yields_to(epoch)) {
            self.changed();
            self.streams.insert(channel.clone(), Stream::new(options, epoch, now));
        }
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
        self.remember(channel, key, operation, now + KEY_MS);
        let begin = || Stream::new(options, StreamEpoch { epoch, index }, now);
        let stream = self.streams.entry(channel.clone()).or_insert_with(begin);
        stream.append(epoch, index, options, operation, message, now)
    }

    fn remember(
        &mut self,
        channel: &Channel,
        key: Option<Arc<str>>,
        operation: OperationId,
        expires: Millis,
    ) {
        if let Some(key) = key {
            self.keys.entry((channel.clone(), key)).or_insert((operation, expires));
        }
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
                self.remember(channel, key.clone(), operation, now + KEY_MS);
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
        if self.streams.get(channel).is_some_and(stands) {
            self.changed();
            self.streams.remove(channel);
        }
    }

    /// Keeps a publication beside the line.
    fn take_in(&mut self, channel: &Channel, loose: Loose, now: Millis) {
        let operation = loose.entry.operation;
        let beside = self.loose.entry(channel.clone()).or_default();
        if loose.entry.expires > now {
            // In the order of their names, so that each sender's keep theirs.
            let name = (loose.entry.publication.position(), operation);
            let of = |l: &Loose| (l.entry.publication.position(), l.entry.operation);
            if let Err(at) = beside.binary_search_by_key(&name, of) {
                beside.insert(at, loose);
            }
        }
    }

    /// Gives publications beside the line their places on it, as far as what they follow is here,
    /// and drops what is known.
    fn settle(&mut self, channel: &Channel, settled: Settled, now: Millis) {
        let Some(beside) = self.loose.get_mut(channel) else { return };
        if let Some(stream) = self.streams.get_mut(channel) {
            // Of two that follow the same, the one of the higher epoch belongs to the line.
            let mut placed = BTreeSet::new();
            while let Some(at) = beside.iter().rposition(|l| l.follows == stream.position()) {
                let Loose { follows, entry, .. } = beside.remove(at);
                placed.insert(entry.operation);
                // Its place was just looked up.
                let _placed = stream.place(follows, entry, now);
            }
            match settled {
                Settled::Only(operation) => {
                    placed.insert(operation);
                    beside.retain(|l| !placed.contains(&l.entry.operation) || !l.is_known(stream));
                }
                Settled::Any => {
                    let names = stream.names();
                    beside.retain(|l| {
                        let name = names.get(&l.entry.operation);
                        name.is_none_or(|name| *name < l.entry.publication.position())
                    });
                }
            }
        }
        if beside.is_empty() {
            self.loose.remove(channel);
        }
    }

    /// Takes what found no place, for the owner to append anew: channel, configuration, publication.
    pub fn take_loose(&mut self, now: Millis) -> Vec<(Channel, ChannelOptions, Entry)> {
        for channel in self.loose.keys().cloned().collect::<Vec<_>>() {
            self.settle(&channel, Settled::Any, now);
        }
        self.drop_known();
        if !self.loose.is_empty() {
            self.changed();
        }
        let loose = std::mem::take(&mut self.loose).into_iter();
        let loose = loose.flat_map(|(channel, loose)| {
            loose.into_iter().map(move |l| (channel.clone(), l.options, l.entry))
        });
        loose.collect()
    }

    /// Drops what is beside the lines and on them, too, under whatever name: the lines are as their
    /// owner has them.
    pub fn drop_known(&mut self) {
        let before = self.loose();
        let streams = &self.streams;
        self.loose.retain(|channel, beside| {
            let line = streams.get(channel);
            let names = line.map(Stream::names).unwrap_or_default();
            beside.retain(|loose| !names.contains_key(&loose.entry.operation));
            !beside.is_empty()
        });
        if self.loose() != before {
            self.changed();
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
        self.streams.values_mut().for_each(|stream| stream.expire(now));
        self.keys.retain(|_, (_, expires)| *expires > now);
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

// Records of users.
impl Holding {
    /// The record of the user whose inbox this is.
    pub fn user(&self, user: &Channel) -> Option<&Record> {
        self.users.get(user)
    }

    /// All records, in the order of the inboxes.
    pub fn users(&self) -> impl Iterator<Item = (&Channel, &Record)> {
        self.users.iter()
    }

    /// Changes a record; it is kept for `ttl_ms` at least.
    pub fn change_user(
        &mut self,
        user: &Channel,
        ttl_ms: u64,
        operation: Option<OperationId>,
        stamped: Stamped,
        now: Millis,
    ) {
        self.changed();
        if let Some(operation) = operation {
            self.note(operation);
        }
        let record = self.users.entry(user.clone()).or_insert_with(|| Record::new(now));
        record.apply(stamped, ttl_ms, now);
    }

    /// Notes that a change is committed, and tells what is shown otherwise since.
    pub fn commit_user(&mut self, user: &Channel, stamped: &Stamped) -> News {
        self.users.get_mut(user).map_or(News::None, |record| record.commit(stamped))
    }

    /// What isn't known to be committed of the records.
    pub fn uncommitted_users(&self) -> Vec<(Channel, Stamped)> {
        let records = self.users.iter();
        let changes = records.flat_map(|(user, record)| {
            record.uncommitted().map(|stamped| (user.clone(), stamped.clone()))
        });
        changes.collect()
    }

    /// Records with tombstones that nobody needs any more, and up to where.
    pub fn idle_users(&self, now: Millis) -> Vec<(Channel, Stamp)> {
        let records = self.users.iter();
        records.filter_map(|(user, record)| Some((user.clone(), record.idle(now)?))).collect()
    }

    /// Forgets tombstones of a record up to a stamp, and the record if nothing is left.
    pub fn forget_user(&mut self, user: &Channel, upto: Stamp) {
        if let Some(record) = self.users.get_mut(user) {
            record.forget(upto);
            if record.is_empty() {
                self.users.remove(user);
            }
            self.changed();
        }
    }

    /// Keeps records while this node has a part in them.
    pub fn touch_users(&mut self, now: Millis) {
        self.users.values_mut().for_each(|record| record.touch(now));
    }

    /// Forgets records that this node has had no part in for long.
    pub fn forget_stale_users(&mut self, now: Millis) {
        let before = self.users.len();
        self.users.retain(|_, record| !record.is_stale(now));
        if self.users.len() != before {
            self.changed();
        }
    }
}

// Copies.
impl Holding {
    /// What a node that has `have` lacks, in parts of about [`COPY_BYTES`].
    pub fn copies(&self, slot: Slot, have: &[(Channel, Position)], now: Millis) -> Vec<SlotCopy> {
        let have: BTreeMap<&Channel, Position> = have.iter().map(|(c, p)| (c, *p)).collect();
        let mut parts = Parts::new(slot);
        // Before all that shows that an operation was applied: whoever knows that a number was has
        // what it did to a record.
        for copy in self.users.iter().flat_map(|(user, record)| record.copies(user, now)) {
            let bytes = copy.fields.iter().map(|f| f.stamped.change.len() + ENTRY_BYTES).sum();
            parts.room(bytes).users.push(copy);
        }
        for (channel, stream) in &self.streams {
            let after = match have.get(channel) {
                // Only what is committed may be news.
                Some(position) if *position == stream.position() => {
                    let copy = stream.mark(channel, now);
                    parts.room(size_of(&copy)).streams.push(copy);
                    continue;
                }
                Some(position) if stream.passes(*position) => position.offset,
                _ => 0,
            };
            for copy in split(stream.copy(channel, after, now)) {
                let size = size_of(&copy);
                parts.room(size).streams.push(copy);
            }
        }
        for (channel, loose) in &self.loose {
            for Loose { options, follows, entry } in loose {
                let (options, follows, entry) = (*options, *follows, entry.copy(now));
                let size = entry.publication.message.bytes() + ENTRY_BYTES;
                let copy = LooseCopy { options, follows, entry };
                parts.room(size).loose.push((channel.clone(), copy));
            }
        }
        for ((channel, key), (operation, expires)) in &self.keys {
            let (channel, key, operation) = (channel.clone(), key.clone(), *operation);
            let copy = KeyCopy { channel, key, operation, ttl_ms: expires.since(now) };
            parts.room(copy.key.len() + ENTRY_BYTES).keys.push(copy);
        }
        // Behind all publications: whoever knows that a number was applied has what it applied.
        parts.room(0).applied = self.applied.iter().map(|(g, number)| (*g, *number)).collect();
        parts.done
    }

    /// Adds what a copy has and this holding lacks. False if a part was missing before it.
    pub fn merge(&mut self, copy: SlotCopy, now: Millis) -> bool {
        self.changed();
        let mut whole = true;
        for user in copy.users {
            let record = self.users.entry(user.user.clone()).or_insert_with(|| Record::new(now));
            record.merge(user, now);
        }
        self.users.retain(|_, record| !record.is_empty());
        for stream in copy.streams {
            let operations: Vec<_> = stream.entries.iter().map(|entry| entry.operation).collect();
            let merged = self.merge_stream(stream, now);
            whole &= merged;
            if merged {
                operations.into_iter().for_each(|operation| self.note(operation));
            }
        }
        let mut beside = BTreeSet::new();
        for (channel, LooseCopy { options, follows, entry }) in copy.loose {
            let entry = Entry::from_copy(entry, now);
            self.note(entry.operation);
            self.take_in(&channel, Loose { options, follows, entry }, now);
            beside.insert(channel);
        }
        for channel in beside {
            self.settle(&channel, Settled::Any, now);
        }
        for KeyCopy { channel, key, operation, ttl_ms } in copy.keys {
            self.remember(&channel, Some(key), operation, now + ttl_ms);
        }
        // Behind a hole a number may stand for a publication that isn't here.
        for (gateway, number) in copy.applied.into_iter().filter(|_| whole) {
            self.note(OperationId { gateway, number });
        }
        whole
    }

    fn merge_stream(&mut self, copy: StreamCopy, now: Millis) -> bool {
        let (channel, options) = (copy.channel.clone(), copy.options);
        let Some(ours) = self.streams.get_mut(&channel) else {
            let idle = copy.entries.is_empty() && copy.idle_ms >= 2 * options.history_ttl_ms;
            let made = Stream::from_copy(copy, now);
            let whole = made.is_some();
            // What nobody can resume in isn't brought back.
            if let Some(stream) = made.filter(|_| !idle) {
                self.streams.insert(channel.clone(), stream);
            }
            self.settle(&channel, Settled::Any, now);
            return whole;
        };
        let merged = ours.merge(copy, now);
        let whole = merged != Merged::Hole;
        if let Merged::Forked(lost) = merged {
            for (follows, entry) in lost {
                self.take_in(&channel, Loose { options, follows, entry }, now);
            }
        }
        self.settle(&channel, Settled::Any, now);
        whole
    }
}

/// Parts of a copy while they are filled.
struct Parts {
    slot: Slot,
    done: Vec<SlotCopy>,
    bytes: usize,
}

impl Parts {
    fn new(slot: Slot) -> Self {
        Self { slot, done: vec![Self::empty(slot)], bytes: 0 }
    }

    fn empty(slot: Slot) -> SlotCopy {
        let (applied, streams, loose, keys, users) = (vec![], vec![], vec![], vec![], vec![]);
        SlotCopy { slot, applied, streams, loose, keys, users }
    }

    /// The part that has room for so many bytes more.
    fn room(&mut self, bytes: usize) -> &mut SlotCopy {
        if self.bytes > 0 && self.bytes + bytes > COPY_BYTES {
            self.done.push(Self::empty(self.slot));
            self.bytes = 0;
        }
        self.bytes += bytes;
        let last = self.done.len() - 1;
        &mut self.done[last]
    }
}

/// Adds a position to a fingerprint.
pub(crate) fn update_position(hash: &mut Xxh3, position: Position) {
    hash.update(&position.epoch.epoch.term.to_le_bytes());
    hash.update(&position.epoch.epoch.owner.0.to_le_bytes());
    hash.update(&position.epoch.index.to_le_bytes());
    hash.update(&position.offset.to_le_bytes());
}

fn size_of(copy: &StreamCopy) -> usize {
    let entries = copy.entries.iter().map(|e| e.publication.message.bytes() + ENTRY_BYTES);
    entries.sum::<usize>() + copy.channel.as_str().len() + copy.lineage.len() * ENTRY_BYTES
}

/// Cuts a stream's copy into pieces of about [`COPY_BYTES`], each of which continues the one before.
fn split(mut copy: StreamCopy) -> Vec<StreamCopy> {
    let (mut pieces, mut piece, mut bytes) = (Vec::new(), Vec::new(), 0);
    for entry in std::mem::take(&mut copy.entries) {
        let more = entry.publication.message.bytes() + ENTRY_BYTES;
        if bytes > 0 && bytes + more > COPY_BYTES {
            let entries = std::mem::take(&mut piece);
            pieces.push(StreamCopy { entries, goes_on: true, ..copy.clone() });
            bytes = 0;
        }
        bytes += more;
        piece.push(entry);
    }
    pieces.push(StreamCopy { entries: piece, ..copy });
    pieces
}

/// Pieces of a stream's copy until all of it has come: where lines have parted, a beginning of one
/// says too little to be merged.
#[derive(Debug, Default)]
pub struct Pieces(Option<StreamCopy>);

impl Pieces {
    /// Takes the next part of a copy, and gives what is whole of it. `None` if it doesn't continue
    /// the part before.
    pub fn join(&mut self, part: SlotCopy) -> Option<SlotCopy> {
        if self.0.is_some() && part.streams.is_empty() {
            return None;
        }
        let mut streams = Vec::with_capacity(part.streams.len());
        for mut copy in part.streams {
            if let Some(mut begun) = self.0.take() {
                if begun.channel != copy.channel {
                    return None;
                }
                begun.entries.append(&mut copy.entries);
                begun.goes_on = copy.goes_on;
                copy = begun;
            }
            match copy.goes_on {
                true => self.0 = Some(copy),
                false => streams.push(copy),
            }
        }
        Some(SlotCopy { streams, ..part })
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    const NOW: Millis = Millis(5);
    const OPTIONS: ChannelOptions = ChannelOptions {
        history_size: 10_000,
        history_ttl_ms: 60_000,
        presence: false,
        join_leave: false,
    };

    fn holding(publications: u64, bytes: usize) -> Holding {
        let mut holding = Holding::default();
        let channel = Channel::parse("big").expect("a name");
        for number in 1..=publications {
            let epoch = Epoch { term: 1 + number / 700, owner: Incarnation(1) };
            let operation = OperationId { gateway: Incarnation(2), number };
            let message = Message { data: Bytes::from(vec![b'x'; bytes]), ..Message::default() };
            let (at, message) = ((epoch, number), Arc::new(message));
            holding.append(&channel, OPTIONS, at, operation, message, None, NOW);
        }
        holding
    }

    #[test]
    fn copies_in_parts_make_an_equal_holding() {
        let ours = holding(2_000, 1_000);
        let parts = ours.copies(Slot(1), &[], NOW);
        assert!(parts.len() > 5, "{} parts", parts.len());
        let (mut theirs, mut pieces) = (Holding::default(), Pieces::default());
        for part in parts {
            let part = pieces.join(part).expect("parts that continue each other");
            assert!(theirs.merge(part, NOW));
        }
        assert_eq!(theirs, ours);
        assert_eq!(theirs.digest(), ours.digest());
    }

    #[test]
    fn an_empty_line_yields_to_the_next_owners() {
        let mut holding = Holding::default();
        let channel = Channel::parse("c").expect("a name");
        let of = |term| StreamEpoch { epoch: Epoch { term, owner: Incarnation(1) }, index: 1 };
        for (term, then) in [(3, 3), (4, 4), (2, 4)] {
            let (options, epoch, channel) = (OPTIONS, of(term), channel.clone());
            holding.apply(&Change::Begin { channel, options, epoch }, NOW);
            assert_eq!(holding.tops()[0].1, Position { epoch: of(then), offset: 0 });
        }
        let operation = OperationId { gateway: Incarnation(2), number: 1 };
        let at = (of(4).epoch, 2);
        holding.append(&channel, OPTIONS, at, operation, Arc::default(), None, NOW);
        let (options, epoch) = (OPTIONS, of(5));
        holding.apply(&Change::Begin { channel, options, epoch }, NOW);
        assert_eq!(holding.tops()[0].1, Position { epoch: of(4), offset: 1 });
    }

    #[test]
    fn what_does_not_continue_a_piece_is_no_copy() {
        let mut parts = holding(1_000, 1_000).copies(Slot(1), &[], NOW);
        let mut pieces = Pieces::default();
        assert!(pieces.join(parts.remove(0)).is_some());
        let other = SlotCopy { streams: vec![], ..parts[0].clone() };
        assert!(pieces.join(other).is_none(), "nothing of the stream in the next part");
    }

    #[test]
    fn long_lines_that_parted_become_one_on_both_sides() {
        let (ours, mut theirs) = (holding(2_000, 1_000), holding(650, 1_000));
        let channel = Channel::parse("big").expect("a name");
        for number in 1..=500 {
            let epoch = Epoch { term: 2, owner: Incarnation(9) };
            let operation = OperationId { gateway: Incarnation(3), number };
            let message = Message { data: Bytes::from(vec![b'y'; 1_000]), ..Message::default() };
            let (at, message) = ((epoch, number), Arc::new(message));
            theirs.append(&channel, OPTIONS, at, operation, message, None, NOW);
        }
        let merged = |mut one: Holding, other: &Holding| {
            let mut pieces = Pieces::default();
            for part in other.copies(Slot(1), &one.tops(), NOW) {
                let part = pieces.join(part).expect("parts that continue each other");
                assert!(one.merge(part, NOW));
            }
            one
        };
        let (one, other) = (merged(ours.clone(), &theirs), merged(theirs, &ours));
        assert_eq!(one, other);
        assert_eq!((one.loose(), one.tops()), (500, ours.tops()));
    }

    #[test]
    fn only_what_is_lacking_is_copied() {
        let ours = holding(100, 10);
        let mut theirs = holding(90, 10);
        let parts = ours.copies(Slot(1), &theirs.tops(), NOW);
        let copied: usize = parts.iter().flat_map(|p| &p.streams).map(|s| s.entries.len()).sum();
        assert_eq!(copied, 10);
        for part in parts {
            assert!(theirs.merge(part, NOW));
        }
        assert_eq!(theirs, ours);
        let parts = ours.copies(Slot(1), &theirs.tops(), NOW);
        assert!(parts.iter().flat_map(|p| &p.streams).all(|stream| stream.entries.is_empty()));
    }
}
