//! The gate before a slot: whether a request is served here, kept until it can be, or sent
//! elsewhere. It looks at whose the slot is, never at what is asked.
use super::Ownership;
use crate::ownership::out::Out;
use crate::ownership::parked::Request;
use crate::ownership::table::Role;
use crate::protocol::ids::{Epoch, Incarnation, Slot};
use crate::protocol::peer::{Lane, Outcome, PeerFrame};
use crate::protocol::time::Millis;

/// Whether a request can be served here.
pub(in crate::ownership) enum Gate {
    /// Now.
    Serve,
    /// Soon.
    Park,
    /// At this node, as far as this one knows.
    Elsewhere(Option<Incarnation>),
}

impl Ownership {
    /// Whether a request for a slot can be served here; `epoch` is the highest that its sender
    /// promised, and ends an ownership that the sender knows to be over.
    pub(in crate::ownership) fn gate(&mut self, slot: Slot, epoch: Epoch, now: Millis) -> Gate {
        if epoch > self.table.promised(slot) {
            self.promise_to(slot, epoch, now);
        }
        let home = self.world.placement.owner(slot);
        match self.table.role(slot) {
            Role::Owner { .. } if self.world.required > 0 => Gate::Serve,
            Role::Owner { .. } | Role::Claiming(_) => Gate::Park,
            Role::Idle if home == Some(self.me) && self.table.contains(slot) => {
                let claimant = self.claimant(slot, now);
                claimant.map_or(Gate::Park, |claimant| Gate::Elsewhere(Some(claimant)))
            }
            Role::Idle => Gate::Elsewhere(home),
        }
    }

    /// Keeps a request until the slot is served here, or bounces it.
    pub(in crate::ownership) fn park(&mut self, slot: Slot, request: Request, out: &mut Out) {
        if let Err(request) = self.parked.try_push(slot, request) {
            self.bounce(request, None, out);
        }
    }

    /// Tells a sender that it must look elsewhere, or try again.
    pub(in crate::ownership) fn bounce(
        &self,
        request: Request,
        owner: Option<Incarnation>,
        out: &mut Out,
    ) {
        let from = request.from;
        match request.frame {
            PeerFrame::Operation(operation) => {
                let (slot, number) = (operation.slot, operation.number);
                let outcome = Outcome::NotOwner(owner);
                out.send(from, Lane::Data, PeerFrame::Result { slot, number, outcome });
            }
            PeerFrame::Ask { number, .. } => {
                out.send(from, Lane::Data, PeerFrame::NotOwner { number, owner });
            }
            // The rest is repaired by digests, or was sent at most once.
            _ => {}
        }
    }

    /// Handles what has waited for a slot, in order.
    pub(in crate::ownership) fn replay(&mut self, slot: Slot, now: Millis, out: &mut Out) {
        for waiting in self.parked.take(slot) {
            if self.is_left_behind(&waiting) {
                continue;
            }
            self.counts.replayed += 1;
            self.take_request(waiting, now, out);
        }
    }
}
