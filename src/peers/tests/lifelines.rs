//! Lifelines over TCP on loopback: who is let in, what their end makes a node look for, and what it
//! finds.
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::*;
use crate::peers::gate::HANDSHAKES_PER_SOURCE;
use crate::peers::lifeline::PROOF_TIMEOUT;

/// A node with lifelines, and what they found.
struct Lined {
    node: Node,
    found: mpsc::Receiver<Finding>,
}

/// A TCP listener whose number is free for UDP, too.
fn door() -> TcpListener {
    loop {
        let door = TcpListener::bind("127.0.0.1:0").expect("a free port");
        if UdpSocket::bind(door.local_addr().expect("a bound socket")).is_ok() {
            return door;
        }
    }
}

/// A node to be started, and the door at its address.
fn setup(name: &str, incarnation: u128, secret: &Secret) -> (Setup, TcpListener) {
    let door = door();
    let setup = Setup::at(name, secret, door.local_addr().expect("a bound socket"));
    (setup.with(|config| config.node.incarnation = Incarnation(incarnation)), door)
}

fn lined(name: &str, incarnation: u128, secret: &Secret) -> Lined {
    let (setup, door) = setup(name, incarnation, secret);
    lined_at(setup, door)
}

fn lined_at(setup: Setup, door: TcpListener) -> Lined {
    let node = setup.start();
    let found = node.peers.keep_lifelines(door).expect("a listener");
    Lined { node, found }
}

/// Links two nodes and waits until both have a lifeline.
async fn join(one: &mut Lined, other: &mut Lined) {
    link(&mut one.node, &mut other.node).await;
    let (first, second) = (one.node.id.clone(), other.node.id.clone());
    for (this, that) in [(one, second), (other, first)] {
        let finding = this.finds().await;
        let door = Door::Opened(that.incarnation);
        assert_eq!(finding, Finding { node: that.clone(), door, link_answers: true });
    }
}

impl Lined {
    async fn finds(&mut self) -> Finding {
        let finding = timeout(PATIENCE, self.found.recv()).await;
        finding.expect("a finding in time").expect("findings as long as the node lives")
    }

    fn lifelines(&self) -> u64 {
        self.node.peers.stats().lifelines
    }

