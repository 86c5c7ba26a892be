//! Copies of what is held, in parts, between nodes that hold more, less or something else.
use std::sync::Arc;

use bytes::Bytes;

use super::keys::KEYS_HELD_MAX;
use super::{Holding, KEY_MS, KEYS_MAX, LOOSE_MIN, Pieces};
use crate::protocol::channel::{Channel, ChannelOptions};
use crate::protocol::ids::{Epoch, Incarnation, Position, Slot, StreamEpoch};
use crate::protocol::message::{Message, OperationId, Publication};
use crate::protocol::peer::{Change, EntryCopy, KeyCopy, LooseCopy, SlotCopy};
use crate::protocol::time::Millis;

const NOW: Millis = Millis(5);
const OPTIONS: ChannelOptions = ChannelOptions {
    history_size: 10_000,
    history_ttl_ms: 60_000,
    presence: false,
    join_leave: false,
};

impl Holding {
    /// Takes over a copy that doesn't come from the slot's owner.
    fn merge(&mut self, copy: SlotCopy, now: Millis) -> bool {
        self.merge_from(copy, false, now)
    }
}

fn holding(publications: u64, bytes: usize) -> Holding {
    let mut holding = Holding::default();
    let channel = Channel::parse("big").expect("a name");
    for number in 1..=publications {
        let epoch = Epoch { term: 1 + number / 700, owner: Incarnation(1) };
        let operation = OperationId { gateway: Incarnation(2), number };
        let message = Message { data: Bytes::from(vec![b'x'; bytes]), ..Message::default() };
        let (at, message) = ((epoch, number), Arc::new(message));
        holding.append(&channel, OPTIONS, at, operation, message, None, NOW);
    }
    holding
}

#[test]
fn copies_in_parts_make_an_equal_holding() {
    let ours = holding(2_000, 1_000);
    let parts = ours.copies(Slot(1), &[], NOW);
    assert!(parts.len() > 5, "{} parts", parts.len());
    let (mut theirs, mut pieces) = (Holding::default(), Pieces::default());
    for part in parts {
        let part = pieces.join(part).expect("parts that continue each other");
        assert!(theirs.merge(part, NOW));
    }
    assert_eq!(theirs, ours);
    assert_eq!(theirs.digest(), ours.digest());
}

#[test]
fn an_empty_line_yields_to_the_next_owners() {
    let mut holding = Holding::default();
    let channel = Channel::parse("c").expect("a name");
    let of = |term| StreamEpoch { epoch: Epoch { term, owner: Incarnation(1) }, index: 1 };
    for (term, then) in [(3, 3), (4, 4), (2, 4)] {
        let (options, epoch, channel) = (OPTIONS, of(term), channel.clone());
        holding.apply(&Change::Begin { channel, options, epoch }, NOW);
        assert_eq!(holding.tops()[0].1, Position { epoch: of(then), offset: 0 });
    }
    let operation = OperationId { gateway: Incarnation(2), number: 1 };
    let at = (of(4).epoch, 2);
    holding.append(&channel, OPTIONS, at, operation, Arc::default(), None, NOW);
    let (options, epoch) = (OPTIONS, of(5));
    holding.apply(&Change::Begin { channel, options, epoch }, NOW);
    assert_eq!(holding.tops()[0].1, Position { epoch: of(4), offset: 1 });
}

#[test]
fn what_does_not_continue_a_piece_is_no_copy() {
    let mut parts = holding(1_000, 1_000).copies(Slot(1), &[], NOW);
    let mut pieces = Pieces::default();
    assert!(pieces.join(parts.remove(0)).is_some());
    let other = SlotCopy { streams: vec![], ..parts[0].clone() };
    assert!(pieces.join(other).is_none(), "nothing of the stream in the next part");
}

#[test]
fn long_lines_that_parted_become_one_on_both_sides() {
    let (ours, mut theirs) = (holding(2_000, 1_000), holding(650, 1_000));
    let channel = Channel::parse("big").expect("a name");
    for number in 1..=500 {
        let epoch = Epoch { term: 2, owner: Incarnation(9) };
        let operation = OperationId { gateway: Incarnation(3), number };
        let message = Message { data: Bytes::from(vec![b'y'; 1_000]), ..Message::default() };
        let (at, message) = ((epoch, number), Arc::new(message));
        theirs.append(&channel, OPTIONS, at, operation, message, None, NOW);
    }
    let merged = |mut one: Holding, other: &Holding| {
        let mut pieces = Pieces::default();
        for part in other.copies(Slot(1), &one.tops(), NOW) {
            let part = pieces.join(part).expect("parts that continue each other");
            assert!(one.merge(part, NOW));
        }
        one
    };
    let (one, other) = (merged(ours.clone(), &theirs), merged(theirs, &ours));
    assert_eq!(one, other);
    assert_eq!((one.loose(), one.tops()), (500, ours.tops()));
}

