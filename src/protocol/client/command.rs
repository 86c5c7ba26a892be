//! Commands: what clients ask, borrowed from the frame that brought them.
use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::value::RawValue;

/// Flag of a subscribe request: the SDK understands numeric channel ids. JavaScript SDKs that send
/// it (5.6.0 and later) also take the epoch of a position from publications; earlier ones do neither.
pub const FLAG_CHANNEL_COMPACTION: u32 = 1;
/// Flag of a subscribe request: answer error 112 if the position can't be recovered.
pub const FLAG_REJECT_UNRECOVERED: u32 = 2;

/// One command. Unknown fields are skipped.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Command<'a> {
    /// Chosen by the client; 0 for `send` and pong.
    pub id: u32,
    #[serde(borrow)]
    connect: Option<ConnectRequest<'a>>,
    #[serde(borrow)]
    subscribe: Option<SubscribeRequest<'a>>,
    #[serde(borrow)]
    unsubscribe: Option<ChannelRequest<'a>>,
    #[serde(borrow)]
    publish: Option<PublishRequest<'a>>,
    #[serde(borrow)]
    presence: Option<ChannelRequest<'a>>,
    #[serde(borrow)]
    presence_stats: Option<ChannelRequest<'a>>,
    #[serde(borrow)]
    history: Option<HistoryRequest<'a>>,
    ping: Option<Nothing>,
    #[serde(borrow)]
    send: Option<SendRequest<'a>>,
    #[serde(borrow)]
    rpc: Option<RpcRequest<'a>>,
    #[serde(borrow)]
    refresh: Option<RefreshRequest<'a>>,
    #[serde(borrow)]
    sub_refresh: Option<SubRefreshRequest<'a>>,
}

/// What a command asks.
#[derive(Debug)]
pub enum Method<'a> {
    /// Authenticate and learn the server-side subscriptions.
    Connect(ConnectRequest<'a>),
    /// Deliver a channel.
    Subscribe(SubscribeRequest<'a>),
    /// Deliver it no longer.
    Unsubscribe(ChannelRequest<'a>),
    /// Publish to a channel.
    Publish(PublishRequest<'a>),
    /// Who is subscribed.
    Presence(ChannelRequest<'a>),
    /// How many are.
    PresenceStats(ChannelRequest<'a>),
    /// Read a stream.
    History(HistoryRequest<'a>),
    /// Is the server there.
    Ping,
    /// A message without a reply.
    Send(SendRequest<'a>),
    /// Call a method.
    Rpc(RpcRequest<'a>),
    /// A new connect token.
    Refresh(RefreshRequest<'a>),
    /// A new subscription token.
    SubRefresh(SubRefreshRequest<'a>),
    /// Nothing known: with id 0 it is the answer to a ping.
    Nothing,
}

impl<'a> Command<'a> {
    /// The one thing that is asked.
    pub fn method(self) -> Method<'a> {
        None.or(self.publish.map(Method::Publish))
            .or(self.subscribe.map(Method::Subscribe))
            .or(self.unsubscribe.map(Method::Unsubscribe))
            .or(self.connect.map(Method::Connect))
            .or(self.presence.map(Method::Presence))
            .or(self.presence_stats.map(Method::PresenceStats))
            .or(self.history.map(Method::History))
            .or(self.ping.map(|_| Method::Ping))
            .or(self.send.map(Method::Send))
            .or(self.rpc.map(Method::Rpc))
            .or(self.refresh.map(Method::Refresh))
            .or(self.sub_refresh.map(Method::SubRefresh))
            .unwrap_or(Method::Nothing)
    }
}

/// Commands of one frame, and how far it has been read.
pub type Commands<'a> =
    serde_json::StreamDeserializer<'a, serde_json::de::StrRead<'a>, Command<'a>>;

/// The commands of a JSON frame: objects joined by line feeds, other white space, or nothing.
pub fn commands(frame: &str) -> Commands<'_> {
    serde_json::Deserializer::from_str(frame).into_iter()
}

/// An object whose fields don't matter.
#[derive(Debug, Default, Deserialize)]
pub struct Nothing {}

/// Fields of `connect`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct ConnectRequest<'a> {
    /// JWT; empty = none.
    #[serde(borrow)]
    pub token: Cow<'a, str>,
    /// Anything of the application.
    #[serde(borrow)]
    pub data: Option<&'a RawValue>,
    /// Positions of former server-side subscriptions.
    #[serde(borrow)]
    pub subs: BTreeMap<String, SubscribeRequest<'a>>,
    /// Which SDK, unless the application changed it.
    #[serde(borrow)]
    pub name: Cow<'a, str>,
    /// The application's version, if it gave one.
    #[serde(borrow)]
    pub version: Cow<'a, str>,
}

/// Fields of `subscribe`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct SubscribeRequest<'a> {
    /// Which channel; absent inside a connect request.
    #[serde(borrow)]
    pub channel: Cow<'a, str>,
    /// Whether to continue from `epoch` and `offset`.
    pub recover: bool,
    /// Whose naming `offset` belongs to.
    #[serde(borrow)]
    pub epoch: Cow<'a, str>,
    /// The last publication seen.
    pub offset: u64,
    /// Delta format offered; only "fossil" exists, and any offer may be left unanswered.
    #[serde(borrow)]
    pub delta: Cow<'a, str>,
    /// Bits of what the SDK understands and wants.
    pub flag: u32,
}

/// Fields of commands that name a channel and nothing else.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct ChannelRequest<'a> {
    /// Which channel.
    #[serde(borrow)]
    pub channel: Cow<'a, str>,
}

/// Fields of `publish`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct PublishRequest<'a> {
    /// To which channel.
    #[serde(borrow)]
    pub channel: Cow<'a, str>,
    /// The payload.
    #[serde(borrow)]
    pub data: Option<&'a RawValue>,
}

/// Fields of `history`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct HistoryRequest<'a> {
    /// Which channel.
    #[serde(borrow)]
    pub channel: Cow<'a, str>,
    /// Most publications wanted; 0 = only the position, negative = as many as allowed.
    pub limit: i64,
    /// Where to start.
    #[serde(borrow)]
    pub since: Option<Since<'a>>,
    /// Newest first.
    pub reverse: bool,
}

/// A position in `history`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Since<'a> {
    /// The publication behind which to start.
    pub offset: u64,
    /// Whose naming it is; empty = whichever holds now.
    #[serde(borrow)]
    pub epoch: Cow<'a, str>,
}

/// Fields of `send`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct SendRequest<'a> {
    /// The payload.
    #[serde(borrow)]
    pub data: Option<&'a RawValue>,
}

/// Fields of `rpc`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct RpcRequest<'a> {
    /// Which method.
    #[serde(borrow)]
    pub method: Cow<'a, str>,
    /// Its arguments.
    #[serde(borrow)]
    pub data: Option<&'a RawValue>,
}

/// Fields of `refresh`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct RefreshRequest<'a> {
    /// JWT.
    #[serde(borrow)]
    pub token: Cow<'a, str>,
}

/// Fields of `sub_refresh`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct SubRefreshRequest<'a> {
    /// Which channel.
    #[serde(borrow)]
    pub channel: Cow<'a, str>,
    /// JWT.
    #[serde(borrow)]
    pub token: Cow<'a, str>,
}
