//! Slots that change hands: what a new owner shows, and what others let go.
use super::*;
use crate::ownership::holding::Holding;
use crate::protocol::ids::{Epoch, StreamEpoch};
use crate::protocol::message::{OperationId, Publication};
use crate::protocol::peer::{Change, EntryCopy, FollowedSlot, SlotRange, SlotTail};

#[test]
fn a_new_owner_shows_at_once_what_one_death_can_not_have_taken() {
    let mut mesh = Mesh::new();
    let [owner, _, gateway] = mesh.roles();
    mesh.publish(gateway, "1");
    mesh.kill(owner);
    assert_eq!(mesh.history(gateway), Ok(1));
}

#[test]
fn a_new_owner_shows_nothing_as_current_while_a_living_node_is_silent() {
    let mut mesh = Mesh::new();
    let [owner, successor, gateway] = mesh.roles();
    mesh.publish(gateway, "1");
    mesh.set(gateway, "k", "1");
    let slot = alice().slot(SLOTS);
    let with = |silent| [successor, gateway, silent];
    let at_home = |silent: &_| {
        Placement::compute(&view(&with(*silent)), SLOTS).owner(slot) == Some(successor)
    };
    let silent = (4..).map(Incarnation).find(at_home).expect("one that takes other slots");
    mesh.cores.remove(&owner);
    mesh.see(&with(silent));
    mesh.run(1_500);
    assert!(mesh.cores[&successor].ownership().owns(slot));
    assert_eq!(mesh.history(gateway), Err(ErrorCode::Internal));
    assert_eq!(mesh.ask(gateway, Ask::Attributes(None)), Reply::Failed(ErrorCode::Internal));
    mesh.cores.insert(silent, Core::new(silent, SETTINGS, 4));
    mesh.show(&[silent], &with(silent), &[]);
    mesh.run(1_500);
    assert_eq!(mesh.history(gateway), Ok(1));
    assert_eq!(mesh.get(gateway), one("k", "1"));
}

#[test]
fn who_is_heard_by_fewer_than_must_hold_copies_takes_no_slot() {
    let mut mesh = Mesh::new();
    let [owner, successor, gateway] = mesh.roles();
    let slot = alice().slot(SLOTS);
    let claims = |mesh: &Mesh| {
        let ownership = mesh.cores[&successor].ownership();
        (ownership.promised(slot).owner == successor, ownership.owns(slot))
    };
    mesh.publish(gateway, "1");
    mesh.lost = |frame| matches!(frame, PeerFrame::Promise { .. });
    mesh.kill(owner);
    mesh.run(3_000);
    assert_eq!(claims(&mesh), (true, false));
    // Nor does it keep what belongs elsewhere meanwhile.
    mesh.show(&[successor], &[gateway], &[]);
    mesh.lost = |_| false;
    mesh.run(3_000);
    assert_eq!(claims(&mesh), (true, false));
    mesh.see(&[successor, gateway]);
    mesh.run(1_500);
    assert_eq!(claims(&mesh), (true, true));
    assert_eq!(mesh.history(gateway), Ok(1));
}

#[test]
fn whom_only_others_told_of_is_waited_for_no_longer_than_who_vanished() {
    let mut mesh = Mesh::new();
    let [dead, one, other] = mesh.roles();
    let late = Incarnation(4);
    mesh.cores.remove(&dead);
    mesh.cores.insert(late, Core::new(late, SETTINGS, 4));
    let nodes = [one, other, late];
    let channel = channel_of(late, &nodes);
    // The others haven't noticed yet who died.
    mesh.show(&[late], &nodes, &[]);
    let asked = mesh.now;
    mesh.show(&[one, other], &nodes, &[]);
    let shows_at = |mesh: &mut Mesh, ms: u64| {
        mesh.run(asked + ms - 100 - mesh.now);
        shows(mesh, late, &channel)
    };
    assert!(!shows_at(&mut mesh, 1_500), "it may have what was acknowledged");
    assert!(!shows_at(&mut mesh, 4_900));
    assert!(shows_at(&mut mesh, 5_200));
}