#[test]
fn only_what_is_lacking_is_copied() {
    let ours = holding(100, 10);
    let mut theirs = holding(90, 10);
    let parts = ours.copies(Slot(1), &theirs.tops(), NOW);
    let copied: usize = parts.iter().flat_map(|p| &p.streams).map(|s| s.entries.len()).sum();
    assert_eq!(copied, 10);
    for part in parts {
        assert!(theirs.merge(part, NOW));
    }
    assert_eq!(theirs, ours);
    let parts = ours.copies(Slot(1), &theirs.tops(), NOW);
    assert!(parts.iter().flat_map(|p| &p.streams).all(|stream| stream.entries.is_empty()));
}

fn append_keyed(holding: &mut Holding, number: u64, now: Millis) -> OperationId {
    let channel = Channel::parse("keyed").expect("a name");
    let operation = OperationId { gateway: Incarnation(2), number };
    let at = (Epoch { term: 1, owner: Incarnation(1) }, number);
    let message = Arc::new(Message::default());
    holding.append(&channel, OPTIONS, at, operation, message, Some("order-7".into()), now);
    operation
}

#[test]
fn a_key_used_again_after_its_time_stands_for_what_it_was_used_for_then() {
    let (channel, key) = (Channel::parse("keyed").expect("a name"), Arc::from("order-7"));
    let mut holding = Holding::default();
    let first = append_keyed(&mut holding, 1, NOW);
    assert_eq!(holding.key(&channel, &key, NOW + (KEY_MS - 1)), Some(first));
    let later = NOW + KEY_MS;
    assert_eq!(holding.key(&channel, &key, later), None);
    let second = append_keyed(&mut holding, 2, later);
    assert_eq!(holding.key(&channel, &key, later), Some(second));
    holding.expire(later);
    assert_eq!(holding.key_of(second), Some(key));
    assert_eq!(holding.key_of(first), None);
}

#[test]
fn a_key_of_two_operations_stands_for_the_one_that_is_held() {
    let (channel, key) = (Channel::parse("keyed").expect("a name"), Arc::from("order-7"));
    let mut holding = Holding::default();
    let held = append_keyed(&mut holding, 2, NOW);
    let gone = OperationId { gateway: Incarnation(1), number: 1 };
    let copy = KeyCopy {
        channel: channel.clone(),
        key: Arc::clone(&key),
        operation: gone,
        ttl_ms: KEY_MS,
    };
    let keys = vec![copy];
    let (applied, streams, loose, users) = (vec![], vec![], vec![], vec![]);
    let slot = Slot(1);
    holding.merge(SlotCopy { slot, applied, streams, loose, keys, users }, NOW);
    assert_eq!(holding.key(&channel, &key, NOW), Some(held));
    assert_eq!(holding.key_of(gone), Some(key));
}

#[test]
fn what_two_owners_took_with_one_key_is_one_message() {
    let channel = Channel::parse("keyed").expect("a name");
    let (mut ours, mut theirs) = (Holding::default(), Holding::default());
    append_keyed(&mut ours, 1, NOW);
    let operation = OperationId { gateway: Incarnation(3), number: 1 };
    let at = (Epoch { term: 2, owner: Incarnation(7) }, 1);
    let (message, key) = (Arc::new(Message::default()), Some("order-7".into()));
    theirs.append(&channel, OPTIONS, at, operation, message, key, NOW);
    for part in ours.copies(Slot(1), &[], NOW) {
        theirs.merge(part, NOW);
    }
    assert_eq!(theirs.loose(), 1, "the other line's publication stands beside");
    // A follower gives up what its owner has by the key alone.
    let mut follower = theirs.clone();
    follower.drop_known(NOW);
    assert_eq!(follower.loose(), 0);
    assert_eq!(theirs.take_loose(NOW), vec![]);
    assert_eq!(theirs.key(&channel, &"order-7".into(), NOW), Some(operation));
}

