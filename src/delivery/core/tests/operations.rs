//! What is asked of owners: done once and answered when it is held, within limits.
use super::*;

#[test]
fn what_is_set_on_one_node_is_read_on_every_other() {
    let mut mesh = Mesh::new();
    let nodes = mesh.roles();
    for (node, value) in nodes.into_iter().zip(["1", "2", "3"]) {
        assert_eq!(mesh.set(node, "k", value), Reply::Changed { copies: 2 });
        for reader in nodes {
            assert_eq!(mesh.get(reader), one("k", value));
        }
    }
}

#[test]
fn a_change_is_answered_and_shown_only_when_two_hold_it() {
    let mut mesh = Mesh::new();
    let [owner, _, gateway] = mesh.roles();
    mesh.lost = |frame| matches!(frame, PeerFrame::Replicate { .. });
    let (key, value) = ("k".into(), Bytes::from_static(b"1"));
    let number = mesh.begin(gateway, alice(), Ask::Change(UserChange::Set { key, value }));
    mesh.run(1_000);
    assert_eq!(mesh.replies.get(&number), None);
    assert_eq!(mesh.get(owner), []);
    mesh.lost = |_| false;
    mesh.run(2_500);
    assert_eq!(mesh.replies.get(&number), Some(&Reply::Changed { copies: 2 }));
    assert_eq!(mesh.get(gateway), one("k", "1"));
}

#[test]
fn a_change_whose_answer_is_lost_is_made_once() {
    let mut mesh = Mesh::new();
    let [owner, _, gateway] = mesh.roles();
    mesh.lost = |frame| matches!(frame, PeerFrame::Result { .. });
    let (key, value) = ("k".into(), Bytes::from_static(b"1"));
    let number = mesh.begin(gateway, alice(), Ask::Change(UserChange::Set { key, value }));
    mesh.run(100);
    // Another undoes it, so making it again would show.
    mesh.set(owner, "k", "2");
    mesh.lost = |_| false;
    mesh.run(1_000);
    assert_eq!(mesh.replies.get(&number), Some(&Reply::Changed { copies: 2 }));
    assert_eq!(mesh.get(gateway), one("k", "2"));
}

#[test]
fn what_is_repeated_with_a_key_before_its_answer_holds_nothing_up() {
    let mut mesh = Mesh::new();
    let [owner, _, gateway] = mesh.roles();
    mesh.lost = |frame| matches!(frame, PeerFrame::Replicate { .. });
    let mut publish = |data: &'static str, key: Option<&str>| {
        let message = Arc::new(Message { data: data.into(), ..Message::default() });
        let key = key.map(Into::into);
        mesh.begin(gateway, alice(), Ask::Publish { message, key })
    };
    let began = [("1", Some("k")), ("1", Some("k")), ("2", None), ("1", Some("k")), ("3", None)]
        .map(|(data, key)| publish(data, key));
    let holding = mesh.cores[&owner].ownership().holding(alice().slot(SLOTS));
    assert_eq!(holding.map(|holding| holding.applied(gateway)), Some(5), "all but the repetitions");
    assert!(mesh.replies.is_empty(), "nothing is held by two: {:?}", mesh.replies);
    mesh.lost = |_| false;
    mesh.run(2_500);
    let offsets = began.map(|number| match mesh.replies.get(&number) {
        Some(Reply::Published { position: Some(position), copies: 2 }) => position.offset,
        other => panic!("not published: {other:?}"),
    });
    assert_eq!(offsets, [1, 1, 2, 1, 3]);
}

#[test]
fn a_change_outlives_the_owner_that_did_not_answer_for_it() {
    let mut mesh = Mesh::new();
    let [owner, successor, gateway] = mesh.roles();
    mesh.lost = |frame| matches!(frame, PeerFrame::Result { .. });
    let (key, value) = ("k".into(), Bytes::from_static(b"1"));
    let number = mesh.begin(gateway, alice(), Ask::Change(UserChange::Set { key, value }));
    mesh.run(100);
    mesh.kill(owner);
    assert_eq!(mesh.replies.get(&number), None);
    mesh.lost = |_| false;
    mesh.run(2_000);
    assert_eq!(mesh.replies.get(&number), Some(&Reply::Changed { copies: 2 }));
    for node in [successor, gateway] {
        assert_eq!(mesh.get(node), one("k", "1"));
    }
}

