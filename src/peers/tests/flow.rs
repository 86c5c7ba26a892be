//! What flows over links: frames on lanes, backlogs, relays, gossip, and how links come and go.
use super::*;
use bytes::Bytes;

use crate::ownership::audience::{Audience, PRESENT_BYTES_MAX, PRESENT_MAX, in_parts};
use crate::ownership::stream::{READ_BYTES_MAX, READ_LEN_MAX};
use crate::peers::frames::Wire;
use crate::protocol::channel::{Channel, ChannelOptions};
use crate::protocol::ids::{ClientId, Epoch, Position, Slot, StreamEpoch};
use crate::protocol::message::{ClientInfo, DATA_BYTES_MAX, Message, Publication, TAG_BYTES_MAX};
use crate::protocol::peer::{Answer, ChannelInterest, SlotInterest};
use tokio::time::Instant;

#[tokio::test]
async fn linked_nodes_exchange_frames_in_order_on_every_lane() {
    let secret = Secret::generate();
    let [mut a, mut b] = mesh(["a", "b"], &secret).await;
    assert_eq!((a.linked(), b.linked()), (vec![b.id.clone()], vec![a.id.clone()]));
    for lane in [Lane::Control, Lane::Data, Lane::Bulk] {
        (0..4000).for_each(|n| assert_eq!(a.send(&b, lane, &numbered(n)), Outcome::Queued));
        assert_eq!(b.numbers(4000).await[&a.id.incarnation], Vec::from_iter(0..4000));
        (0..100).for_each(|n| assert_eq!(b.send(&a, lane, &numbered(n)), Outcome::Queued));
        assert_eq!(a.numbers(100).await[&b.id.incarnation], Vec::from_iter(0..100));
    }
    let status = &b.peers.links()[0];
    assert!(status.received_frames >= 12000 && status.dropped == 0 && status.dialled, "{status:?}");
}

#[tokio::test]
async fn one_frame_goes_to_many_nodes() {
    let secret = Secret::generate();
    let [a, mut b, mut c] = mesh(["a", "b", "c"], &secret).await;
    let to = [b.id.incarnation, Incarnation(1), c.id.incarnation];
    let outcomes = a.peers.send(&to, Lane::Data, &numbered(7)).unwrap();
    assert_eq!(outcomes[..], [Outcome::Queued, Outcome::Unreachable, Outcome::Queued]);
    assert_eq!(b.numbers(1).await[&a.id.incarnation], [7]);
    assert_eq!(c.numbers(1).await[&a.id.incarnation], [7]);
    assert_eq!(a.peers.stats().unreachable, 1);
}

#[tokio::test]
async fn a_backlog_of_data_does_not_delay_control() {
    let secret = Secret::generate();
    let [a, mut b] = mesh(["a", "b"], &secret).await;
    for _ in 0..28 {
        assert_eq!(a.send(&b, Lane::Bulk, &heavy(1 << 20)), Outcome::Queued);
        assert_eq!(a.send(&b, Lane::Data, &heavy(1 << 20)), Outcome::Queued);
    }
    tokio::task::yield_now().await;
    assert_eq!(a.send(&b, Lane::Control, &numbered(1)), Outcome::Queued);
    let mut before = 0;
    b.event(|event| match event {
        PeerEvent::Frames { frames, .. } if frames.iter().any(|f| number(f).is_some()) => Some(()),
        PeerEvent::Frames { frames, .. } => {
            before += frames.len();
            None
        }
        _ => None,
    })
    .await;
    assert!(before < 28, "{before} of 56 heavy frames came first");
}

#[tokio::test]
async fn a_full_outbox_drops_says_so_and_blocks_nobody() {
    let secret = Secret::generate();
    let [a, b, mut c] = mesh(["a", "b", "c"], &secret).await;
    b.plug.pull();
    let frame = heavy(1 << 20);
    let full = (0..200).find(|_| a.send(&b, Lane::Data, &frame) == Outcome::Full);
    assert!(full.is_some_and(|n| n > 20), "full after {full:?} MiB");
    assert_eq!(a.send(&b, Lane::Control, &numbered(1)), Outcome::Queued);
    assert_eq!(a.send(&c, Lane::Data, &numbered(2)), Outcome::Queued);
    assert_eq!(c.numbers(1).await[&a.id.incarnation], [2]);
    assert_eq!(a.peers.stats().dropped, 1);
    assert_eq!(a.peers.links().iter().map(|link| link.dropped).sum::<u64>(), 1);
}

