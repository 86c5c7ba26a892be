//! What clients do and see.
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use rand::Rng;

use orbweb::delivery::event::{
    Ask, Delivery, DeliveryBody, History, Recover, Reply, Request, RequestId, ShardId,
};
use orbweb::ownership::serving::Serving;
use orbweb::ownership::stream::READ_LEN_MAX;
use orbweb::protocol::channel::Channel;
use orbweb::protocol::ids::{ClientId, Epoch, Incarnation, Position, Slot};
use orbweb::protocol::message::{ClientInfo, Message, Publication};
use orbweb::protocol::user::UserChange;

use super::{Due, Node, World, all_channels, is_fleeting, is_lasting, options};
use crate::checkers::holders::Held;
use crate::checkers::{kept, reads, verdicts};
use crate::clients::{Asked, Subscriber};
use crate::scenario::Scenario;

/// Every how many publications one goes to a fleeting channel: rarely, so that they are forgotten.
const FLEETING_EVERY: u32 = 40;
/// Every how many publications one has an idempotency key.
const KEYED_EVERY: u32 = 4;
/// How long before the end nobody publishes anything again.
const LAST_REPEAT_MS: u64 = 1_000;
/// Which part of those who use a key publish again, elsewhere, without awaiting the answer, and when.
const IMPATIENT: f64 = 0.3;
const PATIENCE_MS: Range<u64> = 10..1_500;
/// Every how many subscriptions one stands between two publications, before it is answered.
const SPEAKS_EVERY: u32 = 3;
/// Every how many times that somebody goes another comes, who knows no position.
const NEW_EVERY: u32 = 4;

/// Shared by all publications that are large.
static PADDING: [u8; 4_096] = [b' '; 4_096];

/// Users whose records are changed, and the fields of each kind that a record has.
const USERS: u32 = 4;
const FIELDS: u32 = 3;

impl World {
    pub(super) fn ask(
        &mut self,
        node: Incarnation,
        channel: Channel,
        ask: Ask,
        asked: Option<Asked>,
    ) -> anyhow::Result<()> {
        let id = RequestId { shard: ShardId(0), number: self.clients.number() };
        if let Some(asked) = asked {
            self.clients.waiting.insert((node, id), asked);
        }
        let options = options(&channel);
        let request = Request { id, channel, options, ask };
        self.tell(node, orbweb::delivery::event::Event::Request(request))
    }

    pub(super) fn any_channel(&mut self) -> Channel {
        let fleeting = self.swarm.fleeting > 0 && self.random.random_range(0..FLEETING_EVERY) == 0;
        let all = all_channels(&self.swarm).into_iter().filter(|c| is_fleeting(c) == fleeting);
        let all: Vec<Channel> = all.collect();
        all[self.random.random_range(0..all.len())].clone()
    }

    pub(super) fn publish(&mut self) -> anyhow::Result<()> {
        let Some(node) = self.any_up() else { return Ok(()) };
        let channel = self.any_channel();
        self.publish_on(node, channel, true)
    }

    /// Somebody publishes, and if `impatient` perhaps again elsewhere before it hears an answer.
    pub(super) fn publish_on(
        &mut self,
        node: Incarnation,
        channel: Channel,
        impatient: bool,
    ) -> anyhow::Result<()> {
        self.clients.sent += 1;
        let payload = self.clients.sent;
        self.clients.sent_at.resize(payload as usize + 1, self.now);
        self.clients.sent_by.resize(payload as usize, None);
        self.clients.sent_by.push(Some(node));
        let keyed = !is_fleeting(&channel) && self.random.random_range(0..KEYED_EVERY) == 0;
        if keyed && impatient && self.random.random_bool(IMPATIENT) {
            let wait = self.random.random_range(PATIENCE_MS);
            self.plan(Due::Repeat { channel: channel.clone(), payload }, wait);
        }
        self.publish_payload(node, channel, payload, keyed)
    }

    fn publish_payload(
        &mut self,
        node: Incarnation,
        channel: Channel,
        payload: u64,
        keyed: bool,
    ) -> anyhow::Result<()> {
        let data = Bytes::from(payload.to_string());
        let info = self.padding();
        let message = Arc::new(Message { data, info, ..Message::default() });
        let asked = Asked::Publish { channel: channel.clone(), payload, keyed };
        let key = keyed.then(|| payload.to_string().into());
        self.ask(node, channel, Ask::Publish { message, key }, Some(asked))
    }

