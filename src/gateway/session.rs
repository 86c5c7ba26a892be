//! The rules of the client protocol for one connection, without input or output: commands, replies
//! and the passing of time come in; replies, requests and closes go out. A shard calls it.
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;

use crate::delivery::event::{Ask, Recover, Reply as CoreReply};
use crate::protocol::channel::{Channel, ChannelOptions};
use crate::protocol::client::command::{Command, Method};
use crate::protocol::client::{Format, Push, Reply};
use crate::protocol::codes::{Disconnect, ErrorCode};
use crate::protocol::ids::ClientId;
use crate::protocol::message::ClientInfo;
use crate::small_map::SmallMap;

use super::rules::{REQUESTS_MAX, Rules};

mod connect;
mod record;
mod requests;
mod subscribe;

use connect::Connecting;

/// How a subscription takes what is delivered; the hub keeps it beside the subscriber.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    /// The client can't continue from a position, so epochs don't concern it.
    Plain,
    /// Its SDK takes a new epoch from a publication.
    EpochAware,
    /// It learns a new epoch by subscribing again.
    Resubscribing,
    /// The server's: it learns a new epoch by a `subscribe` push, and is never unsubscribed.
    ServerSide,
}

/// One connection.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) client: ClientId,
    pub(super) format: Format,
    phase: Phase,
    user: Arc<str>,
    conn_info: Bytes,
    /// When the credentials end, in seconds of the Unix epoch.
    expires: Option<u64>,
    /// The user id of the handshake's query; heeded in development only.
    query_user: Option<Box<str>>,
    /// The SDK, if its subscribe flags tell that it takes epochs from publications.
    javascript: bool,
    subscriptions: SmallMap<Channel, Subscription>,
    /// Those of them that the user's record names, which alone end when it names them no more.
    recorded: BTreeSet<Channel>,
    /// Positions that the client keeps of channels that the record, not known yet, may name.
    claimed: BTreeMap<Channel, Recover>,
    attempts: u64,
    awaited: usize,
}

#[derive(Debug)]
enum Phase {
    New,
    Connecting(Box<Connecting>),
    Connected,
    /// The connect command was answered by an error.
    Failed,
}

#[derive(Debug)]
struct Subscription {
    state: State,
    kind: Kind,
}

/// Positions are boxed: once it is active there is none, and it is that for long.
#[derive(Debug, PartialEq, Eq)]
enum State {
    /// The cores were asked; replies to earlier attempts don't count.
    Asked { attempt: u64, from: Box<Recover> },
    /// A server-side subscription that couldn't be had yet: to be asked for again.
    Unready { from: Box<Recover> },
    /// Deliveries go to the client.
    Active,
    /// It is to learn by an unsubscribe push that it must subscribe again.
    Lapsed,
    /// It has learnt that, and comes again as soon as its SDK does. Until then it may do what a
    /// subscriber may: nothing that the application did has ended its subscription.
    Awaited,
}

impl State {
    /// Whether the owner holds it for subscribed.
    fn is_attached(&self) -> bool {
        !matches!(self, Self::Lapsed | Self::Awaited)
    }
}

/// What a reply of the cores will be for.
#[derive(Debug)]
pub(super) enum Expects {
    Subscribe {
        id: u32,
        channel: Channel,
        attempt: u64,
        was_recovering: bool,
        reject_unrecovered: bool,
    },
    ServerSide {
        channel: Channel,
        attempt: u64,
    },
    Publish {
        id: u32,
    },
    History {
        id: u32,
    },
    /// The epoch that holds now, for a history request that names an offset alone.
    HistoryEpoch {
        id: u32,
        channel: Channel,
        offset: u64,
        limit: u32,
        reverse: bool,
    },
    Presence {
        id: u32,
    },
    PresenceStats {
        id: u32,
    },
    Rpc {
        id: u32,
    },
}

