//! One connection of a virtual client: its commands, and what becomes of the replies and pushes.
use std::cell::RefMut;
use std::collections::BTreeMap;
use std::time::Duration;

use orbweb::protocol::channel::Channel;
use orbweb::protocol::ids::Position;
use rand::Rng;
use serde_json::json;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::replies::{Connected, Payload, Publication, Push, Reply, Subscribed};
use super::{Client, Doing, Sdk};
use crate::cluster::doors::Doors;
use crate::cluster::history::{Kept, Seen};
use crate::cluster::wire::{Frame, Wire};

/// How long SDKs wait for a reply.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(5);
/// Pause before a subscription that was refused for now is tried again.
const RESUBSCRIBE_AFTER: Duration = Duration::from_millis(500);

/// How many of the changes that a client makes are of its attribute, if it keeps one.
const SETS: f64 = 0.2;

/// What a command without a reply yet asked for.
enum Asked {
    Connect,
    Subscribe(Channel),
    Publish(u64),
    Presence(Channel),
    Set(u64),
    Get,
}

pub(super) struct Connection<'a, D: Doors> {
    client: &'a mut Client<D>,
    wire: Wire<D::Socket>,
    /// Where it leads.
    node: usize,
    number: u32,
    commands: u32,
    open: BTreeMap<u32, (Instant, Asked)>,
    subscribed: Vec<Channel>,
    /// To be subscribed at these times.
    resubscribe: Vec<(Instant, Channel)>,
    publish_at: Instant,
    /// The last number that it asked for who is there.
    asked: u64,
}

/// Why a connection ends.
type Ended = String;

impl<'a, D: Doors> Connection<'a, D> {
    pub(super) fn new(
        client: &'a mut Client<D>,
        wire: Wire<D::Socket>,
        (node, number): (usize, u32),
    ) -> Self {
        let (open, publish_at) = (BTreeMap::new(), Instant::now());
        let (subscribed, resubscribe) = (Vec::new(), Vec::new());
        Self {
            client,
            wire,
            node,
            number,
            commands: 0,
            open,
            subscribed,
            resubscribe,
            publish_at,
            asked: 0,
        }
    }

    pub(super) async fn run(mut self, cut: CancellationToken) -> Ended {
        let name = if self.client.sdk == Sdk::JavaScript { "js" } else { "python" };
        let mut connect = json!({ "name": name, "version": "5.6.0" });
        if let Some(token) = &self.client.token {
            connect["token"] = json!(token);
            let inboxes = self.client.positions.iter().filter(|(c, _)| c.inbox_user().is_some());
            for (inbox, position) in inboxes {
                connect["subs"][inbox.as_str()] = recover(position);
            }
        }
        if let Err(ended) = self.ask(Asked::Connect, "connect", &connect).await {
            return ended;
        }
        loop {
            let due = self.due();
            let still = self.client.still.borrow_and_update().contains(&self.client.number);
            let silent = self.client.stopped.borrow_and_update().contains(&self.node);
            // Reading is cancel-safe; the rest decides nothing by itself.
            let done = tokio::select! {
                biased;
                () = cut.cancelled() => {
                    self.client.doors.leave(self.wire);
                    return "it was cut off".to_owned();
                }
                changed = self.client.still.changed() => {
                    changed.map_err(|_| "the run is over".to_owned())
                }
                changed = self.client.stopped.changed() => {
                    changed.map_err(|_| "the run is over".to_owned())
                }
                frame = self.wire.read(), if !still && !silent => self.handle(frame).await,
                () = sleep_until(due), if !still => self.tick().await,
            };
            if let Err(ended) = done {
                return ended;
            }
        }
    }

    /// When there is something to do next without a word from the server.
    fn due(&self) -> Instant {
        let timeout = self.open.values().map(|(since, _)| *since + COMMAND_TIMEOUT);
        let again = self.resubscribe.iter().map(|(at, _)| *at);
        timeout.chain(again).chain([self.publish_at]).min().unwrap_or(self.publish_at)
    }

    async fn tick(&mut self) -> Result<(), Ended> {
        let now = Instant::now();
        let over = self.open.extract_if(.., |_, (since, _)| *since + COMMAND_TIMEOUT <= now);
        // What became of a change is unknown then; the others are tried again from the start.
        let told = |asked: &Asked| !matches!(asked, Asked::Publish(_) | Asked::Set(_));
        if over.filter(|(_, (_, asked))| told(asked)).count() > 0 {
            return Err("no reply in time".to_owned());
        }
        let due: Vec<_> = self.resubscribe.extract_if(.., |(at, _)| *at <= now).collect();
        for (_, channel) in due {
            self.subscribe(channel).await?;
        }
        if self.publish_at <= now {
            let pace = self.client.pace.as_millis() as u64;
            let pause = self.client.random.random_range(pace / 2..=pace * 3 / 2);
            self.publish_at = now + Duration::from_millis(pause.max(1));
            let doing = *self.client.doing.borrow();
            match doing {
                Doing::Publish if self.client.keeps && self.client.random.random_bool(SETS) => {
                    self.set().await?;
                }
                Doing::Publish => self.publish().await?,
                Doing::Ask(number) if number != self.asked => {
                    self.asked = number;
                    self.ask_who_is_there().await?;
                    self.get().await?;
                }
                Doing::Ask(_) | Doing::Nothing => {}
            }
        }
        Ok(())
    }

