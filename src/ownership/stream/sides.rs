//! Sides: lines of a channel that parted from the stream's own, as what their names stood for and where
//! their epochs began. A position that was taken on one resumes by it: what its holder saw there
//! isn't shown again. The publications themselves are on the line, or about to be appended to it; but
//! for what a side had dropped by its bounds before the two met: that leaves a gap to all who may not
//! have seen it.
use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::ops::RangeInclusive;

use super::{Entry, Stream, name_in};
use crate::mutant::{Rule, without};
use crate::ownership::rare::{Nothing, Rare};
use crate::protocol::ids::{Position, StreamEpoch};
use crate::protocol::message::OperationId;
use crate::protocol::peer::{Side, SidesCopy, Turn};

/// Epochs of sides that are remembered, a stream; the oldest go first.
pub const SIDES_MAX: usize = 256;
/// Names of sides that are remembered, a stream; the oldest go first. Who saw what is forgotten sees
/// it twice.
pub const SIDE_NAMES_MAX: usize = 4_096;

/// See the module. Two of them together are the union of both, in whatever order they meet, but for what
/// means one line alone.
pub(super) type Sides = Rare<Known>;

/// What is known of sides.
#[derive(Clone, PartialEq, Debug, Default)]
pub(in crate::ownership) struct Known {
    epochs: BTreeMap<StreamEpoch, Side>,
    names: BTreeMap<Position, OperationId>,
    gone: Gone,
    /// Up to where each is on this line, or announced as gone. What another copy of it has dropped of
    /// that is news to nobody.
    taken: BTreeMap<StreamEpoch, u64>,
}

impl Nothing for Known {
    const NOTHING: &'static Self = &Self {
        epochs: BTreeMap::new(),
        names: BTreeMap::new(),
        gone: BTreeMap::new(),
        taken: BTreeMap::new(),
    };
}

/// Up to where sides had dropped what isn't known here, each with the offset of the line before which
/// nobody resumes who hasn't been there: the one behind the line's end when that was learned.
type Gone = BTreeMap<Position, u64>;

/// What sides mean for one line alone.
#[derive(Default)]
pub(super) struct OfLine {
    gone: Gone,
    taken: BTreeMap<StreamEpoch, u64>,
}

impl OfLine {
    fn has_taken(&self, name: Position) -> bool {
        reaches(&self.taken, name)
    }
}

/// What somebody has seen who stands at a position.
pub(super) struct Seen {
    /// The line up to this offset.
    pub(super) upto: u64,
    /// And these, whatever they are called on it.
    pub(super) operations: HashSet<OperationId>,
    /// Whether there may be more that isn't known here any more.
    pub(super) gap: bool,
}

impl Sides {
    pub(super) fn from_copy(copy: SidesCopy) -> Self {
        let mut sides = Self::new(Known {
            epochs: copy.epochs.into_iter().collect(),
            names: copy.names.into_iter().collect(),
            gone: copy.gone.into_iter().collect(),
            taken: copy.taken.into_iter().collect(),
        });
        sides.shorten();
        sides
    }

    pub(super) fn copy(&self) -> SidesCopy {
        SidesCopy {
            epochs: self.epochs.iter().map(|(epoch, side)| (*epoch, *side)).collect(),
            names: self.names.iter().map(|(name, operation)| (*name, *operation)).collect(),
            gone: self.gone.iter().map(|(last, before)| (*last, *before)).collect(),
            taken: self.taken.iter().map(|(epoch, upto)| (*epoch, *upto)).collect(),
        }
    }

    /// All positions that tell one from another: names, where each epoch begins, what is gone and up to
    /// where each was taken in.
    pub(super) fn positions(&self) -> impl Iterator<Item = Position> {
        let at = |(epoch, offset)| Position { epoch, offset };
        let begins = self.epochs.iter().map(move |(epoch, side)| at((*epoch, side.first)));
        let taken = self.taken.iter().map(move |(epoch, upto)| at((*epoch, *upto)));
        self.names.keys().copied().chain(begins).chain(self.gone.keys().copied()).chain(taken)
    }

