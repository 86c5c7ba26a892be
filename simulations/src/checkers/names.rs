//! I2: a stream's epoch and offset name one publication for ever, on every node and client.
use std::collections::BTreeMap;

use anyhow::ensure;
use orbweb::protocol::channel::Channel;
use orbweb::protocol::ids::Position;

use crate::cluster::history::{History, Seen};

/// All names that were ever seen, and what they named.
#[derive(Default)]
pub(crate) struct Names {
    seen: BTreeMap<Channel, BTreeMap<Position, u64>>,
}

impl Names {
    pub(crate) fn check(
        &mut self,
        channel: &Channel,
        position: Position,
        payload: u64,
    ) -> anyhow::Result<()> {
        let named = self.seen.entry(channel.clone()).or_default().entry(position);
        let before = *named.or_insert(payload);
        ensure!(
            before == payload,
            "I2: {position:?} of {channel} named publication {before} and now {payload}"
        );
        Ok(())
    }

    /// The same of everything that clients have seen since the last rest, and of what was seen before.
    pub(crate) fn check_seen(&mut self, history: &History) -> anyhow::Result<()> {
        let named = history.seen.iter().filter(|((who, _), _)| !history.epochless.contains(who));
        for ((_, channel), seen) in named {
            for event in seen {
                if let Seen::Publication(position, number) = event {
                    self.check(channel, *position, *number)?;
                }
            }
        }
        Ok(())
    }
}

/// The same of everything that clients of whole nodes saw.
pub(crate) fn check_all(history: &History) -> anyhow::Result<()> {
    Names::default().check_seen(history)
}
