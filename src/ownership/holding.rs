//! What a node holds of one slot, as its owner, as a learner or left over from an earlier
//! ownership: the streams, and which operations were applied. Used by the slot table.
use std::collections::BTreeMap;

use xxhash_rust::xxh3::Xxh3;

use super::stream::{Entry, Merged, Stream};
use crate::protocol::channel::Channel;
use crate::protocol::ids::{Epoch, Incarnation, Position, Slot, StreamEpoch};
use crate::protocol::message::OperationId;
use crate::protocol::peer::{SlotCopy, StreamCopy};
use crate::protocol::time::Millis;

/// Gateways whose last operation number is remembered, a slot. Above it the numbers of gateways
/// that left the cluster are forgotten first.
pub const GATEWAYS_MAX: usize = 1_024;
/// Payload bytes that one part of a copy carries, so that copies interleave with other traffic.
pub const COPY_BYTES: usize = 256 * 1024;
/// Bytes of one entry in a copy beside its payload, for the count above.
const ENTRY_BYTES: usize = 96;

/// See the module.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Holding {
    /// The slot's streams.
    pub streams: BTreeMap<Channel, Stream>,
    applied: BTreeMap<Incarnation, u64>,
    /// Publications of a lesser line that have no name on the greater one yet. They belong to what
    /// is held, and travel with it, until an owner has appended them anew.
    orphans: BTreeMap<(Channel, OperationId), Entry>,
}

impl Holding {
    /// The highest number applied of a gateway's operations; 0 = none.
    pub fn applied(&self, gateway: Incarnation) -> u64 {
        self.applied.get(&gateway).copied().unwrap_or(0)
    }

    /// Notes that an operation was applied.
    pub fn apply(&mut self, operation: OperationId) {
        let last = self.applied.entry(operation.gateway).or_insert(0);
        *last = operation.number.max(*last);
    }

    /// Forgets the numbers of gateways that are not `live`, if there are too many.
    pub fn forget_gateways(&mut self, live: impl Fn(Incarnation) -> bool) {
        if self.applied.len() > GATEWAYS_MAX {
            self.applied.retain(|gateway, _| live(*gateway));
        }
    }

    /// Whether there is nothing worth a copy.
    pub fn is_empty(&self) -> bool {
        self.streams.is_empty() && self.applied.is_empty() && self.orphans.is_empty()
    }

    /// Equal for equal content, on every node.
    pub fn digest(&self) -> u64 {
        let mut hash = Xxh3::new();
        for (channel, stream) in &self.streams {
            hash.update(channel.as_str().as_bytes());
            update_position(&mut hash, stream.position());
        }
        for (gateway, number) in &self.applied {
            hash.update(&gateway.0.to_le_bytes());
            hash.update(&number.to_le_bytes());
        }
        for (channel, operation) in self.orphans.keys() {
            hash.update(channel.as_str().as_bytes());
            hash.update(&operation.gateway.0.to_le_bytes());
            hash.update(&operation.number.to_le_bytes());
        }
        hash.digest()
    }

    /// Where each stream stands.
    pub fn tops(&self) -> Vec<(Channel, Position)> {
        self.streams.iter().map(|(channel, s)| (channel.clone(), s.position())).collect()
    }

    /// What a node that has `have` lacks, in parts of about [`COPY_BYTES`].
    pub fn copies(&self, slot: Slot, have: &[(Channel, Position)], now: Millis) -> Vec<SlotCopy> {
        let have: BTreeMap<&Channel, Position> = have.iter().map(|(c, p)| (c, *p)).collect();
        let empty = || SlotCopy { slot, applied: vec![], streams: vec![], orphans: vec![] };
        let mut parts = vec![empty()];
        let mut bytes = 0;
        for (channel, stream) in &self.streams {
            let after = match have.get(channel) {
                Some(position) if *position == stream.position() => continue,
                Some(position) if stream.passes(*position) => position.offset,
                _ => 0,
            };
            for copy in split(stream.copy(channel, after, now)) {
                let size = size_of(&copy);
                if bytes > 0 && bytes + size > COPY_BYTES {
                    parts.push(empty());
                    bytes = 0;
                }
                bytes += size;
                let last = parts.len() - 1;
                parts[last].streams.push(copy);
            }
        }
        for ((channel, _), entry) in &self.orphans {
            let copy = entry.copy(now);
            let size = copy.publication.message.data.len() + ENTRY_BYTES;
            if bytes > 0 && bytes + size > COPY_BYTES {
                parts.push(empty());
                bytes = 0;
            }
            bytes += size;
            let last = parts.len() - 1;
            parts[last].orphans.push((channel.clone(), copy));
        }
        // Behind all publications: whoever knows that a number was applied has what it applied.
        if let Some(last) = parts.last_mut() {
            last.applied = self.applied.iter().map(|(g, number)| (*g, *number)).collect();
        }
        parts
    }

