//! Which change of a field counts, what is shown, and how records merge.
use proptest::prelude::*;

use super::*;
use crate::protocol::ids::Incarnation;

const NOW: Millis = Millis(1_000_000);
const TTL_MS: u64 = SESSION_TTL_MS;

fn channel(name: &str) -> Channel {
    Channel::parse(name).expect("a name")
}

fn stamp(term: u64, index: u64) -> Stamp {
    Stamp { epoch: Epoch { term, owner: Incarnation(u128::from(term)) }, index }
}

fn set(key: &str, value: &'static str) -> UserChange {
    UserChange::Set { key: key.into(), value: value.into() }
}

fn delete(key: &str) -> UserChange {
    UserChange::Delete { key: key.into() }
}

/// A record after these changes, one index each, all committed.
fn record(changes: &[UserChange]) -> Record {
    let mut record = Record::new(NOW);
    for (index, change) in (1..).zip(changes) {
        record.apply(Stamped { stamp: stamp(1, index), change: change.clone() }, TTL_MS, NOW);
    }
    record.commit_all();
    record
}

fn merged(mut one: Record, other: &Record) -> Record {
    for copy in other.copies(&channel("#u"), NOW) {
        one.merge(copy, NOW);
    }
    one
}

fn shown(record: &Record) -> Vec<(String, String)> {
    let text = |value: &Bytes| String::from_utf8_lossy(value).into_owned();
    let attributes = record.attributes(None);
    attributes.iter().map(|(key, value)| (key.to_string(), text(value))).collect()
}

#[test]
fn the_later_change_of_a_field_counts_in_whatever_order_they_come() {
    let mut one = Record::new(NOW);
    let old = Stamped { stamp: stamp(1, 9), change: set("k", "1") };
    let new = Stamped { stamp: stamp(2, 1), change: delete("k") };
    assert!(one.apply(new, TTL_MS, NOW));
    assert!(!one.apply(old, TTL_MS, NOW));
    one.commit_all();
    assert_eq!(shown(&one), []);
}

#[test]
fn only_what_is_committed_is_shown_also_under_what_is_not() {
    let mut one = record(&[set("k", "1")]);
    let second = Stamped { stamp: stamp(1, 2), change: set("k", "2") };
    let third = Stamped { stamp: stamp(1, 3), change: set("k", "3") };
    one.apply(second.clone(), TTL_MS, NOW);
    one.apply(third.clone(), TTL_MS, NOW);
    assert_eq!(shown(&one)[0].1, "1");
    one.commit(&second);
    assert_eq!(shown(&one)[0].1, "2");
    assert_eq!(one.uncommitted().collect::<Vec<_>>(), [&third]);
    one.commit(&third);
    assert_eq!((shown(&one)[0].1.as_str(), one.uncommitted().count()), ("3", 0));
}

#[test]
fn a_commit_tells_whether_subscriptions_have_changed() {
    let mut one = Record::new(NOW);
    let mut change = |index, change| {
        let stamped = Stamped { stamp: stamp(1, index), change };
        one.apply(stamped.clone(), TTL_MS, NOW);
        one.commit(&stamped)
    };
    let news = || channel("news");
    assert_eq!(change(1, UserChange::Unsubscribe(news())), News::None);
    assert_eq!(change(2, UserChange::Subscribe(news())), News::Subscriptions);
    assert_eq!(change(3, UserChange::Subscribe(news())), News::None);
    assert_eq!(change(4, set("k", "1")), News::None);
    assert_eq!(change(5, UserChange::Unsubscribe(news())), News::Subscriptions);
}

#[test]
fn what_is_deleted_stays_known_as_long_as_anything_older_may_come_back() {
    let old = record(&[set("k", "1")]);
    let mut new = record(&[set("k", "1"), delete("k")]);
    let late = NOW + 2 * TTL_MS;
    assert_eq!(new.idle(late - 1), None);
    let same = merged(new.clone(), &old);
    assert_eq!((same == new, shown(&same)), (true, vec![]));
    let upto = new.idle(late).expect("it was kept for long enough");
    new.forget(upto);
    assert!(new.is_empty());
}

#[test]
fn a_record_with_something_in_it_is_never_idle() {
    let mut one = record(&[set("a", "1"), delete("b")]);
    let late = NOW + 9 * TTL_MS;
    let upto = one.idle(late).expect("one tombstone");
    one.forget(upto);
    assert_eq!((shown(&one).len(), one.idle(late)), (1, None));
}

