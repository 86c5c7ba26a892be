//! What a frame of a peer must keep to before the cores take it. Peers are authenticated, but may be
//! of another version or faulty: nothing that they say may cost unbounded work or overflow.
use thiserror::Error;

use super::stream::{LINEAGE_LEN_MAX, SIDE_NAMES_MAX, SIDES_MAX};
use crate::protocol::channel::{Channel, ChannelOptions};
use crate::protocol::ids::{Epoch, Position, Slot};
use crate::protocol::message::OperationId;
use crate::protocol::peer::{
    Body, Change, EntryCopy, Operation, PeerFrame, Side, SidesCopy, SlotCopy, SlotRange, StreamCopy,
};
use crate::protocol::user::{Field, Stamp, Stamped, UserChange};

/// Terms, offsets and indices stay below this, so that adding to them never overflows.
const COUNT_MAX: u64 = u64::MAX / 4;
/// Longest time to live: ten years in milliseconds.
const TTL_MS_MAX: u64 = 10 * 366 * 24 * 3_600_000;

/// Nodes that an answer to a claim may name.
pub const LIVE_MAX: usize = 4_096;

/// Why a frame was dropped.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum Invalid {
    /// A slot that the cluster doesn't have, or another than its channel's.
    #[error("a slot is out of range or isn't its channel's")]
    Slot,
    /// Ranges that aren't in order, or overlap.
    #[error("slot ranges are not in order")]
    Ranges,
    /// A number beyond all that are ever reached.
    #[error("an epoch, offset or number is out of range")]
    Count,
    /// More nodes than there are.
    #[error("more than {LIVE_MAX} nodes are named")]
    Nodes,
    /// A user's record that isn't in an inbox's name, or a part of it over its limit.
    #[error("a user's record is out of bounds")]
    User,
    /// A stream's parts contradict each other.
    #[error("a copy of a stream contradicts itself")]
    Copy,
}

/// Checks a frame in a cluster of `slots` slots.
pub fn check(frame: &PeerFrame, slots: u16) -> Result<(), Invalid> {
    let place = |slot: Slot, channel: &Channel| match channel.slot(slots) == slot {
        true => Ok(()),
        false => Err(Invalid::Slot),
    };
    match frame {
        PeerFrame::Operation(Operation {
            slot,
            epoch,
            lowest,
            number,
            channel,
            options,
            body,
            ..
        }) => {
            place(*slot, channel)?;
            if let Body::User(change) = body {
                of_user(channel, change)?;
                // Owners see for themselves who is connected.
                ensure(change.field() != Field::Status, Invalid::User)?;
            }
            ensure(*lowest <= *number && *number < COUNT_MAX, Invalid::Count)?;
            ensure(known(*epoch), Invalid::Count)?;
            sane(*options)
        }
        PeerFrame::Ask { slot, epoch, channel, options, .. } => {
            place(*slot, channel)?;
            ensure(known(*epoch), Invalid::Count)?;
            sane(*options)
        }
        PeerFrame::Fanout { slot, channel, .. } | PeerFrame::Unsubscribe { slot, channel, .. } => {
            place(*slot, channel)
        }
        PeerFrame::Interest { interest, .. } => {
            interest.channels.iter().try_for_each(|c| place(interest.slot, &c.channel))
        }
        PeerFrame::Prepare { slots: ranges, .. } | PeerFrame::Owned { slots: ranges, .. } => {
            in_order(ranges, slots)
        }
        PeerFrame::Promise { rejected: promised, live, vanished, .. } => {
            ensure(live.len().max(vanished.len()) <= LIVE_MAX, Invalid::Nodes)?;
            // Epochs of the receiver's own are old news: it has claimed again since it asked.
            each_promised(promised, slots)
        }
        PeerFrame::Fenced { slots: promised } => each_promised(promised, slots),
        PeerFrame::Pulled { copies, .. } => copies.iter().try_for_each(|copy| whole(copy, slots)),
        PeerFrame::Replicate { tails } => tails.iter().try_for_each(|tail| {
            ensure(tail.slot.0 < slots, Invalid::Slot)?;
            let counts = [tail.term, tail.from, tail.after, tail.committed];
            ensure(tail.term > 0 && counts.iter().all(|n| *n < COUNT_MAX), Invalid::Count)?;
            tail.changes.iter().try_for_each(|change| sound(change, tail.slot, slots))
        }),
        PeerFrame::Follow { slots: followed } => followed.iter().try_for_each(|followed| {
            ensure(followed.slot.0 < slots, Invalid::Slot)?;
            ensure((1..COUNT_MAX).contains(&followed.term), Invalid::Count)
        }),
        _ => Ok(()),
    }
}

fn each_promised(promised: &[(Slot, Epoch)], slots: u16) -> Result<(), Invalid> {
    promised.iter().try_for_each(|(slot, epoch)| {
        ensure(slot.0 < slots, Invalid::Slot)?;
        ensure(known(*epoch), Invalid::Count)
    })
}

fn ensure(holds: bool, invalid: Invalid) -> Result<(), Invalid> {
    if holds { Ok(()) } else { Err(invalid) }
}

