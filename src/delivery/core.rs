//! `Core`: the two cores of a node as one machine. The engine and the simulator drive it: an event
//! in, actions out; frames from this node to itself are handled on the spot.
use std::collections::VecDeque;
use std::sync::Arc;

use super::event::{Action, CoreStatus, Event, Outlook};
use super::router::{Router, Turn};
use crate::mutant::{Rule, without};
use crate::ownership::attendance::Sessions;
use crate::ownership::out::{Out, World};
use crate::ownership::owner::Ownership;
use crate::ownership::serving::Serving;
use crate::ownership::validate::check;
use crate::protocol::ids::{Incarnation, Slot};
use crate::protocol::peer::PeerFrame;
use crate::protocol::time::Millis;

/// See the module.
#[derive(Debug)]
pub struct Core {
    me: Incarnation,
    slots: u16,
    copies: u8,
    ownership: Ownership,
    router: Router,
    /// Of the view that it was told last.
    view_hash: u64,
    leaving: bool,
    drained: bool,
}

/// What is the same in all cores of a cluster.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Units of ownership.
    pub slots: u16,
    /// How many nodes hold everything, 1 to 5.
    pub copies: u8,
    /// When users count as gone.
    pub sessions: Sessions,
}

impl Core {
    /// The cores of a node that has just started. `seed` is the source of all their randomness.
    pub fn new(me: Incarnation, settings: Settings, seed: u64) -> Self {
        let Settings { slots, copies, sessions } = settings;
        Self {
            me,
            slots,
            copies,
            ownership: Ownership::new(me, slots, copies, sessions, seed),
            router: Router::new(slots),
            view_hash: 0,
            leaving: false,
            drained: false,
        }
    }

    /// Handles one event; what is to be done is appended to `actions`, in order.
    pub fn handle(&mut self, event: Event, now: Millis, actions: &mut Vec<Action>) {
        let mut out = Out::default();
        let ticked = matches!(event, Event::Tick);
        match event {
            Event::Request(request) => {
                self.router
                    .handle_request(request, &mut turn(&self.ownership, now, &mut out, actions));
            }
            Event::Frames { from, frames } => {
                for frame in frames {
                    if let Err(invalid) = check(&frame, self.slots) {
                        tracing::debug!(?from, %invalid, "frame.invalid");
                        continue;
                    }
                    self.handle_frame(from, frame, now, &mut out, actions);
                }
            }
            Event::LinkUp(node) => {
                self.ownership.renew_link(node, now, &mut out);
                let mut turn = turn(&self.ownership, now, &mut out, actions);
                self.router.reroute(Some(node), &mut turn);
            }
            Event::LinkDown(_) => {}
            Event::Outlook(outlook) => {
                self.view_hash = outlook.view.hash();
                self.ownership.set_world(self.world(&outlook), now, &mut out);
                self.router.reroute(None, &mut turn(&self.ownership, now, &mut out, actions));
            }
            Event::Leave => {
                self.leaving = true;
                self.ownership.leave();
            }
            Event::Tick => {
                self.ownership.tick(now, &mut out);
                self.router.tick(&mut turn(&self.ownership, now, &mut out, actions));
            }
        }
        self.flush(out, now, actions);
        if ticked {
            self.check_drained(now, actions);
        }
    }

    fn world(&self, outlook: &Arc<Outlook>) -> World {
        let ids = |members: &[crate::ownership::view::Member]| -> Vec<Incarnation> {
            members.iter().map(|member| member.id.incarnation).collect()
        };
        let mut members = ids(outlook.view.members());
        let mut joining = ids(&outlook.joining);
        let outside = outlook.outside.iter().map(|id| id.incarnation);
        let mut live: Vec<Incarnation> =
            members.iter().chain(&joining).copied().chain(outside).chain([self.me]).collect();
        live.sort();
        live.dedup();
        members.sort();
        joining.sort();
        World {
            live,
            members,
            joining,
            placement: outlook.placement.clone(),
            planned: outlook.planned.clone(),
            required: match without(Rule::FixedCopies) {
                true => Serving::Degraded.required(self.copies, outlook.view.len()),
                false => outlook.serving.required(self.copies, outlook.view.len()),
            },
        }
    }

