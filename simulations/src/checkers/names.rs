//! I2: a stream's epoch and offset name one publication for ever, on every node and client.
use std::collections::BTreeMap;

use anyhow::ensure;
use orbweb::protocol::channel::Channel;
use orbweb::protocol::ids::Position;

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
}