fn known(epoch: Epoch) -> bool {
    epoch.term < COUNT_MAX
}

fn sane(options: ChannelOptions) -> Result<(), Invalid> {
    ensure(options.history_ttl_ms <= TTL_MS_MAX, Invalid::Count)
}

/// Ranges of one term each: together no longer than the cluster's slots, each in range.
fn in_order(ranges: &[(SlotRange, u64)], slots: u16) -> Result<(), Invalid> {
    let mut total = 0_usize;
    for (range, term) in ranges {
        ensure(range.first <= range.last, Invalid::Ranges)?;
        ensure(range.last.0 < slots, Invalid::Slot)?;
        ensure((1..COUNT_MAX).contains(term), Invalid::Count)?;
        total += usize::from(range.last.0 - range.first.0) + 1;
        ensure(total <= usize::from(slots), Invalid::Ranges)?;
    }
    Ok(())
}

fn whole(copy: &SlotCopy, slots: u16) -> Result<(), Invalid> {
    ensure(copy.applied.iter().all(|(_, number)| *number < COUNT_MAX), Invalid::Count)?;
    copy.loose.iter().try_for_each(|(channel, loose)| {
        ensure(channel.slot(slots) == copy.slot, Invalid::Slot)?;
        sane(loose.options)?;
        placed(Some(loose.follows), &loose.entry)
    })?;
    copy.keys.iter().try_for_each(|key| {
        ensure(key.channel.slot(slots) == copy.slot, Invalid::Slot)?;
        ensure(key.ttl_ms <= TTL_MS_MAX, Invalid::Count)
    })?;
    copy.users.iter().try_for_each(|copy_of| {
        ensure(copy_of.user.slot(slots) == copy.slot, Invalid::Slot)?;
        ensure(copy_of.ttl_ms <= TTL_MS_MAX, Invalid::Count)?;
        copy_of.fields.iter().try_for_each(|field| stamped(&copy_of.user, &field.stamped))
    })?;
    copy.streams.iter().try_for_each(|stream| {
        ensure(stream.channel.slot(slots) == copy.slot, Invalid::Slot)?;
        consistent(stream)
    })
}

fn sound(change: &Change, slot: Slot, slots: u16) -> Result<(), Invalid> {
    let channel = match change {
        Change::Publish { channel, options, follows, entry, .. } => {
            sane(*options)?;
            placed(*follows, entry)?;
            channel
        }
        Change::Begin { channel, options, epoch } => {
            sane(*options)?;
            ensure(known(epoch.epoch), Invalid::Count)?;
            channel
        }
        Change::Forget { channel, .. } => channel,
        Change::User { user, ttl_ms, operation, stamped: change } => {
            ensure(*ttl_ms <= TTL_MS_MAX, Invalid::Count)?;
            ensure(operation.is_none_or(|id| id.number < COUNT_MAX), Invalid::Count)?;
            stamped(user, change)?;
            user
        }
        Change::ForgetUser { user, .. } => user,
    };
    ensure(channel.slot(slots) == slot, Invalid::Slot)
}

fn of_user(user: &Channel, change: &UserChange) -> Result<(), Invalid> {
    ensure(user.inbox_user().is_some() && change.check().is_ok(), Invalid::User)
}

fn stamped(user: &Channel, stamped: &Stamped) -> Result<(), Invalid> {
    let Stamp { epoch, index } = stamped.stamp;
    ensure(known(epoch) && index < COUNT_MAX, Invalid::Count)?;
    let ago_ms = match stamped.change {
        UserChange::Offline { ago_ms } => ago_ms,
        _ => 0,
    };
    ensure(ago_ms <= TTL_MS_MAX, Invalid::Count)?;
    of_user(user, &stamped.change)
}

/// An entry with its name, and what it follows: the offset before its own.
fn placed(follows: Option<Position>, entry: &EntryCopy) -> Result<(), Invalid> {
    let Position { epoch, offset } = entry.publication.position();
    ensure(known(epoch.epoch) && (1..COUNT_MAX).contains(&offset), Invalid::Count)?;
    ensure(entry.ttl_ms <= TTL_MS_MAX && entry.operation.number < COUNT_MAX, Invalid::Count)?;
    ensure(follows.is_none_or(|follows| follows.offset == offset - 1), Invalid::Copy)
}

fn consistent(stream: &StreamCopy) -> Result<(), Invalid> {
    let StreamCopy { options, lineage, top, low, after, entries, sides, gap, .. } = stream;
    sane(*options)?;
    ensure(*top < COUNT_MAX, Invalid::Count)?;
    parted(sides, *top)?;
    ensure(lineage.len() <= LINEAGE_LEN_MAX, Invalid::Copy)?;
    ensure(lineage.iter().all(|turn| known(turn.epoch.epoch)), Invalid::Count)?;
    ensure(entries.iter().all(|entry| entry.ttl_ms <= TTL_MS_MAX), Invalid::Count)?;
    ensure(entries.iter().all(|entry| entry.operation.number < COUNT_MAX), Invalid::Count)?;
    let firsts = lineage.windows(2).all(|pair| pair[0].first <= pair[1].first);
    let begins = lineage.first().is_some_and(|turn| turn.first >= 1);
    let ends = lineage.last().is_some_and(|turn| turn.first - 1 <= *top);
    let offsets = entries.iter().map(|entry| entry.publication.offset);
    let inside = offsets.clone().all(|offset| offset > *after && offset <= *top);
    let steps = offsets.clone().zip(offsets.skip(1)).all(|(one, next)| next == one + 1);
    let bounds = *low <= *top && *after <= *top && *gap <= *top + 1;
    ensure(firsts && begins && ends && inside && steps && bounds, Invalid::Copy)
}