/// A request for the cores.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) channel: Channel,
    pub(super) options: ChannelOptions,
    pub(super) ask: Ask,
    /// `None` for what isn't answered.
    pub(super) expects: Option<Expects>,
}

/// What a call to the session wants done. To be carried out before the next call.
#[derive(Debug, Default)]
pub(super) struct Effects {
    /// Messages of one frame for the client.
    pub(super) replies: Vec<u8>,
    pub(super) asks: Vec<Asked>,
    /// Channels to deliver from now on, behind the replies.
    pub(super) joined: Vec<(Channel, Kind)>,
    /// Channels to deliver no longer.
    pub(super) left: Vec<Channel>,
    /// A pong came.
    pub(super) pong: bool,
    /// The connect reply is among the replies.
    pub(super) connected: bool,
    /// Close behind the replies.
    pub(super) close: Option<Disconnect>,
}

/// What most replies fit into: they grow no buffer.
const REPLY_BYTES: usize = 64;

/// What a session may know of the world at a call.
#[derive(Debug, Clone, Copy)]
pub(super) struct Scene<'a> {
    pub(super) rules: &'a Rules,
    /// Wall-clock milliseconds of the Unix epoch.
    pub(super) unix_ms: u64,
}

impl Scene<'_> {
    fn unix_seconds(&self) -> u64 {
        self.unix_ms / 1000
    }
}

impl Session {
    pub(super) fn new(client: ClientId, format: Format, query_user: Option<Box<str>>) -> Self {
        Self {
            client,
            format,
            phase: Phase::New,
            user: "".into(),
            conn_info: Bytes::new(),
            expires: None,
            query_user,
            javascript: false,
            subscriptions: SmallMap::default(),
            recorded: BTreeSet::new(),
            claimed: BTreeMap::new(),
            attempts: 0,
            awaited: 0,
        }
    }

    /// Whether commands must wait until the connect command is answered.
    pub(super) fn is_connecting(&self) -> bool {
        matches!(self.phase, Phase::Connecting(_))
    }

    /// Whether requests of the client, or subscriptions of its own, wait for the cores.
    pub(super) fn awaits(&self) -> bool {
        self.awaited > 0
    }

    pub(super) fn is_connected(&self) -> bool {
        matches!(self.phase, Phase::Connected)
    }

    /// When the credentials end, in seconds of the Unix epoch.
    pub(super) fn expires(&self) -> Option<u64> {
        self.expires
    }

    /// A command that isn't valid JSON, or not in the protocol's shape.
    pub(super) fn handle_garbage(&mut self, effects: &mut Effects) {
        effects.close = Some(Disconnect::BadRequest);
    }

    /// One command of the client.
    pub(super) fn handle(&mut self, command: Command<'_>, scene: Scene<'_>, effects: &mut Effects) {
        let id = command.id;
        let method = command.method();
        let allowed = match (&self.phase, &method) {
            (Phase::New, Method::Connect(_)) => id != 0,
            (Phase::Connected, Method::Connect(_)) => false,
            (Phase::Connected, Method::Send(_) | Method::Nothing) => true,
            (Phase::Connected, _) => id != 0,
            _ => false,
        };
        if !allowed {
            effects.close = Some(Disconnect::BadRequest);
            return;
        }
        let done = match method {
            Method::Connect(request) => self.connect(id, &request, scene, effects),
            Method::Subscribe(request) => self.subscribe(id, &request, scene, effects),
            Method::Unsubscribe(request) => self.unsubscribe(id, &request, scene, effects),
            Method::Publish(request) => self.publish(id, &request, scene, effects),
            Method::Presence(request) => self.presence(id, &request, scene, effects),
            Method::PresenceStats(request) => self.presence_stats(id, &request, scene, effects),
            Method::History(request) => self.history(id, &request, scene, effects),
            Method::Rpc(request) => self.rpc(id, &request, scene, effects),
            Method::Refresh(request) => self.refresh(id, &request, scene, effects),
            // There are no subscription tokens, so there is nothing to refresh.
            Method::SubRefresh(_) => Err(ErrorCode::NotAvailable.into()),
            Method::Ping => {
                self.reply(effects, id, &Reply::Ping);
                Ok(())
            }
            Method::Send(_) => Ok(()),
            Method::Nothing if id == 0 => {
                effects.pong = true;
                Ok(())
            }
            Method::Nothing => Err(ErrorCode::MethodNotFound.into()),
        };
        match done {
            Ok(()) => {}
            Err(Refusal::Error(code)) => self.reply(effects, id, &Reply::Error(code)),
            Err(Refusal::Close(code)) => effects.close = Some(code),
        }
    }