    /// Somebody publishes again what has an idempotency key, wherever.
    pub(super) fn repeat(&mut self, channel: Channel, payload: u64) -> anyhow::Result<()> {
        // At the end nothing waits, so nothing new comes right before it.
        if self.now + LAST_REPEAT_MS > self.end() {
            return Ok(());
        }
        let Some(node) = self.any_up() else { return Ok(()) };
        self.clients.sent_by[payload as usize] = None;
        self.publish_payload(node, channel, payload, true)
    }

    /// A publication was acknowledged.
    fn published(
        &mut self,
        channel: Channel,
        payload: u64,
        keyed: bool,
        (position, copies): (Option<Position>, u8),
        node: Incarnation,
    ) -> anyhow::Result<()> {
        if let Some(position) = position {
            self.names.check(&channel, position, payload)?;
            self.clients.acknowledged_under.entry(payload).or_insert(position.epoch.epoch);
        }
        if let Some(position) = position.filter(|_| is_lasting(&channel)) {
            let data = payload.to_string();
            let held = Held::Publication(&channel, position, data.as_bytes());
            self.check_told(node, held, copies)?;
        }
        let repeated = keyed && !self.clients.keyed.insert(payload);
        self.clients.repeated += u64::from(repeated);
        if keyed && !repeated && self.random.random_bool(0.5) {
            let wait = self.random.random_range(1..3_000);
            self.plan(Due::Repeat { channel: channel.clone(), payload }, wait);
        }
        if is_lasting(&channel) && !repeated {
            self.clients.acknowledged.entry(channel).or_default().push(payload);
        }
        Ok(())
    }

    /// What makes publications large, so that streams are longer than one part of a copy.
    fn padding(&mut self) -> Option<ClientInfo> {
        let most = self.swarm.padding.min(PADDING.len());
        let (user, client, chan_info) = ("".into(), ClientId(0), Bytes::new());
        let conn_info = Bytes::from_static(&PADDING[..most]);
        (most > 0).then_some(ClientInfo { user, client, conn_info, chan_info })
    }

    /// Somebody changes a user's record: a few users with a few fields, so that changes meet.
    pub(super) fn change_user(&mut self) -> anyhow::Result<()> {
        let Some(node) = self.any_up() else { return Ok(()) };
        let user = Channel::inbox(&format!("u{}", self.random.random_range(0..USERS)))?;
        let name = format!("f{}", self.random.random_range(0..FIELDS));
        self.clients.sent += 1;
        let value = Bytes::from(self.clients.sent.to_string());
        let change = match self.random.random_range(0..6) {
            0 => UserChange::Subscribe(Channel::parse(&name)?),
            1 => UserChange::Unsubscribe(Channel::parse(&name)?),
            2 => UserChange::Delete { key: name.into() },
            _ => UserChange::Set { key: name.into(), value },
        };
        let number = self.clients.writes.begin(&user, change.clone(), self.now);
        let asked = Asked::Change { user: user.clone(), change: change.clone(), number };
        self.ask(node, user, Ask::Change(change), Some(asked))
    }

    fn read_user(&mut self, node: Incarnation) -> anyhow::Result<()> {
        let user = Channel::inbox(&format!("u{}", self.random.random_range(0..USERS)))?;
        let asked = Asked::Attributes { user: user.clone(), at: self.now };
        self.ask(node, user, Ask::Attributes(None), Some(asked))
    }

    pub(super) fn read(&mut self) -> anyhow::Result<()> {
        let Some(node) = self.any_up() else { return Ok(()) };
        if self.swarm.scenario.is_strict() {
            self.read_user(node)?;
        }
        let channel = self.any_channel();
        if !is_lasting(&channel) {
            return Ok(());
        }
        let acknowledged = self.clients.acknowledged.get(&channel).map_or(0, Vec::len);
        let asked = Asked::Read { channel: channel.clone(), acknowledged, at: self.now };
        let history = History { limit: 300, since: None, reverse: true };
        self.ask(node, channel, Ask::History(history), Some(asked))
    }

    pub(super) fn ask_presence(&mut self) -> anyhow::Result<()> {
        for channel in all_channels(&self.swarm).into_iter().filter(is_lasting) {
            let Some(node) = self.any_up() else { return Ok(()) };
            let asked = Asked::Presence { channel: channel.clone() };
            self.ask(node, channel, Ask::Presence, Some(asked))?;
        }
        Ok(())
    }

    pub(super) fn add_subscriber(&mut self, channel: &Channel) -> anyhow::Result<()> {
        let nodes: Vec<Incarnation> = self.nodes.keys().copied().collect();
        let node = nodes[self.random.random_range(0..nodes.len())];
        let client = ClientId(self.random.random());
        let subscriber = Subscriber::new(node, channel.clone());
        self.clients.subscribers.insert(client, subscriber);
        self.plan(Due::Resubscribe(client), 50);
        Ok(())
    }