#[tokio::test]
async fn a_full_answer_of_the_largest_publications_crosses_a_link() {
    let secret = Secret::generate();
    let [a, mut b] = mesh(["a", "b"], &secret).await;
    let id = Epoch { term: u64::MAX, owner: Incarnation(u128::MAX) };
    let epoch = StreamEpoch { epoch: id, index: u64::MAX };
    let info = ClientInfo {
        user: "u".repeat(254).into(),
        client: ClientId(u128::MAX),
        conn_info: vec![b' '; 3_500].into(),
        chan_info: Bytes::new(),
    };
    let message = Arc::new(Message {
        data: vec![b'1'; DATA_BYTES_MAX].into(),
        info: Some(info),
        tags: [("name".to_owned(), "v".repeat(TAG_BYTES_MAX - 4))].into(),
        time_ms: u64::MAX,
    });
    let publication = |offset| Publication { epoch, offset, message: message.clone() };
    let most = READ_LEN_MAX as u64;
    let publications: Vec<_> = (u64::MAX - most..u64::MAX).map(publication).collect();
    let position = Position { epoch, offset: u64::MAX };
    let counted: usize = publications.iter().map(Publication::bytes).sum();
    assert!(counted <= READ_BYTES_MAX, "{counted}");
    let answer = Answer::History { publications, position };
    let frame = PeerFrame::Answer { number: u64::MAX, answer };
    for _ in 0..2 {
        assert_eq!(a.send(&b, Lane::Data, &frame), Outcome::Queued);
    }
    assert!(b.frames(2).await.iter().all(|came| *came == frame));
    assert_eq!(a.peers.stats().dropped, 0);
}

#[tokio::test]
async fn the_interest_of_a_crowd_crosses_a_link() {
    let secret = Secret::generate();
    let [a, mut b] = mesh(["a", "b"], &secret).await;
    let present = |client| ClientInfo {
        user: format!("user-{client}").into(),
        client: ClientId(client),
        conn_info: vec![b' '; PRESENT_BYTES_MAX / PRESENT_MAX].into(),
        chan_info: Bytes::new(),
    };
    let crowd = ChannelInterest {
        channel: Channel::parse("chat:lobby").unwrap(),
        options: ChannelOptions::default(),
        position: None,
        present: (0..PRESENT_MAX as u128).map(present).collect(),
    };
    let interest = vec![crowd.clone()];
    let (mut audience, mut parts) = (Audience::default(), 0);
    for (channels, span) in in_parts(interest) {
        let interest = SlotInterest { slot: Slot(1), channels };
        let frame = PeerFrame::Interest { interest, span };
        assert_eq!(a.send(&b, Lane::Data, &frame), Outcome::Queued);
        parts += 1;
    }
    for frame in b.frames(parts).await {
        let PeerFrame::Interest { interest, span } = frame else { panic!("{frame:?}") };
        audience.replace(a.id.incarnation, interest.channels, &span);
    }
    let shown = audience.present(&crowd.channel).count();
    assert!(shown > PRESENT_MAX * 9 / 10, "{shown} in {parts} parts");
    // And so does the answer about them.
    let answer = Answer::Presence(audience.present(&crowd.channel).cloned().collect());
    let frame = PeerFrame::Answer { number: 1, answer };
    assert_eq!(a.send(&b, Lane::Data, &frame), Outcome::Queued);
    assert_eq!(b.frames(1).await, [frame]);
}

#[tokio::test]
async fn a_frame_over_the_limit_is_an_error_of_its_sender() {
    let secret = Secret::generate();
    let [a, b] = mesh(["a", "b"], &secret).await;
    let sent = a.peers.send(&[b.id.incarnation], Lane::Data, &heavy(FRAME_BYTES_MAX + 4096));
    assert!(matches!(sent, Err(FrameError::TooLong { limit: FRAME_BYTES_MAX, .. })));
}

#[tokio::test]
async fn a_peer_that_breaks_the_limit_loses_its_link_and_others_keep_theirs() {
    let secret = Secret::generate();
    let [mut evil, mut b, mut c] = mesh(["evil", "b", "c"], &secret).await;
    let link = evil.peers.mesh.registry.by_name(&b.id.name).unwrap();
    let wire = Wire { head: bytes::Bytes::new(), body: bytes::Bytes::from_static(&[0xff; 4]) };
    link.push(Lane::Data, wire).unwrap();
    let why = b.down(&evil.id).await;
    assert!(matches!(&why, LinkEnd::Invalid(text) if text.contains("4294967295")), "{why:?}");
    evil.down(&b.id).await;
    assert_eq!(c.send(&b, Lane::Data, &numbered(3)), Outcome::Queued);
    assert_eq!(b.numbers(1).await[&c.id.incarnation], [3]);
    assert_eq!(c.linked(), [b.id.clone(), evil.id.clone()]);
    c.quiet().await;
}

