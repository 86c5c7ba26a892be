//! Membership in clusters of an in-memory network, on a paused clock.
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use mesh::{Mesh, address_of, members, view};
use tokio::time::{Instant, sleep, timeout};

use super::snapshot::LiveMember;
use super::*;
use crate::ownership::view::View;
use crate::protocol::ids::Incarnation;

mod mesh;

/// Nobody looks at doors.
pub(super) fn no_findings() -> mpsc::Receiver<Finding> {
    mpsc::channel(1).1
}

/// A live `up` member without links.
pub(super) fn live_member(name: &str, incarnation: u128) -> LiveMember {
    LiveMember {
        id: NodeId { name: name.parse().unwrap(), incarnation: Incarnation(incarnation) },
        address: ([127, 0, 0, 1], 7400).into(),
        facts: facts::Facts {
            incarnation: Incarnation(incarnation),
            client_url: String::new(),
            state: State::Up,
            links: Vec::new(),
            awaits: Vec::new(),
            protocol: 1,
            copies: 2,
            slots: 16384,
            weight: 1,
        },
    }
}

/// What the first of these sees if all the `up` ones are in the view.
pub(super) fn snapshot_of(members: Vec<Arc<LiveMember>>) -> Snapshot {
    let up = members.iter().filter(|member| member.facts.state == State::Up);
    Snapshot {
        me: members[0].id.clone(),
        view: View::new(up.map(|member| member.member())),
        targets: Vec::new(),
        relays: BTreeMap::new(),
        seeds: Vec::new(),
        seeded: true,
        linked: members.len() > 1,
        dead: Vec::new(),
        stalled: false,
        healthy: true,
        replaced_by: None,
        members,
    }
}

#[tokio::test(start_paused = true)]
async fn nodes_find_each_other_from_one_seed_in_any_order() {
    for order in ["abc", "cba", "bac"] {
        let mut mesh = Mesh::default();
        for name in order.chars() {
            mesh.start(name, if name == 'a' { "" } else { "a" });
            sleep(Duration::from_secs(3)).await;
        }
        mesh.all_see("abc").await;
        let hash = mesh.now('a').view.hash();
        assert!(mesh.snapshots().iter().all(|s| s.view.hash() == hash), "order {order}");
    }
}

#[tokio::test(start_paused = true)]
async fn nodes_started_together_are_one_cluster_in_a_second() {
    let mut mesh = Mesh::default();
    mesh.start_all("abcde");
    let took = mesh.all_see("abcde").await;
    assert!(took < Duration::from_secs(1), "took {took:?}");
}

#[tokio::test(start_paused = true)]
async fn two_that_point_at_each_other_form_one_cluster() {
    let mut mesh = Mesh::default();
    mesh.start('a', "b");
    assert!(mesh.now('a').view.is_empty(), "it has a seed, so it waits");
    mesh.start('b', "a");
    mesh.all_see("ab").await;
    assert!(mesh.now('a').seeded && mesh.now('a').linked);
}

#[tokio::test(start_paused = true)]
async fn a_node_without_seeds_is_up_at_once() {
    let mut mesh = Mesh::default();
    mesh.start('a', "a");
    let alone = mesh.now('a');
    assert_eq!((view(&alone).as_str(), alone.seeded), ("a", false), "its only seed is itself");
}

#[tokio::test(start_paused = true)]
async fn a_killed_node_is_out_of_every_view_in_time() {
    let mut mesh = Mesh::default();
    mesh.start_all("abcde");
    mesh.all_see("abcde").await;
    sleep(Duration::from_secs(20)).await;
    mesh.kill('c');
    let took = mesh.all_see("abde").await;
    assert!(took < Duration::from_millis(1_500), "took {took:?}");
    assert!(took >= Duration::from_millis(200), "the hold was skipped: {took:?}");
    let target = mesh.now('a').targets.into_iter().find(|t| t.address == address_of('c'));
    assert_eq!(target.map(|t| t.id), Some(None), "its address is tried again");
}

