//! Frames that wait for a slot to have an owner here. Bounded by count and age; what doesn't fit is
//! bounced to its sender, who tries again.
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

/// A waiting frame and its sender.
#[derive(Debug)]
pub struct Waiting {
    /// Who sent it.
    pub from: Incarnation,
    /// The frame.
    pub frame: PeerFrame,
    since: Millis,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Parked {
    slots: BTreeMap<Slot, VecDeque<Waiting>>,
    len: usize,
    bytes: usize,
}

impl Parked {
    #[expect(clippy::result_large_err, reason = "the frame itself, given back")]
    /// Keeps a frame, or gives it back if there is no room.
    pub fn try_push(
        &mut self,
        slot: Slot,
        from: Incarnation,
        frame: PeerFrame,
        now: Millis,
    ) -> Result<(), PeerFrame> {
        let bytes = size_of(&frame);
        if self.len >= PARKED_MAX || self.bytes + bytes > PARKED_BYTES_MAX {
            return Err(frame);
        }
        (self.len, self.bytes) = (self.len + 1, self.bytes + bytes);
        self.slots.entry(slot).or_default().push_back(Waiting { from, frame, since: now });
        Ok(())
    }

    /// Takes all that waits for a slot, in order.
    pub fn take(&mut self, slot: Slot) -> VecDeque<Waiting> {
        let taken = self.slots.remove(&slot).unwrap_or_default();
        self.len -= taken.len();
        self.bytes -= taken.iter().map(|waiting| size_of(&waiting.frame)).sum::<usize>();
        taken
    }

    /// Whether something waits for a slot.
    pub fn waits(&self, slot: Slot) -> bool {
        self.slots.contains_key(&slot)
    }

    /// Whether something of this sender waits for a slot: what it sends next must not overtake it.
    pub fn waits_from(&self, slot: Slot, from: Incarnation) -> bool {
        self.slots.get(&slot).is_some_and(|queue| queue.iter().any(|w| w.from == from))
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
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FRAME: PeerFrame = PeerFrame::Inspect { number: 1 };

    #[test]
    fn what_does_not_fit_is_given_back() {
        let mut parked = Parked::default();
        for _ in 0..PARKED_MAX {
            assert!(parked.try_push(Slot(1), Incarnation(1), FRAME, Millis(0)).is_ok());
        }
        assert!(parked.try_push(Slot(2), Incarnation(1), FRAME, Millis(0)).is_err());
        assert_eq!(parked.take(Slot(1)).len(), PARKED_MAX);
        assert!(parked.is_empty() && parked.slots().is_empty());
    }

    #[test]
    fn nothing_waits_for_ever() {
        let mut parked = Parked::default();
        assert!(parked.try_push(Slot(1), Incarnation(1), FRAME, Millis(0)).is_ok());
        assert!(parked.try_push(Slot(1), Incarnation(1), FRAME, Millis(4_000)).is_ok());
        parked.expire(Millis(PARKED_MS + 1));
        assert_eq!(parked.len(), 1);
    }
}
