//! What happened in a run of the cores: a fingerprint of every frame and every line, and the end of
//! the timeline for people. Shared by the world and by who reports why it failed, which outlives it.
use std::cell::RefCell;
use std::collections::VecDeque;
use std::fmt;
use std::rc::Rc;

use xxhash_rust::xxh3::Xxh3;

use crate::network::Flight;

/// Lines that are kept: what led to a failure is at the end.
const LINES_MAX: usize = 300;

/// See the module.
#[derive(Clone, Default)]
pub(crate) struct Timeline(Rc<RefCell<Told>>);

#[derive(Default)]
struct Told {
    hash: Xxh3,
    lines: VecDeque<String>,
    /// What goes to the terminal as it comes: nothing, the lines, or every frame, too.
    aloud: u8,
}

impl Timeline {
    pub(crate) fn new(aloud: u8) -> Self {
        Self(Rc::new(RefCell::new(Told { aloud, ..Told::default() })))
    }

    /// Something happened.
    pub(super) fn tell(&self, now: u64, event: impl fmt::Display) {
        let line = format!("{now:>8} {event}");
        let mut told = self.0.borrow_mut();
        told.hash.update(line.as_bytes());
        if told.aloud > 0 {
            print(&line);
        }
        if told.lines.len() == LINES_MAX {
            told.lines.pop_front();
        }
        told.lines.push_back(line);
    }

    /// A frame arrives.
    pub(super) fn frame(&self, now: u64, flight: &Flight) {
        let mut told = self.0.borrow_mut();
        told.hash.update(&now.to_le_bytes());
        told.hash.update(&flight.from.0.to_le_bytes());
        told.hash.update(&flight.to.0.to_le_bytes());
        told.hash.update(&[flight.lane as u8]);
        told.hash.update(flight.bytes());
        if told.aloud > 1 {
            print(&format!("{now:>8} {flight:?}"));
        }
    }

    pub(super) fn fingerprint(&self) -> u64 {
        self.0.borrow().hash.digest()
    }

    /// The last lines; none if they were told aloud.
    pub(crate) fn end(&self) -> String {
        let told = self.0.borrow();
        if told.aloud > 0 {
            return String::new();
        }
        told.lines.iter().flat_map(|line| [line.as_str(), "\n"]).collect()
    }
}

#[expect(clippy::print_stdout, reason = "asked for")]
fn print(line: &str) {
    println!("{line}");
}