#[tokio::test(start_paused = true)]
async fn a_killed_node_whose_door_is_shut_is_out_at_once_and_stays_out() {
    let mut mesh = Mesh::default();
    mesh.start_all("abc");
    mesh.all_see("abc").await;
    sleep(Duration::from_secs(20)).await;
    let node = mesh.now('c').me;
    mesh.kill('c');
    for name in ['a', 'b'] {
        let (node, door) = (node.clone(), Door::Refused);
        mesh.find(name, Finding { node, door, link_answers: false });
    }
    let took = mesh.all_see("ab").await;
    assert!(took < Duration::from_millis(10), "took {took:?}");
    for _ in 0..200 {
        sleep(Duration::from_millis(50)).await;
        assert!(mesh.snapshots().iter().all(|s| view(s) == "ab"));
    }
}

#[tokio::test(start_paused = true)]
async fn a_leave_is_known_at_once_and_the_node_answers_still() {
    let mut mesh = Mesh::default();
    mesh.start_all("abc");
    mesh.all_see("abc").await;
    sleep(Duration::from_secs(5)).await;
    mesh.node('b').membership.leave();
    let took = mesh.all_see("ac").await;
    assert!(took < Duration::from_millis(20), "took {took:?}");
    let seen = mesh.now('a');
    assert_eq!(members(&seen), "abc");
    assert_eq!(seen.outside().count(), 1);
    assert_eq!(seen.leaving_names(), ["b".parse().unwrap()]);
    mesh.node('b').membership.set_state(State::Up);
    sleep(Duration::from_secs(5)).await;
    assert_eq!(view(&mesh.now('a')), "ac", "nobody comes back from leaving");
}

#[tokio::test(start_paused = true)]
async fn a_node_that_exits_between_two_rounds_has_said_that_it_leaves() {
    let mut mesh = Mesh::default();
    mesh.start_all("abcdefgh");
    mesh.all_see("abcdefgh").await;
    sleep(Duration::from_millis(5_010)).await;
    mesh.node('b').membership.leave();
    sleep(Duration::from_millis(50)).await;
    mesh.kill('b');
    let took = mesh.all_see("acdefgh").await;
    assert!(took < Duration::from_millis(200), "took {took:?}");
}

#[tokio::test(start_paused = true)]
async fn a_restarted_node_replaces_its_older_incarnation() {
    let mut mesh = Mesh::default();
    mesh.start_all("abc");
    mesh.all_see("abc").await;
    for address in [address_of('b'), address_of('z')] {
        sleep(Duration::from_secs(5)).await;
        mesh.kill('b');
        sleep(Duration::from_millis(50)).await;
        mesh.start_at('b', address, "a");
        let newest = mesh.now('b').me.incarnation;
        assert_eq!(mesh.now('b').replaced_by, None);
        let start = Instant::now();
        for name in ['a', 'c'] {
            mesh.sees(name, |s| s.view.len() == 3 && s.view.contains(newest)).await;
        }
        assert!(start.elapsed() < Duration::from_secs(1), "took {:?}", start.elapsed());
        mesh.all_see("abc").await;
        assert_eq!(mesh.now('a').member(newest).map(|m| m.address), Some(address));
    }
}

#[tokio::test(start_paused = true)]
async fn a_node_cut_from_most_drops_out_is_relayed_and_returns_later() {
    let mut mesh = Mesh::default();
    mesh.start_all("abcde");
    mesh.all_see("abcde").await;
    sleep(Duration::from_secs(3)).await;
    for other in ['b', 'c', 'd'] {
        mesh.cut('e', other);
    }
    let took = mesh.all_see("abcd").await;
    assert!(took >= Duration::from_millis(links::BROKEN_AFTER_MS), "took {took:?}");
    let (a, e) = (mesh.now('a').me.incarnation, mesh.now('e').me.incarnation);
    // Of a link that broke the two ends tell one after the other.
    mesh.sees('b', |s| s.relays == BTreeMap::from([(e, vec![a])])).await;
    let seen = mesh.now('b');
    assert_eq!(seen.outside().map(|m| m.id.incarnation).collect::<Vec<_>>(), [e]);
    mesh.heal();
    let took = mesh.all_see("abcde").await;
    assert!(took >= Duration::from_millis(view_tracker::RETURN_AFTER_MS), "took {took:?}");
}

#[tokio::test(start_paused = true)]
async fn one_cut_link_changes_no_view() {
    let mut mesh = Mesh::default();
    mesh.start_all("abc");
    mesh.all_see("abc").await;
    mesh.cut('b', 'c');
    let a = mesh.now('a').me.incarnation;
    let c = mesh.now('c').me.incarnation;
    mesh.sees('b', |s| s.relays.get(&c) == Some(&vec![a])).await;
    for _ in 0..100 {
        sleep(Duration::from_millis(100)).await;
        assert!(mesh.snapshots().iter().all(|s| view(s) == "abc"));
    }
}