    /// A subscriber loses its connection and comes back on another node with its position; or somebody
    /// new comes instead.
    pub(super) fn roam(&mut self) -> anyhow::Result<()> {
        let clients: Vec<ClientId> = self.clients.subscribers.keys().copied().collect();
        let Some(to) = self.any_up().filter(|_| !clients.is_empty()) else { return Ok(()) };
        let client = clients[self.random.random_range(0..clients.len())];
        let Some(subscriber) = self.clients.subscribers.get_mut(&client) else { return Ok(()) };
        if !subscriber.subscribed {
            return Ok(());
        }
        subscriber.subscribed = false;
        let (from, channel) = (subscriber.node, subscriber.channel.clone());
        subscriber.node = to;
        if self.random.random_range(0..NEW_EVERY) == 0 {
            subscriber.position = None;
            subscriber.forget();
        }
        self.ask(from, channel, Ask::Unsubscribe { client }, None)?;
        // Not away for more publications than one answer carries.
        let away = (self.swarm.publish_every_ms * self.swarm.channels as u64 * 60).min(2_000);
        let wait = self.random.random_range(1..away.max(2));
        self.plan(Due::Resubscribe(client), wait);
        Ok(())
    }

    pub(super) fn subscribe(&mut self, client: ClientId) -> anyhow::Result<()> {
        let Some(subscriber) = self.clients.subscribers.get(&client) else { return Ok(()) };
        if subscriber.subscribed {
            return Ok(());
        }
        // As SDKs do: one that can be reached.
        let mut node = subscriber.node;
        let gone = !self.nodes.contains_key(&node) || self.outcasts.contains(&node);
        if gone {
            match self.any_up() {
                Some(up) => node = up,
                None => {
                    self.plan(Due::Resubscribe(client), 200);
                    return Ok(());
                }
            }
        }
        let Some(subscriber) = self.clients.subscribers.get_mut(&client) else { return Ok(()) };
        subscriber.node = node;
        let channel = subscriber.channel.clone();
        let recover = subscriber.position.map_or(Recover::No, Recover::From);
        let (conn_info, chan_info) = (Bytes::new(), Bytes::new());
        let info = Some(ClientInfo { user: "u".into(), client, conn_info, chan_info });
        let info = info.filter(|_| is_lasting(&channel));
        let asked = Asked::Subscribe { client };
        let ask = Ask::Subscribe { client, info, recover };
        let speaks = !is_fleeting(&channel) && self.random.random_range(0..SPEAKS_EVERY) == 0;
        let ownership = self.ownership(node, &channel).filter(|_| speaks);
        if speaks {
            // One that waits for its copies when the subscription comes.
            self.publish_on(node, channel.clone(), false)?;
        }
        // The answer may come at once.
        let behind = ownership.map(|epoch| (self.clients.sent + 1, epoch));
        self.clients.subscribers.entry(client).and_modify(|own| own.behind = behind);
        self.ask(node, channel.clone(), ask, Some(asked))?;
        if speaks { self.publish_on(node, channel, false) } else { Ok(()) }
    }

    /// The last ownership of a channel that anybody promised, if a node looks for it there.
    fn ownership(&self, node: Incarnation, channel: &Channel) -> Option<Epoch> {
        let slot = channel.slot(self.swarm.slots);
        let promised = self.nodes.values().map(|node| node.core.ownership().promised(slot));
        let world = self.nodes.get(&node)?.core.ownership().world();
        promised.max().filter(|epoch| world.placement.owner(slot) == Some(epoch.owner))
    }

