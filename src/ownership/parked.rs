//! Requests that wait for a slot to have an owner here, in the order in which they came. Bounded by
//! count and age; what doesn't fit is bounced to its sender, who tries again.
use std::collections::{BTreeMap, VecDeque};

use crate::protocol::ids::{Incarnation, Slot};
use crate::protocol::peer::PeerFrame;
use crate::protocol::time::Millis;

/// Frames that may wait in all slots together.
pub const PARKED_MAX: usize = 65_536;
/// Payload bytes that may wait in all slots together.
pub const PARKED_BYTES_MAX: usize = 64 << 20;
/// How long a frame waits; its sender has given up by then.
pub const PARKED_MS: u64 = 5_000;

/// A frame from a gateway, or from who took this node for an owner.
#[derive(Clone, PartialEq, Debug)]
pub struct Request {
    /// Its place among all that came to this node: what a sender sends is served in this order,
    /// wherever it has to wait.
    pub order: u64,
    /// Who sent it.
    pub from: Incarnation,
    /// The frame.
    pub frame: PeerFrame,
    /// When it came.
    pub since: Millis,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Parked {
    slots: BTreeMap<Slot, VecDeque<Request>>,
    len: usize,
    bytes: usize,
}

impl Parked {
    /// Keeps a request, or gives it back if there is no room.
    #[expect(clippy::result_large_err, reason = "the request itself, given back")]
    pub fn try_push(&mut self, slot: Slot, request: Request) -> Result<(), Request> {
        let bytes = size_of(&request.frame);
        if self.len >= PARKED_MAX || self.bytes + bytes > PARKED_BYTES_MAX {
            return Err(request);
        }
        (self.len, self.bytes) = (self.len + 1, self.bytes + bytes);
        let queue = self.slots.entry(slot).or_default();
        let at = queue.partition_point(|other| other.order < request.order);
        queue.insert(at, request);
        Ok(())
    }

    /// Takes all that waits for a slot, in order.
    pub fn take(&mut self, slot: Slot) -> VecDeque<Request> {
        let taken = self.slots.remove(&slot).unwrap_or_default();
        self.len -= taken.len();
        self.bytes -= taken.iter().map(|waiting| size_of(&waiting.frame)).sum::<usize>();
        taken
    }

    /// Whether something waits for a slot.
    pub fn waits(&self, slot: Slot) -> bool {
        self.slots.contains_key(&slot)
    }

    /// Whether something waits for a slot that the same sender sent before: a request must not
    /// overtake it.
    pub fn waits_before(&self, slot: Slot, request: &Request) -> bool {
        let before = |other: &Request| other.order < request.order && other.from == request.from;
        self.slots.get(&slot).is_some_and(|queue| queue.iter().any(before))
    }

    /// Slots for which something waits.
    pub fn slots(&self) -> Vec<Slot> {
        self.slots.keys().copied().collect()
    }

    /// Drops what has waited too long.
    pub fn expire(&mut self, now: Millis) {
        let (mut len, mut bytes) = (self.len, self.bytes);
        self.slots.retain(|_, queue| {
            while queue.front().is_some_and(|first| now.since(first.since) > PARKED_MS) {
                if let Some(gone) = queue.pop_front() {
                    (len, bytes) = (len - 1, bytes - size_of(&gone.frame));
                }
            }
            !queue.is_empty()
        });
        (self.len, self.bytes) = (len, bytes);
    }

    /// How many frames wait.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

fn size_of(frame: &PeerFrame) -> usize {
    match frame {
        PeerFrame::Operation(operation) => operation.body.len(),
        PeerFrame::Fanout { message, .. } => message.bytes(),
        PeerFrame::Ask { query, .. } => query.bytes(),
        PeerFrame::Interest { interest, .. } => interest.bytes(),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::protocol::channel::Channel;
    use crate::protocol::message::Message;

    fn request(order: u64, since: u64) -> Request {
        let frame = PeerFrame::Inspect { number: 1 };
        Request { order, from: Incarnation(1), frame, since: Millis(since) }
    }

    #[test]
    fn what_does_not_fit_is_given_back() {
        let mut parked = Parked::default();
        for order in 0..PARKED_MAX as u64 {
            assert!(parked.try_push(Slot(1), request(order, 0)).is_ok());
        }
        assert!(parked.try_push(Slot(2), request(0, 0)).is_err());
        assert_eq!(parked.take(Slot(1)).len(), PARKED_MAX);
        assert!(parked.is_empty() && parked.slots().is_empty());
    }

    #[test]
    fn payloads_have_a_limit_and_room_comes_back() {
        let data = vec![b' '; PARKED_BYTES_MAX / 2].into();
        let message = Arc::new(Message { data, ..Message::default() });
        let half = |order, since| Request {
            frame: PeerFrame::Fanout {
                slot: Slot(1),
                channel: Channel::parse("c").expect("a name"),
                message: message.clone(),
                forwarded: false,
            },
            ..request(order, since)
        };
        let mut parked = Parked::default();
        assert!(parked.try_push(Slot(1), half(1, 0)).is_ok());
        assert!(parked.try_push(Slot(2), half(2, 1)).is_ok());
        assert!(parked.try_push(Slot(3), half(3, 1)).is_err());
        parked.expire(Millis(PARKED_MS + 1));
        assert!(parked.try_push(Slot(3), half(3, 1)).is_ok());
        assert!(parked.try_push(Slot(1), half(4, 1)).is_err());
        assert_eq!(parked.take(Slot(2)).len(), 1);
        assert!(parked.try_push(Slot(1), half(4, 1)).is_ok());
    }

    #[test]
    fn what_came_first_goes_first() {
        let mut parked = Parked::default();
        for order in [3, 1, 2] {
            assert!(parked.try_push(Slot(1), request(order, 0)).is_ok());
        }
        assert!(parked.waits_before(Slot(1), &request(2, 0)));
        assert!(!parked.waits_before(Slot(1), &request(1, 0)));
        let other = Request { from: Incarnation(2), ..request(9, 0) };
        assert!(!parked.waits_before(Slot(1), &other));
        let taken: Vec<u64> = parked.take(Slot(1)).iter().map(|request| request.order).collect();
        assert_eq!(taken, [1, 2, 3]);
    }

    #[test]
    fn nothing_waits_for_ever() {
        let mut parked = Parked::default();
        assert!(parked.try_push(Slot(1), request(1, 0)).is_ok());
        assert!(parked.try_push(Slot(1), request(2, 4_000)).is_ok());
        parked.expire(Millis(PARKED_MS + 1));
        assert_eq!(parked.len(), 1);
    }
}
