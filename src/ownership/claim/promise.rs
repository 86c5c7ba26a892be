//! The answering side of a claim: a node promises what it can, says what it holds and wants of the
//! slots, and ends its own part in them. The answer leaves in parts.
use std::collections::BTreeSet;

use crate::ownership::audience::{self, Audience, in_parts};
use crate::ownership::out::Out;
use crate::ownership::owner::{INCOMPLETE_MS, KNOWN_MAX, Ownership};
use crate::protocol::ids::{Epoch, Incarnation, Slot};
use crate::protocol::peer::{ChannelInterest, Lane, PeerFrame, SlotInterest, SlotRange, Vanished};
use crate::protocol::time::Millis;

/// Slots named in one part of an answer, which keeps parts under some 100 KiB.
const ANSWER_SLOTS: usize = 2_048;

/// The parts of `PeerFrame::Promise` beside the claim's number.
pub(in crate::ownership) struct PromiseAnswer {
    pub(in crate::ownership) rejected: Vec<(Slot, Epoch)>,
    pub(in crate::ownership) digests: Vec<(Slot, u64)>,
    pub(in crate::ownership) interest: Vec<SlotInterest>,
    pub(in crate::ownership) live: Vec<Incarnation>,
    pub(in crate::ownership) vanished: Vec<Vanished>,
    pub(in crate::ownership) attempt: u32,
    pub(in crate::ownership) part: u32,
    pub(in crate::ownership) last: bool,
}

impl Ownership {
    /// Promises what can be promised and answers with what is held here. `interest` is this node's
    /// own interest in the slots.
    pub fn handle_prepare(
        &mut self,
        from: Incarnation,
        (claim, attempt): (u64, u32),
        slots: &[(SlotRange, u64)],
        interest: impl Fn(Slot) -> Vec<ChannelInterest>,
        now: Millis,
        out: &mut Out,
    ) {
        let mut rejected = Vec::new();
        let mut digests = Vec::new();
        let mut wanted = Vec::new();
        // Gateways that this owner serves may be unknown to the claimant: they must be asked, too.
        let mut live: BTreeSet<Incarnation> = self.world.live.iter().copied().collect();
        for (range, term) in slots {
            for slot in range.iter().filter(|slot| self.table.contains(*slot)).collect::<Vec<_>>() {
                let epoch = Epoch { term: *term, owner: from };
                live.extend(self.audiences.get(&slot).into_iter().flat_map(Audience::all_gateways));
                if let Some(higher) = self.promise_to(slot, epoch, now) {
                    rejected.push((slot, higher));
                    continue;
                }
                // The next owner takes in what this one made before it serves.
                if let Some(doubtful) = self.doubtful.get_mut(&slot) {
                    doubtful.settle(*term);
                }
                let holding = self.holdings.get(&slot).filter(|holding| !holding.is_empty());
                if let Some(digest) = holding.map(|holding| holding.digest()) {
                    digests.push((slot, digest));
                    self.note_told(slot, digest);
                }
                let interest = in_parts(interest(slot));
                let interest = interest.into_iter().filter(|(channels, _)| !channels.is_empty());
                wanted.extend(interest.map(|(channels, _)| SlotInterest { slot, channels }));
                if from != self.me {
                    // What waited for this node's claim goes on to the new claimant.
                    self.replay_elsewhere(slot, from, out);
                }
            }
        }
        let seen = (live.into_iter().collect(), self.seen_vanish(now));
        for frame in parts((claim, attempt), rejected, digests, wanted, seen) {
            out.send(from, Lane::Data, frame);
        }
    }

    /// Which members vanished so short a time ago that the claimant must allow for it. Who left in order
    /// had nothing that others lack.
    fn seen_vanish(&self, now: Millis) -> Vec<Vanished> {
        let members = self.departed.iter().filter(|(_, departed)| departed.member);
        let seen = members.map(|(node, departed)| Vanished {
            node: *node,
            ago_ms: u32::try_from(now.since(departed.at)).unwrap_or(u32::MAX),
        });
        seen.filter(|vanished| u64::from(vanished.ago_ms) < INCOMPLETE_MS).collect()
    }

    /// Takes in who vanished, as others saw it: this node may have been elsewhere, or not there yet.
    pub(super) fn hear_vanished(&mut self, vanished: &[Vanished], now: Millis) {
        for Vanished { node, ago_ms } in vanished.iter().copied() {
            let full = self.heard_departed.len() >= KNOWN_MAX;
            if full || node == self.me || self.world.lives(node) {
                continue;
            }
            let at = Millis(now.0.saturating_sub(ago_ms.into()));
            let heard = self.heard_departed.entry(node).or_insert(at);
            *heard = at.max(*heard);
            self.known.insert(node);
        }
    }

    fn replay_elsewhere(&mut self, slot: Slot, owner: Incarnation, out: &mut Out) {
        for waiting in self.parked.take(slot) {
            self.bounce(waiting, Some(owner), out);
        }
    }
}

/// An answer in parts, the last of which says so.
fn parts(
    (claim, attempt): (u64, u32),
    rejected: Vec<(Slot, Epoch)>,
    digests: Vec<(Slot, u64)>,
    wanted: Vec<SlotInterest>,
    (living, gone): (Vec<Incarnation>, Vec<Vanished>),
) -> Vec<PeerFrame> {
    let mut frames = Vec::new();
    let mut push =
        |rejected: &[(Slot, Epoch)], digests: &[(Slot, u64)], interest: &[SlotInterest]| {
            let part = frames.len() as u32;
            frames.push(PeerFrame::Promise {
                claim,
                attempt,
                part,
                rejected: rejected.to_vec(),
                digests: digests.to_vec(),
                interest: interest.to_vec(),
                live: vec![],
                vanished: vec![],
                last: false,
            });
        };
    rejected.chunks(ANSWER_SLOTS).for_each(|chunk| push(chunk, &[], &[]));
    digests.chunks(ANSWER_SLOTS).for_each(|chunk| push(&[], chunk, &[]));
    let mut first = 0;
    let mut bytes = 0;
    for (at, slot) in wanted.iter().enumerate() {
        let more = audience::bytes(&slot.channels);
        if bytes + more > audience::PART_BYTES && at > first {
            push(&[], &[], &wanted[first..at]);
            (first, bytes) = (at, 0);
        }
        bytes += more;
    }
    push(&[], &[], &wanted[first..]);
    if let Some(PeerFrame::Promise { live, vanished, last, .. }) = frames.last_mut() {
        (*live, *vanished, *last) = (living, gone, true);
    }
    frames
}
