//! A stream: the ordered publications of one channel or inbox, bounded by size and time, with the
//! lineage of its epochs. Used by the slot's holding; knows nothing of nodes or requests.
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use crate::mutant::{Rule, without};
use crate::protocol::channel::{Channel, ChannelOptions};
use crate::protocol::ids::{Epoch, Position, StreamEpoch};
use crate::protocol::message::{
    DATA_BYTES_MAX, History, Message, OperationId, PUBLICATION_BYTES, Publication, TAG_BYTES_MAX,
};
use crate::protocol::peer::{EntryCopy, FRAME_BYTES_MAX, StreamCopy, Turn};
use crate::protocol::time::Millis;

/// Epochs that a lineage remembers. One comes with each change of owner, so positions stay
/// resumable over this many changes.
pub const LINEAGE_LEN_MAX: usize = 256;
/// Publications that one answer carries at most, as Centrifuge servers have it.
pub const READ_LEN_MAX: usize = 300;
/// What the publisher's info takes at most if an answer is to be bounded by its length alone.
const INFO_BYTES: usize = 4096;
/// Bytes of publications that one answer carries at most.
pub const READ_BYTES_MAX: usize = 22 << 20;
const _: () = assert!(
    READ_LEN_MAX * (DATA_BYTES_MAX + TAG_BYTES_MAX + INFO_BYTES + PUBLICATION_BYTES)
        <= READ_BYTES_MAX,
    "an answer has room for publications of the greatest length"
);
const _: () = assert!(READ_BYTES_MAX + (1 << 20) <= FRAME_BYTES_MAX, "a frame has room for it");
/// Publications that a gateway is brought up to date with at most: what its clients would have got
/// one by one, so a busy channel survives a change of owner.
pub const CATCH_UP_LEN_MAX: usize = 10_000;
/// Bytes of such an answer of more than [`READ_LEN_MAX`]; above it, the gateway asks its clients to
/// subscribe again.
pub const CATCH_UP_BYTES_MAX: usize = 8 << 20;
const _: () = assert!(CATCH_UP_BYTES_MAX <= READ_BYTES_MAX);
/// Publications that a stream keeps at most, whatever is configured: some 100 MB of small ones.
pub const HISTORY_SIZE_MAX: u32 = 1_000_000;

/// One publication with its identity.
#[derive(Clone, PartialEq, Debug)]
pub struct Entry {
    /// The publication under its name.
    pub publication: Publication,
    /// Its identity for ever.
    pub operation: OperationId,
    /// When it is dropped.
    pub expires: Millis,
}

/// The answer to a position.
#[derive(Clone, PartialEq, Debug)]
pub enum Resume {
    /// All publications behind the position.
    Continued(Vec<Publication>),
    /// Some behind the position are gone, or there are more than an answer carries.
    Gone,
    /// The position lies on this stream's line beyond what is known here to be committed.
    Ahead,
    /// The position's epoch isn't one of this stream's.
    Unknown,
}

/// What became of a merge.
#[derive(Clone, PartialEq, Debug)]
pub enum Merged {
    /// Nothing new.
    Same,
    /// The copy's publications were appended.
    Extended,
    /// The copy starts behind the stream's top: nothing was taken.
    Hole,
    /// The two had parted: these publications of the lesser line have no name on the greater one.
    /// Each with the position that it follows there.
    Forked(Vec<(Position, Entry)>),
}

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
}

