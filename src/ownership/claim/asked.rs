//! How far a node is with its answer to a claimant: what it was asked, which parts of the answer
//! have come, and what is still being pulled from it. It counts and never asks by itself.
use std::collections::{BTreeMap, BTreeSet};

use crate::protocol::time::Millis;

/// Answers of one node that are put together at once; of more the oldest is given up.
const ANSWERS_MAX: usize = 8;

/// The parts of an answer that have come, and how many it has.
#[derive(Clone, Debug, Default)]
struct Parts {
    here: BTreeSet<u32>,
    total: Option<u32>,
}

/// How far a node is with its answer.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    /// When it was asked first.
    pub(super) since: Millis,
    pub(super) heard: Millis,
    /// Questions since then.
    pub(super) tries: u64,
    /// The last question.
    pub(super) attempt: u32,
    /// The answers, by the question: over a slow link one comes when the next was asked already.
    answers: BTreeMap<u32, Parts>,
    pub(super) promised: bool,
    pub(super) pulls: BTreeSet<u64>,
    pub(super) missing: bool,
}

impl Asked {
    /// Is asked for the first time.
    pub(super) fn new(now: Millis) -> Self {
        Self {
            since: now,
            heard: now,
            tries: 0,
            attempt: 0,
            answers: BTreeMap::new(),
            promised: false,
            pulls: BTreeSet::new(),
            missing: false,
        }
    }

    pub(super) fn done(&self) -> bool {
        self.promised && self.pulls.is_empty()
    }

    /// The number of one more question, as the last one or its answer may be lost.
    pub(super) fn ask_again(&mut self) -> u32 {
        self.attempt += 1;
        self.attempt
    }

    /// The same where what was pulled for an answer may be lost: what came of any doesn't count.
    pub(super) fn begin_again(&mut self) -> u32 {
        self.pulls.clear();
        self.promised = false;
        self.answers.clear();
        self.ask_again()
    }

    /// Notes a part of an answer. A node has promised once all parts of one answer are here, whichever
    /// question it is to.
    pub(super) fn note_part(&mut self, attempt: u32, part: u32, last: bool) {
        if self.promised || attempt > self.attempt {
            return;
        }
        let parts = self.answers.entry(attempt).or_default();
        parts.here.insert(part);
        if last {
            parts.total = Some(part.saturating_add(1));
        }
        let whole = |total: u32| parts.here.range(..total).count() == total as usize;
        self.promised = parts.total.is_some_and(whole);
        if self.promised {
            self.answers.clear();
        } else if self.answers.len() > ANSWERS_MAX {
            self.answers.pop_first();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_counts_though_the_next_was_asked_for_already() {
        let mut asked = Asked::new(Millis(0));
        asked.note_part(0, 0, false);
        assert_eq!(asked.ask_again(), 1);
        asked.note_part(1, 0, false);
        asked.note_part(2, 1, true);
        assert!(!asked.promised, "nothing was asked for a second time");
        asked.note_part(0, 1, true);
        assert!(asked.done());
    }

    #[test]
    fn parts_of_two_answers_are_no_answer() {
        let mut asked = Asked::new(Millis(0));
        asked.note_part(0, 0, false);
        asked.ask_again();
        asked.note_part(1, 1, true);
        assert!(!asked.promised);
        asked.note_part(1, 0, false);
        assert!(asked.promised);
    }

    #[test]
    fn what_came_before_all_was_asked_for_anew_does_not_count() {
        let mut asked = Asked::new(Millis(0));
        asked.note_part(0, 0, false);
        asked.begin_again();
        asked.note_part(0, 1, true);
        assert!(!asked.promised, "what the first part lacked was pulled, and lost");
        asked.note_part(0, 0, false);
        assert!(asked.promised, "it came twice");
    }
}