#[test]
fn an_expired_tombstone_is_not_brought_back() {
    let stray = record(&[delete("k")]);
    let late = NOW + 2 * TTL_MS;
    let mut owner = Record::new(late);
    stray.copies(&channel("#u"), late).into_iter().for_each(|copy| owner.merge(copy, late));
    assert!(owner.is_empty());
}

#[test]
fn a_user_has_limits() {
    let many: Vec<UserChange> = (0..ATTRIBUTES_MAX).map(|n| set(&format!("k{n}"), "1")).collect();
    let mut one = record(&many);
    assert_eq!(one.refuses(&set("one more", "1")), Some(ErrorCode::LimitExceeded));
    assert_eq!(one.refuses(&set("k0", "2")), None);
    assert_eq!(one.refuses(&UserChange::Subscribe(channel("c"))), None);
    one.apply(Stamped { stamp: stamp(2, 1), change: delete("k0") }, TTL_MS, NOW);
    assert_eq!(one.refuses(&set("one more", "1")), None);
    for n in one.changes().count()..FIELDS_MAX {
        let change = delete(&format!("gone{n}"));
        one.apply(Stamped { stamp: stamp(3, n as u64), change }, TTL_MS, NOW);
    }
    assert_eq!(one.refuses(&set("one more", "1")), Some(ErrorCode::TooManyRequests));
    assert_eq!(one.refuses(&delete("k1")), None);
}

fn change() -> impl Strategy<Value = UserChange> {
    let name = prop::sample::select(vec!["a", "b", "c"]);
    let value = prop::sample::select(vec!["1", "2"]);
    prop_oneof![
        name.clone().prop_map(|name| UserChange::Subscribe(channel(name))),
        name.clone().prop_map(|name| UserChange::Unsubscribe(channel(name))),
        (name.clone(), value).prop_map(|(key, value)| set(key, value)),
        name.prop_map(delete),
    ]
}

/// Records as holders have them: changes of some owners, some of them committed. A stamp may name
/// two changes here, which no owner does.
fn any_record() -> impl Strategy<Value = Record> {
    let one = (1_u64..4, 1_u64..6, change(), any::<bool>());
    prop::collection::vec(one, 0..12).prop_map(|changes| {
        let mut record = Record::new(NOW);
        for (term, index, change, committed) in changes {
            let stamped = Stamped { stamp: stamp(term, index), change };
            record.apply(stamped.clone(), TTL_MS, NOW);
            if committed {
                record.commit(&stamped);
            }
        }
        record
    })
}

/// Everything that merges must agree on.
fn state(record: &Record) -> (Vec<Stamped>, u64) {
    let mut hash = Xxh3::new();
    record.update(&mut hash);
    (record.changes().cloned().collect(), hash.digest())
}

proptest! {
    #[test]
    fn merging_is_commutative(one in any_record(), other in any_record()) {
        let (left, right) = (merged(one.clone(), &other), merged(other, &one));
        prop_assert_eq!(state(&left), state(&right));
    }

    #[test]
    fn merging_is_associative(a in any_record(), b in any_record(), c in any_record()) {
        let left = merged(merged(a.clone(), &b), &c);
        let right = merged(a, &merged(b, &c));
        prop_assert_eq!(state(&left), state(&right));
    }

    #[test]
    fn merging_is_idempotent(one in any_record(), other in any_record()) {
        prop_assert_eq!(state(&merged(one.clone(), &one)), state(&one));
        let once = merged(one, &other);
        prop_assert_eq!(state(&merged(once.clone(), &other)), state(&once));
    }

    #[test]
    fn forgetting_leaves_what_is_alive(one in any_record()) {
        let alive = |r: &Record| -> Vec<Stamped> {
            r.changes().filter(|s| !s.change.is_tombstone()).cloned().collect()
        };
        let mut left = one.clone();
        left.commit_all();
        if let Some(upto) = left.idle(NOW + 2 * TTL_MS) {
            left.forget(upto);
            prop_assert!(left.changes().all(|stamped| !stamped.change.is_tombstone()));
        }
        prop_assert_eq!(alive(&left), alive(&one));
    }
}
