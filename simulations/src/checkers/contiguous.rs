//! I3: what a client accepts is contiguous but for announced gaps, and what it continues is what it
//! had. Offsets go on counting when the epoch changes, unless the stream was split; a resumed position
//! may have another name. After a split what a client saw on the other line isn't shown again under the
//! name that it has now: that nothing else was left out is I1, which `delivered` checks, as it does for
//! clients that don't tell which line they are on.
use anyhow::ensure;
use orbweb::protocol::ids::Position;

use crate::cluster::history::{History, Seen};

pub(crate) fn check(history: &History, split: bool) -> anyhow::Result<()> {
    for ((client, channel), seen) in &history.seen {
        if split && history.epochless.contains(client) {
            continue;
        }
        let mut at: Option<Position> = None;
        for (index, event) in seen.iter().enumerate() {
            let before = &seen[index.saturating_sub(3)..index];
            let place = || format!("client {client} in {channel}: {event:?} after {before:?}");
            at = Some(match (event, at) {
                (Seen::Began { position, .. }, _) => *position,
                (Seen::Continued(position), Some(held)) => {
                    let renamed = position.epoch != held.epoch;
                    // Whom the server subscribes is told where it stands behind what it had seen elsewhere.
                    let pushed = split && channel.inbox_user().is_some();
                    let further = pushed && position.offset > held.offset;
                    ensure!(renamed || further || *position == held, "I3: {}", place());
                    *position
                }
                (Seen::Publication(position, _), Some(held)) => {
                    let elsewhere = split && position.epoch != held.epoch;
                    let next = match split {
                        true => position.offset > held.offset,
                        false => position.offset == held.offset + 1,
                    };
                    ensure!(elsewhere || next, "I3: {}", place());
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
    fn only_whom_the_server_subscribes_is_told_that_it_stands_further_and_only_after_a_split() {
        for channel in ["#u1", "chat:1"] {
            assert!(passes(channel, false, 5) && passes(channel, true, 5));
            assert!(!passes(channel, false, 7));
            assert!(!passes(channel, false, 4) && !passes(channel, true, 4));
        }
        assert!(passes("#u1", true, 7) && !passes("chat:1", true, 7));
    }
}
