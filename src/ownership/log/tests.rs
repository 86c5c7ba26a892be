//! What an owner's log counts and keeps.
use super::*;
use crate::protocol::channel::ChannelOptions;
use crate::protocol::ids::{Epoch, StreamEpoch};
use crate::protocol::message::{Message, Publication};
use crate::protocol::peer::EntryCopy;

const SLOW: Incarnation = Incarnation(2);
const SPARE: Incarnation = Incarnation(3);

/// A log of so many changes, all committed, of which a whole follower has the first `acked`.
fn log(changes: u64, acked: u64) -> Log {
    let mut log = Log::new(true);
    log.add_follower(SLOW, false, Millis(0));
    for index in 1..=changes {
        let channel = Channel::parse("news").expect("a name");
        let epoch = StreamEpoch { epoch: Epoch { term: 1, owner: Incarnation(1) }, index };
        let position = Position { epoch, offset: 0 };
        log.push(index, Change::Forget { channel, position }, None);
    }
    log.commit(changes);
    log.followers.get_mut(&SLOW).expect("it follows").acked = acked;
    log
}

fn stand_in(log: &mut Log, from: u64, acked: u64) {
    log.add_follower(SPARE, true, Millis(0));
    let spare = log.followers.get_mut(&SPARE).expect("it follows");
    (spare.from, spare.acked) = (from, acked);
}

#[test]
fn who_lags_behind_and_who_stands_in_for_it_hold_a_copy_together() {
    let mut log = log(10, 4);
    assert_eq!(log.committed_copies(), 1);
    stand_in(&mut log, 4, 10);
    assert_eq!(log.committed_copies(), 2);
    log.followers.remove(&SLOW);
    assert_eq!(log.committed_copies(), 1, "nobody else has the first four");
}

#[test]
fn nobody_is_whole_without_a_copy_of_what_came_beside_the_log() {
    let mut log = Log::new(true);
    log.add_follower(SLOW, false, Millis(0));
    assert!(
        log.followers.get(&SLOW).is_some_and(Follower::is_whole),
        "it was there from the first change on"
    );
    log.outdate();
    log.add_follower(SPARE, false, Millis(0));
    assert!(log.followers.values().all(|follower| !follower.is_whole()));
    assert_eq!(log.committable(2), 0);
}

fn publish(bytes: usize) -> Change {
    let message = Message { data: vec![b' '; bytes].into(), ..Message::default() };
    let epoch = StreamEpoch { epoch: Epoch { term: 1, owner: Incarnation(1) }, index: 1 };
    let publication = Publication { offset: 1, epoch, message: Arc::new(message) };
    let operation = OperationId { gateway: SLOW, number: 1 };
    let entry = EntryCopy { publication, operation, ttl_ms: 60_000 };
    let (options, channel) = (ChannelOptions::default(), Channel::parse("news"));
    let channel = channel.expect("a name");
    Change::Publish { channel, options, follows: None, entry, key: None }
}

#[test]
fn what_is_not_committed_has_a_limit_of_bytes_and_commits_make_room() {
    let mut log = Log::new(true);
    let mut pushed = 0;
    while log.has_room() {
        pushed += 1;
        log.push(pushed, publish(64 << 10), None);
    }
    assert!(pushed >= 500 && pushed < UNCOMMITTED_MAX as u64, "{pushed} of 64 KiB");
    log.commit(pushed / 2);
    assert!(log.has_room());
    log.commit(pushed);
    assert_eq!((log.uncommitted(), log.uncommitted_bytes), (0, 0));
}

#[test]
fn what_is_not_committed_has_a_limit_of_changes() {
    let mut log = log(0, 0);
    for index in 1..=UNCOMMITTED_MAX as u64 {
        assert!(log.has_room());
        log.push(index, publish(1), None);
    }
    assert!(!log.has_room());
}

#[test]
fn who_sends_an_operation_again_waits_once_and_not_everybody_waits() {
    let mut log = log(0, 0);
    log.push(1, publish(1), None);
    let waiting = log.waiting.back_mut().expect("it waits");
    for number in 0..RESULTS_MAX as u64 {
        assert!(waiting.tell(SLOW, number) && waiting.tell(SLOW, number));
    }
    assert_eq!(waiting.results.len(), RESULTS_MAX);
    assert!(!waiting.tell(SPARE, 1));
    assert!(waiting.tell(SLOW, 0), "it waits already");
}

#[test]
fn what_neither_has_is_held_by_nobody_else() {
    for (from, acked) in [(5, 10), (4, 9)] {
        let mut log = log(10, 4);
        stand_in(&mut log, from, acked);
        assert_eq!(log.committed_copies(), 1, "{from}..={acked}");
    }
}