#[tokio::test(start_paused = true)]
async fn a_partition_heals() {
    let mut mesh = Mesh::default();
    mesh.start_all("abcd");
    mesh.all_see("abcd").await;
    sleep(Duration::from_secs(3)).await;
    for (left, right) in [('a', 'c'), ('a', 'd'), ('b', 'c'), ('b', 'd')] {
        mesh.cut(left, right);
    }
    mesh.sees('a', |s| view(s) == "ab").await;
    mesh.sees('d', |s| view(s) == "cd").await;
    // Longer than gossip remembers the dead: the addresses of the lost must do.
    sleep(Duration::from_secs(400)).await;
    mesh.heal();
    mesh.all_see("abcd").await;
}

#[tokio::test(start_paused = true)]
async fn names_of_seeds_are_looked_up_until_they_answer() {
    let mut mesh = Mesh::default();
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    let resolver: seeds::Resolver = Arc::new(move |name| {
        assert_eq!(name, "orbweb.internal:7400");
        let nth = count.fetch_add(1, Ordering::Relaxed);
        Box::pin(async move {
            if nth < 3 {
                return Err(std::io::ErrorKind::NotFound.into());
            }
            Ok(vec![address_of('b'), address_of('a')])
        })
    });
    mesh.start('a', "");
    mesh.start_with('b', address_of('b'), |config| {
        config.seeds = vec!["orbweb.internal:7400".to_owned()];
        config.resolver = resolver;
    });
    assert!(mesh.now('b').seeded, "an unknown name is somebody else");
    let took = mesh.all_see("ab").await;
    assert!(took >= 3 * seeds::FIRST_LOOKUP_INTERVAL, "took {took:?}");
    assert_eq!(mesh.now('b').seeds, [address_of('a')], "its own address is no seed");
}

#[tokio::test(start_paused = true)]
async fn a_name_that_moves_is_followed() {
    let mut mesh = Mesh::default();
    let asked = Arc::new(AtomicUsize::new(0));
    let (moved, answer) = watch::channel(address_of('x'));
    let count = asked.clone();
    mesh.start('a', "");
    mesh.start_with('b', address_of('b'), |config| {
        config.seeds = vec!["orbweb.internal:7400".to_owned()];
        config.resolver = Arc::new(move |_| {
            count.fetch_add(1, Ordering::Relaxed);
            let address = *answer.borrow();
            Box::pin(async move { Ok(vec![address]) })
        });
    });
    sleep(2 * seeds::LOOKUP_INTERVAL + seeds::LOOKUP_INTERVAL / 2).await;
    assert_eq!(asked.load(Ordering::Relaxed), 3, "a name with an answer is asked every interval");
    assert_eq!(mesh.now('b').seeds, [address_of('x')]);
    assert!(mesh.now('b').view.is_empty(), "nobody is at its first address");
    moved.send_replace(address_of('a'));
    let took = mesh.all_see("ab").await;
    assert!(took <= seeds::LOOKUP_INTERVAL, "took {took:?}");
    assert_eq!(mesh.now('b').seeds, [address_of('a')]);
}

#[tokio::test(start_paused = true)]
async fn a_name_that_is_nobody_else_starts_a_cluster() {
    let mut mesh = Mesh::default();
    mesh.start_with('a', address_of('a'), |config| {
        config.seeds = vec!["myself:7400".to_owned()];
        config.resolver = Arc::new(|_| Box::pin(async { Ok(vec![address_of('a')]) }));
    });
    mesh.sees('a', |s| view(s) == "a" && !s.seeded).await;
}

#[tokio::test(start_paused = true)]
async fn a_node_of_another_cluster_is_no_member() {
    let mut mesh = Mesh::default();
    mesh.start('a', "");
    mesh.start('b', "a");
    mesh.start_with('x', address_of('x'), |config| {
        config.seeds = vec![address_of('a').to_string()];
        config.slots = 64;
    });
    mesh.start_with('y', address_of('y'), |config| {
        config.seeds = vec![address_of('a').to_string()];
        config.cluster = "another".to_owned();
    });
    sleep(Duration::from_secs(10)).await;
    let found: Vec<String> = mesh.snapshots().iter().map(members).collect();
    assert_eq!(found, ["ab", "ab", "x", "y"]);
}

