//! Positions and bounds of one stream, and copies of it.
use bytes::Bytes;

use super::*;
use crate::protocol::channel::Channel;
use crate::protocol::ids::Incarnation;
use crate::protocol::message::History;
use crate::protocol::peer::StreamCopy;

mod parted;

const NOW: Millis = Millis(1_000);

impl Stream {
    /// Takes over a copy that doesn't come from the slot's owner.
    fn merge(&mut self, copy: StreamCopy, now: Millis) -> Merged {
        self.merge_from(copy, false, now)
    }
}

fn options(size: u32) -> ChannelOptions {
    ChannelOptions { history_size: size, history_ttl_ms: 1_000, ..ChannelOptions::default() }
}

fn epoch(term: u64) -> Epoch {
    Epoch { term, owner: Incarnation(u128::from(term)) }
}

fn operation(number: u64) -> OperationId {
    OperationId { gateway: Incarnation(9), number }
}

fn publish(stream: &mut Stream, term: u64, number: u64) -> Position {
    let options = stream.options;
    let message = Arc::new(Message { time_ms: number, ..Message::default() });
    let position =
        stream.append(epoch(term), number, options, operation(number), message, NOW).1.position();
    stream.commit(position.offset);
    position
}

fn stream(size: u32, numbers: std::ops::RangeInclusive<u64>) -> Stream {
    let first = StreamEpoch { epoch: epoch(1), index: 0 };
    let mut stream = Stream::new(options(size), first, NOW);
    for number in numbers {
        publish(&mut stream, 1, number);
    }
    stream
}

fn offsets(resume: Resume) -> Vec<u64> {
    match resume {
        Resume::Continued(publications) => publications.iter().map(|p| p.offset).collect(),
        other => panic!("not continued: {other:?}"),
    }
}

fn copy(stream: &Stream, after: u64) -> StreamCopy {
    stream.copy(&Channel::parse("c").expect("a name"), after, NOW)
}

#[test]
fn a_position_resumes_across_a_change_of_owner() {
    let mut stream = stream(10, 1..=3);
    let held = stream.position();
    let follows = publish(&mut stream, 2, 4);
    assert_ne!(held.epoch, follows.epoch);
    assert_eq!(offsets(stream.resume(held, READ_LEN_MAX)), [4]);
    assert_eq!(offsets(stream.resume(Position { offset: 1, ..held }, READ_LEN_MAX)), [2, 3, 4]);
    assert_eq!(offsets(stream.resume(follows, READ_LEN_MAX)), [0u64; 0]);
}

#[test]
fn a_position_beyond_its_epoch_sees_twice_rather_than_never() {
    let mut stream = stream(10, 1..=3);
    let beyond = Position { offset: 7, ..stream.position() };
    publish(&mut stream, 2, 4);
    assert_eq!(offsets(stream.resume(beyond, READ_LEN_MAX)), [4]);
}

#[test]
fn an_answer_carries_no_more_bytes_than_a_frame_has_room_for() {
    let mut stream = stream(10, 1..=1);
    let held = stream.position();
    let data = Bytes::from(vec![b' '; READ_BYTES_MAX / 3]);
    for number in 2..=4 {
        let message = Arc::new(Message { data: data.clone(), ..Message::default() });
        let id = operation(number);
        let appended = stream.append(epoch(1), number, options(10), id, message, NOW);
        stream.commit(appended.1.offset);
    }
    let read = |since| stream.read(History { limit: 10, since, reverse: false });
    let read = |since| read(since).iter().map(|p| p.offset).collect::<Vec<_>>();
    assert_eq!(read(Some(held)), [2, 3]);
    assert_eq!(read(Some(Position { offset: 3, ..held })), [4]);
    // Never a part of what was missed.
    assert_eq!(stream.resume(held, READ_LEN_MAX), Resume::Gone);
    assert_eq!(offsets(stream.resume(Position { offset: 2, ..held }, READ_LEN_MAX)), [3, 4]);
}

#[test]
fn an_answer_carries_so_many_publications_and_recovery_all_or_none() {
    let most = READ_LEN_MAX as u64;
    let stream = stream(2 * READ_LEN_MAX as u32, 1..=most + 1);
    let at = |offset| Position { offset, ..stream.position() };
    assert_eq!(stream.resume(at(0), READ_LEN_MAX), Resume::Gone);
    assert_eq!(offsets(stream.resume(at(1), READ_LEN_MAX)), (2..=most + 1).collect::<Vec<_>>());
    let read = |since, reverse| -> Vec<u64> {
        let history = History { limit: u32::MAX, since, reverse };
        stream.read(history).iter().map(|p| p.offset).collect()
    };
    assert_eq!(read(None, false), (1..=most).collect::<Vec<_>>());
    assert_eq!(read(Some(at(most)), false), [most + 1]);
    assert_eq!(read(None, true), (2..=most + 1).rev().collect::<Vec<_>>());
}