    async fn counts(&self, what: impl Fn(PeersStats) -> bool) {
        let until = Instant::now() + PATIENCE;
        while !what(self.node.peers.stats()) {
            assert!(Instant::now() < until, "{:?}", self.node.peers.stats());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Ends as a killed process does: its links fall silent, its kernel closes the rest.
    fn crash(self) {
        self.node.plug.pull();
    }

    /// Closes its lifelines without a reason.
    fn cut(&self) {
        self.node.peers.mesh.lifelines.cut();
    }

    async fn stranger(&self) -> TcpStream {
        TcpStream::connect(self.node.address).await.expect("an open port")
    }
}

/// Reads what comes until the other end closes.
async fn closed(stream: &mut TcpStream) -> Vec<u8> {
    let mut read = Vec::new();
    // A reset closes, too.
    let _end = timeout(PATIENCE, stream.read_to_end(&mut read)).await.expect("closed in time");
    read
}

#[tokio::test]
async fn linked_nodes_have_one_lifeline_whoever_dialled_the_link() {
    let secret = Secret::generate();
    for (one, other) in [(1, 2), (2, 1)] {
        let (mut a, mut b) = (lined("a", one, &secret), lined("b", other, &secret));
        join(&mut a, &mut b).await;
        assert_eq!((a.lifelines(), b.lifelines()), (1, 1));
    }
}

#[tokio::test]
async fn a_crashed_process_is_found_gone_from_both_ends_of_a_lifeline() {
    let secret = Secret::generate();
    for (one, other) in [(1, 2), (2, 1)] {
        let (mut a, mut b) = (lined("a", one, &secret), lined("b", other, &secret));
        join(&mut a, &mut b).await;
        let (gone, began) = (b.node.id.clone(), Instant::now());
        b.crash();
        let finding = a.finds().await;
        assert!(began.elapsed() < Duration::from_millis(500), "{:?}", began.elapsed());
        assert_eq!(finding, Finding { node: gone, door: Door::Refused, link_answers: false });
    }
}

#[tokio::test]
async fn a_lifeline_that_was_cut_finds_the_same_process_and_is_made_anew() {
    let secret = Secret::generate();
    for (one, other) in [(1, 2), (2, 1)] {
        let (mut a, mut b) = (lined("a", one, &secret), lined("b", other, &secret));
        join(&mut a, &mut b).await;
        b.cut();
        let finding = a.finds().await;
        let door = Door::Opened(b.node.id.incarnation);
        assert_eq!(finding, Finding { node: b.node.id.clone(), door, link_answers: true });
        a.counts(|stats| stats.lifelines_cut == 1 && stats.lifelines == 1).await;
        b.counts(|stats| stats.lifelines == 1).await;
    }
}

#[tokio::test]
async fn another_process_behind_the_door_is_told_from_the_one_that_was_there() {
    let secret = Secret::generate();
    let (mut a, (b, door_of_b)) = (lined("a", 2, &secret), setup("b", 1, &secret));
    let (c, door_of_c) = setup("c", 3, &secret);
    let (mut b, _c) = (lined_at(b, door_of_c), lined_at(c, door_of_b));
    join(&mut a, &mut b).await;
    b.cut();
    let door = Door::Opened(Incarnation(3));
    assert_eq!(a.finds().await, Finding { node: b.node.id.clone(), door, link_answers: true });
}

#[tokio::test]
async fn a_door_that_is_shut_while_the_link_answers_is_no_sign_of_death() {
    let secret = Secret::generate();
    let (mut a, (b, shut)) = (lined("a", 2, &secret), setup("b", 1, &secret));
    drop(shut);
    let mut b = lined_at(b, door());
    join(&mut a, &mut b).await;
    b.cut();
    let finding = a.finds().await;
    assert_eq!((finding.door, finding.link_answers), (Door::Refused, true));
}

#[tokio::test]
async fn a_door_behind_which_nobody_moves_says_nothing() {
    let secret = Secret::generate();
    // The kernel completes connections for whoever listens, even for a process that is stopped.
    let (mut a, (b, _stopped)) = (lined("a", 2, &secret), setup("b", 1, &secret));
    let mut b = lined_at(b, door());
    join(&mut a, &mut b).await;
    b.cut();
    let again = a.finds().await;
    assert_eq!(again.door, Door::Opened(b.node.id.incarnation), "it dials a new one meanwhile");
    let finding = a.finds().await;
    assert_eq!((finding.door, finding.link_answers), (Door::Unclear, true));
}

#[tokio::test]
async fn a_node_without_a_listener_has_links_and_no_lifelines() {
    let secret = Secret::generate();
    let (mut a, mut b) = (lined("a", 1, &secret), node("b", &secret));
    link(&mut a.node, &mut b).await;
    a.node.quiet().await;
    assert_eq!((a.lifelines(), a.found.try_recv().is_err()), (0, true));
}

#[tokio::test]
async fn a_stranger_is_told_nothing_closed_and_counted() {
    let secret = Secret::generate();
    let mut a = lined("a", 1, &secret);
    let mut other_protocol = a.stranger().await;
    other_protocol.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    let mut wrong_secret = a.stranger().await;
    let node = [&[7; 16][..], &[1, b'b']].concat();
    let claim = [&[1][..], &[8; 32], &node, &node, &[1], &[9; 32]].concat();
    wrong_secret.write_all(&claim).await.unwrap();
    for mut stranger in [other_protocol, wrong_secret] {
        let said = closed(&mut stranger).await;
        assert!(said.len() <= 40, "a greeting without a name: {said:?}");
    }
    a.counts(|stats| stats.lifelines_refused == 2).await;
    assert!(a.found.try_recv().is_err());
    assert_eq!(a.lifelines(), 0);
}

#[tokio::test]
async fn a_source_that_proves_nothing_has_few_places_and_loses_them_in_time() {
    let secret = Secret::generate();
    let a = lined("a", 1, &secret);
    let began = Instant::now();
    let mut silent = Vec::new();
    for _ in 0..HANDSHAKES_PER_SOURCE {
        let mut stranger = a.stranger().await;
        stranger.read_exact(&mut [0; 40]).await.expect("a greeting");
        silent.push(stranger);
    }
    let mut one_more = a.stranger().await;
    assert_eq!(closed(&mut one_more).await, b"");
    assert_eq!(a.node.peers.stats().lifelines_turned_away, 1);
    assert!(began.elapsed() < PROOF_TIMEOUT, "{:?}", began.elapsed());
    for mut stranger in silent {
        closed(&mut stranger).await;
    }
    assert!(began.elapsed() < 2 * PROOF_TIMEOUT, "{:?}", began.elapsed());
    a.counts(|stats| stats.lifelines_refused == HANDSHAKES_PER_SOURCE as u64).await;
}

#[tokio::test]
async fn a_node_that_closes_leaves_no_lifeline_behind() {
    let secret = Secret::generate();
    let (mut a, mut b) = (lined("a", 1, &secret), lined("b", 2, &secret));
    join(&mut a, &mut b).await;
    b.node.peers.close().await;
    a.counts(|stats| stats.lifelines == 0).await;
}