    /// An answer of the cores.
    pub(super) fn handle_reply(
        &mut self,
        expects: Expects,
        reply: CoreReply,
        scene: Scene<'_>,
        effects: &mut Effects,
    ) {
        self.awaited -= 1;
        match expects {
            Expects::Subscribe { id, channel, attempt, was_recovering, reject_unrecovered } => {
                let asked = subscribe::AskedBy { id, attempt, was_recovering, reject_unrecovered };
                self.subscribed(&channel, asked, reply, scene, effects);
            }
            Expects::ServerSide { channel, attempt } => {
                self.server_side_subscribed(channel, attempt, reply, scene, effects);
            }
            Expects::HistoryEpoch { id, channel, offset, limit, reverse } => {
                let since = requests::Since { offset, limit, reverse };
                self.history_epoch(id, channel, since, reply, scene, effects);
            }
            Expects::Publish { id }
            | Expects::History { id }
            | Expects::Presence { id }
            | Expects::PresenceStats { id }
            | Expects::Rpc { id } => self.answer(id, reply, effects),
        }
    }

    /// The connection is over: the owners are told.
    pub(super) fn end(&mut self, scene: Scene<'_>, effects: &mut Effects) {
        for (channel, subscription) in std::mem::take(&mut self.subscriptions) {
            if subscription.state.is_attached() {
                self.let_go(channel, scene, effects);
            }
        }
    }

    fn info(&self) -> ClientInfo {
        ClientInfo {
            user: self.user.clone(),
            client: self.client,
            conn_info: self.conn_info.clone(),
            chan_info: Bytes::new(),
        }
    }

    fn reply(&self, effects: &mut Effects, id: u32, reply: &Reply<'_>) {
        effects.replies.reserve(REPLY_BYTES);
        self.format.reply(&mut effects.replies, id, reply);
    }

    fn push(&self, effects: &mut Effects, push: &Push<'_>) {
        self.format.push(&mut effects.replies, push);
    }

    /// Asks the cores something that they will answer.
    fn ask(
        &mut self,
        channel: Channel,
        options: ChannelOptions,
        ask: Ask,
        expects: Expects,
        effects: &mut Effects,
    ) -> Result<(), Refusal> {
        if self.awaited >= REQUESTS_MAX {
            return Err(ErrorCode::TooManyRequests.into());
        }
        self.awaited += 1;
        effects.asks.push(Asked { channel, options, ask, expects: Some(expects) });
        Ok(())
    }
}

/// Why a command isn't carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Refusal {
    Error(ErrorCode),
    Close(Disconnect),
}

impl From<ErrorCode> for Refusal {
    fn from(code: ErrorCode) -> Self {
        Self::Error(code)
    }
}

impl From<Disconnect> for Refusal {
    fn from(code: Disconnect) -> Self {
        Self::Close(code)
    }
}

/// Reads a channel's name. An empty one breaks the protocol; one that is too long is a bad request.
fn channel(name: &str) -> Result<Channel, Refusal> {
    if name.is_empty() {
        return Err(Disconnect::BadRequest.into());
    }
    Channel::parse(name).map_err(|_| ErrorCode::BadRequest.into())
}