    /// Takes out what means one line alone.
    pub(super) fn take_line(&mut self) -> OfLine {
        if self.gone.is_empty() && self.taken.is_empty() {
            return OfLine::default();
        }
        OfLine { gone: std::mem::take(&mut self.gone), taken: std::mem::take(&mut self.taken) }
    }

    /// Adds up to where a line has taken in others.
    pub(super) fn add_taken(&mut self, line: &OfLine) {
        if line.taken.is_empty() {
            return;
        }
        add(&mut self.taken, line.taken.iter().map(|(epoch, upto)| (*epoch, *upto)));
        self.shorten();
    }

    /// The offsets of the line that a gap lies before.
    pub(super) fn gaps(&self) -> impl Iterator<Item = u64> {
        self.gone.values().copied()
    }

    /// Whether what a side had up to one of its names is on this line, or announced as gone.
    fn has_taken(&self, name: Position) -> bool {
        reaches(&self.taken, name)
    }

    /// Whether a name is one of a side's, and known.
    pub(super) fn has(&self, name: Position) -> bool {
        self.names.contains_key(&name)
    }

    /// Whether an epoch is one of a side's, and known.
    pub(super) fn knows(&self, epoch: StreamEpoch) -> bool {
        self.epochs.contains_key(&epoch)
    }

    /// Adds what another has. Of what means one line alone both are to mean this one.
    pub(super) fn union(&mut self, mut other: Self) {
        if other == Self::default() {
            return;
        }
        let other = other.take();
        self.epochs.extend(other.epochs);
        self.names.extend(other.names);
        add(&mut self.gone, other.gone);
        add(&mut self.taken, other.taken);
        self.shorten();
    }

    fn shorten(&mut self) {
        while self.epochs.len() > SIDES_MAX {
            self.epochs.pop_first();
        }
        while self.names.len() > SIDE_NAMES_MAX {
            self.names.pop_first();
        }
        while self.taken.len() > SIDES_MAX {
            self.taken.pop_first();
        }
    }

    /// Where each epoch's line parts from one whose epochs end there; `None` if that isn't known.
    fn parted(&self, ends: &HashMap<StreamEpoch, u64>) -> HashMap<StreamEpoch, Option<u64>> {
        let mut parted: HashMap<StreamEpoch, Option<u64>> = HashMap::new();
        for epoch in self.epochs.keys() {
            let (mut path, mut at) = (Vec::new(), Position { epoch: *epoch, offset: u64::MAX });
            let found = loop {
                if let Some(end) = ends.get(&at.epoch) {
                    break Some(at.offset.min(*end));
                }
                if let Some(known) = parted.get(&at.epoch) {
                    break *known;
                }
                path.push(at.epoch);
                match self.epochs.get(&at.epoch) {
                    Some(Side { follows: Some(follows), .. }) if path.len() <= SIDES_MAX => {
                        at = *follows;
                    }
                    Some(Side { follows: None, .. }) => break Some(0),
                    _ => break None,
                }
            };
            parted.extend(path.into_iter().map(|epoch| (epoch, found)));
        }
        parted
    }

    /// The operations that an epoch's names stand for, as far as they are known.
    fn operations(
        &self,
        epoch: StreamEpoch,
        offsets: RangeInclusive<u64>,
    ) -> impl Iterator<Item = OperationId> {
        let name = |offset| Position { epoch, offset };
        let range = name(*offsets.start())..=name(*offsets.end());
        let within = (!offsets.is_empty()).then(|| self.names.range(range));
        within.into_iter().flatten().map(|(_, operation)| *operation)
    }
}