    async fn publish(&mut self) -> Result<(), Ended> {
        if self.subscribed.is_empty() {
            return Ok(());
        }
        let choice = self.client.random.random_range(0..self.subscribed.len());
        let channel = self.subscribed[choice].clone();
        let (client, connection) = (self.client.number, self.number);
        let number = self.client.history.borrow_mut().send(client, connection, channel.clone());
        let data = Payload::new(number, self.client.padding);
        let command = json!({ "channel": channel.as_str(), "data": data });
        self.ask(Asked::Publish(number), "publish", &command).await
    }

    /// Gives the attribute its next value.
    async fn set(&mut self) -> Result<(), Ended> {
        let client = self.client.number;
        let value = self.kept().send();
        let data = json!({ "key": attribute(client), "value": value });
        let command = json!({ "method": "session_set", "data": data });
        self.ask(Asked::Set(value), "rpc", &command).await
    }

    async fn get(&mut self) -> Result<(), Ended> {
        if !self.client.keeps {
            return Ok(());
        }
        let data = json!({ "key": attribute(self.client.number) });
        self.ask(Asked::Get, "rpc", &json!({ "method": "session_get", "data": data })).await
    }

    async fn ask_who_is_there(&mut self) -> Result<(), Ended> {
        let channels = self.subscribed.iter().filter(|channel| channel.inbox_user().is_none());
        for channel in channels.cloned().collect::<Vec<_>>() {
            let command = json!({ "channel": channel.as_str() });
            self.ask(Asked::Presence(channel), "presence", &command).await?;
        }
        Ok(())
    }

    async fn subscribe(&mut self, channel: Channel) -> Result<(), Ended> {
        let mut request = match self.client.positions.get(&channel) {
            Some(position) => recover(position),
            None => json!({}),
        };
        request["channel"] = json!(channel.as_str());
        if self.client.sdk == Sdk::JavaScript {
            request["flag"] = json!(1);
        }
        self.ask(Asked::Subscribe(channel), "subscribe", &request).await
    }

    async fn ask(
        &mut self,
        asked: Asked,
        method: &str,
        request: &serde_json::Value,
    ) -> Result<(), Ended> {
        self.commands += 1;
        self.open.insert(self.commands, (Instant::now(), asked));
        let command = json!({ "id": self.commands, method: request });
        self.wire.send(command.to_string()).await.map_err(|error| error.to_string())
    }

    async fn handle(&mut self, frame: Frame) -> Result<(), Ended> {
        let text = match frame {
            Frame::Text(text) => text,
            Frame::Close(code) => return Err(self.closed(format!("closed with {code}"))),
            Frame::End => return Err(self.closed("the connection ended".to_owned())),
        };
        for line in text.lines() {
            let reply: Reply =
                serde_json::from_str(line).map_err(|error| format!("{error} in {line}"))?;
            match reply {
                Reply { push: Some(push), .. } => self.pushed(push).await?,
                Reply { id: 0, .. } => {
                    self.wire.send("{}".to_owned()).await.map_err(|error| error.to_string())?;
                }
                reply => self.replied(reply).await?,
            }
        }
        Ok(())
    }

    fn closed(&self, why: Ended) -> Ended {
        self.client.history.borrow_mut().closed += 1;
        why
    }