fn parted(sides: &SidesCopy, top: u64) -> Result<(), Invalid> {
    let SidesCopy { epochs, names, gone, taken } = sides;
    ensure(epochs.len() <= SIDES_MAX && names.len() <= SIDE_NAMES_MAX, Invalid::Copy)?;
    ensure(gone.len() <= SIDES_MAX && taken.len() <= SIDES_MAX, Invalid::Copy)?;
    ensure(gone.iter().all(|(_, before)| *before <= top + 1), Invalid::Copy)?;
    let counts = |at: &Position| known(at.epoch.epoch) && at.offset < COUNT_MAX;
    let named = |(at, id): &(Position, OperationId)| counts(at) && id.number < COUNT_MAX;
    ensure(names.iter().all(named) && gone.iter().all(|(at, _)| counts(at)), Invalid::Count)?;
    let known_upto = |(epoch, offset): &(_, u64)| {
        let (epoch, offset) = (*epoch, *offset);
        counts(&Position { epoch, offset })
    };
    ensure(taken.iter().all(known_upto), Invalid::Count)?;
    epochs.iter().try_for_each(|(epoch, Side { first, follows })| {
        ensure(known(epoch.epoch) && (1..COUNT_MAX).contains(first), Invalid::Count)?;
        ensure(follows.as_ref().is_none_or(counts), Invalid::Count)?;
        ensure(*first - 1 == follows.map_or(0, |follows| follows.offset), Invalid::Copy)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::ids::Incarnation;
    use crate::protocol::peer::Vanished;

    fn range(first: u16, last: u16) -> (SlotRange, u64) {
        (SlotRange { first: Slot(first), last: Slot(last) }, 1)
    }

    #[test]
    fn ranges_cost_no_more_than_the_slots_there_are() {
        let prepare = |slots| check(&PeerFrame::Prepare { claim: 1, attempt: 0, slots }, 64);
        assert_eq!(prepare(vec![range(0, 63)]), Ok(()));
        assert_eq!(prepare(vec![range(0, 64)]), Err(Invalid::Slot));
        assert_eq!(prepare(vec![range(5, 4)]), Err(Invalid::Ranges));
        assert_eq!(prepare(vec![range(0, 63); 2]), Err(Invalid::Ranges));
        let term = vec![(range(0, 1).0, u64::MAX)];
        assert_eq!(prepare(term), Err(Invalid::Count));
    }

    #[test]
    fn an_answer_names_no_more_nodes_than_there_can_be() {
        let promise = |living: usize, gone: usize| {
            let live = vec![Incarnation(1); living];
            let vanished = vec![Vanished { node: Incarnation(2), ago_ms: 1 }; gone];
            let (claim, attempt, part, last) = (1, 0, 0, true);
            let (rejected, digests, interest) = (vec![], vec![], vec![]);
            let frame = PeerFrame::Promise {
                claim,
                attempt,
                part,
                rejected,
                digests,
                interest,
                live,
                vanished,
                last,
            };
            check(&frame, 64)
        };
        assert_eq!(promise(LIVE_MAX, LIVE_MAX), Ok(()));
        assert_eq!(promise(LIVE_MAX + 1, 0), Err(Invalid::Nodes));
        assert_eq!(promise(0, LIVE_MAX + 1), Err(Invalid::Nodes));
    }

    #[test]
    fn a_copy_that_contradicts_itself_is_dropped() {
        let channel = Channel::parse("c").expect("a name");
        let slot = channel.slot(64);
        let stream = StreamCopy {
            channel,
            options: ChannelOptions::default(),
            lineage: vec![],
            top: 3,
            low: 0,
            committed: 0,
            idle_ms: 0,
            after: 0,
            entries: vec![],
            goes_on: false,
            sides: SidesCopy::default(),
            gap: 0,
        };
        let copy = |stream| {
            let (applied, streams, loose) = (vec![], vec![stream], vec![]);
            let (keys, users) = (vec![], vec![]);
            let copies = vec![SlotCopy { slot, applied, streams, loose, keys, users }];
            let (claim, pull, number, last) = (0, 1, 1, true);
            check(&PeerFrame::Pulled { claim, pull, number, copies, last }, 64)
        };
        assert_eq!(copy(stream.clone()), Err(Invalid::Copy));
        assert_eq!(copy(StreamCopy { top: u64::MAX, ..stream }), Err(Invalid::Count));
    }
}
