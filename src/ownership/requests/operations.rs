//! Operations as the owner applies them: each once, in the order of its gateway's numbers, logged,
//! and answered for when it is committed. One that comes again is answered from what is held.
use std::sync::Arc;

use crate::mutant::{Rule, without};
use crate::ownership::log::{Log, Place, Waiting};
use crate::ownership::out::Out;
use crate::ownership::owner::Ownership;
use crate::protocol::channel::{Channel, ChannelOptions};
use crate::protocol::codes::ErrorCode;
use crate::protocol::ids::{Incarnation, Position, Slot};
use crate::protocol::message::{Message, OperationId};
use crate::protocol::peer::{Body, Change, EntryCopy, Lane, Operation, Outcome, PeerFrame};
use crate::protocol::time::Millis;
use crate::protocol::user::UserChange;

/// What is known of an operation that was applied before.
enum Repeated {
    /// This is to be said of it.
    Held(Outcome),
    /// Its sender is told once it is committed.
    Waits,
    /// It isn't held: it is applied now.
    Unknown,
}

impl Ownership {
    pub(super) fn apply(
        &mut self,
        from: Incarnation,
        operation: Operation,
        now: Millis,
        out: &mut Out,
    ) {
        let Operation { slot, lowest, number, channel, options, body, .. } = operation;
        let id = OperationId { gateway: from, number };
        let holding = self.holdings.entry(slot).or_default();
        let needless = self.logs.get(&slot).map_or(0, |log| log.needless(from));
        let expected = lowest.max(holding.applied(from).max(needless) + 1);
        let mut result = |outcome| {
            out.send(from, Lane::Data, PeerFrame::Result { slot, number, outcome });
        };
        if number > expected {
            return result(Outcome::Expected(expected));
        }
        let (message, key) = match body {
            Body::Publish { message, key } => (message, key),
            Body::User(change) => {
                let (known, ttl_ms) = (number < expected, options.history_ttl_ms);
                if known && self.may_have_lost(slot, id, &channel, &change) {
                    return result(Outcome::Failed(ErrorCode::Internal));
                }
                let outcome = self.change_user(slot, (id, known), (channel, ttl_ms), change, now);
                return outcome.into_iter().for_each(result);
            }
        };
        let keyed = key.as_ref().and_then(|key| holding.key(&channel, key, now));
        let full = key.is_some() && keyed.is_none() && !holding.takes_keys();
        if full || !self.takes_changes(slot) {
            return result(Outcome::Failed(ErrorCode::TooManyRequests));
        }
        // One that was answered for by its key has a number of its own that stands in no log.
        for first in (number < expected).then_some(id).into_iter().chain(keyed) {
            let repeated = self.repeated(slot, &channel, first, (from, number), now);
            self.counts.repeated += u64::from(!matches!(repeated, Repeated::Unknown));
            if let (Repeated::Held(Outcome::Published { .. }) | Repeated::Waits, Some(log)) =
                (&repeated, self.logs.get_mut(&slot))
            {
                log.note_needless(id);
            }
            match repeated {
                Repeated::Held(outcome) => return result(outcome),
                Repeated::Waits => return,
                Repeated::Unknown => {}
            }
        }
        if let Some(position) = self.append(slot, &channel, options, (id, key), message, now)
            && let Some(waiting) = self.waiting_for(slot, position)
        {
            // It is the first to wait for what was just made.
            waiting.tell(from, number);
        }
    }

    /// What is known here of an operation that was applied before. Only what enough nodes hold is
    /// answered for.
    fn repeated(
        &mut self,
        slot: Slot,
        channel: &Channel,
        first: OperationId,
        waiter: (Incarnation, u64),
        now: Millis,
    ) -> Repeated {
        let copies = self.logs.get(&slot).map_or(1, Log::committed_copies).min(255);
        let (safe, copies) = (copies >= self.world.required, copies as u8);
        let stream = self.holdings.get(&slot).and_then(|holding| holding.stream(channel));
        let position = stream.and_then(|stream| stream.find(first));
        let committed = stream.map_or(0, |stream| stream.committed().offset);
        match position {
            _ if without(Rule::DedupOfHeld) => {
                Repeated::Held(Outcome::Published { position, copies })
            }
            Some(position) if position.offset <= committed && safe => {
                Repeated::Held(Outcome::Published { position: Some(position), copies })
            }
            Some(position) => {
                // It isn't committed, or was and has lost holders since: it is held anew first.
                self.log_again(slot, channel, position, now);
                let (gateway, number) = waiter;
                match self.waiting_for(slot, position).is_some_and(|w| w.tell(gateway, number)) {
                    true => Repeated::Waits,
                    false => Repeated::Held(Outcome::NotOwner(None)),
                }
            }
            // It was committed, and dropped since by the stream's bounds.
            None if stream.is_some_and(|stream| stream.has_dropped()) => {
                Repeated::Held(Outcome::Published { position, copies })
            }
            None => Repeated::Unknown,
        }
    }

    /// Whether a change of a record may be lost that this node made when it had a successor already:
    /// what that acknowledged before may have undone it.
    fn may_have_lost(
        &self,
        slot: Slot,
        id: OperationId,
        user: &Channel,
        change: &UserChange,
    ) -> bool {
        let doubtful = self.doubtful.get(&slot).and_then(|doubtful| doubtful.epoch(id));
        let record = self.holdings.get(&slot).and_then(|holding| holding.user(user));
        let last = record.and_then(|record| record.last(&change.field()));
        doubtful
            .zip(last)
            .is_some_and(|(epoch, last)| last.change != *change && last.stamp.epoch > epoch)
    }

    pub(super) fn waiting_for(&mut self, slot: Slot, position: Position) -> Option<&mut Waiting> {
        self.logs.get_mut(&slot)?.waiting_for(position)
    }

    /// Appends a publication to a stream of a slot that this node owns; it is delivered when it is
    /// committed.
    pub(in crate::ownership) fn append(
        &mut self,
        slot: Slot,
        channel: &Channel,
        options: ChannelOptions,
        (id, key): (OperationId, Option<Arc<str>>),
        message: Arc<Message>,
        now: Millis,
    ) -> Option<Position> {
        let (epoch, index) = self.table.next_index(slot)?;
        let holding = self.holdings.entry(slot).or_default();
        let at = (epoch, index);
        let (follows, publication) =
            holding.append(channel, options, at, id, message, key.clone(), now);
        let position = publication.position();
        let plain = follows.epoch == position.epoch && follows.offset + 1 == position.offset;
        let follows = (!plain).then_some(follows);
        let entry = EntryCopy { publication, operation: id, ttl_ms: options.history_ttl_ms };
        let channel = channel.clone();
        let place = Some(Place::Stream(channel.clone(), position));
        let change = Change::Publish { channel, options, follows, entry, key };
        self.log_change(slot, index, change, place, now);
        Some(position)
    }
}