    fn handle_frame(
        &mut self,
        from: Incarnation,
        frame: PeerFrame,
        now: Millis,
        out: &mut Out,
        actions: &mut Vec<Action>,
    ) {
        let frame = match frame {
            PeerFrame::Prepare { claim, attempt, slots } => {
                let router = &self.router;
                let interest = |slot: Slot| router.interest(slot);
                let question = (claim, attempt);
                return self.ownership.handle_prepare(from, question, &slots, interest, now, out);
            }
            PeerFrame::Owned { slots, yours } => {
                self.ownership.handle_owned(from, (&slots, yours), now, out);
                let mut turn = turn(&self.ownership, now, out, actions);
                return self.router.handle_owned(from, &slots, &mut turn);
            }
            PeerFrame::Inspect { number } => return actions.push(Action::Inspect { from, number }),
            PeerFrame::Inspected { number, report } => {
                return actions.push(Action::Inspected { from, number, report });
            }
            frame => frame,
        };
        let Some(frame) = self.ownership.handle(from, frame, now, out) else { return };
        // What is left is for a gateway: every frame has exactly one reader.
        let mut turn = turn(&self.ownership, now, out, actions);
        let unread = self.router.handle(from, frame, &mut turn);
        debug_assert!(unread.is_none(), "nobody reads {unread:?}");
    }

    /// Turns what is to be sent into actions; what is for this node is handled in its turn.
    fn flush(&mut self, first: Out, now: Millis, actions: &mut Vec<Action>) {
        let mut local: VecDeque<PeerFrame> = VecDeque::new();
        let mut out = first;
        loop {
            if std::mem::take(&mut out.caught_up) {
                actions.push(Action::CaughtUp);
            }
            for mut sending in out.sends.drain(..) {
                let len = sending.to.len();
                sending.to.retain(|node| *node != self.me);
                let to_me = sending.to.len() < len;
                if sending.to.is_empty() {
                    local.extend(to_me.then_some(sending.frame));
                    continue;
                }
                local.extend(to_me.then(|| sending.frame.clone()));
                let (to, lane, frame) = (sending.to, sending.lane, sending.frame);
                actions.push(Action::Send { to, lane, frame });
            }
            match local.pop_front() {
                Some(frame) => self.handle_frame(self.me, frame, now, &mut out, actions),
                None => {
                    self.ownership.send_gathered(now, &mut out);
                    if out.sends.is_empty() {
                        return;
                    }
                }
            }
        }
    }

    /// A leaving node may go when it owns nothing and its clients wait for nothing.
    fn check_drained(&mut self, now: Millis, actions: &mut Vec<Action>) {
        if !self.leaving || self.drained {
            return;
        }
        let world = self.ownership.world();
        // Without anybody up or coming up there is nobody to hand over to; but who vanished a moment ago
        // may only hang, or this node did.
        let hope = self.ownership.misses_members(now);
        let heirs = hope || world.members.iter().chain(&world.joining).any(|node| *node != self.me);
        let roles = self.ownership.roles();
        let handed_over = roles.owned + roles.claiming == 0 && self.ownership.is_covered();
        if !heirs || (handed_over && self.router.is_idle()) {
            self.drained = true;
            actions.push(Action::Drained);
        }
    }

    /// What the cores say of themselves.
    pub fn status(&self) -> CoreStatus {
        let roles = self.ownership.roles();
        let (streams, parked) = self.ownership.sizes();
        let (pending, channels) = self.router.sizes();
        let copies = self.ownership.copies();
        CoreStatus {
            view_hash: self.view_hash,
            slots_owned: roles.owned,
            owned: roles.ranges,
            slots_claiming: roles.claiming,
            streams,
            pending,
            parked,
            channels,
            copies,
            counts: self.ownership.counts(),
        }
    }

    /// The slots' side, for checkers.
    pub fn ownership(&self) -> &Ownership {
        &self.ownership
    }
}

fn turn<'a>(
    ownership: &'a Ownership,
    now: Millis,
    out: &'a mut Out,
    actions: &'a mut Vec<Action>,
) -> Turn<'a> {
    Turn { ownership, now, out, actions }
}

#[cfg(test)]
mod tests;
