//! A stream: the ordered publications of one channel or inbox, bounded by size and time, with the
//! lineage of its epochs. Used by the slot's holding; knows nothing of nodes or requests.
mod entry;
mod merging;
mod reading;
mod sides;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use crate::mutant::{Rule, without};
use crate::protocol::channel::ChannelOptions;
use crate::protocol::ids::{Epoch, Position, StreamEpoch};
use crate::protocol::message::{Message, OperationId, Publication};
use crate::protocol::peer::Turn;
use crate::protocol::time::Millis;
pub use entry::Entry;
pub use merging::Merged;
pub use reading::{CATCH_UP_BYTES_MAX, CATCH_UP_LEN_MAX, READ_BYTES_MAX, READ_LEN_MAX, Resume};
use sides::Sides;
pub use sides::{SIDE_NAMES_MAX, SIDES_MAX};

/// Epochs that a lineage remembers. One comes with each change of owner, so positions stay
/// resumable over this many changes.
pub const LINEAGE_LEN_MAX: usize = 256;
/// Publications that a stream keeps at most, whatever is configured: some 100 MB of small ones.
pub const HISTORY_SIZE_MAX: u32 = 1_000_000;

/// See the module. Equal are streams with equal content.
#[derive(Clone, Debug)]
pub struct Stream {
    options: ChannelOptions,
    lineage: Vec<Turn>,
    entries: VecDeque<Entry>,
    top: u64,
    low: u64,
    /// Publications up to here are held by as many nodes as the cluster promises; only they are
    /// shown to anybody.
    committed: u64,
    touched: Millis,
    /// Something came from a copy since the last publication here: the next one begins an epoch, lest
    /// a name is given twice that was given before an older copy came back.
    taken_over: bool,
    sides: Sides,
    /// Who stands before this offset may lack what another line had and has dropped, and which isn't
    /// remembered among the sides.
    gap: u64,
}

impl PartialEq for Stream {
    fn eq(&self, other: &Self) -> bool {
        (&self.options, &self.lineage, &self.entries)
            == (&other.options, &other.lineage, &other.entries)
            && (self.top, self.low, self.committed) == (other.top, other.low, other.committed)
            && (&self.sides, self.gap) == (&other.sides, other.gap)
    }
}

impl Stream {
    /// An empty stream whose first epoch is `epoch`.
    pub fn new(options: ChannelOptions, epoch: StreamEpoch, now: Millis) -> Self {
        Self {
            options,
            lineage: vec![Turn { epoch: begun(epoch), first: 1 }],
            entries: VecDeque::new(),
            top: 0,
            low: 0,
            committed: 0,
            touched: now,
            taken_over: false,
            sides: Sides::default(),
            gap: 0,
        }
    }

    /// Where the stream stands, what isn't committed included.
    pub fn position(&self) -> Position {
        Position { epoch: self.epoch(), offset: self.top }
    }

    /// Where the stream stands for everybody but its holders.
    pub fn committed(&self) -> Position {
        self.name(self.committed)
    }

    /// Whether nothing was ever published on the line, and a later owner has begun it anew.
    pub fn yields_to(&self, epoch: StreamEpoch) -> bool {
        self.top == 0 && self.epoch() < epoch
    }

    /// Begins anew under a later owner's epoch; see [`Stream::yields_to`]. A position on the line before
    /// stays resumable: whoever stands there has seen nothing.
    pub fn yield_to(&mut self, options: ChannelOptions, epoch: StreamEpoch, now: Millis) {
        let Self { lineage, sides, .. } = std::mem::replace(self, Self::new(options, epoch, now));
        self.sides = sides;
        self.note_side(&lineage, &VecDeque::new(), (0, false));
    }

    /// Notes that publications up to `offset` are committed.
    pub fn commit(&mut self, offset: u64) {
        self.committed = self.committed.max(offset.min(self.top));
        self.trim();
    }

    /// Publications that aren't known to be committed, oldest first.
    pub fn uncommitted(&self) -> impl DoubleEndedIterator<Item = &Entry> {
        self.behind(self.committed)
    }