    /// Adds what a copy has and this holding lacks. False if a part was missing before it.
    pub fn merge(&mut self, copy: SlotCopy, now: Millis) -> bool {
        let mut whole = true;
        for stream in copy.streams {
            let channel = stream.channel.clone();
            let operations: Vec<_> = stream.entries.iter().map(|entry| entry.operation).collect();
            let before = whole;
            match self.streams.get_mut(&channel) {
                Some(ours) => match ours.merge(stream, now) {
                    Merged::Same | Merged::Extended => {}
                    Merged::Hole => whole = false,
                    Merged::Forked(lost) => {
                        let lost = lost.into_iter().map(|e| ((channel.clone(), e.operation), e));
                        self.orphans.extend(lost);
                    }
                },
                None => match Stream::from_copy(stream, now) {
                    Some(stream) => drop(self.streams.insert(channel, stream)),
                    None => whole = false,
                },
            }
            if before == whole {
                operations.into_iter().for_each(|operation| self.apply(operation));
            }
        }
        for (channel, orphan) in copy.orphans {
            let operation = orphan.operation;
            let named = self.streams.get(&channel).and_then(|stream| stream.find(operation));
            if named.is_none() {
                self.orphans.insert((channel, operation), Entry::from_copy(orphan, now));
                self.apply(operation);
            }
        }
        // Behind a hole a number may stand for a publication that isn't here.
        for (gateway, number) in copy.applied.into_iter().filter(|_| whole) {
            self.apply(OperationId { gateway, number });
        }
        whole
    }

    /// The highest epoch that any of these streams has.
    pub fn epoch_of(&self, channels: &[Channel]) -> Option<Epoch> {
        let streams = channels.iter().filter_map(|channel| self.streams.get(channel));
        streams.map(|stream| stream.position().epoch.epoch).max()
    }

    /// Publications that the owner must append anew after a merge of lines that had parted.
    pub fn take_orphans(&mut self) -> Vec<(Channel, Entry)> {
        let orphans = std::mem::take(&mut self.orphans).into_iter();
        let mut orphans: Vec<_> = orphans.map(|((channel, _), entry)| (channel, entry)).collect();
        // In the order of their names, so that each sender's keep theirs.
        orphans.sort_by_key(|(_, entry)| entry.publication.position());
        orphans
    }

    /// Drops what has expired; `followed` streams stay.
    pub fn expire(&mut self, now: Millis, followed: impl Fn(&Channel) -> bool) {
        self.orphans.retain(|_, orphan| orphan.expires > now);
        self.streams.retain(|channel, stream| {
            if followed(channel) {
                stream.touch(now);
            }
            stream.expire(now)
        });
    }

    /// The stream of a channel, made with `epoch` if there is none.
    pub fn stream(
        &mut self,
        channel: &Channel,
        options: crate::protocol::channel::ChannelOptions,
        epoch: impl FnOnce() -> StreamEpoch,
        now: Millis,
    ) -> &mut Stream {
        self.streams.entry(channel.clone()).or_insert_with(|| Stream::new(options, epoch(), now))
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
    let entries = copy.entries.iter().map(|e| e.publication.message.data.len() + ENTRY_BYTES);
    entries.sum::<usize>() + copy.channel.as_str().len() + copy.lineage.len() * ENTRY_BYTES
}

/// Cuts a stream's copy into pieces of about [`COPY_BYTES`], each of which continues the one before.
fn split(mut copy: StreamCopy) -> Vec<StreamCopy> {
    let mut pieces = Vec::new();
    while size_of(&copy) > COPY_BYTES && copy.entries.len() > 1 {
        let mut bytes = 0;
        let fits = copy.entries.iter().take_while(|entry| {
            bytes += entry.publication.message.data.len() + ENTRY_BYTES;
            bytes <= COPY_BYTES
        });
        let cut = fits.count().clamp(1, copy.entries.len() - 1);
        let rest = copy.entries.split_off(cut);
        let top = copy.entries.last().map_or(copy.after, |entry| entry.publication.offset);
        // A piece knows only the epochs that its own publications have reached.
        let lineage = copy.lineage.iter().filter(|turn| turn.first <= top.max(1)).copied();
        let piece = StreamCopy { lineage: lineage.collect(), top, ..copy.clone() };
        pieces.push(piece);
        (copy.after, copy.entries) = (top, rest);
    }
    pieces.push(copy);
    pieces
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;

    use super::*;
    use crate::protocol::channel::ChannelOptions;
    use crate::protocol::message::Message;

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
            let begin = || StreamEpoch { epoch, index: 0 };
            let message = Message { data: Bytes::from(vec![b'x'; bytes]), ..Message::default() };
            let stream = holding.stream(&channel, OPTIONS, begin, NOW);
            stream.append(epoch, number, OPTIONS, operation, Arc::new(message), NOW);
            holding.apply(operation);
        }
        holding
    }

    #[test]
    fn copies_in_parts_make_an_equal_holding() {
        let ours = holding(2_000, 1_000);
        let parts = ours.copies(Slot(1), &[], NOW);
        assert!(parts.len() > 5, "{} parts", parts.len());
        let mut theirs = Holding::default();
        for part in parts {
            assert!(theirs.merge(part, NOW));
        }
        assert_eq!(theirs, ours);
        assert_eq!(theirs.digest(), ours.digest());
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
        assert!(ours.copies(Slot(1), &theirs.tops(), NOW)[0].streams.is_empty());
    }
}