#[test]
fn what_was_dropped_is_not_recovered() {
    let mut stream = stream(2, 1..=5);
    let top = stream.position();
    assert_eq!(stream.resume(Position { offset: 2, ..top }, READ_LEN_MAX), Resume::Gone);
    assert_eq!(offsets(stream.resume(Position { offset: 3, ..top }, READ_LEN_MAX)), [4, 5]);
    stream.expire(NOW + 1_000);
    assert!(stream.is_empty() && !stream.is_idle(NOW + 1_000));
    assert_eq!(stream.resume(Position { offset: 4, ..top }, READ_LEN_MAX), Resume::Gone);
    assert_eq!(offsets(stream.resume(top, READ_LEN_MAX)), [0u64; 0]);
    assert!(stream.is_idle(NOW + 2_000));
}

#[test]
fn a_stream_made_anew_does_not_know_old_positions() {
    let old = stream(10, 1..=3);
    let new = Stream::new(options(10), StreamEpoch { epoch: epoch(1), index: 9 }, NOW);
    assert_eq!(new.resume(old.position(), READ_LEN_MAX), Resume::Unknown);
}

#[test]
fn history_reads_both_ways() {
    let stream = stream(10, 1..=5);
    let at = |offset| Some(Position { offset, ..stream.position() });
    let read = |limit, since, reverse| -> Vec<u64> {
        stream.read(History { limit, since, reverse }).iter().map(|p| p.offset).collect()
    };
    assert_eq!(read(2, None, false), [1, 2]);
    assert_eq!(read(2, at(2), false), [3, 4]);
    assert_eq!(read(2, None, true), [5, 4]);
    assert_eq!(read(9, at(3), true), [2, 1]);
    assert_eq!(read(0, None, false), [0u64; 0]);
}

#[test]
fn a_snapshot_and_its_tail_make_an_equal_stream() {
    let mut owner = stream(10, 1..=3);
    let mut learner = Stream::from_copy(copy(&owner, 0), NOW).expect("a whole copy");
    publish(&mut owner, 2, 4);
    assert_eq!(learner.merge(copy(&owner, 3), NOW), Merged::Extended);
    assert_eq!(learner, owner);
    assert_eq!(learner.merge(copy(&owner, 0), NOW), Merged::Same);
    assert_eq!(owner.merge(copy(&learner, 0), NOW), Merged::Same);
}

#[test]
fn a_tail_behind_a_hole_is_not_taken() {
    let owner = stream(10, 1..=5);
    let mut learner = stream(10, 1..=2);
    assert_eq!(learner.merge(copy(&owner, 4), NOW), Merged::Hole);
    assert_eq!(learner.merge(copy(&owner, 2), NOW), Merged::Extended);
    assert_eq!(learner, owner);
}

#[test]
fn lines_that_parted_lose_nothing() {
    let base = stream(10, 1..=2);
    let (mut left, mut right) = (base.clone(), base);
    publish(&mut left, 1, 3);
    publish(&mut right, 2, 4);
    let lost = |merged| match merged {
        Merged::Forked(lost) => {
            lost.iter().map(|(_, e): &(Position, Entry)| e.operation.number).collect::<Vec<_>>()
        }
        other => panic!("not forked: {other:?}"),
    };
    let (left_copy, right_copy) = (copy(&left, 0), copy(&right, 0));
    assert_eq!(lost(left.merge(right_copy, NOW)), [3]);
    assert_eq!(lost(right.merge(left_copy, NOW)), [3]);
    assert_eq!(left, right);
}

#[test]
fn what_is_not_committed_is_shown_to_nobody_and_kept() {
    let mut stream = stream(2, 1..=2);
    let held = stream.committed();
    let message = Arc::new(Message::default());
    for number in 3..=5 {
        stream.append(epoch(2), number, options(2), operation(number), message.clone(), NOW);
    }
    assert_eq!((stream.committed(), stream.len()), (held, 3));
    assert_eq!(offsets(stream.resume(held, READ_LEN_MAX)), [0u64; 0]);
    assert_eq!(stream.resume(stream.position(), READ_LEN_MAX), Resume::Ahead);
    assert_eq!(stream.uncommitted().count(), 3);
    stream.commit(4);
    let shown = stream.committed();
    assert_eq!((shown.offset, stream.len()), (4, 2));
    assert_eq!(offsets(stream.resume(Position { offset: 3, ..shown }, READ_LEN_MAX)), [4]);
}

#[test]
fn a_copy_tells_what_is_committed() {
    let mut ours = stream(10, 1..=3);
    let message = Arc::new(Message::default());
    ours.append(epoch(1), 4, options(10), operation(4), message, NOW);
    let mut theirs = Stream::from_copy(copy(&ours, 0), NOW).expect("a whole copy");
    assert_eq!(theirs.committed().offset, 3);
    ours.commit(4);
    assert_eq!(theirs.merge(copy(&ours, 4), NOW), Merged::Same);
    assert_eq!(theirs, ours);
}

#[test]
fn a_publication_finds_its_place_by_what_it_follows() {
    let mut ours = stream(10, 1..=2);
    let mut theirs = ours.clone();
    publish(&mut ours, 2, 3);
    publish(&mut ours, 2, 4);
    let (follows, last) = ours.entry(4).expect("the last one");
    let early = theirs.place(follows, last.clone(), NOW).expect_err("it follows another");
    let (follows, first) = ours.entry(3).expect("the one before");
    assert_eq!(theirs.place(follows, first.clone(), NOW), Ok(()));
    let follows = theirs.position();
    assert_eq!(theirs.place(follows, early, NOW), Ok(()));
    theirs.commit(4);
    assert_eq!(theirs, ours);
}