    pub(super) fn replied(
        &mut self,
        node: Incarnation,
        to: RequestId,
        reply: Reply,
    ) -> anyhow::Result<()> {
        match (self.clients.waiting.remove(&(node, to)), reply) {
            (
                Some(Asked::Publish { channel, payload, keyed }),
                Reply::Published { position, copies },
            ) => self.published(channel, payload, keyed, (position, copies), node)?,
            (Some(Asked::Publish { channel, payload, keyed: true }), _) => {
                self.clients.failed += 1;
                self.plan(Due::Repeat { channel, payload }, 300);
            }
            (Some(Asked::Change { user, change, number }), Reply::Changed { copies }) => {
                anyhow::ensure!(copies > 0, "I4: a change of {user} is held by nobody");
                self.check_told(node, Held::Change(&user, &change), copies)?;
                self.outcome.mark("user changed", 1);
                self.clients.writes.acknowledge(&user, change.field(), number, self.now);
            }
            (Some(Asked::Attributes { user, at }), Reply::Attributes(attributes)) => {
                for key in (0..FIELDS).map(|n| format!("f{n}")) {
                    let read = attributes.iter().find(|(other, _)| **other == *key);
                    let read = read.map(|(_, value)| &value[..]);
                    self.clients.writes.check_read(&user, &key, read, at)?;
                }
                self.outcome.mark("attributes read", 1);
            }
            // It may have been applied or not, or be applied later: a client can't know.
            (Some(Asked::Publish { payload, .. }), _) => {
                self.clients.failed += 1;
                self.clients.sent_by[payload as usize] = None;
            }
            (Some(Asked::Change { .. }), _) => self.clients.failed += 1,
            (
                Some(Asked::Subscribe { client }),
                Reply::Subscribed { position, recovered, publications, .. },
            ) => self.subscribed(client, position, recovered, &publications)?,
            (Some(Asked::Subscribe { client }), _) => {
                if let Some(subscriber) = self.clients.subscribers.get_mut(&client) {
                    subscriber.behind = None;
                }
                self.plan(Due::Resubscribe(client), 200);
            }
            (Some(Asked::Attend { person, client }), reply) => {
                self.attended(person, client, matches!(reply, Reply::Subscribed { .. }));
            }
            (Some(Asked::Watch { person, client }), reply) => {
                let user = match reply {
                    Reply::Subscribed { user, .. } => Some(user),
                    _ => None,
                };
                self.watching((person, client), user)?;
            }
            (Some(Asked::Status { person }), Reply::Status(status)) => {
                self.check_status(person, status)?;
            }
            (Some(Asked::Presence { channel }), Reply::Presence(present)) => {
                let clients = present.iter().map(|info| info.client).collect();
                self.clients.present.insert(channel, clients);
            }
            (
                Some(Asked::Read { channel, acknowledged, at }),
                Reply::History { publications, .. },
            ) => {
                self.outcome.mark("read checked", 1);
                let answer: anyhow::Result<Vec<u64>> =
                    publications.iter().map(|p| kept::payload(&p.message.data)).collect();
                self.check_read(node, (&channel, acknowledged, at), &answer?)?;
            }
            _ => {}
        }
        Ok(())
    }

    /// Somebody on a node was told what is in a channel.
    fn check_read(
        &mut self,
        node: Incarnation,
        (channel, acknowledged, asked): (&Channel, usize, u64),
        answer: &[u64],
    ) -> anyhow::Result<()> {
        let Some(lacked) = reads::lacked(&self.clients, channel, acknowledged, answer) else {
            return Ok(());
        };
        let owner = self.answerer.unwrap_or(node);
        if !self.swarm.scenario.is_strict() && self.may_lack(owner, (channel, lacked), asked) {
            self.outcome.mark("read on one side of a split", 1);
            return Ok(());
        }
        anyhow::bail!(
            "I1: stale read from {owner:?}, asked at {asked}: publication {lacked} to {channel} was \
             acknowledged before and isn't in {answer:?}"
        )
    }

    /// Whether an owner's answer to what was asked at a time may lack a publication that was
    /// acknowledged before.
    fn may_lack(&self, owner: Incarnation, (channel, lacked): (&Channel, u64), asked: u64) -> bool {
        let slot = channel.slot(self.swarm.slots);
        let Some(core) = self.nodes.get(&owner).filter(|node| node.told == Some(Serving::Full))
        else {
            return true;
        };
        let data = lacked.to_string();
        let held = core.core.ownership().holding(slot).into_iter();
        let mut held = held.flat_map(|holding| holding.publications());
        // Where lines were merged, what is late in a stream may be long known.
        if held.any(|(other, _, message)| other == channel && *message.data == *data.as_bytes()) {
            return true;
        }
        let under = self.clients.acknowledged_under.get(&lacked).copied();
        let own = self.promises.last_own(slot, owner);
        let (Some(under), Some(own)) = (under, own) else { return true };
        let living = self.nodes.keys().copied();
        let dead = self.dead.iter().filter(|(at, ..)| at + reads::LEASE_MS >= asked);
        let others = living.chain(dead.map(|(_, node, _)| *node)).filter(|node| *node != owner);
        reads::may_lack(&self.promises, (slot, own, under), others, asked)
    }

