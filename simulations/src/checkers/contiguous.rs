//! I3: what a client accepts is contiguous but for announced gaps, and what it continues is what it
//! had. Offsets go on counting when the epoch changes, unless the stream was split; a resumed position
//! may have another name. After a split what a client saw on the other line isn't shown again under the
//! name that it has now: that nothing else was left out is I1, which `delivered` checks, as it does for
//! clients that don't tell which line they are on. Whoever sees nothing more until all rest after a split
//! learns only later where it stands: by what it sees next.
use anyhow::ensure;
use orbweb::protocol::ids::Position;

use crate::cluster::history::{History, Seen};

pub(crate) fn check(history: &History, split: bool) -> anyhow::Result<()> {
    for (reader, seen) in &history.seen {
        let (client, channel) = reader;
        if split && history.epochless.contains(client) {
            continue;
        }
        let mut at: Option<Position> = None;
        let mut further = history.further.contains(reader);
        for (index, event) in seen.iter().enumerate() {
            // The first publication since tells where it stands.
            let elsewhere = split || further;
            further &= event.number().is_none();
            let before = &seen[index.saturating_sub(3)..index];
            let place = || format!("client {client} in {channel}: {event:?} after {before:?}");
            at = Some(match (event, at) {
                (Seen::Began { position, .. }, _) => *position,
                (Seen::Continued(position), Some(held)) => {
                    let renamed = position.epoch != held.epoch;
                    // Whom the server subscribes is told where it stands behind what it had seen elsewhere.
                    let pushed = elsewhere && channel.inbox_user().is_some();
                    let ahead = pushed && position.offset > held.offset;
                    // Who goes over to the other part while it lasts is told where that part's knowledge
                    // of its line ends, and may see the rest again.
                    let back = split && position.offset < held.offset;
                    ensure!(renamed || ahead || back || *position == held, "I3: {}", place());
                    *position
                }
                (Seen::Publication(position, _), Some(held)) => {
                    let other_line = elsewhere && position.epoch != held.epoch;
                    let next = match elsewhere {
                        true => position.offset > held.offset,
                        false => position.offset == held.offset + 1,
                    };
                    ensure!(other_line || next, "I3: {}", place());
                    *position
                }
                (_, None) => anyhow::bail!("I3: {}", place()),
            });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use orbweb::protocol::channel::Channel;
    use orbweb::protocol::ids::StreamEpoch;

    use super::*;

    fn at(offset: u64) -> Position {
        Position { epoch: StreamEpoch::NONE, offset }
    }

    fn passes(channel: &str, split: bool, continued: u64) -> bool {
        let mut history = History::default();
        let channel = Channel::parse(channel).expect("a name of a few letters");
        let began = Seen::Began { position: at(4), at_ms: 0, gap: false };
        for seen in [began, Seen::Publication(at(5), 9), Seen::Continued(at(continued))] {
            history.see(0, &channel, seen);
        }
        check(&history, split).is_ok()
    }

    #[test]
    fn where_one_stands_after_a_split_is_learned_by_the_next_that_is_seen() {
        let channel = Channel::parse("#u1").expect("a name of a few letters");
        let rounds = |split: bool, further: &[u64]| {
            let mut history = History::default();
            history.see(0, &channel, Seen::Began { position: at(4), at_ms: 0, gap: false });
            history.settle(split);
            further
                .iter()
                .for_each(|offset| history.see(0, &channel, Seen::Publication(at(*offset), 1)));
            let first = check(&history, false).is_ok();
            history.settle(false);
            history.see(0, &channel, Seen::Publication(at(99), 1));
            (first, check(&history, false).is_ok())
        };
        assert_eq!(rounds(true, &[9, 10]), (true, false));
        assert_eq!(rounds(true, &[9, 11]), (false, false));
        assert_eq!(rounds(true, &[]), (true, true));
        assert_eq!(rounds(false, &[9]), (false, false));
        let mut back = History::default();
        back.see(0, &channel, Seen::Began { position: at(4), at_ms: 0, gap: false });
        back.settle(true);
        back.see(0, &channel, Seen::Continued(at(3)));
        assert!(
            check(&back, false).is_err(),
            "once the split is over nobody is told to stand further back"
        );
    }

    #[test]
    fn only_after_a_split_one_is_told_to_stand_elsewhere_and_further_only_in_inboxes() {
        for channel in ["#u1", "chat:1"] {
            assert!(passes(channel, false, 5) && passes(channel, true, 5));
            assert!(!passes(channel, false, 7));
            assert!(!passes(channel, false, 4) && passes(channel, true, 4));
        }
        assert!(passes("#u1", true, 7) && !passes("chat:1", true, 7));
    }
}