impl PartialEq for Stream {
    fn eq(&self, other: &Self) -> bool {
        (&self.options, &self.lineage, &self.entries)
            == (&other.options, &other.lineage, &other.entries)
            && (self.top, self.low, self.committed) == (other.top, other.low, other.committed)
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

    /// Notes that publications up to `offset` are committed.
    pub fn commit(&mut self, offset: u64) {
        self.committed = self.committed.max(offset.min(self.top));
        self.trim();
    }

    /// Publications that aren't known to be committed, oldest first.
    pub fn uncommitted(&self) -> impl Iterator<Item = &Entry> {
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

    /// The channel's configuration as of the last publication.
    pub fn options(&self) -> ChannelOptions {
        self.options
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

    /// Drops what has expired.
    pub fn expire(&mut self, now: Millis) {
        while self.entries.front().is_some_and(|entry| entry.expires <= now) {
            self.drop_oldest();
        }
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

    /// What follows a position, if all of it is known and no more than `most`.
    pub fn resume(&self, from: Position, most: usize) -> Resume {
        let Some(at) = self.lineage.iter().position(|turn| turn.epoch == from.epoch) else {
            return Resume::Unknown;
        };
        // Behind the end of its epoch nothing is known of what the client saw: start at that end,
        // so that it sees something twice rather than never.
        let from = from.offset.min(self.end(at));
        if from < self.low || self.committed.saturating_sub(from) > most as u64 {
            return Resume::Gone;
        }
        if from > self.committed {
            return Resume::Ahead;
        }
        let behind = self.behind(from).map(|entry| &entry.publication);
        let shown = behind.take_while(|publication| publication.offset <= self.committed);
        let shown: Vec<Publication> = shown.cloned().collect();
        let bytes: usize = shown.iter().map(Publication::bytes).sum();
        let long = shown.len() > READ_LEN_MAX;
        if bytes > (if long { CATCH_UP_BYTES_MAX } else { READ_BYTES_MAX }) {
            return Resume::Gone;
        }
        Resume::Continued(shown)
    }

    /// Whether a position lies on this line behind all that is known here of its epoch: somebody was
    /// shown what isn't here.
    pub fn falls_short_of(&self, position: Position) -> bool {
        let at = self.lineage.iter().position(|turn| turn.epoch == position.epoch);
        at.is_some_and(|at| self.end(at) < position.offset)
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

    /// Whether a position lies on this stream's line, so that what follows it here is all that its
    /// holder lacks.
    pub fn passes(&self, position: Position) -> bool {
        let at = self.lineage.iter().position(|turn| turn.epoch == position.epoch);
        at.is_some_and(|at| (self.lineage[at].first - 1..=self.end(at)).contains(&position.offset))
    }

    /// Reads a part of the stream: as many publications as are asked for and one answer carries.
    pub fn read(&self, history: History) -> Vec<Publication> {
        let limit = (history.limit as usize).min(READ_LEN_MAX);
        let since = history.since.map(|position| position.offset);
        let publications = self.entries.iter().map(|entry| &entry.publication);
        let publications = publications.filter(|p| p.offset <= self.committed);
        if history.reverse {
            let before = publications.rev().filter(|p| since.is_none_or(|o| p.offset < o));
            fitting(before.take(limit))
        } else {
            let behind = publications.filter(|p| since.is_none_or(|o| p.offset > o));
            fitting(behind.take(limit))
        }
    }

    /// Whether `history.since` names an epoch of this stream, or none.
    pub fn knows(&self, position: Option<Position>) -> bool {
        position.is_none_or(|p| self.lineage.iter().any(|turn| turn.epoch == p.epoch))
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

    /// A copy of what lies behind `after`.
    pub fn copy(&self, channel: &Channel, after: u64, now: Millis) -> StreamCopy {
        let entries = self.behind(after).map(|entry| entry.copy(now));
        StreamCopy {
            channel: channel.clone(),
            options: self.options,
            lineage: self.lineage.clone(),
            top: self.top,
            low: self.low,
            committed: self.committed,
            idle_ms: now.since(self.touched),
            after: after.min(self.top),
            entries: entries.collect(),
            goes_on: false,
        }
    }

    /// A copy for who has all publications: where the line ends, and what is committed of it.
    pub fn mark(&self, channel: &Channel, now: Millis) -> StreamCopy {
        let lineage = self.lineage.last().copied().into_iter().collect();
        StreamCopy { lineage, entries: vec![], ..self.copy(channel, self.top, now) }
    }

    /// A stream made of a copy; what lies before `copy.after` counts as gone.
    pub fn from_copy(copy: StreamCopy, now: Millis) -> Option<Self> {
        let first = copy.entries.first().map(|entry| entry.publication.offset);
        let contiguous = copy.entries.windows(2).all(|pair| {
            pair[0].publication.offset.checked_add(1) == Some(pair[1].publication.offset)
        });
        let ends = copy.entries.last().is_none_or(|last| last.publication.offset == copy.top);
        // What begins in the middle of a stream is no copy of it.
        if copy.lineage.is_empty() || !contiguous || !ends || copy.after > copy.low {
            return None;
        }
        let mut lineage = copy.lineage;
        lineage.drain(..lineage.len().saturating_sub(LINEAGE_LEN_MAX));
        let mut stream = Self {
            options: copy.options,
            lineage,
            entries: VecDeque::new(),
            top: copy.top,
            // Entries that expired on the way are missing at the front of the copy.
            low: first.map_or(copy.top, |first| first.saturating_sub(1)),
            committed: 0,
            touched: now,
            taken_over: true,
        };
        stream.committed = copy.committed.max(stream.low).min(stream.top);
        for entry in copy.entries {
            stream.push(Entry::from_copy(entry, now), now);
        }
        stream.touched = now - copy.idle_ms;
        Some(stream)
    }

    /// Takes over what a copy has and this stream lacks. If the two had parted, the line of the
    /// higher epoch becomes the stream.
    pub fn merge(&mut self, copy: StreamCopy, now: Millis) -> Merged {
        let common = self.lineage.iter().rposition(|turn| copy.lineage.contains(turn));
        if common.is_none() && copy.top == 0 && self.top > 0 {
            return Merged::Same;
        }
        if common.is_none() && self.top == 0 && copy.top > 0 {
            // Nothing was published on the line that was made anew here: its epochs named nothing,
            // and go. Kept, they would begin at another offset wherever another copy came home.
            let Some(filled) = Self::from_copy(copy, now) else { return Merged::Hole };
            *self = filled;
            return Merged::Extended;
        }
        let theirs = common.map(|at| {
            let shared = self.lineage[at];
            let at = copy.lineage.iter().position(|turn| *turn == shared).unwrap_or(0);
            (at, copy.lineage.get(at + 1).map_or(copy.top, |next| next.first - 1))
        });
        let ours = common.map(|at| {
            let end = self.lineage.get(at + 1).map_or(self.top, |next| next.first - 1);
            (at, end, at + 1 == self.lineage.len())
        });
        match (ours, theirs) {
            // Our whole line is a beginning of theirs.
            (Some((_, our_end, true)), Some((at, their_end)))
                if our_end <= their_end || at + 1 == copy.lineage.len() =>
            {
                let (committed, idle_ms) = (copy.committed, copy.idle_ms);
                let merged = self.extend(copy, at, now);
                self.touched = self.touched.max(now - idle_ms);
                self.commit(committed);
                merged
            }
            // Their whole line is a beginning of ours.
            (Some((_, our_end, _)), Some((at, their_end)))
                if at + 1 == copy.lineage.len() && their_end <= our_end =>
            {
                self.commit(copy.committed);
                Merged::Same
            }
            _ => self.fork(copy, now),
        }
    }

    fn extend(&mut self, copy: StreamCopy, shared: usize, now: Millis) -> Merged {
        if copy.top <= self.top && copy.lineage.len() == shared + 1 {
            return Merged::Same;
        }
        if copy.after > self.top {
            return Merged::Hole;
        }
        self.taken_over = true;
        for turn in &copy.lineage[shared + 1..] {
            self.turn(*turn);
        }
        self.options = copy.options;
        for entry in copy.entries {
            let offset = entry.publication.offset;
            if offset <= self.top {
                continue;
            }
            if offset != self.top + 1 {
                // What lay between has expired at the sender.
                self.entries.clear();
                self.low = offset - 1;
                self.committed = self.committed.max(self.low);
            }
            self.top = offset;
            self.push(Entry::from_copy(entry, now), now);
        }
        if self.top < copy.top {
            self.entries.clear();
            (self.top, self.low) = (copy.top, copy.top);
            self.committed = copy.top;
        }
        Merged::Extended
    }

    /// The line of the higher epoch becomes the stream; what the other one has beyond it is told.
    fn fork(&mut self, copy: StreamCopy, now: Millis) -> Merged {
        let greater = copy.lineage.last().is_some_and(|turn| turn.epoch > self.epoch());
        let (turns, entries) = if greater {
            let Some(line) = Self::from_copy(copy, now) else { return Merged::Hole };
            let Self { lineage, entries, .. } = std::mem::replace(self, line);
            (lineage, entries)
        } else {
            let entries = copy.entries.into_iter().map(|entry| Entry::from_copy(entry, now));
            (copy.lineage, entries.collect())
        };
        let names = self.names();
        let lost = entries.into_iter().filter(|entry| !names.contains_key(&entry.operation));
        let placed = lost.filter_map(|entry| {
            let before = entry.publication.offset.checked_sub(1)?;
            Some((name_in(&turns, before)?, entry))
        });
        Merged::Forked(placed.collect())
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

/// The first of these that one answer carries, at least one.
fn fitting<'a>(publications: impl Iterator<Item = &'a Publication>) -> Vec<Publication> {
    let mut bytes = 0;
    let fitting = publications.take_while(|publication| {
        let first = bytes == 0;
        bytes += publication.bytes();
        first || bytes <= READ_BYTES_MAX
    });
    fitting.cloned().collect()
}

/// The first epoch of a new stream.
fn begun(epoch: StreamEpoch) -> StreamEpoch {
    match without(Rule::IndexInEpoch) {
        true => StreamEpoch { index: 0, ..epoch },
        false => epoch,
    }
}

impl Entry {
    /// A copy with what is left of its time.
    pub(super) fn copy(&self, now: Millis) -> EntryCopy {
        EntryCopy {
            publication: self.publication.clone(),
            operation: self.operation,
            ttl_ms: self.expires.since(now),
        }
    }

    pub(super) fn from_copy(copy: EntryCopy, now: Millis) -> Self {
        Self {
            publication: copy.publication,
            operation: copy.operation,
            expires: now + copy.ttl_ms,
        }
    }
}

#[cfg(test)]
mod tests;