impl Stream {
    /// What somebody has seen who stands at a position. `None`: the position's epoch isn't known.
    pub(super) fn seen(&self, position: Position) -> Option<Seen> {
        let (mut operations, mut passed) = (HashSet::new(), Vec::new());
        let upto = self.descend(position, |epoch, offsets| {
            if !self.sides.gone.is_empty() {
                passed.push(Position { epoch, offset: *offsets.end() });
            }
            operations.extend(self.sides.operations(epoch, offsets));
        })?;
        let was_there = |gone: &Position| {
            passed.iter().any(|at| at.epoch == gone.epoch && at.offset >= gone.offset)
        };
        let mut gone = self.sides.gone.iter().filter(|(_, before)| upto < **before);
        let gap = upto < self.gap || gone.any(|(gone, _)| !was_there(gone));
        Some(Seen { upto, operations, gap })
    }

    /// Where the line of a position parts from this one. Tells which names lie between.
    fn descend(
        &self,
        mut position: Position,
        mut passing: impl FnMut(StreamEpoch, RangeInclusive<u64>),
    ) -> Option<u64> {
        if without(Rule::EpochInPosition) {
            return Some(position.offset.min(self.top));
        }
        // No line goes through an epoch twice, unless a peer is faulty.
        for _ in 0..=SIDES_MAX {
            let Position { epoch, offset } = position;
            if let Some(at) = self.turn_of(epoch) {
                // Behind the end of its epoch only what a side tells is known of what was seen: from
                // that end on, lest something is seen never rather than twice.
                let upto = offset.min(self.end(at));
                passing(epoch, upto + 1..=offset);
                return Some(upto);
            }
            let side = self.sides.epochs.get(&epoch)?;
            passing(epoch, side.first..=offset);
            match side.follows {
                Some(follows) => {
                    position = Position { offset: follows.offset.min(offset), ..follows };
                }
                None => return Some(0),
            }
        }
        None
    }

    /// Remembers a line that has parted from this one: its names, as far as it has entries, and up to
    /// where they were `dropped` by its bounds, unless they are `owed` to nobody any more. What went
    /// unseen by those who follow this line can't be shown to them: no position from before that resumes
    /// any more, but on that line.
    pub(super) fn note_side(
        &mut self,
        lineage: &[Turn],
        entries: &VecDeque<Entry>,
        (dropped, owed): (u64, bool),
    ) {
        if without(Rule::RememberSides) {
            return;
        }
        let mut side = Sides::default();
        let upto = entries.back().map_or(dropped, |last| last.publication.offset);
        for (at, turn) in lineage.iter().enumerate() {
            let end = lineage.get(at + 1).map_or(upto, |next| upto.min(next.first - 1));
            if end >= turn.first && !self.passes(Position { epoch: turn.epoch, offset: end }) {
                side.taken.insert(turn.epoch, end);
            }
            let follows = match (turn.first.checked_sub(1), at) {
                (Some(0), 0) => None,
                // What came before was forgotten.
                (None, _) | (_, 0) => continue,
                (Some(before), _) => name_in(lineage, before),
            };
            if self.turn_of(turn.epoch).is_none() {
                side.epochs.insert(turn.epoch, Side { first: turn.first, follows });
            }
        }
        for entry in entries.iter().rev().take(SIDE_NAMES_MAX) {
            let name = entry.publication.position();
            if !self.passes(name) {
                side.names.insert(name, entry.operation);
            }
        }
        let last = name_in(lineage, dropped).filter(|last| owed && !self.sides.has_taken(*last));
        self.sides.union(side);
        // Who knows the last that is gone has what came before it, or was told that it is gone.
        if let Some(last) = last.filter(|last| self.is_aside(*last)) {
            self.begin_gap(last);
        }
    }

    /// What becomes of gaps when a line has met another that had parted from it, or goes on from it:
    /// those of the line that stays, and here begins what only the other was told to be gone.
    pub(super) fn note_gone(&mut self, stays: &OfLine, goes: &OfLine) {
        for last in goes.gone.keys() {
            let known = stays.gone.contains_key(last) || stays.has_taken(*last);
            if !known && self.is_aside(*last) {
                self.begin_gap(*last);
            } else {
                add(&mut self.sides.gone, [(*last, 0)]);
            }
        }
        if !stays.gone.is_empty() {
            add(&mut self.sides.gone, stays.gone.iter().map(|(last, before)| (*last, *before)));
        }
        self.shorten_gone();
    }

