//! Reads are current: what was acknowledged before somebody asked is in the answer, also while an old
//! owner doesn't know of the new one.
//!
//! Always so where nobody is taken for dead before its leases are over. Where that happens, a claimant
//! doesn't wait for leases, nor does it ask others that it takes for dead by mistake, who may still
//! confirm the old owner. Then an old owner may lack what the new one acknowledged for as long as
//! somebody confirms it that promised the slot to nobody else; and the new one what the old one
//! acknowledged, if it doesn't reach who holds that.
use orbweb::ownership::stream::READ_LEN_MAX;
use orbweb::protocol::channel::Channel;
use orbweb::protocol::ids::{Epoch, Incarnation, Slot};

use super::promises::Promises;
use crate::clients::Clients;

/// Publications looked for, the last acknowledged ones: an answer carries no more than 300.
const LOOKED_FOR: usize = 40;
/// How long an owner believes who confirmed it.
pub(crate) const LEASE_MS: u64 = 500;

/// What an answer lacks of those that were acknowledged before it was asked for.
pub(crate) fn lacked(
    clients: &Clients,
    channel: &Channel,
    acknowledged: usize,
    answer: &[u64],
) -> Option<u64> {
    let before = clients.acknowledged.get(channel).map_or(&[][..], |all| &all[..acknowledged]);
    // Of a long stream the answer is only the end. Payloads that were sent again may stand late in
    // it, so its beginning is where no payload of its older half is higher.
    let long = answer.len() == READ_LEN_MAX;
    let oldest = answer[answer.len() / 2..].iter().max().filter(|_| long);
    let looked_for = |payload: &&u64| oldest.is_none_or(|oldest| *payload > oldest);
    let mut last = before.iter().rev().take(LOOKED_FOR).filter(looked_for);
    last.find(|payload| !answer.contains(payload)).copied()
}

/// Whether an owner may lack what was acknowledged in another ownership, when asked by somebody at a
/// time. `others`: whoever lived since and can have confirmed it.
pub(crate) fn may_lack(
    promises: &Promises,
    (slot, own, acknowledged_under): (Slot, Epoch, Epoch),
    mut others: impl Iterator<Item = Incarnation>,
    asked: u64,
) -> bool {
    let leased = asked.saturating_sub(LEASE_MS);
    // It asked somebody for its lease, after `leased`, who promised nothing higher until then.
    let mut confirmed = || others.any(|node| promises.at(slot, node, leased) <= own);
    acknowledged_under < own || acknowledged_under > own && confirmed()
}