    /// All entries, oldest first.
    pub fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter()
    }

    /// The epochs of the line, oldest first.
    pub fn lineage(&self) -> &[Turn] {
        &self.lineage
    }

    /// The entry of an offset, and the position that it follows.
    pub fn entry(&self, offset: u64) -> Option<(Position, &Entry)> {
        let first = self.top + 1 - self.entries.len() as u64;
        let entry = self.entries.get(usize::try_from(offset.checked_sub(first)?).ok()?)?;
        Some((self.name(offset - 1), entry))
    }

    /// The name of an offset on this line.
    fn name(&self, offset: u64) -> Position {
        if offset == self.top {
            return self.position();
        }
        name_in(&self.lineage, offset).unwrap_or_else(|| self.position())
    }

    /// What is known of lines that parted from this one, as positions on them.
    pub fn side_positions(&self) -> impl Iterator<Item = Position> {
        self.sides.positions()
    }

    /// The offsets that gaps lie before: who stands on the line before one doesn't resume, whatever is
    /// kept.
    pub fn gaps(&self) -> impl Iterator<Item = u64> {
        [self.gap].into_iter().chain(self.sides.gaps())
    }

    /// The channel's configuration as of the last publication.
    pub fn options(&self) -> ChannelOptions {
        self.options
    }

    /// The place of an epoch in the lineage.
    fn turn_of(&self, epoch: StreamEpoch) -> Option<usize> {
        self.lineage.iter().position(|turn| turn.epoch == epoch)
    }

    fn epoch(&self) -> StreamEpoch {
        // A lineage is never empty: `new` and `from_copy` see to it.
        self.lineage[self.lineage.len() - 1].epoch
    }

    /// Appends a publication under the owner's `epoch`. `index` is the owner's operation index in
    /// the slot, used if a new epoch of the stream begins here. Returns the position that the
    /// publication follows, and the publication.
    pub fn append(
        &mut self,
        epoch: Epoch,
        index: u64,
        options: ChannelOptions,
        operation: OperationId,
        message: Arc<Message>,
        now: Millis,
    ) -> (Position, Publication) {
        let follows = self.position();
        let begins = follows.epoch.epoch != epoch || self.taken_over;
        if begins && !without(Rule::NewEpoch) {
            self.turn(Turn { epoch: StreamEpoch { epoch, index }, first: self.top + 1 });
        }
        (self.options, self.taken_over) = (options, false);
        self.top += 1;
        let publication = Publication { epoch: self.epoch(), offset: self.top, message };
        let expires = now + options.history_ttl_ms;
        self.push(Entry { publication: publication.clone(), operation, expires }, now);
        (follows, publication)
    }

    /// What is appended next begins a new epoch: it was sent before what the line has of this one.
    pub fn begin_epoch(&mut self) {
        self.taken_over = true;
    }

    fn turn(&mut self, turn: Turn) {
        if self.lineage.len() == LINEAGE_LEN_MAX {
            self.lineage.remove(0);
        }
        self.lineage.push(turn);
    }

    fn push(&mut self, entry: Entry, now: Millis) {
        self.touched = now;
        self.entries.push_back(entry);
        self.trim();
    }

    /// Keeps the size bound. What isn't committed stays: somebody waits for it.
    fn trim(&mut self) {
        let size = self.options.history_size.min(HISTORY_SIZE_MAX) as usize;
        while self.entries.len() > size && self.top - (self.entries.len() as u64) < self.committed {
            self.drop_oldest();
        }
    }

    /// Puts an entry with a name from elsewhere behind the line, if it `follows` the line's end.
    pub fn place(&mut self, follows: Position, entry: Entry, now: Millis) -> Result<(), Entry> {
        if follows != self.position() {
            return Err(entry);
        }
        let Position { epoch, offset } = entry.publication.position();
        if epoch != follows.epoch {
            self.turn(Turn { epoch, first: offset });
        }
        (self.top, self.taken_over) = (offset, true);
        self.push(entry, now);
        Ok(())
    }

    /// Takes over the channel's configuration.
    pub fn set_options(&mut self, options: ChannelOptions) {
        self.options = options;
    }

    fn drop_oldest(&mut self) {
        if let Some(entry) = self.entries.pop_front() {
            self.low = self.low.max(entry.publication.offset);
            self.committed = self.committed.max(self.low);
        }
    }

    /// What a publication follows, as it is told to those who follow the line: a name that nobody
    /// stands at if they may lack something before it.
    pub fn shown_behind(&self, follows: Position) -> Position {
        match self.gaps().any(|before| before == follows.offset + 1) {
            true => Position { epoch: StreamEpoch::NONE, ..follows },
            false => follows,
        }
    }

    /// Drops what has expired. Whether sides were forgotten with it.
    pub fn expire(&mut self, now: Millis) -> bool {
        while self.entries.front().is_some_and(|entry| entry.expires <= now) {
            self.drop_oldest();
        }
        self.forget_sides()
    }

    /// Whether the stream itself may be forgotten: it is empty and has outlived its last publication
    /// by twice the time to live, so no position in it can resume.
    pub fn is_idle(&self, now: Millis) -> bool {
        self.entries.is_empty() && now.since(self.touched) >= self.options.history_ttl_ms * 2
    }

    /// Keeps the stream while somebody follows it.
    pub fn touch(&mut self, now: Millis) {
        self.touched = now;
    }

    /// The last offset that the epoch at this place of the lineage names.
    fn end(&self, at: usize) -> u64 {
        self.lineage.get(at + 1).map_or(self.top, |next| next.first - 1)
    }

    /// The entries behind an offset. Offsets of entries follow each other without a hole.
    fn behind(&self, offset: u64) -> impl DoubleEndedIterator<Item = &Entry> {
        let first = self.top + 1 - self.entries.len() as u64;
        let skip = (offset + 1).saturating_sub(first).min(self.entries.len() as u64);
        self.entries.range(skip as usize..)
    }

    /// Whether publications were dropped by the stream's bounds.
    pub fn has_dropped(&self) -> bool {
        self.low > 0
    }

    /// The place of an operation that was applied here and is still kept.
    pub fn find(&self, operation: OperationId) -> Option<Position> {
        let entry = self.entries.iter().rev().find(|entry| entry.operation == operation)?;
        Some(entry.publication.position())
    }

    /// The places of all operations that are kept, for who looks for many.
    pub fn names(&self) -> HashMap<OperationId, Position> {
        let names = self.entries.iter().map(|e| (e.operation, e.publication.position()));
        names.collect()
    }

    /// Publications kept.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether none is kept.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

/// The name of an offset on the line of these epochs.
fn name_in(lineage: &[Turn], offset: u64) -> Option<Position> {
    let turn = lineage.iter().rev().find(|turn| turn.first <= offset).or(lineage.first());
    turn.map(|turn| Position { epoch: turn.epoch, offset })
}

/// The first epoch of a new stream.
fn begun(epoch: StreamEpoch) -> StreamEpoch {
    match without(Rule::IndexInEpoch) {
        true => StreamEpoch { index: 0, ..epoch },
        false => epoch,
    }
}

#[cfg(test)]
mod tests;
