//! Nodes started as `orbweb serve` starts them, on sockets of loopback.
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::*;
use crate::config::{MeshListen, SecretText, Tls};
use crate::peers::Secret;
use crate::peers::tests::authority::Authority;

/// Longer than anything here takes, on a machine that has other things to do.
const PATIENCE: Duration = Duration::from_secs(20);
const SECRET: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

/// A node alone, on ports of the kernel's choosing.
fn alone(name: &str) -> Config {
    let mut config = Config {
        name: name.parse().expect("a legal name"),
        listen: ([127, 0, 0, 1], 0).into(),
        ..Config::default()
    };
    // Shards on threads of their own.
    config.client.shards = 2;
    config
}

/// A node of a cluster whose certificates are in files.
fn with_files(name: &str, tls: Tls) -> Config {
    Config {
        secret: Some(SecretText::new(SECRET)),
        mesh_listen: Some(MeshListen(([127, 0, 0, 1], 0).into())),
        tls,
        ..alone(name)
    }
}

/// Files of an operator's for a node.
fn files(folder: &Path, authority: &Authority, name: &str) -> Tls {
    let secret = Secret::parse(SECRET).expect("a secret");
    let pem = authority.credentials(name, true, &secret).operator.expect("an operator's files");
    let write = |kind: &str, text: Vec<u8>| -> Option<PathBuf> {
        let path = folder.join(format!("{name}.{kind}"));
        std::fs::write(&path, text).expect("a writable folder");
        Some(path)
    };
    Tls { ca: write("ca", pem.ca), cert: write("cert", pem.cert), key: write("key", pem.key) }
}

async fn error_of(config: Config) -> String {
    let environment = Environment::bind(&config).expect("free ports");
    let Err(error) = Node::start(config, environment).await else { panic!("it started") };
    format!("{error:#}")
}

#[tokio::test]
async fn nodes_link_with_certificates_from_files() {
    tokio::task::LocalSet::new().run_until(link_with_certificates_from_files()).await;
}

async fn link_with_certificates_from_files() {
    let (folder, authority) = (TempDir::new().expect("a folder"), Authority::new());
    let first = with_files("n1", files(folder.path(), &authority, "n1"));
    let environment = Environment::bind(&first).expect("free ports");
    let seed = environment.mesh.as_ref().expect("a mesh").advertise;
    let first = Node::start(first, environment).await.expect("a node");
    let mut second = with_files("n2", files(folder.path(), &authority, "n2"));
    second.join = vec![seed.to_string().parse().expect("an address")];
    // All of it on this thread.
    second.client.shards = 1;
    let environment = Environment::bind(&second).expect("free ports");
    let second = Node::start(second, environment).await.expect("a node");
    for (node, other) in [(&first, "n2"), (&second, "n1")] {
        let mut linked = node.peers.as_ref().expect("a mesh").linked();
        let seen = timeout(PATIENCE, linked.wait_for(|linked| !linked.is_empty())).await;
        let linked = seen.expect("a link in time").expect("a node that lives");
        assert_eq!(linked[0].name.as_str(), other);
    }
    second.stop(STOP_TIMEOUT_MIN).await;
    first.stop(STOP_TIMEOUT_MIN).await;
}

#[tokio::test]
async fn files_that_do_not_fit_a_node_keep_it_from_starting() {
    let (folder, authority) = (TempDir::new().expect("a folder"), Authority::new());
    let of_another = files(folder.path(), &authority, "n2");
    let missing = Tls { key: Some("/nonexistent/key".into()), ..of_another.clone() };
    let error = error_of(with_files("n1", of_another)).await;
    assert_eq!(error, r#"--tls-cert is for node "n2", this node is named "n1""#);
    let error = error_of(with_files("n2", missing)).await;
    assert!(error.starts_with("`tls.key`: cannot read /nonexistent/key"), "{error}");
}

#[tokio::test]
async fn a_node_whose_core_takes_nothing_leaves_in_time() {
    const WITHIN: Duration = Duration::from_secs(2);
    let config = alone("n1");
    let environment = Environment::bind(&config).expect("free ports");
    let mut node = Node::start(config, environment).await.expect("a node");
    let (stuck, _unread) = CoreSender::channel();
    while stuck.try_push(Event::Leave).is_ok() {}
    node.core = stuck;
    let started = Instant::now();
    timeout(PATIENCE, node.drain(WITHIN)).await.expect("an end");
    assert!(started.elapsed() <= WITHIN, "took {:?}", started.elapsed());
}

/// Whether a node that is in that state, and learns that it has caught up or doesn't, is turned up, and
/// when.
async fn turned_up(state: State, caught_up: bool) -> Option<Duration> {
    let (_state, states) = watch::channel(state);
    let (_progress, progress) = watch::channel(Progress { caught_up, ..Progress::default() });
    let (began, mut turned) = (Instant::now(), None);
    turn_up(states, progress, |state| turned = Some((state, began.elapsed()))).await;
    turned.map(|(state, after)| {
        assert_eq!(state, State::Up);
        after
    })
}

#[tokio::test(start_paused = true)]
async fn a_joining_node_turns_up_when_it_was_told_all_or_after_a_minute() {
    assert_eq!(turned_up(State::Joining, true).await, Some(Duration::ZERO));
    assert_eq!(turned_up(State::Joining, false).await, Some(LEARN_TIMEOUT));
}

#[tokio::test(start_paused = true)]
async fn who_founds_a_cluster_waits_for_nothing() {
    assert_eq!(turned_up(State::Up, false).await, None);
}
