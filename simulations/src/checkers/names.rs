//! I2: a stream's epoch and offset name one publication for ever, on every node and client. I7: within
//! an epoch what one node sent keeps its order.
use std::collections::{BTreeMap, BTreeSet};

use anyhow::ensure;
use orbweb::protocol::channel::Channel;
use orbweb::protocol::ids::{Incarnation, Position, StreamEpoch};

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

    /// I7: within an epoch a sender's publications are in the order in which it sent them; but what
    /// had a name in an earlier epoch comes behind the rest where lines were merged. By whom each was
    /// sent, if it was sent once.
    pub(crate) fn check_order(&self, sent_by: &[Option<Incarnation>]) -> anyhow::Result<()> {
        for (channel, named) in &self.seen {
            let mut last: BTreeMap<(StreamEpoch, Incarnation), u64> = BTreeMap::new();
            let mut before = BTreeSet::new();
            for (position, payload) in named.iter().filter(|(_, payload)| before.insert(**payload))
            {
                let Some(Some(sender)) = sent_by.get(*payload as usize) else { continue };
                let before = last.insert((position.epoch, *sender), *payload);
                ensure!(
                    before < Some(*payload),
                    "I7: {position:?} of {channel} is {payload} of {sender:?}, behind {before:?}"
                );
            }
        }
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