    fn subscribed(
        &mut self,
        client: ClientId,
        position: Option<Position>,
        recovered: bool,
        publications: &[Publication],
    ) -> anyhow::Result<()> {
        let asked = self.clients.subscribers.get(&client).map(|s| (s.node, s.channel.clone()));
        let ownership = asked.and_then(|(node, channel)| self.ownership(node, &channel));
        let Some(subscriber) = self.clients.subscribers.get_mut(&client) else { return Ok(()) };
        let lasting = is_lasting(&subscriber.channel);
        match (subscriber.position, recovered) {
            _ if !lasting => {}
            (Some(_), true) => self.clients.recovered += 1,
            (Some(before), false) => {
                let missed = position.map_or(0, |top| top.offset.saturating_sub(before.offset));
                // More than one answer carries is never recovered.
                match missed > READ_LEN_MAX as u64 {
                    true => self.outcome.mark("missed more than one answer carries", 1),
                    false => self.clients.unrecovered += 1,
                }
                subscriber.forget();
            }
            (None, _) => {}
        }
        for publication in publications {
            let payload = kept::payload(&publication.message.data)?;
            self.names.check(&subscriber.channel, publication.position(), payload)?;
            subscriber.seen.push(payload);
        }
        let before = std::mem::replace(&mut subscriber.position, position);
        subscriber.subscribed = true;
        subscriber.began.get_or_insert(self.now);
        // Asked of another owner again, it may come behind what was published behind it.
        let behind = subscriber.behind.take().filter(|(_, epoch)| Some(*epoch) == ownership);
        subscriber.own.extend(behind.map(|(payload, _)| payload));
        let node = subscriber.node;
        if let Some(before) = before.filter(|_| !recovered && lasting) {
            let slot = subscriber.channel.slot(self.swarm.slots);
            if self.swarm.scenario != Scenario::Chaos {
                let cores = self.nodes.values().map(|node| &node.core);
                verdicts::check_known(cores, (&subscriber.channel, before, slot))?;
            }
            if let Some(watched) = self.nodes.get(&node) {
                let position = (&subscriber.channel, before, slot);
                verdicts::check(node, &watched.core, position, self.now)?;
            }
            self.log(format_args!(
                "{client:?} on {node:?} isn't recovered from {before:?}, is at {position:?}"
            ));
        }
        Ok(())
    }

    pub(super) fn delivered(
        &mut self,
        node: Incarnation,
        delivery: &Delivery,
    ) -> anyhow::Result<()> {
        self.people_told(node, &delivery.channel, &delivery.body)?;
        let slot = delivery.channel.slot(self.swarm.slots);
        let here = self.clients.subscribers.iter_mut().filter(|(_, subscriber)| {
            subscriber.node == node
                && subscriber.channel == delivery.channel
                && subscriber.subscribed
        });
        let mut lost = Vec::new();
        for (client, subscriber) in here {
            match &delivery.body {
                DeliveryBody::Publication { message, position, .. } => {
                    let payload = kept::payload(&message.data)?;
                    subscriber.seen.push(payload);
                    let before = std::mem::replace(&mut subscriber.position, *position);
                    let Some(position) = *position else { continue };
                    self.names.check(&subscriber.channel, position, payload)?;
                    let continues = before.is_none_or(|before| {
                        // After a split something may come twice, never later than its turn; and what
                        // was seen on another line, or came there before the client did, isn't missed.
                        before.epoch != position.epoch
                            || (before.offset + 1..position.offset).all(|offset| {
                                let name = Position { offset, ..position };
                                let named = named(&self.nodes, &subscriber.channel, slot, name);
                                named.is_some_and(|payload| {
                                    let sent_at = self.clients.sent_at[payload as usize];
                                    subscriber.began.is_some_and(|began| sent_at <= began)
                                        || subscriber.seen.contains(&payload)
                                })
                            })
                    });
                    anyhow::ensure!(
                        continues,
                        "I3: {client:?} got {position:?} of {} behind {before:?}",
                        subscriber.channel
                    );
                }
                DeliveryBody::Lost => {
                    subscriber.subscribed = false;
                    lost.push(*client);
                }
                DeliveryBody::Join(_) | DeliveryBody::Leave(_) | DeliveryBody::Subscriptions(_) => {
                }
            }
        }
        for client in lost {
            self.plan(Due::Resubscribe(client), 30);
        }
        Ok(())
    }
}

/// What a name stands for, if a node has it.
fn named(
    nodes: &BTreeMap<Incarnation, Node>,
    channel: &Channel,
    slot: Slot,
    name: Position,
) -> Option<u64> {
    nodes.values().find_map(|node| {
        let stream = node.core.ownership().holding(slot)?.stream(channel)?;
        let (_, entry) = stream.entry(name.offset)?;
        let here = entry.publication.position() == name;
        here.then(|| kept::payload(&entry.publication.message.data).ok())?
    })
}
