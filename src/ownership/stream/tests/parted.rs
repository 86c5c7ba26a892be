//! Lines that parted and meet again: positions on either, and what is announced as gone.
use std::collections::HashSet;

use proptest::prelude::*;

use super::*;

fn numbers(stream: &Stream, position: Position) -> Vec<u64> {
    match stream.resume(position, READ_LEN_MAX) {
        Resume::Continued(all) => all.iter().map(|p| p.message.time_ms).collect(),
        other => panic!("not continued: {other:?}"),
    }
}

/// Two lines that have three publications in common.
fn parted(size: u32) -> (Stream, Stream) {
    let mut ours = stream(size, 1..=3);
    let mut theirs = ours.clone();
    (4..=5).for_each(|number| _ = publish(&mut theirs, 2, number));
    (6..=7).for_each(|number| _ = publish(&mut ours, 3, number));
    (ours, theirs)
}

#[test]
fn a_position_on_a_line_that_has_parted_resumes_exactly() {
    let (mut ours, theirs) = parted(10);
    let (common, four, five) = (theirs.name(3), theirs.name(4), theirs.name(5));
    assert_eq!(ours.resume(four, READ_LEN_MAX), Resume::Unknown);
    assert!(matches!(ours.merge(copy(&theirs, 0), NOW), Merged::Forked(lost) if lost.len() == 2));
    for number in 4..=5 {
        publish(&mut ours, 4, number);
    }
    assert_eq!(numbers(&ours, common), [6, 7, 4, 5]);
    assert_eq!(numbers(&ours, four), [6, 7, 5]);
    assert_eq!(numbers(&ours, five), [6, 7]);
    // Beyond what is known of that line it starts at the last that is.
    let beyond = Position { offset: 9, ..five };
    assert_eq!(numbers(&ours, beyond), [6, 7]);
    assert!(ours.falls_short_of(beyond) && !ours.falls_short_of(five));
}

#[test]
fn a_side_of_a_side_resumes_too() {
    let (mut ours, mut theirs) = parted(20);
    let mut third = theirs.clone();
    publish(&mut third, 5, 8);
    let held = third.position();
    publish(&mut theirs, 6, 9);
    theirs.merge(copy(&third, 0), NOW);
    ours.merge(copy(&theirs, 0), NOW);
    // The line of the highest epoch is theirs: 1 to 5, 9.
    for (term, number) in [(7, 8), (7, 6), (7, 7)] {
        publish(&mut ours, term, number);
    }
    assert_eq!(numbers(&ours, held), [9, 6, 7]);
}

#[test]
fn who_saw_nothing_on_an_empty_line_resumes_on_the_one_that_took_its_place() {
    let empty = Stream::new(options(3), StreamEpoch { epoch: epoch(1), index: 0 }, NOW);
    let held = empty.position();
    let begun = StreamEpoch { epoch: epoch(2), index: 5 };
    let mut anew = empty.clone();
    anew.yield_to(options(3), begun, NOW);
    let mut other = Stream::new(options(3), begun, NOW);
    assert_eq!(other.resume(held, READ_LEN_MAX), Resume::Unknown);
    let mut both_empty = empty.clone();
    assert_eq!(both_empty.merge(copy(&other, 0), NOW), Merged::Forked(vec![]));
    publish(&mut other, 2, 6);
    let mut filled = empty.clone();
    assert_eq!(filled.merge(copy(&other, 0), NOW), Merged::Extended);
    assert_eq!(other.merge(copy(&empty, 0), NOW), Merged::Same);
    assert_eq!(filled, other);
    for mut line in [anew, both_empty, filled, other] {
        let first = line.position().offset + 1;
        (first..=3).for_each(|number| _ = publish(&mut line, 2, number + 5));
        assert_eq!(numbers(&line, held), [6, 7, 8]);
        publish(&mut line, 2, 9);
        assert_eq!(line.resume(held, READ_LEN_MAX), Resume::Gone, "the first is gone");
        line.expire(NOW);
        assert!(!line.knows(held));
    }
}

#[test]
fn sides_are_forgotten_with_what_they_parted_from() {
    let (mut ours, theirs) = parted(4);
    let (at, end, options) = (theirs.name(4), theirs.position(), ours.options());
    ours.merge(copy(&theirs, 0), NOW);
    let known = "two names, where they begin, and where they end";
    assert!(ours.knows(at) && ours.side_positions().count() == 4, "{known}");
    for number in 8..=12 {
        let (id, message) = (operation(number), Arc::default());
        let position = ours.append(epoch(4), number, options, id, message, NOW).1.position();
        ours.commit(position.offset);
    }
    assert!(ours.expire(NOW) && !ours.knows(at));
    assert_eq!(ours.side_positions().collect::<Vec<_>>(), [end], "up to where it was taken in");
    assert_eq!(ours.resume(at, READ_LEN_MAX), Resume::Unknown);
}

