//! What happened in a run: a fingerprint of every datagram and every event of a client, and a
//! timeline for people.
use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use xxhash_rust::xxh3::Xxh3;

use super::clock::now_ms;

/// Lines of the timeline that are kept: what led to a failure is at its end.
const LINES_MAX: usize = 400;

/// Shared by everything that has something to tell.
#[derive(Clone, Default)]
pub(crate) struct Trace(Arc<Mutex<Told>>);

#[derive(Default)]
struct Told {
    hash: Xxh3,
    datagrams: u64,
    lines: VecDeque<String>,
    /// What goes to the terminal as it comes: nothing, the timeline, or every event.
    aloud: u8,
}

impl Trace {
    pub(crate) fn new(aloud: u8) -> Self {
        Self(Arc::new(Mutex::new(Told { aloud, ..Told::default() })))
    }

    /// A datagram was sent.
    pub(crate) fn datagram(&self, from: u32, to: u32, length: usize) {
        let mut told = self.lock();
        told.datagrams += 1;
        told.hash.update(&now_ms().to_le_bytes());
        told.hash.update(&from.to_le_bytes());
        told.hash.update(&to.to_le_bytes());
        told.hash.update(&(length as u32).to_le_bytes());
    }

    /// Something for the fingerprint alone.
    pub(crate) fn event(&self, event: impl fmt::Display) {
        self.add(&event, 2);
    }

    /// Something for the fingerprint and the timeline.
    pub(crate) fn tell(&self, event: impl fmt::Display) {
        let line = self.add(&event, 1);
        let mut told = self.lock();
        if told.lines.len() == LINES_MAX {
            told.lines.pop_front();
        }
        told.lines.push_back(line);
    }

    fn add(&self, event: &impl fmt::Display, level: u8) -> String {
        let line = format!("{:>8} ms  {event}", now_ms());
        let mut told = self.lock();
        told.hash.update(line.as_bytes());
        if told.aloud >= level {
            println!("{line}");
        }
        line
    }

    pub(crate) fn fingerprint(&self) -> u64 {
        self.lock().hash.digest()
    }

    pub(crate) fn datagrams(&self) -> u64 {
        self.lock().datagrams
    }

    /// The end of the timeline; nothing if it was told aloud.
    pub(crate) fn timeline(&self) -> String {
        let told = self.lock();
        if told.aloud > 0 {
            return String::new();
        }
        told.lines.iter().flat_map(|line| [line.as_str(), "\n"]).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Told> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
