//! Presence at the end: whoever is subscribed is shown, and nobody else.
use std::collections::BTreeSet;

use anyhow::ensure;
use orbweb::protocol::ids::ClientId;

use crate::clients::Clients;

pub(crate) fn check(clients: &Clients) -> anyhow::Result<()> {
    for (channel, shown) in &clients.present {
        let here =
            clients.subscribers.iter().filter(|(_, s)| s.subscribed && s.channel == *channel);
        let here: BTreeSet<ClientId> = here.map(|(client, _)| *client).collect();
        let ghosts: Vec<&ClientId> = shown.difference(&here).collect();
        let unseen: Vec<&ClientId> = here.difference(shown).collect();
        ensure!(
            ghosts.is_empty() && unseen.is_empty(),
            "I8: presence of {channel}: {ghosts:?} are shown and gone, {unseen:?} are here and not shown"
        );
    }
    Ok(())
}
