//! The cores of one node, as simple as they can be: streams in a map, answers at once.
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use tokio::sync::mpsc;

use crate::delivery::event::{
    Ask, Delivery, DeliveryBody, Event, History, Recover, Reply, Request, ShardId,
};
use crate::delivery::mailbox::{ShardMessage, ShardSender};
use crate::protocol::channel::{Channel, ChannelOptions};
use crate::protocol::codes::ErrorCode;
use crate::protocol::ids::{ClientId, Epoch, Incarnation, Position, StreamEpoch};
use crate::protocol::message::{ClientInfo, Message, Publication};
use crate::protocol::user::{Status, UserChange, UserState};

/// A handle to the cores.
#[derive(Clone)]
pub(crate) struct FakeCore(Arc<Mutex<State>>);

struct State {
    shards: Vec<ShardSender>,
    channels: HashMap<Channel, Kept>,
    refused: Option<ErrorCode>,
    /// Requests for this channel aren't answered before [`FakeCore::answer_late`].
    silent: Option<Channel>,
    unanswered: Vec<Request>,
    /// Channels that users are subscribed to, by inbox.
    recorded: HashMap<Channel, Vec<Channel>>,
    attributes: BTreeMap<Arc<str>, Bytes>,
}

struct Kept {
    epoch: StreamEpoch,
    turned: bool,
    tells_epoch: bool,
    publications: Vec<Publication>,
    subscribers: BTreeMap<ClientId, (ShardId, Option<ClientInfo>)>,
}

impl Default for Kept {
    fn default() -> Self {
        let epoch = Epoch { term: 1, owner: Incarnation(7) };
        Self {
            epoch: StreamEpoch { epoch, index: 1 },
            turned: false,
            tells_epoch: false,
            publications: Vec::new(),
            subscribers: BTreeMap::new(),
        }
    }
}

impl Kept {
    fn top(&self) -> Position {
        Position { epoch: self.epoch, offset: self.publications.len() as u64 }
    }
}

impl FakeCore {
    pub(crate) fn spawn(shards: Vec<ShardSender>, mut events: mpsc::Receiver<Event>) -> Self {
        let state = State {
            shards,
            channels: HashMap::new(),
            refused: None,
            silent: None,
            unanswered: Vec::new(),
            recorded: HashMap::new(),
            attributes: BTreeMap::new(),
        };
        let core = Self(Arc::new(Mutex::new(state)));
        let handle = core.clone();
        tokio::spawn(async move {
            while let Some(event) = events.recv().await {
                if let Event::Request(request) = event {
                    core.state().handle(request);
                }
            }
        });
        handle
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("no test panics with the lock held")
    }

    /// Publishes as the server API would; to a stream if there ever were history options.
    pub(crate) fn publish(&self, channel: &str, data: &'static str, stream: bool) {
        let channel = Channel::parse(channel).expect("a channel");
        let message = Message { data: data.as_bytes().into(), ..Message::default() };
        self.state().publish(&channel, Arc::new(message), stream);
    }

    /// A user's record names these channels from now on.
    pub(crate) fn record(&self, user: &str, channels: &[&str]) {
        let channels = channels.iter().map(|name| Channel::parse(name).expect("a channel"));
        let channels: Vec<Channel> = channels.collect();
        let inbox = Channel::inbox(user).expect("a user");
        let mut state = self.state();
        state.recorded.insert(inbox.clone(), channels.clone());
        state.deliver(&inbox, DeliveryBody::Subscriptions(channels));
    }

    /// The next publication has another epoch.
    pub(crate) fn turn(&self, channel: &str) {
        let channel = Channel::parse(channel).expect("a channel");
        let mut state = self.state();
        let kept = state.channels.entry(channel).or_default();
        kept.epoch.epoch.term += 1;
        kept.turned = true;
    }

    /// All subscribers stand here, though nothing is delivered.
    pub(crate) fn reach(&self, channel: &str, offset: u64) {
        let channel = Channel::parse(channel).expect("a channel");
        let mut state = self.state();
        let kept = state.channels.entry(channel.clone()).or_default();
        kept.tells_epoch = true;
        let epoch = kept.epoch;
        state.deliver(&channel, DeliveryBody::Reached(Position { epoch, offset }));
    }

    pub(crate) fn lose(&self, channel: &str) {
        let channel = Channel::parse(channel).expect("a channel");
        self.state().deliver(&channel, DeliveryBody::Lost);
    }

    /// Answers all subscribes with this code from now on.
    pub(crate) fn refuse_subscribes(&self, code: Option<ErrorCode>) {
        self.state().refused = code;
    }

    pub(crate) fn be_silent(&self, channel: &str) {
        self.state().silent = Channel::parse(channel).ok();
    }

    pub(crate) fn answer_late(&self) {
        let mut state = self.state();
        state.silent = None;
        for request in std::mem::take(&mut state.unanswered) {
            state.handle(request);
        }
    }

    pub(crate) fn published(&self, channel: &str) -> usize {
        let channel = Channel::parse(channel).expect("a channel");
        self.state().channels.get(&channel).map_or(0, |kept| kept.publications.len())
    }

    pub(crate) fn subscribers(&self, channel: &str) -> usize {
        let channel = Channel::parse(channel).expect("a channel");
        self.state().channels.get(&channel).map_or(0, |kept| kept.subscribers.len())
    }
}

