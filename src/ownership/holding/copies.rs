//! Copies of what is held, in parts, for who lacks it, and how a copy is merged into what is held
//! already. Parts leave in an order in which nothing is known as applied before it is here.
use std::collections::{BTreeMap, BTreeSet};

use super::Holding;
use super::loose::{Loose, Settled};
use crate::ownership::stream::{Entry, Merged, Stream};
use crate::ownership::user::Record;
use crate::protocol::channel::Channel;
use crate::protocol::ids::{Position, Slot};
use crate::protocol::message::OperationId;
use crate::protocol::peer::{KeyCopy, LooseCopy, SidesCopy, SlotCopy, StreamCopy};
use crate::protocol::time::Millis;

/// Payload bytes that one part of a copy carries, so that copies interleave with other traffic.
pub const COPY_BYTES: usize = 256 * 1024;
/// Bytes of one entry in a copy beside its payload, for the count above.
pub(in crate::ownership) const ENTRY_BYTES: usize = 96;

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
        // Before what they stand for: an owner appends at each part what has no place on a line.
        for (channel, key, operation, expires) in self.keys.all() {
            let (channel, key) = (channel.clone(), key.clone());
            let copy = KeyCopy { channel, key, operation, ttl_ms: expires.since(now) };
            parts.room(copy.key.len() + ENTRY_BYTES).keys.push(copy);
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
        // Behind all publications: whoever knows that a number was applied has what it applied.
        parts.room(0).applied = self.applied.iter().map(|(g, number)| (*g, *number)).collect();
        parts.done
    }

    /// Adds what a copy, which may come from the slot's `owner`, has and this holding lacks. False if a
    /// part was missing before it.
    pub fn merge_from(&mut self, copy: SlotCopy, owner: bool, now: Millis) -> bool {
        self.changed();
        let mut whole = true;
        for user in copy.users {
            let record = self.users.get_or_insert_with(user.user.clone(), || Record::new(now));
            record.merge(user, now);
        }
        self.users.retain(|_, record| !record.is_empty());
        for KeyCopy { channel, key, operation, ttl_ms } in copy.keys {
            self.keys.insert(channel, key, operation, now + ttl_ms);
        }
        for stream in copy.streams {
            let operations: Vec<_> = stream.entries.iter().map(|entry| entry.operation).collect();
            let merged = self.merge_stream(stream, owner, now);
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
        // Behind a hole a number may stand for a publication that isn't here.
        for (gateway, number) in copy.applied.into_iter().filter(|_| whole) {
            self.note(OperationId { gateway, number });
        }
        whole
    }

    fn merge_stream(&mut self, copy: StreamCopy, owner: bool, now: Millis) -> bool {
        let (channel, options) = (copy.channel.clone(), copy.options);
        let Some(ours) = self.streams.get_mut(&channel) else {
            let idle = copy.entries.is_empty() && copy.idle_ms >= 2 * options.history_ttl_ms;
            let made = Stream::from_copy(copy, now);
            let whole = made.is_some();
            // What nobody can resume in isn't brought back.
            if let Some(stream) = made.filter(|_| !idle) {
                self.streams.insert(channel.clone(), Box::new(stream));
            }
            self.settle(&channel, Settled::Any, now);
            return whole;
        };
        let merged = ours.merge_from(copy, owner, now);
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

fn size_of(copy: &StreamCopy) -> usize {
    let entries = copy.entries.iter().map(|e| e.publication.message.bytes() + ENTRY_BYTES);
    let SidesCopy { epochs, names, gone, taken } = &copy.sides;
    let known = copy.lineage.len() + epochs.len() + names.len() + gone.len() + taken.len();
    entries.sum::<usize>() + copy.channel.as_str().len() + known * ENTRY_BYTES
}

/// Cuts a stream's copy into pieces of about [`COPY_BYTES`], each of which continues the one before.
fn split(mut copy: StreamCopy) -> Vec<StreamCopy> {
    let (mut pieces, mut piece, mut bytes) = (Vec::new(), Vec::new(), 0);
    for entry in std::mem::take(&mut copy.entries) {
        let more = entry.publication.message.bytes() + ENTRY_BYTES;
        if bytes > 0 && bytes + more > COPY_BYTES {
            let entries = std::mem::take(&mut piece);
            // The first says all that isn't an entry.
            let sides = std::mem::take(&mut copy.sides);
            pieces.push(StreamCopy { entries, goes_on: true, sides, ..copy.clone() });
            bytes = 0;
        }
        bytes += more;
        piece.push(entry);
    }
    pieces.push(StreamCopy { entries: piece, ..copy });
    pieces
}