    async fn replied(&mut self, reply: Reply) -> Result<(), Ended> {
        // Publications that were given up are forgotten.
        let Some((_, asked)) = self.open.remove(&reply.id) else { return Ok(()) };
        match (asked, reply.error) {
            (Asked::Connect, None) => {
                self.client.history.borrow_mut().connect();
                self.client.trace.event(format_args!("client {} connected", self.client.number));
                self.connected(reply.connect.unwrap_or_default())?;
                for channel in self.client.channels.clone() {
                    self.subscribe(channel).await?;
                }
            }
            (Asked::Publish(number), None) => {
                self.client.trace.event(format_args!("publication {number} acknowledged"));
                self.client.history.borrow_mut().acknowledge(number);
            }
            (Asked::Publish(number), Some(refused)) => {
                let code = refused.code;
                self.client.trace.tell(format_args!("publication {number} refused: {code}"));
                self.client.history.borrow_mut().refuse();
            }
            (Asked::Presence(channel), None) => {
                let present = reply.presence.ok_or("a presence reply without a result")?.users();
                let client = self.client.number;
                self.client.history.borrow_mut().present.insert((client, channel), present);
            }
            (Asked::Set(value), None) => self.kept().acknowledge(value),
            // It may be carried out all the same.
            (Asked::Set(_), Some(_)) => {}
            (Asked::Get, None) => {
                let read = reply.rpc.ok_or("a reply without a result")?.data.attributes;
                self.kept().shown = Some(read.into_values().next());
            }
            // They are asked again.
            (Asked::Presence(_) | Asked::Get, Some(_)) => {}
            (Asked::Subscribe(channel), None) => {
                let subscribed = reply.subscribe.ok_or("a subscribe reply without a result")?;
                self.subscribed_to(channel, subscribed)?;
            }
            (Asked::Subscribe(channel), Some(refused)) if refused.temporary => {
                let client = self.client.number;
                self.client.trace.tell(format_args!("client {client}: not yet in {channel}"));
                self.resubscribe.push((Instant::now() + RESUBSCRIBE_AFTER, channel));
            }
            (_, Some(refused)) => return Err(format!("refused for good: {}", refused.code)),
        }
        Ok(())
    }

    fn kept(&self) -> RefMut<'_, Kept> {
        let client = self.client.number;
        let history = self.client.history.borrow_mut();
        RefMut::map(history, |history| history.kept.entry(client).or_default())
    }

    /// The server has subscribed the client to its inbox, or will later if it has no position there.
    fn connected(&mut self, reply: Connected) -> Result<(), Ended> {
        // As SDKs do: what the reply leaves out is gone, with its position.
        let kept = |channel: &Channel| {
            channel.inbox_user().is_none() || reply.subs.contains_key(channel.as_str())
        };
        self.client.positions.retain(|channel, _| kept(channel));
        for (channel, subscribed) in reply.subs {
            let channel = Channel::parse(&channel).map_err(|error| error.to_string())?;
            self.subscribed_to(channel, subscribed)?;
        }
        Ok(())
    }

    /// The server subscribes the client later, or tells it that the stream goes on under another name.
    fn pushed_into(&mut self, channel: Channel, push: Subscribed) -> Result<(), Ended> {
        let known = self.client.positions.contains_key(&channel);
        self.subscribed.retain(|kept| *kept != channel);
        let subscribed = Subscribed { was_recovering: known, recovered: known, ..push };
        self.subscribed_to(channel, subscribed)
    }

    fn subscribed_to(&mut self, channel: Channel, reply: Subscribed) -> Result<(), Ended> {
        let epoch = reply.epoch.ok_or("a subscribe reply without a position")?;
        let position = Position { epoch, offset: reply.offset };
        let client = self.client.number;
        let seen = match (reply.was_recovering, reply.recovered) {
            (true, true) => Seen::Continued(position),
            (gap, _) => Seen::Began { position, at_ms: crate::cluster::clock::now_ms(), gap },
        };
        self.client.trace.tell(format_args!("client {client} in {channel}: {seen:?}"));
        self.client.history.borrow_mut().see(client, &channel, seen);
        self.client.positions.insert(channel.clone(), position);
        for publication in reply.publications {
            self.receive(&channel, &publication);
        }
        self.subscribed.push(channel);
        Ok(())
    }

    async fn pushed(&mut self, push: Push) -> Result<(), Ended> {
        let channel = Channel::parse(&push.channel).map_err(|error| error.to_string())?;
        if let Some(publication) = &push.publication {
            self.receive(&channel, publication);
        }
        if let Some(subscribed) = push.subscribe {
            return self.pushed_into(channel, subscribed);
        }
        if let Some(unsubscribed) = push.unsubscribe {
            let (client, code) = (self.client.number, unsubscribed.code);
            self.client.trace.tell(format_args!("client {client} out of {channel}: {code}"));
            self.subscribed.retain(|kept| *kept != channel);
            self.subscribe(channel).await?;
        }
        Ok(())
    }

    fn receive(&mut self, channel: &Channel, publication: &Publication) {
        let Client { number, history, trace, positions, .. } = &mut *self.client;
        let Some(position) = positions.get_mut(channel) else { return };
        position.offset = publication.offset;
        position.epoch = publication.epoch.unwrap_or(position.epoch);
        let (data, offset) = (publication.data.number(), publication.offset);
        trace.event(format_args!("client {number} in {channel}: received {data} as {offset}"));
        history.borrow_mut().see(*number, channel, Seen::Publication(*position, data));
    }
}

/// The attribute of its user that is a client's own.
fn attribute(client: usize) -> String {
    format!("of client {client}")
}

/// What a client says of a channel that it continues.
fn recover(position: &Position) -> serde_json::Value {
    let (epoch, offset) = (position.epoch.to_string(), position.offset);
    json!({ "recover": true, "epoch": epoch, "offset": offset })
}