    /// The same for a copy of the same line, up to whose end this one `stood` before. Where a gap is
    /// known to both it lies; if only one knows it, those who follow the other may have passed it untold:
    /// then it begins here. The slot's `owner` knows what it has told.
    pub(super) fn join_gone(&mut self, ours: (&OfLine, u64), theirs: (&OfLine, bool)) {
        let ((ours, stood), (theirs, owner)) = (ours, theirs);
        let mut untold = Vec::new();
        for (last, before) in &theirs.gone {
            let known = owner || ours.gone.contains_key(last) || ours.has_taken(*last);
            if stood >= *before && !known && self.is_aside(*last) {
                untold.push(*last);
            }
        }
        for (last, before) in &ours.gone {
            if !theirs.gone.contains_key(last) && stood < *before && *before <= self.top {
                untold.push(*last);
            }
        }
        for line in [ours, theirs].into_iter().filter(|line| !line.gone.is_empty()) {
            add(&mut self.sides.gone, line.gone.iter().map(|(last, before)| (*last, *before)));
        }
        untold.into_iter().for_each(|last| self.begin_gap(last));
        self.shorten_gone();
    }

    /// Whether a name is on a line that had parted from this one before it; also if that line is
    /// forgotten.
    fn is_aside(&self, name: Position) -> bool {
        self.descend(name, |_, _| ()).is_none_or(|parted| parted < name.offset)
    }

    fn begin_gap(&mut self, last: Position) {
        if without(Rule::GapIsTold) {
            return;
        }
        self.sides.gone.insert(last, self.top + 1);
        self.taken_over = true;
        self.shorten_gone();
    }

    /// Of the oldest only the gap stays known, and lies before everybody.
    fn shorten_gone(&mut self) {
        while self.sides.gone.len() > SIDES_MAX
            && let Some((_, before)) = self.sides.gone.pop_first()
        {
            self.gap = self.gap.max(before);
        }
    }

    /// Forgets sides that parted before all that is kept: no position on them resumes. What was gone
    /// of them and what was taken in stays known, lest it is announced again. Whether anything was
    /// forgotten.
    pub(super) fn forget_sides(&mut self) -> bool {
        self.sides.tidy();
        let Known { epochs, names, taken, .. } = &*self.sides;
        if epochs.is_empty() && names.is_empty() && taken.is_empty() {
            return false;
        }
        let ends = self.lineage.iter().enumerate().map(|(at, turn)| (turn.epoch, self.end(at)));
        let ends: HashMap<StreamEpoch, u64> = ends.collect();
        let before = (epochs.len(), names.len(), taken.len());
        let parted = self.sides.parted(&ends);
        let low = self.low;
        let Known { epochs, names, taken, .. } = &mut *self.sides;
        taken.retain(|epoch, upto| ends.get(epoch).is_none_or(|end| *upto > *end));
        epochs.retain(|epoch, _| {
            let kept = parted.get(epoch).copied().flatten().is_some_and(|parted| parted >= low);
            !ends.contains_key(epoch) && kept
        });
        names.retain(|name, _| match ends.get(&name.epoch) {
            Some(end) => name.offset > *end && *end >= low,
            None => epochs.contains_key(&name.epoch),
        });
        before != (epochs.len(), names.len(), taken.len())
    }
}

/// Adds numbers to others; of two the greater stays.
fn add<K: Ord>(all: &mut BTreeMap<K, u64>, more: impl IntoIterator<Item = (K, u64)>) {
    for (key, number) in more {
        let known = all.entry(key).or_default();
        *known = number.max(*known);
    }
}

/// Whether a name is among those that were taken in, by epoch up to an offset.
fn reaches(taken: &BTreeMap<StreamEpoch, u64>, name: Position) -> bool {
    taken.get(&name.epoch).is_some_and(|upto| *upto >= name.offset)
}