#[test]
fn what_another_line_has_dropped_is_announced_as_a_gap() {
    let (mut ours, mut theirs) = parted(4);
    for number in 8..=12 {
        publish(&mut theirs, 2, number);
    }
    let held = ours.position();
    assert_eq!(numbers(&ours, held), [0u64; 0]);
    let third = ours.clone();
    ours.merge(copy(&theirs, 0), NOW);
    for (follows_nobody, number) in [(true, 21), (false, 22)] {
        let at = publish(&mut ours, 3, number);
        let (follows, _) = ours.entry(at.offset).expect("the last one");
        assert_eq!(ours.shown_behind(follows) != follows, follows_nobody);
    }
    let dropped = theirs.low;
    for position in [held, Position { offset: 4, epoch: held.epoch }, theirs.name(dropped - 1)] {
        assert_eq!(ours.resume(position, READ_LEN_MAX), Resume::Gone);
    }
    // Who was there has it.
    assert_eq!(numbers(&ours, theirs.position()), [6, 7, 21, 22]);
    // The same copy again says nothing new, nor what has been dropped of it since.
    let gaps = |stream: &Stream| (stream.gaps().max(), stream.position());
    let announced = gaps(&ours);
    ours.merge(copy(&theirs, 0), NOW);
    assert_eq!(gaps(&ours), announced);
    let mut less = theirs.clone();
    less.expire(Millis(u64::MAX));
    assert!(less.low > dropped);
    ours.merge(copy(&less, 0), NOW);
    assert_eq!(gaps(&ours), announced);
    // Nor does who follows the line begin a gap of its own.
    let mut follower = third.clone();
    follower.merge(copy(&ours, 0), NOW);
    assert_eq!(gaps(&follower), announced);
    // But who has gone on without knowing of it announces it behind what it has told by then.
    let (mut told, mut further) = (third.clone(), third.clone());
    told.merge(copy(&theirs, 0), NOW);
    let stood = [21, 22].map(|number| publish(&mut further, 3, number))[1];
    further.merge(copy(&told, 0), NOW);
    assert_eq!(further.resume(stood, READ_LEN_MAX), Resume::Gone);
    assert_eq!(further.shown_behind(stood).epoch, StreamEpoch::NONE);
    // Another line that takes this one's place knows of it without having met the one that dropped.
    let mut greater = third;
    publish(&mut greater, 9, 20);
    let stood = greater.position();
    greater.merge(copy(&ours, 0), NOW);
    assert_eq!(greater.resume(stood, READ_LEN_MAX), Resume::Gone);
}

/// A stream of which both know the last, and a side that has dropped all but two of eight.
fn met_late() -> (Stream, Stream) {
    let (ours, mut side) = parted(100);
    side.options.history_size = 2;
    (8..=13).for_each(|number| _ = publish(&mut side, 2, number));
    (ours, side)
}

#[test]
fn a_gap_lies_behind_what_a_copy_was_told_that_knew_nothing_of_it() {
    let (line, side) = met_late();
    let (mut lagging, mut owner) = (line.clone(), line);
    let stood = [31, 32, 33].map(|number| publish(&mut owner, 3, number))[2];
    // Whoever claims has met the side, and then takes over what the last owner went on with.
    lagging.merge(copy(&side, 0), NOW);
    let mut claimant = lagging.clone();
    assert_eq!(claimant.merge(copy(&owner, 0), NOW), Merged::Extended);
    assert_eq!(claimant.resume(stood, READ_LEN_MAX), Resume::Gone);
    // In the other order it is the same.
    let mut other = owner;
    other.merge(copy(&side, 0), NOW);
    other.merge(copy(&lagging, 0), NOW);
    assert_eq!(other.gaps().max(), claimant.gaps().max());
}

#[test]
fn a_follower_takes_a_gap_as_its_owner_has_told_it() {
    let (mut owner, side) = met_late();
    let mut follower = owner.clone();
    owner.merge(copy(&side, 0), NOW);
    for number in 31..=33 {
        let at = publish(&mut owner, 4, number);
        follower.merge(copy(&owner, at.offset - 1), NOW);
        if number == 31 {
            // As if what came of the log told nothing of sides.
            follower.sides = Sides::default();
        }
    }
    follower.sides = Sides::default();
    follower.merge_from(owner.mark(&Channel::parse("room").expect("a name"), NOW), true, NOW);
    assert_eq!(follower.gaps().max(), owner.gaps().max());
}

