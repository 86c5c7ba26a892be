//! Replies and pushes: what clients are told, and how it is encoded.
use crate::protocol::codes::{ErrorCode, Unsubscribe};
use crate::protocol::ids::{ClientId, Position, StreamEpoch};
use crate::protocol::message::{ClientInfo, Message, Publication};

use super::json::{self, Object};

/// How a client wants its frames.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum Format {
    /// Text frames of JSON objects joined by line feeds.
    #[default]
    Json,
}

impl Format {
    /// A ping: an empty reply.
    pub fn ping(self) -> &'static [u8] {
        match self {
            Self::Json => b"{}",
        }
    }

    /// Appends a reply to the messages of a frame.
    pub fn reply(self, frame: &mut Vec<u8>, id: u32, reply: &Reply<'_>) {
        match self {
            Self::Json => json_message(frame, |object| {
                object.number("id", u64::from(id));
                reply.write_json(object);
            }),
        }
    }

    /// Appends a push to the messages of a frame.
    pub fn push(self, frame: &mut Vec<u8>, push: &Push<'_>) {
        match self {
            Self::Json => json_message(frame, |object| {
                object.object("push", |object| push.write_json(object));
            }),
        }
    }
}

fn json_message(frame: &mut Vec<u8>, write: impl FnOnce(&mut Object<'_>)) {
    if !frame.is_empty() {
        frame.push(b'\n');
    }
    json::object(frame, write);
}

/// The answer to a command.
#[derive(Debug)]
pub enum Reply<'a> {
    /// It wasn't done.
    Error(ErrorCode),
    /// Connected.
    Connect(ConnectResult<'a>),
    /// Subscribed.
    Subscribe(SubscribeResult<'a>),
    /// Unsubscribed.
    Unsubscribe,
    /// Published.
    Publish,
    /// Who is subscribed.
    Presence(&'a [ClientInfo]),
    /// How many are.
    PresenceStats {
        /// Connections.
        clients: u64,
        /// Different users.
        users: u64,
    },
    /// Part of a stream.
    History {
        /// In the order asked for.
        publications: &'a [Publication],
        /// The stream's top.
        position: Position,
    },
    /// Here I am.
    Ping,
    /// What the method returned, as JSON.
    Rpc(&'a [u8]),
    /// The new token holds.
    Refresh {
        /// The connection.
        client: ClientId,
        /// The server's version.
        version: &'a str,
        /// Seconds until the next one is due; `None` = never.
        ttl: Option<u64>,
    },
}

/// Fields of a connect reply.
#[derive(Debug)]
pub struct ConnectResult<'a> {
    /// The connection.
    pub client: ClientId,
    /// The server's version.
    pub version: &'a str,
    /// Seconds until the token must be refreshed; `None` = never.
    pub ttl: Option<u64>,
    /// Server-side subscriptions.
    pub subs: Vec<(&'a str, SubscribeResult<'a>)>,
    /// Seconds between pings.
    pub ping: u64,
    /// Whether pings are to be answered.
    pub pong: bool,
    /// What emulated transports name the connection by.
    pub session: ClientId,
    /// The node's name.
    pub node: &'a str,
    /// Wall-clock milliseconds.
    pub time_ms: u64,
}

/// Fields of a subscribe reply, of a `subscribe` push, and of each subscription in a connect reply.
#[derive(Debug, Clone, Copy, Default)]
pub struct SubscribeResult<'a> {
    /// Where the client is before `publications`, if it can continue from there later.
    pub position: Option<Position>,
    /// Whether the client named a position.
    pub was_recovering: bool,
    /// Whether `publications` is all that it missed.
    pub recovered: bool,
    /// What it missed, oldest first.
    pub publications: &'a [Publication],
    /// JSON about the channel; empty = none.
    pub data: &'a [u8],
}

/// Something that the client didn't ask for at this moment.
#[derive(Debug)]
pub enum Push<'a> {
    /// A publication.
    Publication {
        /// The channel.
        channel: &'a str,
        /// What was published.
        publication: PublicationFields<'a>,
    },
    /// Somebody subscribed.
    Join {
        /// The channel.
        channel: &'a str,
        /// Who.
        info: &'a ClientInfo,
    },
    /// Somebody is gone.
    Leave {
        /// The channel.
        channel: &'a str,
        /// Who.
        info: &'a ClientInfo,
    },
    /// A subscription ended.
    Unsubscribe {
        /// The channel.
        channel: &'a str,
        /// Why, and whether to subscribe again.
        why: Unsubscribe,
    },
    /// A server-side subscription, or its new position.
    Subscribe {
        /// The channel.
        channel: &'a str,
        /// Its position.
        result: SubscribeResult<'a>,
    },
}

/// Fields of a publication.
#[derive(Debug, Clone, Copy)]
pub struct PublicationFields<'a> {
    /// What was published.
    pub message: &'a Message,
    /// Its offset; 0 = the channel has no stream.
    pub offset: u64,
    /// The epoch, where the client is to learn a new one.
    pub epoch: Option<StreamEpoch>,
}

