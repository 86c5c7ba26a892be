//! Two nodes with one name: whoever answers keeps it.
use super::*;
use tokio::time::Instant;

/// Both addresses are in the error of a newcomer that must exit.
fn assert_names_both(reason: &Refusal, fatal: bool, older: &Node, newer: &Node) {
    let text = reason.to_string();
    assert!(fatal, "not fatal: {text}");
    assert!(text.contains(&older.address.to_string()), "{text}");
    assert!(text.contains(&newer.address.to_string()), "{text}");
}

#[tokio::test]
async fn a_newcomer_is_refused_while_the_older_answers() {
    let secret = Secret::generate();
    for peer in ["a", "z"] {
        let [older, mut peer] = mesh(["x", peer], &secret).await;
        let mut newer = node("x", &secret);
        newer.dial(&peer);
        let (reason, fatal) = newer.refused().await;
        assert_names_both(&reason, fatal, &older, &newer);
        assert_eq!(peer.linked(), vec![older.id.clone()]);
        peer.quiet().await;
    }
}

#[tokio::test]
async fn a_newcomer_is_refused_by_its_namesake_itself() {
    let secret = Secret::generate();
    let [mut older, mut peer] = mesh(["x", "a"], &secret).await;
    let mut newer = node("x", &secret);
    newer.dial(&older);
    let (reason, fatal) = newer.refused().await;
    assert_names_both(&reason, fatal, &older, &newer);
    tokio::join!(older.quiet(), peer.quiet());
}

#[tokio::test]
async fn the_older_stays_if_it_dials_the_newcomer() {
    let secret = Secret::generate();
    let [mut older, _peer] = mesh(["x", "a"], &secret).await;
    let mut newer = node("x", &secret);
    older.dial(&newer);
    let (reason, fatal) = newer.refused().await;
    assert_names_both(&reason, fatal, &older, &newer);
    let fatal_to_older = timeout(WHILE, older.refused()).await.is_ok_and(|(_, fatal)| fatal);
    assert!(!fatal_to_older);
}

#[tokio::test]
async fn a_newcomer_replaces_an_older_that_is_silent() {
    let secret = Secret::generate();
    for peer in ["a", "z"] {
        let [older, mut peer] = mesh(["x", peer], &secret).await;
        older.plug.pull();
        let started = Instant::now();
        let mut newer = node("x", &secret);
        newer.dial(&peer);
        let why = peer.down(&older.id).await;
        peer.up(&newer.id).await;
        newer.up(&peer.id).await;
        assert_eq!(peer.linked(), vec![newer.id.clone()]);
        let took = started.elapsed();
        assert!(took < Duration::from_millis(950), "{took:?}, which an idle timeout takes: {why}");
    }
}

#[tokio::test]
async fn a_name_is_kept_by_a_node_whose_core_is_busy() {
    let secret = Secret::generate();
    let mut setup = Setup::new("x", &secret);
    setup.event_queue = 1;
    let (mut older, mut peer) = (setup.start(), node("a", &secret));
    link(&mut older, &mut peer).await;
    (0..10_000).for_each(|n| {
        assert_eq!(peer.send(&older, Lane::Control, &numbered(n)), Outcome::Queued);
    });
    let mut newer = node("x", &secret);
    newer.dial(&peer);
    let (reason, fatal) = newer.refused().await;
    assert_names_both(&reason, fatal, &older, &newer);
}
