//! Users' records, and reads of a new owner, across a few cores whose frames a test may lose.
use std::collections::BTreeMap;

use bytes::Bytes;

use super::*;
use crate::delivery::event::{Ask, DeliveryBody, Recover, Reply, Request, RequestId, ShardId};
use crate::ownership::placement::Placement;
use crate::ownership::serving::Serving;
use crate::ownership::view::{Member, View};
use crate::protocol::channel::{Channel, ChannelOptions};
use crate::protocol::codes::ErrorCode;
use crate::protocol::ids::{ClientId, NodeId};
use crate::protocol::message::{History, Message};
use crate::protocol::user::{Status, USER_SUBSCRIPTIONS_MAX, UserChange, UserState};

const SLOTS: u16 = 16;
const SESSIONS: Sessions = Sessions { offline_after_ms: 10_000, ttl_ms: 120_000 };
const SETTINGS: Settings = Settings { slots: SLOTS, copies: 2, sessions: SESSIONS };
const OPTIONS: ChannelOptions =
    ChannelOptions { history_size: 10, history_ttl_ms: 60_000, presence: false, join_leave: false };

struct Mesh {
    cores: BTreeMap<Incarnation, Core>,
    now: u64,
    numbers: u64,
    /// Frames that are lost.
    lost: fn(&PeerFrame) -> bool,
    replies: BTreeMap<u64, Reply>,
    /// What shards were told of users' subscriptions.
    told: Vec<(Incarnation, Vec<Channel>)>,
    /// What shards were told of users' status, and when.
    heard: Vec<(u64, Incarnation, String)>,
}

impl Mesh {
    /// Three nodes that own and follow what is theirs.
    fn new() -> Self {
        let nodes = [1, 2, 3].map(Incarnation);
        let cores = nodes.map(|node| (node, Core::new(node, SETTINGS, node.0 as u64)));
        let lost: fn(&PeerFrame) -> bool = |_| false;
        let (replies, told, heard) = (BTreeMap::new(), Vec::new(), Vec::new());
        let mut mesh = Self { cores: cores.into(), now: 1, numbers: 0, lost, replies, told, heard };
        mesh.see(&nodes);
        mesh.run(500);
        mesh
    }

    /// These nodes are the cluster from now on.
    fn see(&mut self, nodes: &[Incarnation]) {
        self.show(nodes, nodes, &[]);
    }

    /// For those in `to`, `nodes` are the cluster from now on, and `joining` want to be.
    fn show(&mut self, to: &[Incarnation], nodes: &[Incarnation], joining: &[Incarnation]) {
        let placement = Arc::new(Placement::compute(&view(nodes), SLOTS));
        let planned = view(&[nodes, joining].concat());
        let planned = Arc::new(Placement::compute(&planned, SLOTS));
        let joining = view(joining).members().to_vec();
        let (view, outside, serving) = (view(nodes), vec![], Serving::Full);
        let outlook = Arc::new(Outlook { view, placement, planned, joining, outside, serving });
        for node in to {
            self.tell(*node, Event::Outlook(outlook.clone()));
        }
    }

    fn tell(&mut self, node: Incarnation, event: Event) {
        let mut queue = VecDeque::from([(node, event)]);
        while let Some((node, event)) = queue.pop_front() {
            let Some(core) = self.cores.get_mut(&node) else { continue };
            let mut actions = Vec::new();
            core.handle(event, Millis(self.now), &mut actions);
            for action in actions {
                match action {
                    Action::Send { to, frame, .. } if !(self.lost)(&frame) => {
                        queue.extend(to.into_iter().map(|to| {
                            (to, Event::Frames { from: node, frames: vec![frame.clone()] })
                        }));
                    }
                    Action::Reply { to, reply } => drop(self.replies.insert(to.number, reply)),
                    Action::Deliver { delivery, .. } => match &delivery.body {
                        DeliveryBody::Subscriptions(channels) => {
                            self.told.push((node, channels.clone()));
                        }
                        DeliveryBody::Publication { message, .. } => {
                            let text = String::from_utf8_lossy(&message.data).into_owned();
                            self.heard.push((self.now, node, text));
                        }
                        _ => {}
                    },
                    _ => {}
                }
            }
        }
    }

    fn run(&mut self, ms: u64) {
        for _ in 0..ms / 20 {
            self.now += 20;
            for node in self.cores.keys().copied().collect::<Vec<_>>() {
                self.tell(node, Event::Tick);
            }
        }
    }

    /// Asks something of a channel; the number of the request.
    fn begin(&mut self, node: Incarnation, channel: Channel, ask: Ask) -> u64 {
        self.numbers += 1;
        let id = RequestId { shard: ShardId(0), number: self.numbers };
        self.tell(node, Event::Request(Request { id, channel, options: OPTIONS, ask }));
        self.numbers
    }

    /// Asks something of alice's inbox.
    fn ask(&mut self, node: Incarnation, ask: Ask) -> Reply {
        self.ask_of(node, alice(), ask)
    }

    fn ask_of(&mut self, node: Incarnation, channel: Channel, ask: Ask) -> Reply {
        let number = self.begin(node, channel, ask);
        self.run(100);
        self.replies.remove(&number).expect("an answer within 100 ms")
    }

