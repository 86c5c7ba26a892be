//! Reads are current: what was acknowledged before somebody asked is in the answer, also while an old
//! owner doesn't know of the new one. Holds where nobody is taken for dead before its leases are
//! over: a claimant doesn't wait for them. Nor does it ask others that it takes for dead by
//! mistake, who may still confirm the old owner.
use anyhow::ensure;
use orbweb::ownership::stream::READ_LEN_MAX;
use orbweb::protocol::channel::Channel;

use crate::clients::Clients;

/// Publications looked for, the last acknowledged ones: an answer carries no more than 300.
const LOOKED_FOR: usize = 40;

pub(crate) fn check(
    clients: &Clients,
    channel: &Channel,
    acknowledged: usize,
    answer: &[u64],
) -> anyhow::Result<()> {
    let before = clients.acknowledged.get(channel).map_or(&[][..], |all| &all[..acknowledged]);
    // Of a long stream the answer is only the end. Payloads that were sent again may stand late in
    // it, so its beginning is where no payload of its older half is higher.
    let long = answer.len() == READ_LEN_MAX;
    let oldest = answer[answer.len() / 2..].iter().max().filter(|_| long);
    let looked_for = |payload: &&u64| oldest.is_none_or(|oldest| *payload > oldest);
    for payload in before.iter().rev().take(LOOKED_FOR).filter(looked_for) {
        ensure!(
            answer.contains(payload),
            "I1: stale read: publication {payload} to {channel} was acknowledged before and isn't in {answer:?}"
        );
    }
    Ok(())
}