impl<'a> From<&'a Publication> for PublicationFields<'a> {
    fn from(publication: &'a Publication) -> Self {
        Self { message: &publication.message, offset: publication.offset, epoch: None }
    }
}

impl Reply<'_> {
    fn write_json(&self, object: &mut Object<'_>) {
        match self {
            Self::Error(error) => object.object("error", |object| {
                object.number("code", u64::from(error.code()));
                object.text("message", error.message());
                object.flag("temporary", error.temporary());
            }),
            Self::Connect(result) => object.object("connect", |object| result.write_json(object)),
            Self::Subscribe(result) => {
                object.object("subscribe", |object| result.write_json(object));
            }
            Self::Unsubscribe => object.object("unsubscribe", |_| {}),
            Self::Publish => object.object("publish", |_| {}),
            Self::Ping => object.object("ping", |_| {}),
            Self::Presence(clients) => object.object("presence", |object| {
                object.object("presence", |object| {
                    for info in *clients {
                        object.info(&info.client.to_string(), info);
                    }
                });
            }),
            Self::PresenceStats { clients, users } => object.object("presence_stats", |object| {
                object.number("num_clients", *clients);
                object.number("num_users", *users);
            }),
            Self::History { publications, position } => object.object("history", |object| {
                write_publications(object.field("publications"), publications);
                object.display("epoch", position.epoch);
                object.number("offset", position.offset);
            }),
            Self::Rpc(data) => object.object("rpc", |object| object.raw("data", data)),
            Self::Refresh { client, version, ttl } => object.object("refresh", |object| {
                object.display("client", client);
                object.text("version", version);
                write_ttl(object, *ttl);
            }),
        }
    }
}

impl ConnectResult<'_> {
    fn write_json(&self, object: &mut Object<'_>) {
        object.display("client", self.client);
        object.text("version", self.version);
        write_ttl(object, self.ttl);
        if !self.subs.is_empty() {
            object.object("subs", |object| {
                for (channel, result) in &self.subs {
                    // A channel's name can need escapes, so it isn't written as a plain field.
                    object.named(channel, |object| result.write_json(object));
                }
            });
        }
        object.number("ping", self.ping);
        object.flag("pong", self.pong);
        object.display("session", self.session);
        object.text("node", self.node);
        object.number("time", self.time_ms);
    }
}

impl SubscribeResult<'_> {
    fn write_json(&self, object: &mut Object<'_>) {
        if let Some(position) = self.position {
            object.flag("recoverable", true);
            object.flag("positioned", true);
            object.display("epoch", position.epoch);
            object.number("offset", position.offset);
        }
        if !self.publications.is_empty() {
            write_publications(object.field("publications"), self.publications);
        }
        object.flag("recovered", self.recovered);
        object.flag("was_recovering", self.was_recovering);
        object.raw("data", self.data);
    }
}

impl Push<'_> {
    fn write_json(&self, object: &mut Object<'_>) {
        match self {
            Self::Publication { channel, publication } => {
                object.text("channel", channel);
                object.object("pub", |object| publication.write_json(object));
            }
            Self::Join { channel, info } => {
                object.text("channel", channel);
                object.object("join", |object| object.info("info", info));
            }
            Self::Leave { channel, info } => {
                object.text("channel", channel);
                object.object("leave", |object| object.info("info", info));
            }
            Self::Unsubscribe { channel, why } => {
                object.text("channel", channel);
                object.object("unsubscribe", |object| {
                    object.number("code", u64::from(why.code()));
                    object.text("reason", why.reason());
                });
            }
            Self::Subscribe { channel, result } => {
                object.text("channel", channel);
                object.object("subscribe", |object| result.write_json(object));
            }
        }
    }
}

impl PublicationFields<'_> {
    fn write_json(&self, object: &mut Object<'_>) {
        object.raw("data", &self.message.data);
        if let Some(info) = &self.message.info {
            object.info("info", info);
        }
        object.number("offset", self.offset);
        if !self.message.tags.is_empty() {
            object.object("tags", |object| {
                for (key, value) in &self.message.tags {
                    object.named_text(key, value);
                }
            });
        }
        object.number("time", self.message.time_ms);
        if let Some(epoch) = self.epoch {
            object.display("epoch", epoch);
        }
    }
}

fn write_publications(out: &mut Vec<u8>, publications: &[Publication]) {
    json::array(out, publications, |out, publication| {
        json::object(out, |object| PublicationFields::from(publication).write_json(object));
    });
}

fn write_ttl(object: &mut Object<'_>, ttl: Option<u64>) {
    object.flag("expires", ttl.is_some());
    object.number("ttl", ttl.unwrap_or(0));
}
