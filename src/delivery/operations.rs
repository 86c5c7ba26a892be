//! Numbered operations on their way: kept until the owner has answered, sent again in order when it
//! changes or is silent. Kept by the router.
use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::event::RequestId;
use crate::mutant::{Rule, without};
use crate::protocol::channel::{Channel, ChannelOptions};
use crate::protocol::ids::{Epoch, Incarnation, Slot};
use crate::protocol::peer::{Body, Operation};
use crate::protocol::time::Millis;

/// Operations of this node's clients that may wait for owners, over all slots.
pub const OPERATIONS_MAX: usize = 65_536;
/// Operations that may wait for the owner of one slot: a hot slot leaves room for others.
pub const SLOT_OPERATIONS_MAX: usize = 8_192;
/// Payload bytes that may wait for owners.
pub const OPERATION_BYTES_MAX: usize = 128 << 20;
/// When an operation is given up and its client told that it may try again: before the 5 s after
/// which SDKs stop waiting.
pub const OPERATION_MS: u64 = 4_500;
/// First pause before an unanswered operation is sent again; it doubles.
pub const RETRY_MS: u64 = 250;

/// How long a rewind is given to work before the same one is made again.
const REWIND_MS: u64 = 100;

/// An operation that waits for its answer.
#[derive(Debug)]
pub struct Pending {
    number: u64,
    /// Whom to tell.
    pub request: RequestId,
    channel: Channel,
    options: ChannelOptions,
    body: Body,
    since: Millis,
}

/// The operations of one slot.
#[derive(Debug, Default)]
struct Line {
    last: u64,
    pending: VecDeque<Pending>,
    owner: Option<Incarnation>,
    sent: Millis,
    retry_ms: u64,
    /// From where the line was sent again last, and when: the many answers that one lost frame
    /// draws are good for one rewind.
    rewound: Option<(u64, Millis)>,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Operations {
    lines: BTreeMap<Slot, Line>,
    /// Slots whose operations wait.
    waiting: BTreeSet<Slot>,
    len: usize,
    bytes: usize,
}

impl Operations {
    /// Numbers an operation and keeps it. `None` if there is no room.
    pub fn try_push(
        &mut self,
        slot: Slot,
        request: RequestId,
        channel: Channel,
        options: ChannelOptions,
        body: Body,
        now: Millis,
    ) -> Option<u64> {
        let bytes = body.len();
        let line = self.lines.entry(slot).or_default();
        if self.len >= OPERATIONS_MAX
            || line.pending.len() >= SLOT_OPERATIONS_MAX
            || self.bytes + bytes > OPERATION_BYTES_MAX
        {
            return None;
        }
        (self.len, self.bytes) = (self.len + 1, self.bytes + bytes);
        if line.pending.is_empty() {
            (line.sent, line.retry_ms) = (now, RETRY_MS);
        }
        self.waiting.insert(slot);
        line.last += 1;
        let number = line.last;
        let pending = Pending { number, request, channel, options, body, since: now };
        line.pending.push_back(pending);
        Some(number)
    }

    /// Takes an operation out that was answered. An answer shows that the owner is at work.
    pub fn take(&mut self, slot: Slot, number: u64, now: Millis) -> Option<Pending> {
        let line = self.lines.get_mut(&slot)?;
        let at = line.pending.iter().position(|pending| pending.number == number)?;
        let pending = line.pending.remove(at)?;
        (line.sent, line.retry_ms) = (now, RETRY_MS);
        if line.pending.is_empty() {
            self.waiting.remove(&slot);
        }
        (self.len, self.bytes) = (self.len - 1, self.bytes - pending.body.len());
        Some(pending)
    }

    /// The operations of a slot from `number` on, to be sent to `owner`.
    pub fn send_from(
        &mut self,
        slot: Slot,
        number: u64,
        epoch: Epoch,
        owner: Incarnation,
        now: Millis,
    ) -> Vec<Operation> {
        let Some(line) = self.lines.get_mut(&slot) else { return vec![] };
        let changed = line.owner.replace(owner).is_some_and(|before| before != owner);
        line.sent = now;
        if changed && without(Rule::RetryKeepsNumber) {
            for pending in &mut line.pending {
                line.last += 1;
                pending.number = line.last;
            }
        }
        let lowest = line.pending.front().map_or(line.last + 1, |first| first.number);
        let due = line.pending.iter().filter(|pending| pending.number >= number);
        due.map(|pending| Operation {
            slot,
            epoch,
            lowest,
            number: pending.number,
            channel: pending.channel.clone(),
            options: pending.options,
            body: pending.body.clone(),
        })
        .collect()
    }

    /// Whether to send again from `number` because `owner` says that it lacks it: once, until time
    /// has passed or it lacks another.
    pub fn rewind(&mut self, slot: Slot, number: u64, owner: Incarnation, now: Millis) -> bool {
        let Some(line) = self.lines.get_mut(&slot) else { return false };
        let again =
            line.rewound.is_some_and(|(from, at)| from == number && now.since(at) < REWIND_MS);
        if line.owner != Some(owner) || again {
            return false;
        }
        line.rewound = Some((number, now));
        true
    }

    /// To whom a slot's operations were sent last, while some wait.
    pub fn owner(&self, slot: Slot) -> Option<Incarnation> {
        self.lines.get(&slot).filter(|line| !line.pending.is_empty())?.owner
    }

    /// Slots whose operations wait.
    pub fn slots(&self) -> Vec<Slot> {
        self.waiting.iter().copied().collect()
    }

