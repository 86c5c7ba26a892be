//! What a run did, and what all runs did together; and the rare things that must have happened.
use std::collections::BTreeMap;
use std::fmt;

use orbweb::ownership::owner::Counts;

/// Rare things that must have happened in a whole set of runs, or it has shown nothing of them.
const MARKS: [&str; 29] = [
    "attributes read",
    "claim incomplete",
    "claim rejected",
    "claim won",
    "committed late by a spare",
    "crash",
    "crash amid a claim",
    "crash amid a copy",
    "crash before replicate",
    "cut",
    "deaf for ever",
    "duplicate suppressed",
    "fenced with changes pending",
    "join",
    "leave",
    "mute for ever",
    "one-way cut",
    "parked, then served",
    "pause",
    "position recovered",
    "question deferred to a commit",
    "read checked",
    "repeated by key",
    "restart",
    "snapshot, then tail",
    "stray adopted",
    "subscribed and published in one breath",
    "taught before up",
    "user changed",
];

/// What went wrong on purpose, by class.
const FAULTS: [&str; 14] = [
    "crash",
    "restart",
    "pause",
    "taken for dead",
    "join",
    "leave",
    "cut",
    "one-way cut",
    "mute for ever",
    "deaf for ever",
    "two out for ever",
    "frame lost",
    "frame twice",
    "frame overtook others",
];

/// See the module.
#[derive(Clone, Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) runs: u64,
    pub(crate) virtual_ms: u64,
    pub(crate) acknowledged: u64,
    pub(crate) failed: u64,
    pub(crate) marks: BTreeMap<&'static str, u64>,
    pub(crate) fingerprint: u64,
}

impl Outcome {
    pub(crate) fn mark(&mut self, mark: &'static str, count: u64) {
        if count > 0 {
            *self.marks.entry(mark).or_insert(0) += count;
        }
    }

    /// Marks what a node's own counts say that happened between two events.
    pub(crate) fn mark_counts(&mut self, before: Counts, after: Counts) {
        for (mark, before, after) in [
            ("claim won", before.won, after.won),
            ("claim rejected", before.rejected, after.rejected),
            ("claim incomplete", before.incomplete, after.incomplete),
            ("fenced with changes pending", before.fenced, after.fenced),
            ("snapshot, then tail", before.copied, after.copied),
            ("committed late by a spare", before.spares, after.spares),
            ("parked, then served", before.replayed, after.replayed),
            ("duplicate suppressed", before.repeated, after.repeated),
            ("question deferred to a commit", before.deferred, after.deferred),
            ("stray adopted", before.adopted, after.adopted),
        ] {
            self.mark(mark, after - before);
        }
    }

    pub(crate) fn add(&mut self, other: &Self) {
        self.runs += other.runs;
        self.virtual_ms += other.virtual_ms;
        self.acknowledged += other.acknowledged;
        self.failed += other.failed;
        for (mark, count) in &other.marks {
            self.mark(mark, *count);
        }
    }

    pub(crate) fn unmet(&self) -> Vec<&'static str> {
        MARKS.into_iter().filter(|mark| !self.marks.contains_key(mark)).collect()
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hours = self.virtual_ms as f64 / 3_600_000.0;
        writeln!(
            f,
            "{} runs passed: {hours:.2} virtual hours, {} publications and {} changes of users \
             acknowledged, {} unknown",
            self.runs,
            self.acknowledged,
            self.marks.get("user changed").unwrap_or(&0),
            self.failed
        )?;
        writeln!(f, "faults:")?;
        for fault in FAULTS {
            writeln!(f, "  {fault}: {}", self.marks.get(fault).unwrap_or(&0))?;
        }
        writeln!(f, "what came of them:")?;
        for (mark, count) in self.marks.iter().filter(|(mark, _)| !FAULTS.contains(mark)) {
            writeln!(f, "  {mark}: {count}")?;
        }
        Ok(())
    }
}