#[test]
fn a_newcomer_is_told_who_vanished_before_it_came() {
    let mut mesh = Mesh::new();
    let [dead, dead_too, one] = mesh.roles();
    let late = Incarnation(4);
    [dead, dead_too].iter().for_each(|node| drop(mesh.cores.remove(node)));
    mesh.cores.insert(late, Core::new(late, SETTINGS, 4));
    let channel = channel_of(late, &[one, late]);
    let gone = mesh.now;
    mesh.see(&[one, late]);
    for (ms, shown) in [(1_500, false), (4_900, false), (5_200, true)] {
        mesh.run(gone + ms - 100 - mesh.now);
        assert_eq!(shows(&mut mesh, late, &channel), shown, "after {ms} ms");
    }
}

/// A channel that belongs to one of these nodes.
fn channel_of(owner: Incarnation, nodes: &[Incarnation]) -> Channel {
    let placement = Placement::compute(&view(nodes), SLOTS);
    let mut channels = (0..100).map(|n| Channel::parse(&format!("c{n}")).expect("a name"));
    let of_it = |channel: &Channel| placement.owner(channel.slot(SLOTS)) == Some(owner);
    channels.find(of_it).expect("one of its own")
}

/// Whether a node is shown what there is of a channel.
fn shows(mesh: &mut Mesh, node: Incarnation, channel: &Channel) -> bool {
    let history = History { limit: 10, since: None, reverse: false };
    matches!(mesh.ask_of(node, channel.clone(), Ask::History(history)), Reply::History { .. })
}

#[test]
fn a_record_of_which_nothing_is_left_is_forgotten_by_all_who_hold_it() {
    let mut mesh = Mesh::new();
    let nodes = mesh.roles();
    mesh.set(nodes[0], "k", "1");
    mesh.ask(nodes[2], Ask::Change(UserChange::Delete { key: "k".into() }));
    let slot = alice().slot(SLOTS);
    let held = |mesh: &Mesh| {
        let holdings = mesh.cores.values().filter_map(|core| core.ownership().holding(slot));
        holdings.filter(|holding| holding.user(&alice()).is_some()).count()
    };
    assert_eq!(held(&mesh), 2);
    mesh.now += 239_000;
    mesh.run(200);
    assert_eq!(held(&mesh), 2);
    mesh.now += 1_000;
    mesh.run(200);
    assert_eq!(held(&mesh), 0);
}

#[test]
fn a_copy_that_the_ring_left_behind_goes_once_its_owner_has_it() {
    let mut mesh = Mesh::new();
    let [owner, successor, third] = mesh.roles();
    mesh.set(owner, "k", "1");
    let slot = alice().slot(SLOTS);
    let holds = |mesh: &Mesh, node: Incarnation| {
        let holding = mesh.cores[&node].ownership().holding(slot);
        holding.is_some_and(|holding| holding.user(&alice()).is_some())
    };
    // Without the successor the third holds the second copy.
    mesh.see(&[owner, third]);
    mesh.run(500);
    mesh.lost = |frame| matches!(frame, PeerFrame::Kept { .. });
    mesh.see(&[owner, successor, third]);
    mesh.run(500);
    assert!([owner, successor, third].into_iter().all(|node| holds(&mesh, node)));
    mesh.now += 121_000;
    mesh.run(6_000);
    assert!(holds(&mesh, third), "nobody has said that it isn't the only one");
    mesh.lost = |_| false;
    mesh.run(6_000);
    let left = [owner, successor, third].map(|node| holds(&mesh, node));
    assert_eq!(left, [true, true, false]);
}

