//! Copies of a stream, and what becomes of two lines of one channel that meet: one continues the
//! other, or they had parted and the one of the higher epoch stays.
use std::collections::VecDeque;

use super::sides::Sides;
use super::{Entry, LINEAGE_LEN_MAX, Stream, name_in};
use crate::mutant::{Rule, without};
use crate::protocol::channel::Channel;
use crate::protocol::ids::Position;
use crate::protocol::peer::StreamCopy;
use crate::protocol::time::Millis;

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

impl Stream {
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
            sides: self.sides.copy(),
            gap: self.gap,
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
            sides: Sides::from_copy(copy.sides),
            gap: copy.gap,
        };
        stream.committed = copy.committed.max(stream.low).min(stream.top);
        for entry in copy.entries {
            stream.push(Entry::from_copy(entry, now), now);
        }
        stream.touched = now - copy.idle_ms;
        Some(stream)
    }

    /// Takes over what a copy has and this stream lacks. If the two had parted, the line of the
    /// higher epoch becomes the stream. What the slot's `owner` has told its followers of gaps, it has
    /// told them.
    pub fn merge_from(&mut self, mut copy: StreamCopy, owner: bool, now: Millis) -> Merged {
        let ours = self.sides.clone();
        let mut theirs = Sides::from_copy(std::mem::take(&mut copy.sides));
        let (here, there) = (self.sides.take_line(), theirs.take_line());
        let (gap, last) = (copy.gap, copy.lineage.last().map(|turn| turn.epoch));
        let (stood, theirs_stays) = match (self.top, copy.top) {
            (0, 1..) => (0, true),
            (stood @ 1.., 0) => (stood, false),
            (stood, _) => (stood, last >= Some(self.epoch())),
        };
        self.sides.union(theirs);
        // What a line has taken in says nothing of another that takes its place.
        self.sides.add_taken(if theirs_stays { &there } else { &here });
        let both = self.sides.clone();
        let merged = self.merge_line(copy, now);
        if merged == Merged::Hole {
            self.sides = ours;
            return merged;
        }
        self.sides.union(both);
        let (stays, goes) = if theirs_stays { (&there, &here) } else { (&here, &there) };
        if !theirs_stays || matches!(merged, Merged::Forked(_)) {
            self.note_gone(stays, goes);
        } else {
            self.gap = self.gap.max(gap);
            self.join_gone((&here, stood), (&there, owner));
        }
        self.sides.add_taken(&here);
        self.sides.add_taken(&there);
        self.forget_sides();
        merged
    }

    fn merge_line(&mut self, copy: StreamCopy, now: Millis) -> Merged {
        let common = self.lineage.iter().rposition(|turn| copy.lineage.contains(turn));
        // A line on which nothing was published goes; its epochs are remembered beside the other. In the
        // lineage they would begin at another offset wherever another copy came home.
        if common.is_none() && copy.top == 0 && self.top > 0 {
            self.note_side(&copy.lineage, &VecDeque::new(), (0, false));
            return Merged::Same;
        }
        if common.is_none() && self.top == 0 && copy.top > 0 {
            let Some(filled) = Self::from_copy(copy, now) else { return Merged::Hole };
            let Self { lineage, .. } = std::mem::replace(self, filled);
            self.note_side(&lineage, &VecDeque::new(), (0, false));
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
        let mut idle_ms = copy.idle_ms;
        let greater = copy.lineage.last().is_some_and(|turn| turn.epoch > self.epoch());
        let (turns, low, entries) = if greater {
            let Some(line) = Self::from_copy(copy, now) else { return Merged::Hole };
            let Self { lineage, low, entries, sides, touched, .. } = std::mem::replace(self, line);
            self.sides = sides;
            idle_ms = now.since(touched);
            (lineage, low, entries)
        } else {
            let (lineage, low) = (copy.lineage, copy.low);
            let entries = copy.entries.into_iter().map(|entry| Entry::from_copy(entry, now));
            (lineage, low, entries.collect::<VecDeque<_>>())
        };
        // What has expired is owed to nobody.
        let owed = idle_ms < self.options.history_ttl_ms;
        self.note_side(&turns, &entries, (low, owed));
        let names = self.names();
        let lost = entries
            .into_iter()
            .filter(|entry| !names.contains_key(&entry.operation) && !without(Rule::BothLinesStay));
        let placed = lost.filter_map(|entry| {
            let before = entry.publication.offset.checked_sub(1)?;
            Some((name_in(&turns, before)?, entry))
        });
        Merged::Forked(placed.collect())
    }
}