    /// Slots whose owner has been silent: their operations are due again.
    pub fn silent(&mut self, now: Millis) -> Vec<Slot> {
        let mut silent = Vec::new();
        for slot in &self.waiting {
            let Some(line) = self.lines.get_mut(slot) else { continue };
            if now.since(line.sent) >= line.retry_ms {
                line.retry_ms = (line.retry_ms * 2).min(OPERATION_MS);
                line.sent = now;
                silent.push(*slot);
            }
        }
        silent
    }

    /// Makes a slot's operations due again after `ms`.
    pub fn retry_in(&mut self, slot: Slot, ms: u64, now: Millis) {
        if let Some(line) = self.lines.get_mut(&slot) {
            (line.sent, line.retry_ms) = (now, ms);
        }
    }

    /// Takes out what has waited too long.
    pub fn expire(&mut self, now: Millis) -> Vec<Pending> {
        let mut expired = Vec::new();
        let lines = &mut self.lines;
        self.waiting.retain(|slot| {
            let Some(line) = lines.get_mut(slot) else { return false };
            while line.pending.front().is_some_and(|p| now.since(p.since) >= OPERATION_MS) {
                expired.extend(line.pending.pop_front());
            }
            !line.pending.is_empty()
        });
        self.len -= expired.len();
        self.bytes -= expired.iter().map(|pending| pending.body.len()).sum::<usize>();
        expired
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::delivery::event::ShardId;
    use crate::protocol::message::Message;

    const OWNER: Incarnation = Incarnation(5);

    fn push(operations: &mut Operations, now: Millis) -> Option<u64> {
        push_to(operations, Slot(1), &Arc::default(), now)
    }

    fn push_to(
        operations: &mut Operations,
        slot: Slot,
        message: &Arc<Message>,
        now: Millis,
    ) -> Option<u64> {
        let request = RequestId { shard: ShardId(0), number: 1 };
        let channel = Channel::parse("c").expect("a name");
        let body = Body::Publish { message: message.clone(), key: None };
        operations.try_push(slot, request, channel, ChannelOptions::default(), body, now)
    }

    fn sent(operations: &mut Operations, from: u64) -> Vec<(u64, u64)> {
        let sent = operations.send_from(Slot(1), from, Epoch::NONE, OWNER, Millis(0));
        sent.iter().map(|operation| (operation.number, operation.lowest)).collect()
    }

    #[test]
    fn what_is_not_answered_is_sent_again_in_order() {
        let mut operations = Operations::default();
        for number in 1..=3 {
            assert_eq!(push(&mut operations, Millis(0)), Some(number));
        }
        assert!(operations.take(Slot(1), 1, Millis(0)).is_some());
        assert!(operations.take(Slot(1), 1, Millis(0)).is_none());
        assert_eq!(sent(&mut operations, 0), [(2, 2), (3, 2)]);
        assert_eq!(operations.owner(Slot(1)), Some(OWNER));
        assert!(operations.silent(Millis(RETRY_MS - 1)).is_empty());
        assert_eq!(operations.silent(Millis(RETRY_MS)), [Slot(1)]);
        assert!(operations.silent(Millis(2 * RETRY_MS)).is_empty());
    }

    #[test]
    fn what_waits_too_long_is_given_up_and_never_sent_again() {
        let mut operations = Operations::default();
        push(&mut operations, Millis(0));
        push(&mut operations, Millis(1));
        assert_eq!(operations.expire(Millis(OPERATION_MS)).len(), 1);
        assert_eq!(sent(&mut operations, 0), [(2, 2)]);
    }

    #[test]
    fn one_slot_leaves_room_for_others() {
        let mut operations = Operations::default();
        while push(&mut operations, Millis(0)).is_some() {}
        assert_eq!(operations.len(), SLOT_OPERATIONS_MAX);
        assert!(push_to(&mut operations, Slot(2), &Arc::default(), Millis(0)).is_some());
    }

    #[test]
    fn all_slots_together_have_a_limit_and_answers_make_room() {
        let mut operations = Operations::default();
        let empty = Arc::default();
        let mut slots = (0..OPERATIONS_MAX).map(|n| Slot((n % 1024) as u16));
        assert!(slots.all(|slot| push_to(&mut operations, slot, &empty, Millis(0)).is_some()));
        assert_eq!(push_to(&mut operations, Slot(1024), &empty, Millis(0)), None);
        assert!(operations.take(Slot(1), 1, Millis(0)).is_some());
        assert_eq!(push_to(&mut operations, Slot(1024), &empty, Millis(0)), Some(1));
    }

    #[test]
    fn payloads_together_have_a_limit_and_room_comes_back() {
        let mut operations = Operations::default();
        let data = vec![b' '; OPERATION_BYTES_MAX / 4].into();
        let quarter = Arc::new(Message { data, ..Message::default() });
        for n in 1..=4 {
            assert_eq!(push_to(&mut operations, Slot(n), &quarter, Millis(0)), Some(1));
        }
        let one = Arc::new(Message { data: vec![b' '].into(), ..Message::default() });
        assert_eq!(push_to(&mut operations, Slot(5), &one, Millis(0)), None);
        assert!(operations.take(Slot(1), 1, Millis(0)).is_some());
        assert!(push_to(&mut operations, Slot(5), &one, Millis(0)).is_some());
        assert_eq!(operations.expire(Millis(OPERATION_MS)).len(), 4);
        for n in 1..=4 {
            assert!(push_to(&mut operations, Slot(n), &quarter, Millis(0)).is_some());
        }
    }
}
