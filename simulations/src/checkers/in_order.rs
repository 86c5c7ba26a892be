//! I7: what one connection sent to a channel, every subscriber sees in the order in which it was
//! sent. Holds in every run without a split or a pause.
use std::collections::BTreeMap;

use anyhow::ensure;

use crate::cluster::history::{History, Seen};

pub(crate) fn check(history: &History) -> anyhow::Result<()> {
    for ((client, channel), seen) in &history.seen {
        let mut last: BTreeMap<_, u64> = BTreeMap::new();
        for number in seen.iter().filter_map(Seen::number) {
            let Some(sent) = history.sent.get(number as usize) else { continue };
            let before = last.insert((sent.client, sent.connection), number);
            ensure!(
                before < Some(number),
                "I7: client {client} saw {number} of {channel} after {before:?}, which client {} sent later",
                sent.client
            );
        }
    }
    Ok(())
}