#[test]
fn too_many_subscriptions_are_refused() {
    let mut mesh = Mesh::new();
    let [owner, ..] = mesh.roles();
    let subscribe = |n| UserChange::Subscribe(Channel::parse(&format!("c{n}")).expect("a name"));
    for n in 0..USER_SUBSCRIPTIONS_MAX {
        let reply = mesh.ask(owner, Ask::Change(subscribe(n)));
        assert_eq!(reply, Reply::Changed { copies: 2 });
    }
    let reply = mesh.ask(owner, Ask::Change(subscribe(USER_SUBSCRIPTIONS_MAX)));
    assert_eq!(reply, Reply::Failed(ErrorCode::LimitExceeded));
    assert_eq!(mesh.set(owner, "k", "1"), Reply::Changed { copies: 2 });
}

#[test]
fn what_waits_for_a_silent_owner_is_limited_and_ends_as_unknown() {
    let mut mesh = Mesh::new();
    let [_, _, gateway] = mesh.roles();
    mesh.lost = |frame| matches!(frame, PeerFrame::Operation(_) | PeerFrame::Ask { .. });
    let set = || Ask::Change(UserChange::Set { key: "k".into(), value: "1".into() });
    for (limit, ask) in [(SLOT_OPERATIONS_MAX, set()), (QUESTIONS_MAX, Ask::PresenceStats)] {
        let began: Vec<u64> =
            (0..limit).map(|_| mesh.begin(gateway, alice(), ask.clone())).collect();
        assert!(mesh.replies.is_empty());
        let refused = mesh.begin(gateway, alice(), ask.clone());
        let busy = Reply::Failed(ErrorCode::TooManyRequests);
        assert_eq!(mesh.replies.remove(&refused), Some(busy));
        mesh.now += OPERATION_MS - 1_000;
        mesh.run(980);
        assert!(mesh.replies.is_empty(), "their time isn't over");
        mesh.run(40);
        let replies = std::mem::take(&mut mesh.replies);
        assert!(replies.keys().eq(&began), "{} of {limit}", replies.len());
        assert!(replies.values().all(|reply| *reply == Reply::Failed(ErrorCode::Internal)));
    }
    mesh.lost = |_| false;
    assert_eq!(mesh.set(gateway, "k", "2"), Reply::Changed { copies: 2 });
}

#[test]
fn what_waiting_subscriptions_say_of_their_clients_is_limited() {
    let mut mesh = Mesh::new();
    let [_, _, gateway] = mesh.roles();
    mesh.lost = |frame| matches!(frame, PeerFrame::Ask { .. });
    let conn_info = Bytes::from(vec![b' '; 1 << 20]);
    let mut subscribe = |client| {
        let (user, chan_info) = ("".into(), Bytes::new());
        let client = ClientId(client);
        let info = ClientInfo { user, client, conn_info: conn_info.clone(), chan_info };
        let ask = Ask::Subscribe { client, info: Some(info), recover: Recover::No };
        let number = mesh.begin(gateway, alice(), ask);
        mesh.replies.remove(&number)
    };
    let most = (QUESTION_BYTES_MAX >> 20) as u128;
    // Each is a little more than a mebibyte.
    assert!((1..most).all(|client| subscribe(client).is_none()));
    assert_eq!(subscribe(most), Some(Reply::Failed(ErrorCode::TooManyRequests)));
    mesh.lost = |_| false;
    mesh.run(1_000);
    assert_eq!(mesh.replies.len() as u128, most - 1, "they are answered, and there is room again");
    assert!(mesh.replies.values().all(|reply| matches!(reply, Reply::Subscribed { .. })));
}