impl State {
    fn handle(&mut self, request: Request) {
        if self.silent.as_ref() == Some(&request.channel) {
            return self.unanswered.push(request);
        }
        let reply = self.answer(&request);
        if let Some(reply) = reply {
            let message = ShardMessage::Reply { number: request.id.number, reply };
            self.shards[usize::from(request.id.shard.0)].push(message);
        }
        // Joins follow the reply, so that the newcomer sees its own.
        if let Ask::Subscribe { info: Some(info), .. } = request.ask
            && request.options.join_leave
        {
            self.deliver(&request.channel, DeliveryBody::Join(info));
        }
    }

    fn answer(&mut self, request: &Request) -> Option<Reply> {
        let Request { id, channel, options, ask } = request;
        let stream = options.is_stream();
        let refused = self.refused;
        let kept = self.channels.entry(channel.clone()).or_default();
        match ask {
            Ask::Subscribe { .. } if refused.is_some() => refused.map(Reply::Failed),
            Ask::Subscribe { client, info, recover } => {
                kept.subscribers.insert(*client, (id.shard, info.clone()));
                let recorded = self.recorded.get(channel).cloned().unwrap_or_default();
                let user = match channel.status_user() {
                    Some(_) => UserState::Status(Status::Offline(5_000)),
                    None => UserState::Subscriptions(recorded),
                };
                Some(subscribed(kept, *recover, stream, user))
            }
            Ask::Unsubscribe { client } => {
                let info = kept.subscribers.remove(client).and_then(|(_, info)| info);
                if let Some(info) = info.filter(|_| options.join_leave) {
                    self.deliver(channel, DeliveryBody::Leave(info));
                }
                None
            }
            Ask::Publish { message, .. } => {
                let position = self.publish(channel, message.clone(), stream);
                Some(Reply::Published { position, copies: u8::from(position.is_some()) })
            }
            Ask::History(history) => Some(read(kept, history, options)),
            Ask::Presence => {
                let infos = kept.subscribers.values().filter_map(|(_, info)| info.clone());
                Some(Reply::Presence(infos.collect()))
            }
            Ask::PresenceStats => {
                let clients = kept.subscribers.len() as u64;
                Some(Reply::PresenceStats { clients, users: clients })
            }
            Ask::Change(UserChange::Set { key, value }) => {
                self.attributes.insert(key.clone(), value.clone());
                Some(Reply::Changed { copies: 2 })
            }
            Ask::Change(UserChange::Delete { key }) => {
                self.attributes.remove(key);
                Some(Reply::Changed { copies: 2 })
            }
            Ask::Change(other) => panic!("clients never ask for {other:?}"),
            Ask::Status => panic!("clients subscribe to a status"),
            Ask::Attributes(key) => {
                let all = self.attributes.iter();
                let wanted = all.filter(|(other, _)| key.as_ref().is_none_or(|key| key == *other));
                Some(Reply::Attributes(wanted.map(|(k, v)| (k.clone(), v.clone())).collect()))
            }
        }
    }

    fn publish(
        &mut self,
        channel: &Channel,
        message: Arc<Message>,
        stream: bool,
    ) -> Option<Position> {
        let kept = self.channels.entry(channel.clone()).or_default();
        let mut turns_from = None;
        let mut position = None;
        if stream {
            let turned = std::mem::take(&mut kept.turned);
            let mut old = kept.top();
            if turned {
                old.epoch.epoch.term -= 1;
                // On the line that is left there was more.
                old.offset += 5;
            }
            turns_from = turned.then_some(old);
            let (epoch, offset) = (kept.epoch, kept.publications.len() as u64 + 1);
            kept.publications.push(Publication { epoch, offset, message: message.clone() });
            position = Some(Position { epoch, offset });
        }
        let tells_epoch = std::mem::take(&mut kept.tells_epoch);
        let body = DeliveryBody::Publication { message, position, turns_from, tells_epoch };
        self.deliver(channel, body);
        position
    }

    fn deliver(&mut self, channel: &Channel, body: DeliveryBody) {
        let delivery = Arc::new(Delivery { channel: channel.clone(), body });
        for shard in &self.shards {
            shard.push(ShardMessage::Deliver(delivery.clone()));
        }
    }
}

fn subscribed(kept: &Kept, recover: Recover, stream: bool, user: UserState) -> Reply {
    let position = stream.then(|| kept.top());
    let (recovered, publications) = match recover {
        Recover::From(from) if from.epoch.epoch.owner == kept.epoch.epoch.owner => {
            (true, kept.publications.iter().skip(from.offset as usize).cloned().collect())
        }
        _ => (false, Vec::new()),
    };
    Reply::Subscribed { position, recovered, publications, user }
}

fn read(kept: &Kept, history: &History, options: &ChannelOptions) -> Reply {
    assert!(options.is_stream(), "history asked of a channel without a stream");
    let since = history.since.map_or(0, |since| since.offset);
    let mut publications = kept.publications.clone();
    if history.reverse {
        publications.reverse();
        publications.retain(|publication| since == 0 || publication.offset < since);
    } else {
        publications.retain(|publication| publication.offset > since);
    }
    publications.truncate(history.limit as usize);
    Reply::History { publications, position: kept.top() }
}
