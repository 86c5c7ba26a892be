//! Who is connected: told by the owner, kept with the user's record, announced to those who watch.
use super::*;

fn offline(status: Status) -> u64 {
    match status {
        Status::Offline(ago_ms) => ago_ms,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_user_is_online_from_the_first_connection_and_offline_a_while_after_the_last() {
    let mut mesh = Mesh::new();
    let [owner, successor, gateway] = mesh.roles();
    assert_eq!(mesh.watch(successor, 9), Status::Unknown);
    mesh.attach(gateway, 1);
    mesh.attach(owner, 2);
    assert_eq!(mesh.changes(), [(successor, true)]);
    assert_eq!(mesh.watch(gateway, 8), Status::Online);
    mesh.detach(gateway, 1);
    mesh.run(20_000);
    assert_eq!(mesh.changes(), [], "one connection is left");
    let left = mesh.now;
    mesh.detach(owner, 2);
    mesh.run(9_900);
    assert_eq!(mesh.changes(), []);
    mesh.run(200);
    let mut heard = mesh.changes();
    heard.sort();
    let mut both = [(successor, false), (gateway, false)];
    both.sort();
    assert_eq!(heard, both);
    mesh.run(5_000);
    let seen = offline(mesh.status(gateway));
    let since = mesh.now - left;
    assert!((since - 200..=since).contains(&seen), "{seen} of {since}");
}

#[test]
fn who_comes_back_soon_was_never_gone() {
    let mut mesh = Mesh::new();
    let [owner, successor, gateway] = mesh.roles();
    mesh.attach(gateway, 1);
    mesh.watch(owner, 9);
    for client in 2..6 {
        mesh.detach(gateway, client - 1);
        mesh.run(8_000);
        mesh.attach(gateway, client);
        mesh.run(4_000);
    }
    mesh.detach(gateway, 5);
    mesh.attach(successor, 6);
    mesh.run(30_000);
    assert_eq!((mesh.changes(), mesh.status(owner)), (vec![], Status::Online));
}

#[test]
fn what_waited_for_a_commit_when_its_gateway_died_brings_nobody_online() {
    let mut mesh = Mesh::new();
    let [owner, successor, gateway] = mesh.roles();
    mesh.lost = |frame| matches!(frame, PeerFrame::Replicate { .. });
    let change = UserChange::Set { key: "a".into(), value: Bytes::from_static(b"1") };
    mesh.begin(gateway, alice(), Ask::Change(change));
    let subscribe = Ask::Subscribe { client: ClientId(1), info: None, recover: Recover::No };
    mesh.begin(gateway, alice(), subscribe);
    mesh.cores.remove(&gateway);
    mesh.see(&[owner, successor]);
    mesh.lost = |_| false;
    mesh.run(500);
    assert_eq!(mesh.get(successor), one("a", "1"), "what was taken is committed");
    assert_eq!(mesh.status(successor), Status::Unknown);
}

#[test]
fn a_gateway_that_dies_takes_its_users_along_only_if_they_stay_away() {
    for back in [true, false] {
        let mut mesh = Mesh::new();
        let [_, successor, gateway] = mesh.roles();
        mesh.attach(gateway, 1);
        assert_eq!(mesh.watch(successor, 9), Status::Online);
        mesh.kill(gateway);
        mesh.run(3_000);
        if back {
            mesh.attach(successor, 2);
        }
        mesh.run(20_000);
        let told = if back { vec![] } else { vec![(successor, false)] };
        assert_eq!(mesh.changes(), told, "back: {back}");
    }
}

#[test]
fn the_next_owner_goes_on_where_the_one_before_it_died() {
    for back in [true, false] {
        let mut mesh = Mesh::new();
        let [owner, successor, gateway] = mesh.roles();
        // Both at once: the connection was to the owner itself.
        mesh.attach(owner, 1);
        assert_eq!(mesh.watch(gateway, 9), Status::Online);
        mesh.kill(owner);
        if back {
            mesh.attach(successor, 2);
        }
        mesh.run(9_000);
        assert_eq!(mesh.changes(), [], "back: {back}");
        mesh.run(3_000);
        let told = if back { vec![] } else { vec![(gateway, false)] };
        assert_eq!(mesh.changes(), told, "back: {back}");
    }
}

#[test]
fn users_of_a_gateway_that_lives_stay_online_when_their_owner_dies() {
    let mut mesh = Mesh::new();
    let [owner, successor, gateway] = mesh.roles();
    mesh.attach(gateway, 1);
    mesh.watch(successor, 9);
    mesh.kill(owner);
    mesh.run(30_000);
    assert_eq!((mesh.changes(), mesh.status(gateway)), (vec![], Status::Online));
    mesh.detach(gateway, 1);
    mesh.run(11_000);
    assert_eq!(mesh.changes(), [(successor, false)]);
}

#[test]
fn a_watcher_whose_hint_was_lost_hears_by_comparing() {
    let mut mesh = Mesh::new();
    let [owner, successor, gateway] = mesh.roles();
    mesh.watch(successor, 9);
    mesh.lost = |frame| matches!(frame, PeerFrame::UserChanged { .. });
    mesh.attach(gateway, 1);
    assert_eq!(mesh.changes(), []);
    mesh.run(6_000);
    assert_eq!((mesh.changes(), mesh.status(owner)), (vec![(successor, true)], Status::Online));
}

#[test]
fn what_is_kept_ends_with_the_session_and_not_before() {
    let mut mesh = Mesh::new();
    let [owner, successor, gateway] = mesh.roles();
    mesh.attach(gateway, 1);
    mesh.set(owner, "k", "1");
    mesh.ask(owner, Ask::Change(UserChange::Subscribe(news())));
    mesh.run(300_000);
    mesh.detach(gateway, 1);
    mesh.run(110_000);
    assert_eq!(mesh.get(successor), one("k", "1"));
    assert_eq!(mesh.attach(gateway, 2), [news()]);
    mesh.run(20_000);
    mesh.detach(gateway, 2);
    mesh.run(130_000);
    assert_eq!((mesh.get(successor), mesh.attach(gateway, 3)), (vec![], vec![]));
}

#[test]
fn what_was_given_to_a_user_who_never_came_ends_too() {
    let mut mesh = Mesh::new();
    let [owner, _, gateway] = mesh.roles();
    mesh.set(owner, "k", "1");
    mesh.run(100_000);
    assert_eq!(mesh.get(gateway), one("k", "1"));
    mesh.run(40_000);
    assert_eq!(mesh.get(gateway), []);
}
