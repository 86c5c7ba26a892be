//! Publications without a place on their channel's line: kept beside it, placed as soon as what
//! they follow is here, and taken by an owner who appends them anew. No line is made for them here.
use std::collections::{BTreeSet, HashMap};

use super::Holding;
use crate::ownership::stream::{Entry, HISTORY_SIZE_MAX, Stream};
use crate::protocol::channel::{Channel, ChannelOptions};
use crate::protocol::ids::Position;
use crate::protocol::message::OperationId;
use crate::protocol::time::Millis;

/// Publications beside a line, in lines of the stream's size: as many parts of a split may each have
/// gone on by themselves. Beyond it the earliest go, as they go from a line: appended anew, the later
/// ones alone are more than it keeps.
pub const LINES_MAX: usize = 4;
/// The same for streams that keep little.
pub const LOOSE_MIN: usize = 1_024;

/// A publication without a place on its channel's line: what it follows isn't here, or its line and
/// the channel's have parted. It belongs to what is held, and travels with it, until it finds its
/// place or an owner has appended it anew.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Loose {
    pub(super) options: ChannelOptions,
    pub(super) follows: Position,
    pub(super) entry: Entry,
}

impl Loose {
    /// Whether a line has the publication, under this name or one of a later epoch: of two names the
    /// later is the one that will be on the line.
    fn is_known(&self, line: &Stream) -> bool {
        let (operation, position) = (self.entry.operation, self.entry.publication.position());
        let here = line.entry(position.offset).is_some_and(|(_, entry)| {
            entry.operation == operation && entry.publication.position() == position
        });
        let known = here || line.find(operation).is_some_and(|name| name >= position);
        known || line.outlived(position)
    }
}

/// What may have become known on a line beside what finds its place there now.
#[derive(Clone, Copy)]
pub(super) enum Settled {
    /// This operation.
    Only(OperationId),
    /// Any operation.
    Any,
}

impl Holding {
    /// How many publications have no place on a line.
    pub fn loose(&self) -> usize {
        self.loose.values().map(Vec::len).sum()
    }

    /// Keeps a publication beside the line.
    pub(super) fn take_in(&mut self, channel: &Channel, loose: Loose, now: Millis) {
        let operation = loose.entry.operation;
        let beside = self.loose.entry(channel.clone()).or_default();
        if loose.entry.expires > now {
            // In the order of their names, so that each sender's keep theirs.
            let name = (loose.entry.publication.position(), operation);
            let of = |l: &Loose| (l.entry.publication.position(), l.entry.operation);
            if let Err(at) = beside.binary_search_by_key(&name, of) {
                let size = loose.options.history_size.min(HISTORY_SIZE_MAX);
                let most = LOOSE_MIN.max(LINES_MAX * size as usize);
                beside.insert(at, loose);
                let beyond = beside.len().saturating_sub(most);
                beside.drain(..beyond);
            }
        }
    }

    /// Gives publications beside the line their places on it, as far as what they follow is here,
    /// and drops what is known.
    pub(super) fn settle(&mut self, channel: &Channel, settled: Settled, now: Millis) {
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
                        let (name, position) =
                            (names.get(&l.entry.operation), l.entry.publication.position());
                        name.is_none_or(|name| *name < position) && !stream.outlived(position)
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
        self.drop_known(now);
        if !self.loose.is_empty() {
            self.changed();
        }
        let mut taken = Vec::new();
        for (channel, loose) in std::mem::take(&mut self.loose) {
            let mut names = HashMap::new();
            self.streams.get_mut(&channel).into_iter().for_each(|line| line.begin_epoch());
            for Loose { options, entry, .. } in loose {
                let operation = entry.operation;
                // It may have two names, and what has the same key as another one is that one.
                let again = names.contains_key(&operation)
                    || self.keys.has_other(&channel, operation, &names, now);
                if !again {
                    names.insert(operation, entry.publication.position());
                    taken.push((channel.clone(), options, entry));
                }
            }
        }
        taken
    }

    /// Drops what is beside the lines, by its name there.
    pub fn drop_loose(&mut self, drops: impl Fn(&Channel, Position) -> bool) {
        let before = self.loose();
        self.loose.retain(|channel, beside| {
            beside.retain(|loose| !drops(channel, loose.entry.publication.position()));
            !beside.is_empty()
        });
        if self.loose() != before {
            self.changed();
        }
    }

    /// Drops what is beside the lines and on them, too, under whatever name or by its idempotency
    /// key: the lines are as their owner has them.
    pub fn drop_known(&mut self, now: Millis) {
        let before = self.loose();
        let Self { streams, keys, loose, .. } = self;
        loose.retain(|channel, beside| {
            if let Some(line) = streams.get(channel) {
                let names = line.names();
                beside.retain(|Loose { entry, .. }| {
                    let operation = entry.operation;
                    !names.contains_key(&operation)
                        && !line.outlived(entry.publication.position())
                        && !keys.has_other(channel, operation, &names, now)
                });
            }
            !beside.is_empty()
        });
        if self.loose() != before {
            self.changed();
        }
    }
}
