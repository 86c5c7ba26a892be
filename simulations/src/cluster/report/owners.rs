//! A row for each of the busiest channels: who owns its slot, as each node says for itself.
use std::collections::{BTreeMap, BTreeSet};

use orbweb::protocol::channel::Channel;
use orbweb::protocol::ids::Slot;
use orbweb::protocol::peer::SlotRange;

use super::canvas::{Canvas, ROW};
use super::span::{Time, Track};
use crate::checkers::delivered::Acknowledged;
use crate::cluster::history::History;
use crate::cluster::setup::{Setup, name};
use crate::cluster::story::Mark;

/// Channels that are shown.
const CHANNELS: usize = 6;
/// Publications that are shown to be missed, of a channel.
const MISSED_MAX: usize = 20;
/// Colours of nodes.
const COLOURS: usize = 8;

pub(super) fn draw(
    marks: &[(u64, Mark)],
    history: &History,
    (setup, failure): (&Setup, &str),
    canvas: &mut Canvas,
) {
    canvas.title(
        "owners",
        "of the slots of the busiest channels and of those that the failure names; who leaves owns \
         until another does; striped: nobody; ✕ sent, acknowledged, and never seen by somebody",
    );
    for channel in shown(history, failure) {
        let slot = channel.slot(setup.slots);
        canvas.row(channel.as_str(), ROW, |canvas, y, height| {
            for (time, owners) in owners(marks, slot).finish(canvas.end_ms()) {
                draw_owners(canvas, (time, &owners), (y, height), slot);
            }
            let missed = missed(history, &channel).into_iter().take(MISSED_MAX);
            for (at_ms, what) in missed.filter(|_| !failure.is_empty()) {
                canvas.sign("missed", at_ms, y + height - 7.0, "✕", &what);
            }
        });
    }
}

fn draw_owners(
    canvas: &mut Canvas,
    (time, owners): (Time, &[usize]),
    (y, height): (f64, f64),
    slot: Slot,
) {
    let each = height / owners.len().max(1) as f64;
    for (place, node) in owners.iter().enumerate() {
        let y = y + place as f64 * each;
        let class = format!("owner o{}", node % COLOURS);
        canvas.bar(&class, time, (y, each), &format!("{} owns {slot:?}", name(*node)));
        canvas.within(time, y + each / 2.0 + 8.0, &name(*node));
    }
    match owners.len() {
        0 => canvas.bar("nobody", time, (y, height), "nobody owns it"),
        1 => {}
        _ => canvas.bar("several", time, (y, height), "more than one own it"),
    }
}

/// Each publication of a channel that somebody never saw and should have: when it was sent, and who.
fn missed(history: &History, channel: &Channel) -> BTreeMap<u64, String> {
    let acknowledged = Acknowledged::of(history);
    let mut missed = BTreeMap::new();
    for reader in history.expected.iter().filter(|(_, followed)| followed == channel) {
        for number in acknowledged.missed(history, reader) {
            let sent = &history.sent[number as usize];
            let by = format!("{number}, from client {}, missed by {}", sent.client, reader.0);
            missed.entry(sent.at_ms).or_insert(by);
        }
    }
    missed
}

/// Those that the failure names, then those to which most was sent.
fn shown(history: &History, failure: &str) -> Vec<Channel> {
    let words = || failure.split(|letter: char| letter.is_whitespace() || letter == ';');
    let words = || words().map(|word| word.trim_end_matches([':', ',']));
    let (mut named, others): (Vec<_>, Vec<_>) = busiest(history)
        .into_iter()
        .partition(|channel| words().any(|word| word == channel.as_str()));
    named.extend(others);
    named.truncate(CHANNELS);
    named
}

/// All channels, those first to which most was sent.
fn busiest(history: &History) -> Vec<Channel> {
    let mut sent: BTreeMap<&Channel, usize> = BTreeMap::new();
    for publication in &history.sent {
        *sent.entry(&publication.channel).or_default() += 1;
    }
    let mut channels: Vec<_> = sent.into_iter().collect();
    channels.sort_by_key(|(channel, sent)| (usize::MAX - sent, *channel));
    channels.into_iter().map(|(channel, _)| channel.clone()).collect()
}

fn owners(marks: &[(u64, Mark)], slot: Slot) -> Track<Vec<usize>> {
    let (mut owning, mut leaving) = (BTreeSet::new(), BTreeSet::new());
    let mut track = Track::default();
    let includes = |ranges: &[SlotRange]| ranges.iter().any(|r| r.first <= slot && slot <= r.last);
    for (at_ms, mark) in marks {
        match mark {
            Mark::Owns(node, ranges) if includes(ranges) => {
                owning.retain(|other| !leaving.contains(other));
                owning.insert(*node);
            }
            Mark::Owns(node, _) | Mark::Killed(node) | Mark::Left(node) => {
                owning.remove(node);
            }
            Mark::Leaves(node) => _ = leaving.insert(*node),
            Mark::Started(node) => _ = leaving.remove(node),
            _ => continue,
        }
        // Before anybody has owned it there is nobody whom it could lack.
        if !owning.is_empty() || track.has_begun() {
            track.set(*at_ms, Some(owning.iter().copied().collect()));
        }
    }
    track
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::history::Sent;

    #[test]
    fn who_leaves_owns_until_another_does() {
        let ranges = vec![SlotRange { first: Slot(3), last: Slot(5) }];
        let marks = [
            (0, Mark::Started(1)),
            (10, Mark::Owns(1, ranges.clone())),
            (20, Mark::Owns(2, ranges.clone())),
            (30, Mark::Owns(2, Vec::new())),
            (40, Mark::Leaves(1)),
            (50, Mark::Owns(0, ranges)),
            (60, Mark::Killed(0)),
        ];
        let spans = owners(&marks, Slot(4)).finish(70);
        let expected = [
            ((10, 20), vec![1]),
            ((20, 30), vec![1, 2]),
            ((30, 50), vec![1]),
            ((50, 60), vec![0]),
            ((60, 70), vec![]),
        ];
        assert_eq!(spans, expected);
    }

    #[test]
    fn channels_that_the_failure_names_come_first() {
        let channel = |number: u64| Channel::parse(&format!("chat:{number}")).expect("a name");
        let mut history = History::default();
        for number in [1, 1, 1, 12, 12, 2] {
            let (at_ms, acknowledged) = (0, true);
            let channel = channel(number);
            history.sent.push(Sent { client: 0, connection: 0, channel, at_ms, acknowledged });
        }
        assert_eq!(shown(&history, ""), [channel(1), channel(12), channel(2)]);
        let missed = "I1: client 0 never saw [4] of chat:12; it began at Some(849) ms";
        assert_eq!(shown(&history, missed), [channel(12), channel(1), channel(2)]);
    }
}
