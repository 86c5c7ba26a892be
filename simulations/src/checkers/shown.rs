//! I8 of whole nodes: whoever asks for who is in a channel is told of every client that is, by its user,
//! and of nobody else.
use std::collections::BTreeMap;

use anyhow::ensure;
use orbweb::protocol::channel::Channel;

use crate::cluster::history::History;
use crate::cluster::setup::Setup;

pub(crate) fn check(history: &History, setup: &Setup) -> anyhow::Result<()> {
    let mut there: BTreeMap<&Channel, Vec<String>> = BTreeMap::new();
    let attended = || history.expected.iter().filter(|(_, channel)| channel.inbox_user().is_none());
    for (client, channel) in attended() {
        there.entry(channel).or_default().push(setup.user(*client).unwrap_or_default());
    }
    there.values_mut().for_each(|users| users.sort_unstable());
    for asked in attended() {
        let (client, channel) = asked;
        let shown = history.present.get(asked);
        let there = there.get(channel);
        ensure!(
            shown == there,
            "I8: client {client} is told that {shown:?} are in {channel}, there are {there:?}"
        );
    }
    Ok(())
}
