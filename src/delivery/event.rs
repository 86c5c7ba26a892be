//! What goes into the cores and what comes out of them.
use std::sync::Arc;

use bytes::Bytes;
use smallvec::SmallVec;

use crate::ownership::owner::Counts;
use crate::ownership::placement::Placement;
use crate::ownership::replication::Copies;
use crate::ownership::view::{Member, View};
use crate::protocol::channel::{Channel, ChannelOptions};
use crate::protocol::codes::ErrorCode;
use crate::protocol::ids::{ClientId, Incarnation, NodeId, Position};
use crate::protocol::message::{ClientInfo, Message, Publication};
pub use crate::protocol::message::{History, Recover};
use crate::protocol::peer::{Lane, PeerFrame, SlotRange};
use crate::protocol::user::{Status, UserChange, UserState};

/// Which shard of the gateway a message is for; the API has one of its own.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ShardId(pub u16);

/// Where the reply to a request goes: a shard, and a number that the shard chose.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct RequestId {
    /// Who asked.
    pub shard: ShardId,
    /// The asker's own number for it.
    pub number: u64,
}

/// Something that happens to a node.
#[derive(Debug)]
pub enum Event {
    /// A client or the API wants something.
    Request(Request),
    /// A peer's core says something; in the order of one lane of one link.
    Frames {
        /// The speaker, as its certificate proves.
        from: Incarnation,
        /// In order.
        frames: Vec<PeerFrame>,
    },
    /// Frames can be sent to this node from now on, directly or by relay.
    LinkUp(Incarnation),
    /// Frames to and from this node were lost, and more may be.
    LinkDown(Incarnation),
    /// Membership changed.
    Outlook(Arc<Outlook>),
    /// This node is to leave: hand over what it owns.
    Leave,
    /// Time has passed; due work is done. Comes every [`TICK_MS`].
    Tick,
}

/// How often the cores are told that time has passed, in milliseconds.
pub const TICK_MS: u64 = 20;

/// The cluster as membership sees it.
#[derive(Clone, Debug, Default)]
pub struct Outlook {
    /// Who counts for the placement.
    pub view: View,
    /// Where slots are by that view.
    pub placement: Arc<Placement>,
    /// Where slots will be when all of `joining` are up; equal to `placement` if there are none.
    pub planned: Arc<Placement>,
    /// Live nodes that have not entered the view yet and want to.
    pub joining: Vec<Member>,
    /// Live nodes outside the view: leaving, ineligible, waiting to come back. They answer still.
    pub outside: Vec<NodeId>,
    /// Whether `may_serve` holds, and how.
    pub serving: crate::ownership::serving::Serving,
}

/// Something that a client or the API wants of a channel.
#[derive(Clone, Debug)]
pub struct Request {
    /// Where the reply goes.
    pub id: RequestId,
    /// The channel, checked by the gateway against its configuration and the client's rights.
    pub channel: Channel,
    /// The channel's configuration here.
    pub options: ChannelOptions,
    /// What is wanted.
    pub ask: Ask,
}

/// What is wanted of a channel. Everything but `Unsubscribe` is answered, once.
#[derive(Clone, Debug)]
pub enum Ask {
    /// Deliver the channel to `client`. Answered by [`Reply::Subscribed`].
    Subscribe {
        /// The connection; one subscription a channel and connection.
        client: ClientId,
        /// Given when the owner shall show the client in presence or announce it.
        info: Option<ClientInfo>,
        /// What to catch up on.
        recover: Recover,
    },
    /// Deliver no longer; also cancels a subscribe that hasn't been answered.
    Unsubscribe {
        /// The connection.
        client: ClientId,
    },
    /// Answered by [`Reply::Published`].
    Publish {
        /// What.
        message: Arc<Message>,
        /// Publications of one channel with one key are one publication.
        key: Option<Arc<str>>,
    },
    /// Answered by [`Reply::History`].
    History(History),
    /// Answered by [`Reply::Presence`].
    Presence,
    /// Answered by [`Reply::PresenceStats`].
    PresenceStats,
    /// Change the record of the user whose inbox the channel is. Answered by [`Reply::Changed`].
    Change(UserChange),
    /// Read the user's attributes, or the one of a key. Answered by [`Reply::Attributes`].
    Attributes(Option<Arc<str>>),
    /// Of a status channel: whether its user is connected. Answered by [`Reply::Status`].
    Status,
}