#[test]
fn what_a_node_holds_of_others_is_counted_until_its_owner_says_that_it_has_it() {
    let mut mesh = Mesh::new();
    let [owner, successor, third] = mesh.roles();
    let astray = |mesh: &Mesh| {
        [owner, successor, third].map(|node| mesh.cores[&node].ownership().copies().astray)
    };
    mesh.set(owner, "k", "1");
    mesh.run(100);
    assert_eq!(astray(&mesh), [0, 0, 0], "what comes from the owner it has");
    // The owner is taken for dead; the successor owns what only it and the third hold then.
    mesh.see(&[successor, third]);
    mesh.run(3_000);
    mesh.set(successor, "k", "2");
    mesh.lost = |frame| matches!(frame, PeerFrame::Kept { .. });
    mesh.see(&[owner, successor, third]);
    mesh.run(6_000);
    assert!(mesh.cores[&owner].ownership().owns(alice().slot(SLOTS)));
    let told = astray(&mesh);
    assert!(told[1] > 0 && told[2] > 0, "nobody has said that it has it: {told:?}");
    mesh.lost = |_| false;
    mesh.run(2_500);
    assert_eq!(astray(&mesh), [0, 0, 0]);
    assert_eq!(mesh.get(third), one("k", "2"));
}

#[test]
fn a_copy_promised_to_somebody_who_never_won_comes_home_all_the_same() {
    let mut mesh = Mesh::new();
    let [owner, successor, third] = mesh.roles();
    let slot = alice().slot(SLOTS);
    mesh.set(owner, "k", "1");
    // The third has a copy that it isn't needed for any more.
    mesh.see(&[owner, third]);
    mesh.run(500);
    mesh.see(&[owner, successor, third]);
    mesh.run(6_000);
    let astray = |mesh: &Mesh| mesh.cores[&third].ownership().copies().astray;
    assert_eq!(astray(&mesh), 0);
    let (dead, term) = (Incarnation(99), 50);
    let slots = vec![(SlotRange { first: slot, last: slot }, term)];
    let prepare = PeerFrame::Prepare { claim: 1, attempt: 1, slots };
    mesh.lost = |frame| matches!(frame, PeerFrame::Fenced { .. });
    mesh.tell(third, Event::Frames { from: dead, frames: vec![prepare] });
    mesh.run(100);
    mesh.lost = |_| false;
    assert_eq!(astray(&mesh), 1, "its owner's word is over");
    mesh.run(6_000);
    assert_eq!(astray(&mesh), 0);
    let owner = mesh.cores[&owner].ownership();
    assert!(owner.owns(slot) && owner.promised(slot).term > term, "the owner has claimed again");
}

#[test]
fn what_its_owner_has_appended_anew_and_dropped_since_a_follower_drops_too() {
    let mut mesh = Mesh::new();
    let [owner, successor, third] = mesh.roles();
    let slot = alice().slot(SLOTS);
    // The successor's line, which nobody else has.
    let out = mesh.cores.remove(&owner).expect("a node");
    mesh.see(&[successor, third]);
    mesh.run(500);
    mesh.lost = |frame| matches!(frame, PeerFrame::Replicate { .. });
    for _ in 0..5 {
        let message = Arc::new(Message::default());
        mesh.begin(successor, alice(), Ask::Publish { message, key: None });
    }
    mesh.lost = |_| false;
    // Another one of a later epoch, to which what was on the first is added.
    mesh.cores.insert(owner, out);
    let out = mesh.cores.remove(&successor).expect("a node");
    mesh.see(&[owner, third]);
    let message = Arc::new(Message::default());
    let first = mesh.begin(owner, alice(), Ask::Publish { message, key: None });
    mesh.run(2_000);
    assert!(matches!(mesh.replies.remove(&first), Some(Reply::Published { .. })));
    mesh.cores.insert(successor, out);
    mesh.lost = |frame| matches!(frame, PeerFrame::Follow { .. });
    mesh.see(&[owner, successor, third]);
    mesh.run(2_000);
    assert_eq!(mesh.history(owner), Ok(6));
    (0..OPTIONS.history_size).for_each(|_| mesh.publish(owner, "later"));
    let holding = |mesh: &Mesh, node| {
        mesh.cores[&node].ownership().holding(slot).expect("something is held").clone()
    };
    assert_eq!(holding(&mesh, successor).stream(&alice()).map(|stream| stream.len()), Some(5));
    mesh.lost = |_| false;
    mesh.run(5_000);
    let (ours, theirs) = (holding(&mesh, owner), holding(&mesh, successor));
    assert_eq!(theirs.tops(), ours.tops());
    assert_eq!((ours.loose(), theirs.loose()), (0, 0));
}

