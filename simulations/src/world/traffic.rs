//! What clients do: publish, subscribe, ask, go elsewhere. What they are told of it: [`super::told`].
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use rand::Rng;

use orbweb::delivery::event::{Ask, History, Recover, Request, RequestId, ShardId};
use orbweb::protocol::channel::Channel;
use orbweb::protocol::ids::{ClientId, Incarnation};
use orbweb::protocol::message::{ClientInfo, Message};
use orbweb::protocol::user::UserChange;

use super::{Due, World, all_channels, is_fleeting, is_lasting, options};
use crate::clients::{Asked, Subscriber};

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
pub(super) const FIELDS: u32 = 3;

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
}
