//! Reading a stream: what follows a position, or a part of it, as much as one answer carries. Only
//! what is committed is shown.
use super::sides::Seen;
use super::{Entry, Stream};
use crate::mutant::{Rule, without};
use crate::protocol::ids::Position;
use crate::protocol::message::{
    DATA_BYTES_MAX, History, PUBLICATION_BYTES, Publication, TAG_BYTES_MAX,
};
use crate::protocol::peer::FRAME_BYTES_MAX;

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

/// The answer to a position.
#[derive(Clone, PartialEq, Debug)]
pub enum Resume {
    /// All publications behind the position.
    Continued(Vec<Publication>),
    /// Some behind the position are gone, or there are more than an answer carries.
    Gone,
    /// The position lies on this stream's line beyond what is known here to be committed.
    Ahead,
    /// What was seen under other names stands on the line up to here, and isn't all committed. Answered
    /// now, the rest of it would come as news.
    Unsettled(Position),
    /// The position's epoch isn't one of this stream's.
    Unknown,
}

impl Stream {
    /// What follows a position, if all of it is known and no more than `most`.
    pub fn resume(&self, from: Position, most: usize) -> Resume {
        let Some(Seen { upto: from, operations: seen, gap }) = self.seen(from) else {
            return Resume::Unknown;
        };
        if gap || from < self.low {
            return Resume::Gone;
        }
        if from > self.committed {
            return Resume::Ahead;
        }
        let renamed = |entry: &&Entry| seen.contains(&entry.operation);
        if !seen.is_empty()
            && let Some(last) = self.uncommitted().rev().find(renamed)
        {
            return Resume::Unsettled(last.publication.position());
        }
        let behind = self.behind(from).filter(|entry| !seen.contains(&entry.operation));
        let behind = behind.map(|entry| &entry.publication).take(most + 1);
        let shown = behind.take_while(|publication| publication.offset <= self.committed);
        let shown: Vec<Publication> = shown.cloned().collect();
        if shown.len() > most {
            return Resume::Gone;
        }
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
        let beyond = match self.turn_of(position.epoch) {
            Some(at) => self.end(at) < position.offset,
            None => self.knows(position),
        };
        beyond && !self.sides.has(position)
    }

    /// Whether a position lies on this stream's line, so that what follows it here is all that its
    /// holder lacks.
    pub fn passes(&self, position: Position) -> bool {
        let at = self.turn_of(position.epoch);
        at.is_some_and(|at| (self.lineage[at].first - 1..=self.end(at)).contains(&position.offset))
    }

    /// Whether a publication of this name was on the line and is gone by its bounds. What has it still
    /// has nothing new.
    pub fn outlived(&self, position: Position) -> bool {
        position.offset <= self.low && self.passes(position) && !without(Rule::Outlived)
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

    /// Whether a position's epoch is known here, on the line or on a side.
    pub fn knows(&self, position: Position) -> bool {
        self.turn_of(position.epoch).is_some() || self.sides.knows(position.epoch)
    }

    /// Whether `history.since` names an epoch of the line itself, or none: only there offsets are in
    /// the order of what is read.
    pub fn reads_from(&self, since: Option<Position>) -> bool {
        since.is_none_or(|position| self.turn_of(position.epoch).is_some())
    }
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
