//! What an owner does for gateways: operations, questions, interest.
mod answers;
mod interest;
mod operations;

use super::audience::Gateways;
use super::log::Waiting;
use super::out::Out;
use super::owner::{Gate, INCOMPLETE_MS, Ownership};
use super::parked::Request;
use super::table::Role;
use crate::mutant::{Rule, without};
use crate::protocol::channel::Channel;
use crate::protocol::ids::{Epoch, Incarnation, Position, Slot};
use crate::protocol::message::Publication;
use crate::protocol::peer::{Lane, PeerFrame};
use crate::protocol::time::Millis;

/// Questions that may wait for one change to be committed; over it they are refused for now.
const DEFERRED_MAX: usize = 1_024;

impl Ownership {
    /// Serves a frame, keeps it for later, or says who owns the slot.
    pub(super) fn handle_request(
        &mut self,
        from: Incarnation,
        frame: PeerFrame,
        now: Millis,
        out: &mut Out,
    ) {
        if let PeerFrame::Digest { slots } = frame {
            return self.compare_interest(from, &slots, now, out);
        }
        self.requests += 1;
        self.take_request(Request { order: self.requests, from, frame, since: now }, now, out);
    }

    /// Serves a request, unless it must wait for what its sender sent before.
    pub(super) fn take_request(&mut self, request: Request, now: Millis, out: &mut Out) {
        let Some((slot, epoch)) = place(&request.frame) else { return };
        let serves = matches!(self.gate(slot, epoch, now), Gate::Serve);
        if !serves || self.parked.waits_before(slot, &request) {
            return self.take_turn(request, now, out);
        }
        // Before anything that comes behind it is shown: whether this node is still the owner is asked
        // when a question comes, not again when it has waited for a commit.
        let waits = match &request.frame {
            PeerFrame::Ask { .. } => !self.is_current(slot, now),
            PeerFrame::Operation(_) => !self.takes_operations(slot, now),
            _ => false,
        };
        if waits {
            return self.park(slot, request, out);
        }
        let request = self.defer_behind(slot, request, out);
        request.into_iter().for_each(|request| self.take_turn(request, now, out));
    }

    /// Serves a request that need not wait for what its sender sent before, unless that is parked.
    pub(super) fn take_turn(&mut self, request: Request, now: Millis, out: &mut Out) {
        let Some((slot, epoch)) = place(&request.frame) else { return };
        match self.gate(slot, epoch, now) {
            Gate::Serve if self.parked.waits_before(slot, &request) => {
                self.park(slot, request, out);
            }
            Gate::Serve => self.serve(request, now, out),
            Gate::Park => self.park(slot, request, out),
            Gate::Elsewhere(owner) => match request.frame {
                PeerFrame::Fanout { slot, channel, message, forwarded: false } => {
                    if let Some(owner) = owner {
                        let frame = PeerFrame::Fanout { slot, channel, message, forwarded: true };
                        out.send(owner, Lane::Data, frame);
                    }
                }
                _ => self.bounce(request, owner, out),
            },
        }
    }

    fn serve(&mut self, request: Request, now: Millis, out: &mut Out) {
        let from = request.from;
        match request.frame {
            PeerFrame::Operation(operation) => self.apply(from, operation, now, out),
            PeerFrame::Fanout { slot, channel, message, .. } => {
                let gateways = self.gateways(slot, &channel);
                let frame = PeerFrame::Ephemeral { slot, channel, message };
                out.send_all(&gateways, Lane::Data, frame);
            }
            PeerFrame::Ask { .. } => self.answer(request, now, out),
            PeerFrame::Unsubscribe { slot, channel, client, detach } => {
                let audience = self.audiences.get_mut(&slot);
                let left = audience.map(|a| a.unsubscribe(from, &channel, client, detach));
                for change in left.into_iter().flatten() {
                    self.announce(slot, change, false, out);
                }
                self.attend(slot, &channel, now);
            }
            PeerFrame::Interest { interest, span } => {
                self.replace_interest(from, interest, &span, now, out);
            }
            _ => {}
        }
    }