#[tokio::test]
async fn a_node_out_of_reach_is_reached_through_another() {
    let secret = Secret::generate();
    let [mut a, mut b, mut c] = ["a", "b", "c"].map(|name| node(name, &secret));
    link(&mut a, &mut b).await;
    link(&mut b, &mut c).await;
    assert_eq!(a.send(&c, Lane::Data, &numbered(0)), Outcome::Unreachable);
    let via = vec![Incarnation(5), b.id.incarnation];
    a.peers.set_relays(Relays::from([(c.id.incarnation, via)]));
    (0..500).for_each(|n| assert_eq!(a.send(&c, Lane::Data, &numbered(n)), Outcome::Relayed));
    assert_eq!(c.numbers(500).await[&a.id.incarnation], Vec::from_iter(0..500));
    assert_eq!(b.peers.links().iter().map(|link| link.relayed).sum::<u64>(), 500);
    assert!(b.events.try_recv().is_err(), "the node between saw a frame that is not for it");
}

#[tokio::test]
async fn what_was_relayed_once_is_not_relayed_again() {
    let secret = Secret::generate();
    let [a, mut b, mut c] = mesh(["a", "b", "c"], &secret).await;
    let link = a.peers.mesh.registry.by_name(&b.id.name).unwrap();
    let frame = rmp_serde::to_vec(&numbered(1)).unwrap();
    let relayed = Wire::relay(c.id.incarnation, Incarnation(77), frame.into());
    link.push(Lane::Data, relayed).unwrap();
    assert_eq!(a.send(&b, Lane::Data, &numbered(2)), Outcome::Queued);
    assert_eq!(b.numbers(1).await[&a.id.incarnation], [2]);
    assert_eq!(b.peers.stats().relay_dropped, 1);
    c.quiet().await;
}

#[tokio::test]
async fn gossip_dials_an_unknown_address_and_names_its_sender() {
    let secret = Secret::generate();
    let [a, mut b] = ["a", "b"].map(|name| node(name, &secret));
    for text in ["first", "second"] {
        a.gossip.outgoing.send((b.address, bytes::Bytes::from(text))).await.unwrap();
    }
    let (from, message) = timeout(PATIENCE, b.gossip.incoming.recv()).await.unwrap().unwrap();
    assert_eq!((from, &message[..]), (a.address, &b"second"[..]));
    a.gossip.outgoing.send((b.address, "third".into())).await.unwrap();
    let (_, message) = timeout(PATIENCE, b.gossip.incoming.recv()).await.unwrap().unwrap();
    assert_eq!(&message[..], b"third");
    assert_eq!(a.peers.stats().dials, 1);
}

#[tokio::test]
async fn gossip_flows_while_a_core_reads_nothing() {
    let secret = Secret::generate();
    let mut a = node("a", &secret);
    let mut setup = Setup::new("b", &secret);
    setup.event_queue = 1;
    let mut b = setup.start();
    link(&mut a, &mut b).await;
    (0..10_000).for_each(|n| assert_eq!(a.send(&b, Lane::Control, &numbered(n)), Outcome::Queued));
    a.gossip.outgoing.send((b.address, "still here".into())).await.unwrap();
    let (_, message) = timeout(PATIENCE, b.gossip.incoming.recv()).await.unwrap().unwrap();
    assert_eq!(&message[..], b"still here");
    let link = a.peers.mesh.registry.by_name(&b.id.name).unwrap();
    assert!(link.answers().await);
    assert_eq!(b.numbers(10_000).await[&a.id.incarnation].len(), 10_000);
}

#[tokio::test]
async fn a_node_never_links_with_itself() {
    let secret = Secret::generate();
    let setup = Setup::at("a", &secret, "0.0.0.0:0".parse().unwrap());
    let port = setup.socket.local_addr().unwrap().port();
    let mut a = setup.with(|c| c.advertise = SocketAddr::from(([127, 0, 0, 1], port))).start();
    let alias = SocketAddr::from(([127, 0, 0, 2], port));
    a.peers.set_targets(vec![
        Target { id: None, address: a.address },
        Target { id: None, address: alias },
    ]);
    a.quiet().await;
    assert!(a.linked().is_empty());
    assert_eq!(a.peers.stats().dials, 1);
    assert_eq!(a.peers.stats().refused, 0);
}

