//! Nodes of clusters that differ don't link, and the newcomer learns how they differ.
use super::*;

async fn refusal_of(change: impl FnOnce(&mut PeersConfig)) -> (String, bool) {
    let secret = Secret::generate();
    let mut old = node("old", &secret);
    let mut new = Setup::new("new", &secret).with(change).start();
    new.dial(&old);
    let (reason, fatal) = new.refused().await;
    old.quiet().await;
    assert!(old.linked().is_empty() && new.linked().is_empty());
    (reason.to_string(), fatal)
}

#[tokio::test]
async fn another_cluster_name_is_refused_naming_both() {
    let (text, fatal) = refusal_of(|config| config.cluster = "prod".into()).await;
    assert_eq!(text, r#"your cluster is named "prod", ours "test""#);
    assert!(fatal);
}

#[tokio::test]
async fn another_number_of_slots_is_refused_naming_both() {
    let (text, fatal) = refusal_of(|config| config.slots = 1024).await;
    assert_eq!(text, "your cluster has slots = 1024, ours has slots = 16384");
    assert!(fatal);
}

#[tokio::test]
async fn another_number_of_copies_is_refused_naming_both() {
    let (text, fatal) = refusal_of(|config| config.copies = 3).await;
    assert_eq!(text, "your cluster keeps copies = 3, ours keeps copies = 2");
    assert!(fatal);
}

#[tokio::test]
async fn versions_without_one_in_common_are_refused_naming_both() {
    let secret = Secret::generate();
    let mut old = Setup::new("old", &secret).with(|config| config.versions = 1..=1).start();
    let mut new = Setup::new("new", &secret).with(|config| config.versions = 2..=2).start();
    new.dial(&old);
    let refusal = Refusal::Version { yours: (2, 2), ours: (1, 1) };
    assert_eq!(new.refused().await, (refusal, true));
    old.quiet().await;
    assert!(old.linked().is_empty() && new.linked().is_empty());
}

#[tokio::test]
async fn a_link_speaks_the_newest_version_that_both_ends_do() {
    for (one, other, common) in [(1..=2, 1..=1, 1), (1..=1, 1..=2, 1), (1..=2, 1..=3, 2)] {
        let secret = Secret::generate();
        let mut a = Setup::new("a", &secret).with(|config| config.versions = one).start();
        let mut b = Setup::new("b", &secret).with(|config| config.versions = other).start();
        link(&mut a, &mut b).await;
        for node in [&a, &b] {
            let versions: Vec<u16> = node.peers.links().iter().map(|link| link.version).collect();
            assert_eq!(versions, [common], "{}", node.id);
        }
    }
}

#[tokio::test]
async fn an_accept_with_another_version_than_the_newest_in_common_is_refused() {
    // The lesser of two nodes waits for the other's accept before it sends its own.
    for name in ["a", "z"] {
        for (versions, wrong, newest) in [(1..=1, 2, 1), (1..=1, 0, 1), (1..=2, 1, 2)] {
            let secret = Secret::generate();
            let start = |name: &str| {
                Setup::new(name, &secret).with(|config| config.versions = versions.clone()).start()
            };
            let (mut node, peer) = (start(name), start("m"));
            let mesh = &peer.peers.mesh;
            let connection = mesh.endpoint.connect(node.address, &mesh.server_name).unwrap();
            let connection = connection.await.unwrap();
            let own = greeting::accept_with(mesh, &connection, wrong).await;
            assert!(own.is_ok(), "{:?}", own.err());
            let reason = timeout(PATIENCE, connection.closed()).await.unwrap();
            let quinn::ConnectionError::ApplicationClosed(close) = reason else {
                panic!("{reason}")
            };
            let refusal = Refusal::Accepted { yours: wrong, ours: newest };
            assert_eq!(Refusal::decode(&close.reason), refusal);
            let told = format!("version {wrong}, the newest in common is {newest}");
            assert!(refusal.to_string().ends_with(&told), "{refusal}");
            assert!(node.linked().is_empty() && node.events.try_recv().is_err());
            link(&mut start("n"), &mut node).await;
        }
    }
}

#[tokio::test]
async fn a_difference_is_not_fatal_to_a_node_that_belongs_to_a_cluster() {
    let secret = Secret::generate();
    let [mut a, mut b] = mesh(["a", "b"], &secret).await;
    let stranger = Setup::new("c", &secret).with(|config| config.slots = 1024).start();
    a.dial(&stranger);
    let (reason, fatal) = a.refused().await;
    assert_eq!(reason, Refusal::Slots { yours: 16384, ours: 1024 });
    assert!(!fatal);
    assert_eq!(a.send(&b, Lane::Data, &numbered(1)), Outcome::Queued);
    assert_eq!(b.numbers(1).await[&a.id.incarnation], [1]);
}

#[test]
fn an_address_that_nobody_can_dial_is_refused() {
    let secret = Secret::generate();
    let (events, _) = mpsc::channel(1);
    for address in ["0.0.0.0:7400", "127.0.0.1:0"] {
        let setup = Setup::new("a", &secret).with(|c| c.advertise = address.parse().unwrap());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let _guard = runtime.enter();
        let (socket, runtime) = udp(setup.socket).unwrap();
        let Err(error) = Peers::start(setup.config, socket, runtime, events.clone()) else {
            panic!("{address} was accepted");
        };
        assert!(error.to_string().contains(address), "{error}");
    }
}