#[test]
fn what_its_owner_has_logged_under_an_old_name_a_follower_keeps_until_it_has_its_place() {
    let mut mesh = Mesh::new();
    let [owner, follower, third] = mesh.roles();
    let slot = alice().slot(SLOTS);
    let core = mesh.cores.get_mut(&follower).expect("a node");
    let term = core.ownership().promised(slot).term;
    let mut tell = |frame| {
        let mut actions = Vec::new();
        core.handle(Event::Frames { from: owner, frames: vec![frame] }, Millis(600), &mut actions);
        let pulls = actions.into_iter().find_map(|action| match action {
            Action::Send { frame: PeerFrame::Pull { pull, .. }, .. } => Some(pull),
            _ => None,
        });
        (pulls, core.ownership().holding(slot).map(|holding| holding.publications().count()))
    };
    // Of another owner's epoch, and behind what the copy below has.
    let epoch = StreamEpoch { epoch: Epoch { term: term - 1, owner: third }, index: 1 };
    let publication = Publication { epoch, offset: 3, message: Arc::default() };
    let operation = OperationId { gateway: third, number: 3 };
    let entry = EntryCopy { publication, operation, ttl_ms: 60_000 };
    let (channel, options) = (alice(), OPTIONS);
    let change = Change::Publish { channel, options, follows: None, entry, key: None };
    let changes = vec![Arc::new(change)];
    let tail = SlotTail { slot, term, from: 0, after: 0, changes, committed: 0 };
    assert_eq!(tell(PeerFrame::Replicate { tails: vec![tail] }), (None, Some(1)));
    let followed = FollowedSlot { slot, term, number: 1, digest: 1, settled: false };
    let (Some(pull), Some(1)) = tell(PeerFrame::Follow { slots: vec![followed] }) else {
        panic!("no copy is asked for")
    };
    let copies = Holding::default().copies(slot, &[], Millis(600));
    let copy = PeerFrame::Pulled { claim: 0, pull, number: 1, copies, last: true };
    assert_eq!(tell(copy), (None, Some(1)), "it was acknowledged as held");
    let kept = PeerFrame::Kept { slots: vec![(slot, 0, true)] };
    assert_eq!(tell(kept), (None, Some(1)));
}

#[test]
fn a_slot_goes_to_a_node_that_joins_once_and_parks_nothing_though_others_see_it_later() {
    let mut mesh = Mesh::new();
    let (old, slot) = (mesh.roles(), alice().slot(SLOTS));
    let with = |node| [&old[..], &[node]].concat();
    let takes = |node: &Incarnation| {
        let placement = Placement::compute(&view(&with(*node)), SLOTS);
        placement.owner(slot) == Some(*node)
    };
    let joins = (4..).map(Incarnation).find(takes).expect("a node that alice will belong to");
    mesh.set(old[0], "k", "1");
    mesh.cores.insert(joins, Core::new(joins, SETTINGS, 4));
    mesh.show(&with(joins), &old, &[joins]);
    // So long that nobody backs off for having won a moment ago.
    mesh.run(11_000);
    let won = |mesh: &Mesh| {
        old.map(|node| mesh.cores.get(&node).map(|core| core.ownership().counts().won))
    };
    let before = won(&mesh);
    mesh.show(&[joins], &with(joins), &[]);
    let mut value = 1;
    for gateway in [old, old].concat() {
        value += 1;
        let set = UserChange::Set { key: "k".into(), value: Bytes::from(value.to_string()) };
        let number = mesh.begin(gateway, alice(), Ask::Change(set));
        assert_eq!(mesh.replies.remove(&number), Some(Reply::Changed { copies: 2 }), "at once");
        mesh.run(20);
    }
    mesh.show(&old, &with(joins), &[]);
    mesh.run(1_000);
    assert_eq!(won(&mesh), before, "nobody took a slot back");
    assert!(mesh.cores[&joins].ownership().owns(slot));
    assert_eq!(mesh.get(old[1]), one("k", &value.to_string()));
}