#[tokio::test(start_paused = true)]
async fn without_links_gossip_ends_and_says_so() {
    let (gossip_out, _taken) = mpsc::channel(1);
    let (links, gossip_in) = mpsc::channel(1);
    let (_linked, linked) = watch::channel(Vec::new());
    let id = live_member("a", 1).id;
    let config = MembershipConfig::new(id, 1, address_of('a'));
    let membership =
        Membership::start(config, gossip_out, gossip_in, linked, no_findings()).unwrap();
    let mut snapshots = membership.snapshots();
    assert!(snapshots.borrow().healthy);
    drop(links);
    let end = timeout(Duration::from_secs(5), snapshots.wait_for(|s| !s.healthy)).await;
    assert!(end.is_ok_and(|end| end.is_ok()));
    membership.shutdown().await;
}

/// A gossip message that breaks an assertion of chitchat: a version above the greatest.
fn poison(name: char, generation: u64) -> Bytes {
    let text = |text: &str| [&(text.len() as u16).to_le_bytes(), text.as_bytes()].concat();
    let SocketAddr::V4(address) = address_of(name) else { unreachable!("addresses are v4") };
    let id = [
        text(&name.to_string()),
        generation.to_le_bytes().into(),
        vec![4],
        address.ip().octets().into(),
        address.port().to_le_bytes().into(),
    ]
    .concat();
    let node = [vec![0], id, vec![0; 16]].concat();
    let pair = [vec![1], text("x"), text("y"), 100_u64.to_le_bytes().into(), vec![0]].concat();
    let greatest = [vec![2], 50_u64.to_le_bytes().into()].concat();
    let operations = [node, pair, greatest].concat();
    let block = [vec![2], (operations.len() as u16).to_le_bytes().into(), operations, vec![0]];
    let header = [45_139_u16.to_le_bytes().to_vec(), vec![0, 2]].concat();
    [header, block.concat()].concat().into()
}

#[tokio::test(start_paused = true)]
async fn gossip_that_breaks_is_started_again_before_anybody_notices() {
    let mut mesh = Mesh::default();
    mesh.start_all("abc");
    mesh.all_see("abc").await;
    sleep(Duration::from_secs(5)).await;
    let mut snapshots = mesh.node('b').membership.snapshots();
    mesh.tell('b', poison('b', 2));
    let end = timeout(Duration::from_secs(1), snapshots.wait_for(|s| !s.healthy)).await;
    assert!(end.is_ok_and(|end| end.is_ok()), "the poison had no effect");
    for _ in 0..100 {
        sleep(Duration::from_millis(50)).await;
        assert!(mesh.snapshots().iter().all(|s| view(s) == "abc"), "{:#?}", mesh.snapshots());
    }
    assert!(mesh.now('b').healthy);
    mesh.kill('c');
    mesh.all_see("ab").await;
}

#[test]
fn wrong_configuration_is_named() {
    let check = |change: &dyn Fn(&mut MembershipConfig)| {
        let address: SocketAddr = address_of('a');
        let mut config = MembershipConfig::new(live_member("a", 1).id, 1, address);
        change(&mut config);
        config.check().map(|seeds| seeds.len())
    };
    assert_eq!(check(&|c| c.seeds = vec!["a:1".to_owned()]), Ok(1));
    let error = check(&|c| c.seeds = vec!["nowhere".to_owned()]).unwrap_err();
    assert_eq!(error.to_string(), "seed \"nowhere\" is not HOST:PORT");
    let error = check(&|c| c.seeds = vec!["a:1".to_owned(); 65]).unwrap_err();
    assert_eq!(error.to_string(), "65 seeds are configured, at most 64 are allowed");
    assert_eq!(check(&|c| c.weight = 65), Err(MembershipError::Weight(65)));
    assert_eq!(check(&|c| c.client_url = "x".repeat(257)), Err(MembershipError::ClientUrl(257)));
    let error = check(&|c| c.detector.gossip_interval = Duration::ZERO).unwrap_err();
    assert_eq!(error, MembershipError::GossipInterval(0));
}
