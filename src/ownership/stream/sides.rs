//! Sides: lines of a channel that parted from the stream's own, as what their names stood for and where
//! their epochs began. A position that was taken on one resumes by it: what its holder saw there
//! isn't shown again. The publications themselves are on the line, or about to be appended to it.
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::ops::RangeInclusive;

use super::{Entry, Stream, name_in};
use crate::mutant::{Rule, without};
use crate::protocol::ids::{Position, StreamEpoch};
use crate::protocol::message::OperationId;
use crate::protocol::peer::{Side, SidesCopy, Turn};

/// Epochs of sides that are remembered, a stream; the oldest go first.
pub const SIDES_MAX: usize = 256;
/// Names of sides that are remembered, a stream; the oldest go first. Who saw what is forgotten sees
/// it twice.
pub const SIDE_NAMES_MAX: usize = 4_096;

/// See the module. Two of them together are the union of both, in whatever order they meet.
#[derive(Clone, PartialEq, Debug, Default)]
pub(super) struct Sides {
    epochs: BTreeMap<StreamEpoch, Side>,
    names: BTreeMap<Position, OperationId>,
    /// Up to where each had dropped what isn't known here.
    gone: BTreeSet<Position>,
}

impl Sides {
    pub(super) fn from_copy(copy: SidesCopy) -> Self {
        let mut sides = Self {
            epochs: copy.epochs.into_iter().collect(),
            names: copy.names.into_iter().collect(),
            gone: copy.gone.into_iter().collect(),
        };
        sides.shorten();
        sides
    }

    pub(super) fn copy(&self) -> SidesCopy {
        SidesCopy {
            epochs: self.epochs.iter().map(|(epoch, side)| (*epoch, *side)).collect(),
            names: self.names.iter().map(|(name, operation)| (*name, *operation)).collect(),
            gone: self.gone.iter().copied().collect(),
        }
    }

    /// All positions that tell one from another: names, where each epoch begins, what is gone.
    pub(super) fn positions(&self) -> impl Iterator<Item = Position> {
        let begins =
            self.epochs.iter().map(|(epoch, side)| Position { epoch: *epoch, offset: side.first });
        self.names.keys().copied().chain(begins).chain(self.gone.iter().copied())
    }

    /// Up to where each had dropped what isn't known here.
    pub(super) fn gone(&self) -> BTreeSet<Position> {
        self.gone.clone()
    }

    /// Whether a name is one of a side's, and known.
    pub(super) fn has(&self, name: Position) -> bool {
        self.names.contains_key(&name)
    }

    /// Whether an epoch is one of a side's, and known.
    pub(super) fn knows(&self, epoch: StreamEpoch) -> bool {
        self.epochs.contains_key(&epoch)
    }

    /// Adds what another has.
    pub(super) fn union(&mut self, other: Self) {
        self.epochs.extend(other.epochs);
        self.names.extend(other.names);
        self.gone.extend(other.gone);
        self.shorten();
    }

    fn shorten(&mut self) {
        while self.epochs.len() > SIDES_MAX {
            self.epochs.pop_first();
        }
        while self.names.len() > SIDE_NAMES_MAX {
            self.names.pop_first();
        }
        while self.gone.len() > SIDES_MAX {
            self.gone.pop_first();
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
    /// What somebody has seen who stands at a position: the line up to an offset, and these
    /// operations, whatever they are called on it. `None`: the position's epoch isn't known.
    pub(super) fn seen(&self, position: Position) -> Option<(u64, HashSet<OperationId>)> {
        let mut seen = HashSet::new();
        let upto = self.descend(position, |epoch, offsets| {
            seen.extend(self.sides.operations(epoch, offsets));
        })?;
        Some((upto, seen))
    }

    /// Where the line of a position parts from this one. Tells which names lie between.
    fn descend(
        &self,
        mut position: Position,
        mut passing: impl FnMut(StreamEpoch, RangeInclusive<u64>),
    ) -> Option<u64> {
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

    /// Remembers a line that has parted from this one: its names, as far as it has entries, and what is
    /// `low`, gone by its bounds. What went unseen by those who follow this line can't be shown to them:
    /// no position from before that resumes any more.
    pub(super) fn note_side<'a>(
        &mut self,
        lineage: &[Turn],
        low: u64,
        entries: impl DoubleEndedIterator<Item = &'a Entry>,
    ) {
        if without(Rule::RememberSides) {
            return;
        }
        let mut side = Sides::default();
        for (at, turn) in lineage.iter().enumerate() {
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
        for entry in entries.rev().take(SIDE_NAMES_MAX) {
            let name = entry.publication.position();
            if !self.passes(name) {
                side.names.insert(name, entry.operation);
            }
        }
        self.sides.union(side);
        // Who knows the last that is gone has what came before it, or was told that it is gone.
        if let Some(last) = name_in(lineage, low)
            && self.descend(last, |_, _| ()).is_some_and(|parted| parted < low)
            && !self.sides.has(last)
            && self.sides.gone.insert(last)
        {
            self.begin_gap();
        }
    }

    /// Takes over what others had dropped that this line's holders weren't told of.
    pub(super) fn note_gone(&mut self, gone: &BTreeSet<Position>, told: &BTreeSet<Position>) {
        let aside = |last: &Position| {
            self.descend(*last, |_, _| ()).is_some_and(|parted| parted < last.offset)
        };
        if gone.difference(told).any(aside) {
            self.begin_gap();
        }
    }

    fn begin_gap(&mut self) {
        (self.gap, self.taken_over) = (self.top + 1, true);
    }

    /// Forgets sides that parted before all that is kept: no position on them resumes. What was gone
    /// of them stays known, lest it is announced again. Whether anything was forgotten.
    pub(super) fn forget_sides(&mut self) -> bool {
        if self.sides.epochs.is_empty() && self.sides.names.is_empty() {
            return false;
        }
        let ends = self.lineage.iter().enumerate().map(|(at, turn)| (turn.epoch, self.end(at)));
        let ends: HashMap<StreamEpoch, u64> = ends.collect();
        let before = (self.sides.epochs.len(), self.sides.names.len());
        let parted = self.sides.parted(&ends);
        let low = self.low;
        let Sides { epochs, names, .. } = &mut self.sides;
        epochs.retain(|epoch, _| {
            let kept = parted.get(epoch).copied().flatten().is_some_and(|parted| parted >= low);
            !ends.contains_key(epoch) && kept
        });
        names.retain(|name, _| match ends.get(&name.epoch) {
            Some(end) => name.offset > *end && *end >= low,
            None => epochs.contains_key(&name.epoch),
        });
        before != (self.sides.epochs.len(), self.sides.names.len())
    }
}