/// The answer to a request.
#[derive(Clone, PartialEq, Debug)]
pub enum Reply {
    /// Deliveries that follow `position` come behind this reply.
    Subscribed {
        /// Where the stream stands; `None` for ephemeral channels.
        position: Option<Position>,
        /// Whether `publications` is all that the client missed. False if it didn't ask.
        recovered: bool,
        /// What it missed, oldest first.
        publications: Vec<Publication>,
        /// What subscribers are told of the user, if it is an inbox or a status channel; changes
        /// of that are delivered behind this reply.
        user: UserState,
    },
    /// Published; with its position if the channel has a stream.
    Published {
        /// Its place.
        position: Option<Position>,
        /// Nodes that hold it; 0 if it isn't kept.
        copies: u8,
    },
    /// The part of the stream that was asked for, and where the stream stands.
    History {
        /// In the order asked for.
        publications: Vec<Publication>,
        /// The stream's top.
        position: Position,
    },
    /// Who is subscribed, one entry a connection.
    Presence(Vec<ClientInfo>),
    /// How many are.
    PresenceStats {
        /// Connections.
        clients: u64,
        /// Different users.
        users: u64,
    },
    /// A user's record was changed.
    Changed {
        /// Nodes that hold the change.
        copies: u8,
    },
    /// A user's attributes: keys and JSON.
    Attributes(Vec<(Arc<str>, Bytes)>),
    /// Whether a user is connected.
    Status(Status),
    /// It wasn't done, or isn't known to be done if the code is temporary.
    Failed(ErrorCode),
}

/// Something for all subscribers of a channel on this node.
#[derive(Clone, PartialEq, Debug)]
pub struct Delivery {
    /// The channel.
    pub channel: Channel,
    /// What.
    pub body: DeliveryBody,
}

/// What is delivered.
#[derive(Clone, PartialEq, Debug)]
pub enum DeliveryBody {
    /// A publication.
    Publication {
        /// What was published.
        message: Arc<Message>,
        /// Its place; `None` for ephemeral channels.
        position: Option<Position>,
        /// The position that all subscribers here hold when the publication is the first of another
        /// epoch than theirs: each client must learn the new epoch in the way its SDK understands
        /// before, or with, this publication.
        turns_from: Option<Position>,
        /// Who learns epochs from publications is told this one's, though nothing turns.
        tells_epoch: bool,
    },
    /// Where all subscribers here stand, though nothing is delivered: what lies between has come to them
    /// under other names. Who learns epochs from publications learns it with the next one, who learns
    /// them by subscribing again is asked to.
    Reached(Position),
    /// Somebody subscribed.
    Join(ClientInfo),
    /// Somebody is gone.
    Leave(ClientInfo),
    /// The channels that the user whose inbox this is is subscribed to now.
    Subscriptions(Vec<Channel>),
    /// What follows can't be continued: all subscribers must subscribe again and recover.
    Lost,
}

impl DeliveryBody {
    /// A publication without a place.
    pub fn plain(message: Arc<Message>) -> Self {
        let (position, turns_from, tells_epoch) = (None, None, false);
        Self::Publication { message, position, turns_from, tells_epoch }
    }
}

/// What the cores want done. To be carried out in order.
#[derive(Debug)]
pub enum Action {
    /// Send a frame to these nodes, never to this one. Lost if there is no link or it is full: the
    /// cores find out by their own numbers.
    Send {
        /// To whom.
        to: SmallVec<[Incarnation; 4]>,
        /// On which stream.
        lane: Lane,
        /// What.
        frame: PeerFrame,
    },
    /// Answer a request.
    Reply {
        /// Which.
        to: RequestId,
        /// With what.
        reply: Reply,
    },
    /// Hand something to the subscribers on these shards.
    Deliver {
        /// Which shards have subscribers.
        shards: SmallVec<[ShardId; 4]>,
        /// What.
        delivery: Arc<Delivery>,
    },
    /// A peer asks what this node says of itself; answer with `PeerFrame::Inspected`.
    Inspect {
        /// Who asks.
        from: Incarnation,
        /// Its number for the question.
        number: u64,
    },
    /// A peer has said what it says of itself.
    Inspected {
        /// Who.
        from: Incarnation,
        /// The number of the question.
        number: u64,
        /// JSON.
        report: Bytes,
    },
    /// This node owns nothing more and nobody needs it: it may exit.
    Drained,
    /// This node has a copy of all it will own: it may turn up.
    CaughtUp,
}

/// What the cores say of themselves for status and metrics.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct CoreStatus {
    /// Of the view that all this is about.
    pub view_hash: u64,
    /// Slots owned now.
    pub slots_owned: u32,
    /// Which these are, in order.
    pub owned: Arc<[SlotRange]>,
    /// Slots being claimed now.
    pub slots_claiming: u32,
    /// Streams held here, as owner or not.
    pub streams: u64,
    /// Requests of this node's clients that wait for an answer.
    pub pending: u64,
    /// Frames that wait for a claim to end.
    pub parked: u64,
    /// Channels with subscribers here.
    pub channels: u64,
    /// How well owned slots are held by others.
    pub copies: Copies,
    /// What happened to slots since the start.
    pub counts: Counts,
}