#[test]
fn an_owner_that_was_held_up_takes_nothing_before_it_asks() {
    let mut mesh = Mesh::new();
    let [owner, successor, third] = mesh.roles();
    let held_up = mesh.cores.remove(&owner).expect("an owner");
    mesh.see(&[successor, third]);
    mesh.run(500);
    assert_eq!(mesh.set(third, "k", "1"), Reply::Changed { copies: 2 });
    // It goes on, and what has waited for it comes before anything tells it what it has missed.
    mesh.cores.insert(owner, held_up);
    mesh.lost = |frame| !matches!(frame, PeerFrame::Operation(_));
    let (key, value) = ("k".into(), Bytes::from_static(b"2"));
    let number = mesh.begin(owner, alice(), Ask::Change(UserChange::Set { key, value }));
    let held = mesh.cores[&owner].ownership().holding(alice().slot(SLOTS));
    let record = held.and_then(|held| held.user(&alice()));
    assert_eq!(record.map_or(0, |record| record.attributes(None).len()), 0);
    mesh.lost = |_| false;
    mesh.run(200);
    assert_eq!(mesh.replies.get(&number), Some(&Reply::Changed { copies: 2 }));
    assert_eq!(mesh.get(third), one("k", "2"));
}

#[test]
fn a_change_that_its_owner_may_have_lost_to_its_successor_is_not_called_made() {
    let mut mesh = Mesh::new();
    let [owner, successor, third] = mesh.roles();
    // The owner, cut off, doesn't know that the others take it for dead.
    let mut old = mesh.cores.remove(&owner).expect("an owner");
    mesh.see(&[successor, third]);
    for _ in 0..25 {
        mesh.run(20);
        old.handle(Event::Tick, Millis(mesh.now), &mut Vec::new());
    }
    assert_eq!(mesh.set(third, "k", "1"), Reply::Changed { copies: 2 });
    // It changes the same field, which nobody else hears of, and is back.
    mesh.cores.insert(owner, old);
    mesh.lost = |frame| !matches!(frame, PeerFrame::Operation(_));
    let (key, value) = ("k".into(), Bytes::from_static(b"2"));
    let number = mesh.begin(owner, alice(), Ask::Change(UserChange::Set { key, value }));
    mesh.lost = |frame| matches!(frame, PeerFrame::Operation(_));
    mesh.see(&[owner, successor, third]);
    mesh.run(1_000);
    assert!(mesh.cores[&owner].ownership().owns(alice().slot(SLOTS)));
    mesh.lost = |_| false;
    mesh.run(2_000);
    assert_eq!(mesh.replies.get(&number), Some(&Reply::Failed(ErrorCode::Internal)));
    for node in [owner, successor, third] {
        assert_eq!(mesh.get(node), one("k", "1"));
    }
}

#[test]
fn what_a_new_owner_appends_anew_keeps_its_idempotency_key() {
    let mut mesh = Mesh::new();
    let [owner, successor, third] = mesh.roles();
    let keyed = |mesh: &mut Mesh, node| {
        let message = Arc::new(Message { data: "1".into(), ..Message::default() });
        mesh.begin(node, alice(), Ask::Publish { message, key: Some("k".into()) })
    };
    // The owner has it alone when the others go on without it.
    mesh.lost = |frame| matches!(frame, PeerFrame::Replicate { .. });
    keyed(&mut mesh, owner);
    let old = mesh.cores.remove(&owner).expect("an owner");
    mesh.lost = |_| false;
    mesh.see(&[successor, third]);
    mesh.run(500);
    mesh.publish(third, "2");
    mesh.cores.insert(owner, old);
    // Its gateway doesn't come to publish it again, and nobody gets a whole copy from it.
    mesh.lost =
        |frame| matches!(frame, PeerFrame::Operation(_) | PeerFrame::Pulled { claim: 0, .. });
    mesh.see(&[owner, successor, third]);
    mesh.run(1_000);
    assert_eq!(mesh.cores[&owner].ownership().counts().adopted, 1, "it had lost its place");
    mesh.kill(owner);
    mesh.lost = |_| false;
    keyed(&mut mesh, third);
    mesh.run(1_000);
    assert_eq!(mesh.history(third), Ok(2));
}