    pub(super) fn gateways(&self, slot: Slot, channel: &Channel) -> Gateways {
        let audience = self.audiences.get(&slot);
        audience.map(|a| a.gateways(channel).iter().copied().collect()).unwrap_or_default()
    }

    /// Keeps a question behind what its sender sent before and waits for a commit: it is to see what
    /// came before it. Publications needn't wait: their own commits come later. Gives back what
    /// needn't wait.
    fn defer_behind(&mut self, slot: Slot, request: Request, out: &mut Out) -> Option<Request> {
        if !matches!(request.frame, PeerFrame::Ask { .. } | PeerFrame::Unsubscribe { .. }) {
            return Some(request);
        }
        let from = request.from;
        let Some(log) = self.logs.get_mut(&slot) else { return Some(request) };
        let waits = |waiting: &&mut Waiting| {
            let asked = waiting.asks.iter().any(|ask| ask.from == from);
            asked || waiting.results.iter().any(|(other, _)| *other == from)
        };
        let Some(waiting) = log.waiting.iter_mut().rev().find(waits) else { return Some(request) };
        if waiting.asks.len() < DEFERRED_MAX {
            waiting.asks.push(request);
        } else {
            self.bounce(request, None, out);
        }
        None
    }

    /// Whether a holder may be missing that knows what isn't known here.
    pub fn incomplete(&self, slot: Slot, now: Millis) -> bool {
        !without(Rule::NoVerdictWhileIncomplete) && self.is_incomplete(slot, now)
    }

    /// Whether a node may hold a line on which a position lies that isn't known here: one that was
    /// missing when the slot was won, or one that has come back since and may have gone on by itself.
    pub fn may_learn(&self, slot: Slot, now: Millis) -> bool {
        let came = now < self.settled_at && !without(Rule::NoVerdictWhileIncomplete);
        came || self.incomplete(slot, now)
    }

    /// The same for a position that a gateway has: one that vanished and isn't seen here yet, though it
    /// is heard, comes from where others may have gone on.
    fn may_know(&mut self, gateway: Incarnation, slot: Slot, now: Millis) -> bool {
        let departed = self.departed.get_mut(&gateway);
        let told = departed.map(|departed| *departed.told.get_or_insert(now));
        let back = told.is_some_and(|told| now.since(told) < INCOMPLETE_MS);
        back && !without(Rule::NoVerdictWhileIncomplete) || self.may_learn(slot, now)
    }

    /// Whether a slot was won while a holder was missing, a moment ago.
    pub fn is_incomplete(&self, slot: Slot, now: Millis) -> bool {
        matches!(self.table.role(slot), Role::Owner { missing, .. } if now < missing.incomplete_until)
    }

    /// Whether a slot was won a moment ago without so many holders that they may be all who have the
    /// last that was acknowledged: what is here isn't shown as all there is.
    fn is_short(&self, slot: Slot, now: Millis) -> bool {
        matches!(self.table.role(slot), Role::Owner { missing, .. } if now < missing.short_until)
    }
}

/// The slot that a request is about, and the highest epoch that its sender promised for it.
fn place(request: &PeerFrame) -> Option<(Slot, Epoch)> {
    match request {
        PeerFrame::Operation(operation) => Some((operation.slot, operation.epoch)),
        PeerFrame::Ask { slot, epoch, .. } => Some((*slot, *epoch)),
        PeerFrame::Fanout { slot, .. } | PeerFrame::Unsubscribe { slot, .. } => {
            Some((*slot, Epoch::NONE))
        }
        PeerFrame::Interest { interest, .. } => Some((interest.slot, Epoch::NONE)),
        _ => None,
    }
}

/// The frame that hands a publication to gateways.
pub(super) fn deliver(
    slot: Slot,
    channel: &Channel,
    follows: Position,
    publication: Publication,
) -> PeerFrame {
    let plain = follows.epoch == publication.epoch && follows.offset + 1 == publication.offset;
    let follows = (!plain).then_some(follows);
    PeerFrame::Deliver { slot, channel: channel.clone(), follows, publication }
}