    /// Subscribes to alice's status, and gives back what it is.
    fn watch(&mut self, node: Incarnation, client: u128) -> Status {
        let subscribe =
            Ask::Subscribe { client: ClientId(client), info: None, recover: Recover::No };
        match self.ask_of(node, alice().status_of_inbox(), subscribe) {
            Reply::Subscribed { user: UserState::Status(status), .. } => status,
            other => panic!("no status: {other:?}"),
        }
    }

    fn detach(&mut self, node: Incarnation, client: u128) {
        let client = ClientId(client);
        self.begin(node, alice(), Ask::Unsubscribe { client });
        self.run(20);
    }

    fn status(&mut self, node: Incarnation) -> Status {
        match self.ask_of(node, alice().status_of_inbox(), Ask::Status) {
            Reply::Status(status) => status,
            other => panic!("no status: {other:?}"),
        }
    }

    /// What was heard of alice's status since, without when she was last seen.
    fn changes(&mut self) -> Vec<(Incarnation, bool)> {
        let heard = std::mem::take(&mut self.heard).into_iter();
        heard.map(|(_, node, text)| (node, text.contains("true"))).collect()
    }

    fn set(&mut self, node: Incarnation, key: &str, value: &'static str) -> Reply {
        let (key, value) = (key.into(), Bytes::from_static(value.as_bytes()));
        self.ask(node, Ask::Change(UserChange::Set { key, value }))
    }

    fn get(&mut self, node: Incarnation) -> Vec<(String, String)> {
        let Reply::Attributes(attributes) = self.ask(node, Ask::Attributes(None)) else {
            panic!("no attributes")
        };
        let text = |value: Bytes| String::from_utf8(value.to_vec()).expect("text");
        attributes.into_iter().map(|(key, value)| (key.to_string(), text(value))).collect()
    }

    fn publish(&mut self, node: Incarnation, data: &'static str) {
        let data = Bytes::from_static(data.as_bytes());
        let message = Arc::new(Message { data, ..Message::default() });
        let reply = self.ask(node, Ask::Publish { message, key: None });
        assert!(matches!(reply, Reply::Published { .. }), "{reply:?}");
    }

    /// How many publications alice's inbox shows.
    fn history(&mut self, node: Incarnation) -> Result<usize, ErrorCode> {
        let history = History { limit: 10, since: None, reverse: false };
        match self.ask(node, Ask::History(history)) {
            Reply::History { publications, .. } => Ok(publications.len()),
            Reply::Failed(code) => Err(code),
            other => panic!("no history: {other:?}"),
        }
    }

    fn attach(&mut self, node: Incarnation, client: u128) -> Vec<Channel> {
        let client = ClientId(client);
        match self.ask(node, Ask::Subscribe { client, info: None, recover: Recover::No }) {
            Reply::Subscribed { user: UserState::Subscriptions(channels), .. } => channels,
            Reply::Subscribed { .. } => vec![],
            other => panic!("not subscribed: {other:?}"),
        }
    }

    fn kill(&mut self, node: Incarnation) {
        self.cores.remove(&node);
        let left: Vec<Incarnation> = self.cores.keys().copied().collect();
        self.see(&left);
        self.run(500);
    }

    /// The owner of alice's slot, its successor, and the third.
    fn roles(&self) -> [Incarnation; 3] {
        let (_, core) = self.cores.first_key_value().expect("a node");
        let preference = core.ownership().world().placement.preference(alice().slot(SLOTS));
        preference.collect::<Vec<_>>().try_into().expect("three nodes")
    }
}

fn view(nodes: &[Incarnation]) -> View {
    let id = |node: &Incarnation| NodeId {
        name: format!("n{}", node.0).parse().expect("a name"),
        incarnation: *node,
    };
    View::new(nodes.iter().map(|node| Member { id: id(node), weight: 1 }))
}

fn alice() -> Channel {
    Channel::inbox("alice").expect("a name")
}

fn news() -> Channel {
    Channel::parse("news").expect("a name")
}

fn one(key: &str, value: &str) -> Vec<(String, String)> {
    vec![(key.to_owned(), value.to_owned())]
}

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
    mesh.lost = |frame| matches!(frame, PeerFrame::Promise { .. });
    mesh.kill(owner);
    mesh.run(1_000);
    assert!(mesh.cores[&successor].ownership().owns(alice().slot(SLOTS)));
    assert_eq!(mesh.history(gateway), Err(ErrorCode::Internal));
    assert_eq!(mesh.ask(gateway, Ask::Attributes(None)), Reply::Failed(ErrorCode::Internal));
    mesh.lost = |_| false;
    mesh.run(1_500);
    assert_eq!(mesh.history(gateway), Ok(1));
    assert_eq!(mesh.get(gateway), one("k", "1"));
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
fn a_change_that_its_owner_may_have_lost_to_its_successor_is_not_called_made() {
    let mut mesh = Mesh::new();
    let [owner, successor, third] = mesh.roles();
    // The owner doesn't know that the others take it for dead.
    let old = mesh.cores.remove(&owner).expect("an owner");
    mesh.see(&[successor, third]);
    mesh.run(500);
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

mod status;
