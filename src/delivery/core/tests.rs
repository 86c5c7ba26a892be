//! A few cores whose frames a test may lose.
mod lines;
mod operations;
mod owners;
mod status;
mod subscriptions;

use std::collections::BTreeMap;

use bytes::Bytes;

use super::*;
use crate::delivery::event::{Ask, DeliveryBody, Recover, Reply, Request, RequestId, ShardId};
use crate::delivery::operations::{OPERATION_MS, SLOT_OPERATIONS_MAX};
use crate::delivery::router::{QUESTION_BYTES_MAX, QUESTIONS_MAX};
use crate::ownership::placement::Placement;
use crate::ownership::serving::Serving;
use crate::ownership::view::{Member, View};
use crate::protocol::channel::{Channel, ChannelOptions};
use crate::protocol::codes::ErrorCode;
use crate::protocol::ids::{ClientId, NodeId, Position};
use crate::protocol::message::{ClientInfo, History, Message};
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
    /// Where shards were told that all stand.
    reached: Vec<Position>,
    /// How many publications were the first of another epoch.
    turns: usize,
    /// Who may go.
    drained: Vec<Incarnation>,
}

impl Mesh {
    /// Three nodes that own and follow what is theirs.
    fn new() -> Self {
        Self::with_copies(SETTINGS.copies)
    }

    fn with_copies(copies: u8) -> Self {
        let (nodes, settings) = ([1, 2, 3].map(Incarnation), Settings { copies, ..SETTINGS });
        let cores = nodes.map(|node| (node, Core::new(node, settings, node.0 as u64)));
        let lost: fn(&PeerFrame) -> bool = |_| false;
        let mut mesh = Self {
            cores: cores.into(),
            now: 1,
            numbers: 0,
            lost,
            replies: BTreeMap::new(),
            told: vec![],
            heard: vec![],
            reached: vec![],
            turns: 0,
            drained: vec![],
        };
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
                        DeliveryBody::Reached(position) => self.reached.push(*position),
                        DeliveryBody::Publication { message, turns_from, tells_epoch, .. } => {
                            self.turns += usize::from(turns_from.is_some() || *tells_epoch);
                            let text = String::from_utf8_lossy(&message.data).into_owned();
                            self.heard.push((self.now, node, text));
                        }
                        _ => {}
                    },
                    Action::Drained => self.drained.push(node),
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
        name: format!("n{}", { node.0 }).parse().expect("a name"),
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