#[tokio::test]
async fn nodes_that_dial_each_other_at_once_settle_on_one_link() {
    let secret = Secret::generate();
    for _ in 0..10 {
        let [mut a, mut b] = ["a", "b"].map(|name| node(name, &secret));
        a.dial(&b);
        b.dial(&a);
        a.up(&b.id).await;
        b.up(&a.id).await;
        let (a_quiet, b_quiet) = (a.quiet(), b.quiet());
        tokio::join!(a_quiet, b_quiet);
        assert_eq!(a.peers.links().len() + b.peers.links().len(), 2);
        assert_ne!(a.peers.links()[0].dialled, b.peers.links()[0].dialled);
    }
}

#[tokio::test]
async fn nodes_that_start_in_any_order_find_each_other() {
    let secret = Secret::generate();
    let mut a = node("a", &secret);
    let reserved = Setup::new("b", &secret);
    let address = reserved.config.advertise;
    drop(reserved);
    a.peers.set_targets(vec![Target { id: None, address }]);
    let dials = || a.peers.stats().dials;
    timeout(PATIENCE, async {
        while dials() < 2 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await
    .expect("a second attempt");
    let mut b = Setup::at("b", &secret, address).start();
    a.up(&b.id).await;
    b.up(&a.id).await;
}

#[tokio::test]
async fn a_node_that_closes_is_known_to_have_left() {
    let secret = Secret::generate();
    let [a, mut b] = mesh(["a", "b"], &secret).await;
    let started = Instant::now();
    a.peers.close().await;
    assert_eq!(b.down(&a.id).await, LinkEnd::Left);
    assert!(started.elapsed() < Duration::from_millis(500), "{:?}", started.elapsed());
    assert!(b.linked().is_empty());
}

#[tokio::test]
async fn a_silent_node_is_lost_after_the_idle_timeout() {
    let secret = Secret::generate();
    let [a, mut b] = mesh(["a", "b"], &secret).await;
    a.plug.pull();
    assert_eq!(b.down(&a.id).await, LinkEnd::Silent);
}

#[tokio::test]
async fn a_node_restarted_at_once_on_its_address_is_linked_again_at_once() {
    let secret = Secret::generate();
    let [mut a, mut b] = ["a", "b"].map(|name| node(name, &secret));
    link(&mut b, &mut a).await;
    a.plug.pull();
    let started = Instant::now();
    let mut again = Setup::at("a", &secret, a.address).start();
    assert_eq!(b.down(&a.id).await, LinkEnd::Reset);
    b.up(&again.id).await;
    again.up(&b.id).await;
    let took = started.elapsed();
    assert!(took < Duration::from_millis(500), "{took:?}");
}

#[tokio::test]
async fn a_broken_link_is_dialled_again() {
    let secret = Secret::generate();
    let [mut a, mut b] = mesh(["a", "b"], &secret).await;
    a.peers.mesh.registry.by_name(&b.id.name).unwrap().close(CloseCode::Replaced);
    a.down(&b.id).await;
    b.down(&a.id).await;
    a.up(&b.id).await;
    b.up(&a.id).await;
}

#[tokio::test]
async fn addresses_that_are_targets_no_more_are_not_dialled() {
    let secret = Secret::generate();
    let [mut a, mut b] = ["a", "b"].map(|name| node(name, &secret));
    link(&mut a, &mut b).await;
    a.peers.set_targets(vec![]);
    b.peers.mesh.registry.by_name(&a.id.name).unwrap().close(CloseCode::Replaced);
    a.down(&b.id).await;
    a.quiet().await;
    assert_eq!(a.peers.stats().dials, 1);
}

#[tokio::test]
async fn up_and_down_take_turns_however_slowly_they_are_read() {
    let secret = Secret::generate();
    let mut b = node("b", &secret);
    let mut setup = Setup::new("a", &secret);
    setup.event_queue = 1;
    let mut a = setup.start();
    b.dial(&a);
    for _ in 0..4 {
        b.up(&a.id).await;
        b.peers.mesh.registry.by_name(&a.id.name).unwrap().close(CloseCode::Replaced);
        b.down(&a.id).await;
    }
    b.up(&a.id).await;
    let mut last_was_up = false;
    let mut ups = 0;
    while let Ok(Some(event)) = timeout(WHILE, a.events.recv()).await {
        let is_up = matches!(event, PeerEvent::Up { .. });
        assert_ne!(is_up, last_was_up, "{event:?} after its like");
        last_was_up = is_up;
        ups += u32::from(is_up);
    }
    assert!(ups >= 2 && last_was_up, "{ups} times up");
}
