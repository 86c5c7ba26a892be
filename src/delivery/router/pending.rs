//! Operations of this node's clients on their way to owners, and the results that come back. The
//! queue is `operations`; what is published at most once is handed over here and never queued.
use super::{ELSEWHERE_MS, Router, Turn, fail, redirect};
use crate::delivery::event::{Action, Reply, RequestId};
use crate::mutant::{Rule, without};
use crate::protocol::channel::{Channel, ChannelOptions};
use crate::protocol::codes::ErrorCode;
use crate::protocol::ids::{Incarnation, Slot};
use crate::protocol::peer::{Body, Lane, Outcome, PeerFrame};

impl Router {
    pub(super) fn operate(
        &mut self,
        id: RequestId,
        slot: Slot,
        channel: Channel,
        options: ChannelOptions,
        body: Body,
        turn: &mut Turn<'_>,
    ) {
        let owner = turn.ownership.world().placement.owner(slot);
        if let (Body::Publish { message, .. }, false) = (&body, options.is_stream()) {
            // At most once: handed over is all that is promised.
            let message = message.clone();
            match owner {
                Some(owner) => {
                    let frame = PeerFrame::Fanout { slot, channel, message, forwarded: false };
                    turn.out.send(owner, Lane::Data, frame);
                    let reply = Reply::Published { position: None, copies: 0 };
                    turn.actions.push(Action::Reply { to: id, reply });
                }
                None => fail(id, ErrorCode::Internal, turn),
            }
            return;
        }
        let waiting = self.operations.owner(slot);
        match self.operations.try_push(slot, id, channel, options, body, turn.now) {
            Some(number) => {
                if without(Rule::OwnerAcknowledges) {
                    let reply = Reply::Published { position: None, copies: u8::MAX };
                    turn.actions.push(Action::Reply { to: id, reply });
                }
                if let Some(owner) = waiting.or(owner) {
                    self.send_operations(slot, number, owner, turn);
                }
            }
            None => fail(id, ErrorCode::TooManyRequests, turn),
        }
    }

    pub(super) fn send_operations(
        &mut self,
        slot: Slot,
        from: u64,
        owner: Incarnation,
        turn: &mut Turn<'_>,
    ) {
        let epoch = turn.ownership.promised(slot);
        for operation in self.operations.send_from(slot, from, epoch, owner, turn.now) {
            turn.out.send(owner, Lane::Data, PeerFrame::Operation(operation));
        }
    }

    pub(super) fn handle_result(
        &mut self,
        from: Incarnation,
        slot: Slot,
        number: u64,
        outcome: Outcome,
        turn: &mut Turn<'_>,
    ) {
        let reply = match outcome {
            Outcome::Published { position, copies } => Reply::Published { position, copies },
            Outcome::Changed { copies } => Reply::Changed { copies },
            Outcome::Failed(code) => Reply::Failed(code),
            Outcome::Expected(expected) => {
                if self.operations.rewind(slot, expected, from, turn.now) {
                    // From the front: what is behind it and was answered is no longer here.
                    self.send_operations(slot, 0, from, turn);
                }
                return;
            }
            Outcome::NotOwner(owner) => {
                // Only what was sent to `from` is answered by it; the first answer moves all.
                if self.operations.owner(slot) != Some(from) {
                    return;
                }
                match redirect(slot, from, owner, turn) {
                    Some(owner) => self.send_operations(slot, 0, owner, turn),
                    None => self.operations.retry_in(slot, ELSEWHERE_MS, turn.now),
                }
                return;
            }
        };
        if let Some(pending) = self.operations.take(slot, number, turn.now) {
            turn.actions.push(Action::Reply { to: pending.request, reply });
        }
    }
}
