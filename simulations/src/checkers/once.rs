//! I9: nothing appears that was never sent to the channel, and nothing twice to the same client.
//! Where a cluster was split, what came from both sides may come again, rather than be lost.
use std::collections::BTreeSet;

use anyhow::ensure;

use crate::cluster::history::{History, Seen};

pub(crate) fn check(history: &History, split: bool) -> anyhow::Result<()> {
    for ((client, channel), seen) in &history.seen {
        let mut received = BTreeSet::new();
        for number in seen.iter().filter_map(Seen::number) {
            let sent = history.sent.get(number as usize);
            let ours = sent.is_some_and(|sent| sent.channel == *channel);
            ensure!(ours, "I9: client {client} saw {number} in {channel}, which nobody sent there");
            let first = received.insert(number);
            ensure!(split || first, "I9: client {client} saw {number} of {channel} twice");
            // What nobody knew to be published when all was at rest is never published.
            let in_time = number >= history.settled as u64;
            ensure!(
                split || in_time,
                "I9: client {client} saw {number} of {channel} after a rest; it was sent before that, at \
                 {} ms, acknowledged: {}",
                history.sent[number as usize].at_ms,
                history.sent[number as usize].acknowledged
            );
        }
    }
    Ok(())
}
