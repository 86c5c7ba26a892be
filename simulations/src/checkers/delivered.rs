//! I1: what was acknowledged is seen by every client that followed the channel before it was sent and
//! kept its position, unless it was told that something is lost to it.
use std::collections::{BTreeMap, BTreeSet};

use anyhow::ensure;
use orbweb::protocol::channel::Channel;

use crate::cluster::history::{Client, History, Seen};

pub(crate) fn check(history: &History) -> anyhow::Result<()> {
    let acknowledged = Acknowledged::of(history);
    for reader in &history.expected {
        let (client, channel) = reader;
        let began = began(history, reader);
        ensure!(began.is_some(), "I1: client {client} never got into {channel}");
        let missed = acknowledged.missed(history, reader);
        ensure!(
            missed.is_empty(),
            "I1: client {client} never saw {missed:?} of {channel}; it began at {began:?} ms"
        );
    }
    Ok(())
}

/// How many acknowledged publications some client hasn't seen that should have.
pub(crate) fn lost(history: &History) -> usize {
    let acknowledged = Acknowledged::of(history);
    let missed = history.expected.iter().flat_map(|reader| acknowledged.missed(history, reader));
    missed.collect::<BTreeSet<u64>>().len()
}

/// What was acknowledged since the last rest, by channel: numbers, and when they were sent.
pub(crate) struct Acknowledged<'a>(BTreeMap<&'a Channel, Vec<(u64, u64)>>);

impl<'a> Acknowledged<'a> {
    pub(crate) fn of(history: &'a History) -> Self {
        let mut acknowledged: BTreeMap<_, Vec<_>> = BTreeMap::new();
        let unchecked = (0..).zip(&history.sent).skip(history.settled);
        for (number, sent) in unchecked.filter(|(_, sent)| sent.acknowledged) {
            acknowledged.entry(&sent.channel).or_default().push((number, sent.at_ms));
        }
        Self(acknowledged)
    }

    /// What a client never saw of a channel, though it should have come; by number.
    pub(crate) fn missed(&self, history: &History, reader: &(Client, Channel)) -> Vec<u64> {
        let received: BTreeSet<u64> = seen(history, reader).filter_map(Seen::number).collect();
        let began = began(history, reader);
        let expected = self.0.get(&reader.1).into_iter().flatten();
        let expected = expected.filter(|(_, at_ms)| Some(*at_ms) > began);
        expected.map(|(number, _)| *number).filter(|number| !received.contains(number)).collect()
    }
}

/// Since when it follows the channel, without a gap.
fn began(history: &History, reader: &(Client, Channel)) -> Option<u64> {
    seen(history, reader).rev().find_map(|seen| match seen {
        Seen::Began { at_ms, .. } => Some(*at_ms),
        _ => None,
    })
}

fn seen<'a>(
    history: &'a History,
    reader: &(Client, Channel),
) -> impl DoubleEndedIterator<Item = &'a Seen> {
    history.seen.get(reader).into_iter().flatten()
}