#[test]
fn what_the_line_has_outlived_is_not_appended_again() {
    let channel = Channel::parse("brief").expect("a name");
    let options = ChannelOptions { history_size: 3, ..OPTIONS };
    let mut holding = Holding::default();
    let mut second = None;
    for number in 1..=6 {
        let operation = OperationId { gateway: Incarnation(2), number };
        let at = (Epoch { term: 1, owner: Incarnation(1) }, number);
        let message = Arc::new(Message::default());
        let (follows, publication) =
            holding.append(&channel, options, at, operation, message, None, NOW);
        holding.commit(&channel, publication.position());
        if number == 2 {
            let entry = EntryCopy { publication, operation, ttl_ms: 60_000 };
            second = Some(LooseCopy { options, follows, entry });
        }
    }
    // Somebody who never had what is before it kept it beside its line.
    let loose = vec![(channel, second.expect("the second"))];
    let (applied, streams, keys, users) = (vec![], vec![], vec![], vec![]);
    holding.merge(SlotCopy { slot: Slot(1), applied, streams, loose, keys, users }, NOW);
    assert_eq!(holding.loose(), 0);
    assert_eq!(holding.take_loose(NOW), vec![]);
}

#[test]
fn keys_that_copies_bring_have_a_limit_and_those_that_end_last_stay() {
    let mut holding = Holding::default();
    let channel = Channel::parse("keyed").expect("a name");
    let name = |number: usize| Arc::from(format!("order-{number}"));
    let key = |number: usize| KeyCopy {
        channel: channel.clone(),
        key: name(number),
        operation: OperationId { gateway: Incarnation(2), number: number as u64 },
        ttl_ms: number as u64,
    };
    let mut merge = |numbers: std::ops::RangeInclusive<usize>| {
        let keys = numbers.map(key).collect();
        let (applied, streams, loose, users) = (vec![], vec![], vec![], vec![]);
        holding.merge(SlotCopy { slot: Slot(1), applied, streams, loose, keys, users }, NOW);
        let known = |number| holding.key(&channel, &name(number), NOW).is_some();
        (holding.takes_keys(), known(1), known(KEYS_MAX - 1))
    };
    assert_eq!(merge(1..=KEYS_MAX - 1), (true, true, true));
    assert_eq!(merge(KEYS_MAX..=KEYS_HELD_MAX), (false, true, true));
    assert_eq!(merge(KEYS_HELD_MAX + 1..=KEYS_HELD_MAX + 1), (false, false, true));
}

#[test]
fn beside_a_line_the_latest_stay() {
    let channel = Channel::parse("brief").expect("a name");
    let options = ChannelOptions { history_size: 3, ..OPTIONS };
    let epoch = StreamEpoch { epoch: Epoch { term: 1, owner: Incarnation(1) }, index: 1 };
    let most = LOOSE_MIN as u64;
    let copies = (2..=most + 11).map(|offset| {
        let publication = Publication { offset, epoch, message: Arc::default() };
        let operation = OperationId { gateway: Incarnation(2), number: offset };
        let follows = Position { epoch, offset: offset - 1 };
        let entry = EntryCopy { publication, operation, ttl_ms: 60_000 };
        (channel.clone(), LooseCopy { options, follows, entry })
    });
    let (applied, streams, keys, users) = (vec![], vec![], vec![], vec![]);
    let loose = copies.collect();
    let mut holding = Holding::default();
    holding.merge(SlotCopy { slot: Slot(1), applied, streams, loose, keys, users }, NOW);
    assert_eq!(holding.loose(), LOOSE_MIN);
    let (_, _, first) = &holding.take_loose(NOW)[0];
    assert_eq!(first.publication.offset, 12);
}

#[test]
fn what_is_appended_anew_begins_an_epoch() {
    let channel = Channel::parse("keyed").expect("a name");
    let mut holding = Holding::default();
    append_keyed(&mut holding, 7, NOW);
    let running = holding.tops()[0].1;
    // Its sender sent it before, and another owner took it.
    let epoch = StreamEpoch { epoch: Epoch { term: 1, owner: Incarnation(9) }, index: 1 };
    let publication = Publication { offset: 1, epoch, message: Arc::default() };
    let operation = OperationId { gateway: Incarnation(2), number: 1 };
    let entry = EntryCopy { publication, operation, ttl_ms: 60_000 };
    let follows = Position { epoch, offset: 0 };
    let loose = vec![(channel.clone(), LooseCopy { options: OPTIONS, follows, entry })];
    let (applied, streams, keys, users) = (vec![], vec![], vec![], vec![]);
    holding.merge(SlotCopy { slot: Slot(1), applied, streams, loose, keys, users }, NOW);
    assert_eq!(holding.take_loose(NOW).len(), 1);
    let at = (running.epoch.epoch, 8);
    let (follows, publication) =
        holding.append(&channel, OPTIONS, at, operation, Arc::default(), None, NOW);
    assert_eq!((follows, publication.epoch.index), (running, 8));
}