#[test]
fn a_deaf_owner_shows_nothing_as_current_once_another_may_have_gone_on() {
    for copies in [1, 2] {
        let mut mesh = Mesh::with_copies(copies);
        let [owner, successor, third] = mesh.roles();
        mesh.publish(owner, "1");
        // It is on time, but hears nothing, and the others go on without it.
        let mut deaf = mesh.cores.remove(&owner).expect("an owner");
        mesh.see(&[successor, third]);
        for _ in 0..30 {
            mesh.run(20);
            deaf.handle(Event::Tick, Millis(mesh.now), &mut Vec::new());
        }
        mesh.publish(third, "2");
        mesh.cores.insert(owner, deaf);
        mesh.lost = |frame| !matches!(frame, PeerFrame::Ask { .. } | PeerFrame::Answer { .. });
        let history = History { limit: 10, since: None, reverse: false };
        let number = mesh.begin(owner, alice(), Ask::History(history));
        for _ in 0..(OPERATION_MS / 20 + 2) {
            mesh.run(20);
        }
        let reply = mesh.replies.remove(&number);
        assert_eq!(reply, Some(Reply::Failed(ErrorCode::Internal)), "{copies} copies");
    }
}

#[test]
fn what_a_broken_link_lost_of_copies_is_asked_for_again_when_the_next_is_up() {
    let pulls: fn(&PeerFrame) -> bool = |frame| matches!(frame, PeerFrame::Pull { .. });
    let parts: fn(&PeerFrame) -> bool = |frame| matches!(frame, PeerFrame::Pulled { .. });
    // The link may be new to the holder alone.
    for (lost, both) in [(pulls, true), (parts, true), (parts, false)] {
        let mut mesh = Mesh::new();
        let [owner, successor, third] = mesh.roles();
        mesh.publish(owner, "1");
        mesh.cores.remove(&successor);
        mesh.lost = lost;
        mesh.see(&[owner, third]);
        mesh.run(500);
        let slot = alice().slot(SLOTS);
        let holds = |mesh: &Mesh| {
            let holding = mesh.cores[&third].ownership().holding(slot);
            holding.is_some_and(|holding| !holding.is_empty())
        };
        mesh.lost = |_| false;
        mesh.run(500);
        assert!(!holds(&mesh), "it waits for what is lost");
        mesh.tell(owner, Event::LinkUp(third));
        if both {
            mesh.tell(third, Event::LinkUp(owner));
        }
        mesh.run(100);
        assert!(holds(&mesh));
        assert_eq!(mesh.cores[&owner].ownership().copies().unrepaired, 0);
    }
}

#[test]
fn a_leaving_node_waits_for_members_that_vanished_a_moment_ago() {
    let mut mesh = Mesh::new();
    let [owner, successor, third] = mesh.roles();
    mesh.publish(owner, "1");
    let others: Vec<_> =
        [successor, third].map(|node| (node, mesh.cores.remove(&node))).into_iter().collect();
    mesh.see(&[owner]);
    mesh.tell(owner, Event::Leave);
    mesh.run(5_000);
    assert_eq!(mesh.drained, [], "they may be back");
    mesh.cores.extend(others.into_iter().filter_map(|(node, core)| Some((node, core?))));
    mesh.show(&[owner, successor, third], &[successor, third], &[]);
    mesh.run(2_000);
    assert_eq!(mesh.drained, [owner]);
    assert_eq!(mesh.history(third), Ok(1), "they have what it had");
}

#[test]
fn a_leaving_node_waits_for_nobody_for_ever() {
    let mut mesh = Mesh::new();
    let [owner, successor, third] = mesh.roles();
    mesh.cores.retain(|node, _| *node == owner);
    mesh.see(&[owner]);
    mesh.tell(owner, Event::Leave);
    mesh.run(11_000);
    assert_eq!(mesh.drained, [owner], "{successor:?} and {third:?} are gone");
}
