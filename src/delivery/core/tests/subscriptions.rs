//! A user's subscriptions reach its connections everywhere.
use super::*;

#[test]
fn connections_everywhere_learn_of_subscriptions_once() {
    let mut mesh = Mesh::new();
    let [owner, successor, gateway] = mesh.roles();
    assert_eq!(mesh.attach(gateway, 1), []);
    assert_eq!(mesh.attach(owner, 2), []);
    let mut told = |change| {
        mesh.told.clear();
        mesh.ask(successor, Ask::Change(change));
        mesh.told.sort();
        mesh.told.clone()
    };
    let both = |channels: Vec<Channel>| {
        let mut both = vec![(owner, channels.clone()), (gateway, channels)];
        both.sort();
        both
    };
    assert_eq!(told(UserChange::Subscribe(news())), both(vec![news()]));
    assert_eq!(told(UserChange::Subscribe(news())), []);
    assert_eq!(told(UserChange::Unsubscribe(news())), both(vec![]));
    assert_eq!(told(UserChange::Unsubscribe(news())), []);
}

#[test]
fn a_connect_brings_the_subscriptions_whoever_owns() {
    let mut mesh = Mesh::new();
    let [owner, successor, gateway] = mesh.roles();
    mesh.ask(gateway, Ask::Change(UserChange::Subscribe(news())));
    assert_eq!(mesh.attach(gateway, 1), [news()]);
    mesh.kill(owner);
    assert_eq!(mesh.attach(successor, 2), [news()]);
}

#[test]
fn a_gateway_that_missed_a_change_hears_of_it_by_comparing() {
    let mut mesh = Mesh::new();
    let [owner, _, gateway] = mesh.roles();
    mesh.attach(gateway, 1);
    mesh.lost = |frame| matches!(frame, PeerFrame::UserChanged { .. });
    mesh.ask(owner, Ask::Change(UserChange::Subscribe(news())));
    assert_eq!(mesh.told, []);
    mesh.run(6_000);
    assert_eq!(mesh.told, [(gateway, vec![news()])]);
}

#[test]
fn a_change_that_nobody_was_told_of_is_told_by_the_next_owner() {
    let mut mesh = Mesh::new();
    let [owner, _, gateway] = mesh.roles();
    mesh.attach(gateway, 1);
    mesh.lost = |frame| matches!(frame, PeerFrame::UserChanged { .. });
    mesh.ask(owner, Ask::Change(UserChange::Subscribe(news())));
    mesh.kill(owner);
    assert_eq!(mesh.told, [(gateway, vec![news()])]);
}