#[test]
fn what_a_line_has_taken_in_says_nothing_of_the_line_that_takes_its_place() {
    // A takeover within one part parted a line: its owner had gone on, and that was taken in.
    let (mut line, common) = (stream(100, 1..=3), stream(100, 1..=3));
    (4..=9).for_each(|number| _ = publish(&mut line, 2, number));
    let mut before = line.clone();
    (10..=12).for_each(|number| _ = publish(&mut before, 2, number));
    (13..=15).for_each(|number| _ = publish(&mut line, 5, number));
    line.merge(copy(&before, 0), NOW);
    // It keeps little, and has dropped some of the epoch that parted.
    line.options.history_size = 7;
    let mut other = common;
    (21..=22).for_each(|number| _ = publish(&mut other, 9, number));
    publish(&mut line, 5, 16);
    assert!(line.low > 3 && line.low < 9, "{}", line.low);
    for (mut one, two) in [(other.clone(), line.clone()), (line, other.clone())] {
        one.merge(copy(&two, 0), NOW);
        assert_eq!(one.epoch(), other.epoch());
        assert_eq!(one.resume(other.position(), READ_LEN_MAX), Resume::Gone);
    }
}

proptest! {
    /// I11: in whatever order copies of lines meet, the same line and the same sides come of it.
    #[test]
    fn lines_meet_in_any_order(
        steps in proptest::collection::vec((0..4_usize, 1..4_u64, 0..4_usize), 4..12),
        order in Just([0, 1, 2, 3]).prop_shuffle(),
        again in 0..4_usize,
    ) {
        let mut lines = vec![stream(100, 1..=3); 4];
        let (mut term, mut number) = (1, 3);
        for (line, count, from) in steps {
            // A line goes on under an epoch of its own, or another has been taken over.
            if from != line && lines[from].position() < lines[line].position() {
                lines[from] = lines[line].clone();
            }
            term += 1;
            for _ in 0..count {
                number += 1;
                publish(&mut lines[line], term, number);
            }
        }
        let meet = |order: &[usize]| {
            let mut met = lines[order[0]].clone();
            for at in &order[1..] {
                met.merge(copy(&lines[*at], 0), NOW);
            }
            met
        };
        let one = meet(&[0, 1, 2, 3]);
        let mut other = meet(&order);
        prop_assert_eq!(&one, &other);
        other.merge(copy(&lines[again], 0), NOW);
        prop_assert_eq!(&one, &other);
        let pair = meet(&order[2..]);
        let mut grouped = meet(&order[..2]);
        grouped.merge(copy(&pair, 0), NOW);
        prop_assert_eq!(&one, &grouped);
    }

    /// I1: wherever lines had parted, whatever each had dropped by its size and in whatever order they
    /// meet: who goes on from where it stood is given all that it hasn't seen, or isn't told to go on.
    #[test]
    fn nobody_goes_on_unsaid_past_what_is_gone(
        size in 3..7_u32,
        steps in proptest::collection::vec((0..4_usize, 1..5_u64, 0..4_usize), 4..12),
        order in Just([0, 1, 2, 3]).prop_shuffle(),
        pairs in any::<bool>(),
    ) {
        let first: Vec<u64> = (1..=3).collect();
        let mut lines = vec![(stream(size, 1..=3), first); 4];
        let (mut term, mut number) = (1, 3);
        for (line, count, from) in steps {
            if from != line && lines[from].0.position() < lines[line].0.position() {
                lines[from] = lines[line].clone();
            }
            term += 1;
            for _ in 0..count {
                number += 1;
                publish(&mut lines[line].0, term, number);
                lines[line].1.push(number);
            }
        }
        let mut beside = Vec::new();
        let mut meet = |one: &Stream, other: &Stream| {
            let mut met = one.clone();
            if let Merged::Forked(lost) = met.merge(copy(other, 0), NOW) {
                beside.extend(lost.into_iter().map(|(_, entry)| entry));
            }
            met
        };
        let [a, b, c, d] = order.map(|at| &lines[at].0);
        let mut met = match pairs {
            true => {
                let (one, other) = (meet(a, b), meet(c, d));
                meet(&one, &other)
            }
            false => [c, d].into_iter().fold(meet(a, b), |met, other| meet(&met, other)),
        };
        for Entry { publication, operation, .. } in beside {
            if met.find(operation).is_none() && !met.outlived(publication.position()) {
                publish(&mut met, term + 1, operation.number);
            }
        }
        let all: HashSet<u64> = lines.iter().flat_map(|(_, told)| told.iter().copied()).collect();
        for (line, told) in &lines {
            if let Resume::Continued(more) = met.resume(line.position(), READ_LEN_MAX) {
                let more = more.iter().map(|publication| publication.message.time_ms);
                let seen: HashSet<u64> = told.iter().copied().chain(more).collect();
                let mut unsaid: Vec<&u64> = all.difference(&seen).collect();
                unsaid.sort_unstable();
                prop_assert!(unsaid.is_empty(), "{unsaid:?} of {:?} at {:?}", met, line.position());
            }
        }
    }
}
