//! Frames between the cores of two nodes, carried by links. A frame to oneself takes the same way
//! without being encoded.
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::channel::{Channel, ChannelOptions};
use super::codes::ErrorCode;
use super::ids::{ClientId, Epoch, Incarnation, Position, Slot, StreamEpoch};
use super::message::{ClientInfo, History, Message, OperationId, Publication, Recover};
use super::user::{Stamp, Stamped, UserChange, UserState};

/// Longest frame: an answer with as many publications of the greatest length as one carries.
pub const FRAME_BYTES_MAX: usize = 24 << 20;

/// Which of a link's streams carries a frame; each is ordered in itself.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Lane {
    /// Claims and acknowledgements: small, and never behind a backlog.
    Control,
    /// Operations, deliveries and what must keep their order.
    Data,
    /// Copies of streams.
    Bulk,
}

/// Neighbouring slots, both ends included.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct SlotRange {
    /// The lowest.
    pub first: Slot,
    /// The highest.
    pub last: Slot,
}

impl SlotRange {
    /// All slots of the range in order.
    pub fn iter(self) -> impl Iterator<Item = Slot> {
        (self.first.0..=self.last.0).map(Slot)
    }
}

/// A frame between two cores.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub enum PeerFrame {
    // From a gateway to an owner, on the data lane.
    /// A numbered operation: applied once, in the order of the numbers.
    Operation(Operation),
    /// A publication to an ephemeral channel, for the owner to fan out.
    Fanout {
        /// The channel's slot.
        slot: Slot,
        /// The channel.
        channel: Channel,
        /// What.
        message: Arc<Message>,
        /// Whether a wrong owner has passed it on already.
        forwarded: bool,
    },
    /// A question that may be asked again: reads, and subscriptions.
    Ask {
        /// The asker's number for it.
        number: u64,
        /// The channel's slot.
        slot: Slot,
        /// The highest epoch of the slot that the asker promised.
        epoch: Epoch,
        /// The channel.
        channel: Channel,
        /// The channel's configuration at the asker.
        options: ChannelOptions,
        /// What is asked.
        query: Query,
    },
    /// A client is gone from a channel; `detach` if the gateway wants the channel no more.
    Unsubscribe {
        /// The channel's slot.
        slot: Slot,
        /// The channel.
        channel: Channel,
        /// The client.
        client: ClientId,
        /// Whether this was the gateway's last subscriber.
        detach: bool,
    },
    /// Fingerprints of the sender's interest in slots of the receiver.
    Digest {
        /// Slot and fingerprint.
        slots: Vec<(Slot, u64)>,
    },
    /// All of the sender's interest in a slot within a span, in place of what the receiver has there.
    Interest {
        /// The interest.
        interest: SlotInterest,
        /// Where it is all.
        span: Span,
    },

    // From an owner to a gateway, on the data lane.
    /// What became of an operation.
    Result {
        /// The slot.
        slot: Slot,
        /// The operation's number.
        number: u64,
        /// What.
        outcome: Outcome,
    },
    /// The answer to an `Ask`.
    Answer {
        /// The asker's number.
        number: u64,
        /// The answer.
        answer: Answer,
    },
    /// The receiver of an `Ask` doesn't own the slot.
    NotOwner {
        /// The asker's number.
        number: u64,
        /// Who owns it as the receiver sees it.
        owner: Option<Incarnation>,
    },
    /// A publication of a stream.
    Deliver {
        /// The channel's slot.
        slot: Slot,
        /// The channel.
        channel: Channel,
        /// The position that it follows; `None` if the one before it in the same epoch.
        follows: Option<Position>,
        /// The publication.
        publication: Publication,
    },
    /// A publication to an ephemeral channel.
    Ephemeral {
        /// The channel's slot.
        slot: Slot,
        /// The channel.
        channel: Channel,
        /// What.
        message: Arc<Message>,
    },
    /// A client came to (`here`) or left a channel.
    Presence {
        /// The channel's slot.
        slot: Slot,
        /// The channel.
        channel: Channel,
        /// Who.
        info: ClientInfo,
        /// Whether it came.
        here: bool,
    },
    /// What subscribers are told of a user has changed: ask for it.
    UserChanged {
        /// The user's slot.
        slot: Slot,
        /// The user's inbox or status channel.
        channel: Channel,
    },
    /// The stream that the gateway follows can't be continued.
    Lost {
        /// The channel's slot.
        slot: Slot,
        /// The channel.
        channel: Channel,
    },
    /// The answer to a `Digest`, for each slot that the sender owns.
    DigestAnswer {
        /// Slot, whether the interest is equal, fingerprint of the tops of the streams in it and of
        /// what is told of the users in it.
        slots: Vec<(Slot, bool, u64)>,
    },
    /// The sender owns these slots: what waits for them can be sent.
    Owned {
        /// Ranges and the term of the sender's epoch in each.
        slots: Vec<(SlotRange, u64)>,
    },

    // Claims.
    /// Promise these epochs, step down, and say what you have (control lane).
    Prepare {
        /// The claimant's number for the claim.
        claim: u64,
        /// Counts how often this receiver was asked.
        attempt: u32,
        /// Ranges and the term claimed in each.
        slots: Vec<(SlotRange, u64)>,
    },
    /// The answer, in parts (data lane).
    Promise {
        /// The claimant's number.
        claim: u64,
        /// Which question this answers.
        attempt: u32,
        /// Counts the parts from 0: one may be lost, and the answer isn't whole then.
        part: u32,
        /// Slots with a higher promise, and that promise.
        rejected: Vec<(Slot, Epoch)>,
        /// Slots of which the sender holds something, with the fingerprint of it.
        digests: Vec<(Slot, u64)>,
        /// The sender's interest in the slots.
        interest: Vec<SlotInterest>,
        /// Live nodes as the sender sees them.
        live: Vec<Incarnation>,
        /// Whether this is the last part.
        last: bool,
    },
    /// Send what the sender lacks of these slots (control lane).
    Pull {
        /// The claimant's number for the claim; 0 = none.
        claim: u64,
        /// Its number for the pull.
        pull: u64,
        /// For each slot the streams that the sender has, and up to where.
        slots: Vec<(Slot, Vec<(Channel, Position)>)>,
    },
    /// What was pulled, in parts (bulk lane).
    Pulled {
        /// The claimant's number for the claim.
        claim: u64,
        /// Its number for the pull.
        pull: u64,
        /// Counts the parts.
        number: u64,
        /// Copies of slots or parts of them.
        copies: Vec<SlotCopy>,
        /// Whether this is the last part.
        last: bool,
    },

    /// The claimant has taken this part and all before it (control lane).
    PulledAck {
        /// Its number for the pull.
        pull: u64,
        /// The part; 0 = no more of the pull is wanted.
        number: u64,
    },

    /// What the sender holds of slots that it doesn't own, as fingerprints (control lane).
    Stray {
        /// Slot and fingerprint.
        slots: Vec<(Slot, u64)>,
    },

    /// The sender owns these slots and has what the receiver holds of them (control lane).
    Kept {
        /// Slot and fingerprint, as in `Stray`.
        slots: Vec<(Slot, u64)>,
    },

    // Replication, from an owner to those who hold copies, and back.
    /// The newest changes of slots that the sender owns (data lane).
    Replicate {
        /// One tail a slot.
        tails: Vec<SlotTail>,
    },
    /// Which changes the sender holds; answers `Replicate` (control lane).
    Replicated {
        /// One a slot.
        slots: Vec<TailAck>,
    },
    /// The sender promised these slots to others: the receiver's epoch is over (control lane).
    Fenced {
        /// Slot, and the epoch promised.
        slots: Vec<(Slot, Epoch)>,
    },
    /// Hold a whole copy of these slots: pull what you lack of them (control lane).
    Follow {
        /// One a slot.
        slots: Vec<FollowedSlot>,
    },
    /// The sender holds whole copies, as `Follow` asked (control lane).
    Followed {
        /// Slot, term and number as in `Follow`.
        slots: Vec<(Slot, u64, u64)>,
    },
    /// Is the sender's epoch still the highest that you promised? (control lane)
    Confirm {
        /// The sender's number for the question.
        number: u64,
        /// Slots and the terms of its epochs.
        slots: Vec<(Slot, u64)>,
    },
    /// It is, of these slots; of the others `Fenced` tells (control lane).
    Confirmed {
        /// The asker's number.
        number: u64,
        /// Which, with the terms asked about.
        slots: Vec<(Slot, u64)>,
    },
    /// The receiver, which is joining, holds whole copies of all that the sender owns and that it
    /// will own or follow (control lane).
    Covered,

    // Status.
    /// Say what you say of yourself (control lane).
    Inspect {
        /// The asker's number.
        number: u64,
    },
    /// The answer (control lane).
    Inspected {
        /// The asker's number.
        number: u64,
        /// JSON.
        report: Bytes,
    },
}

/// An operation on a slot, numbered by the gateway that sends it.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Operation {
    /// The slot.
    pub slot: Slot,
    /// The highest epoch of the slot that the sender promised.
    pub epoch: Epoch,
    /// The lowest number that the sender still wants applied.
    pub lowest: u64,
    /// This operation's number.
    pub number: u64,
    /// The channel; the inbox for what concerns a user.
    pub channel: Channel,
    /// The channel's configuration at the sender.
    pub options: ChannelOptions,
    /// What to do.
    pub body: Body,
}

/// What an operation does.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub enum Body {
    /// Publish to the channel.
    Publish {
        /// What.
        message: Arc<Message>,
        /// Publications of one channel with one key are one publication.
        key: Option<Arc<str>>,
    },
    /// Change the record of the user whose inbox the channel is.
    User(UserChange),
}

impl Body {
    /// About its bytes.
    pub fn len(&self) -> usize {
        match self {
            Self::Publish { message, .. } => message.bytes(),
            Self::User(change) => change.len(),
        }
    }

    /// Whether it carries nothing.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// What became of an operation.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
pub enum Outcome {
    /// Applied, now or before, and held by `copies` nodes; the position is unknown if the stream has
    /// dropped it since.
    Published {
        /// Its place.
        position: Option<Position>,
        /// Nodes that are known to hold it, the owner included.
        copies: u8,
    },
    /// A user's record was changed, now or before, and so many nodes hold that.
    Changed {
        /// Nodes that are known to hold it, the owner included.
        copies: u8,
    },
    /// Earlier numbers are missing: send again from this one.
    Expected(u64),
    /// Not here.
    NotOwner(Option<Incarnation>),
    /// Not applied.
    Failed(ErrorCode),
}

/// A question to the owner of a channel.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub enum Query {
    /// Deliver to the asking gateway from now on; `info` joins the presence.
    Subscribe {
        /// Present if the channel has presence or announces.
        info: Option<ClientInfo>,
        /// What the client has seen.
        recover: Recover,
    },
    /// The gateway itself lost its place.
    Resume(Position),
    /// Read a stream.
    History(History),
    /// Who is there.
    Presence,
    /// How many are there.
    PresenceStats,
    /// What subscribers are told of the user whose inbox or status the channel is.
    User,
    /// The user's attributes, or the one of a key.
    Attributes(Option<Arc<str>>),
}

/// The answer to a question.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub enum Answer {
    /// To `Subscribe` and `Resume`: deliveries behind this answer follow `position`.
    Subscribed {
        /// Where the stream stands; `None` for ephemeral channels.
        position: Option<Position>,
        /// Whether `publications` is all that was missed.
        recovered: bool,
        /// What was missed.
        publications: Vec<Publication>,
        /// What subscribers are told of the user, if it is an inbox or a status channel.
        user: UserState,
    },
    /// To `History`.
    History {
        /// In the order asked for.
        publications: Vec<Publication>,
        /// The stream's top.
        position: Position,
    },
    /// To `Presence`.
    Presence(Vec<ClientInfo>),
    /// To `PresenceStats`.
    PresenceStats {
        /// Connections.
        clients: u64,
        /// Different users.
        users: u64,
    },
    /// To `User`.
    User(UserState),
    /// To `Attributes`: keys and JSON.
    Attributes(Vec<(Arc<str>, Bytes)>),
    /// Not done.
    Failed(ErrorCode),
}

/// A gateway's interest in one slot.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct SlotInterest {
    /// The slot.
    pub slot: Slot,
    /// Its channels that have subscribers at the gateway.
    pub channels: Vec<ChannelInterest>,
}

/// A place in a gateway's interest in a slot: channels in their order, each followed by the clients
/// present in it, in theirs.
pub type Mark = (Channel, Option<ClientId>);

/// A part of a gateway's interest in a slot.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Span {
    /// It begins behind this mark; `None` = with the first.
    pub after: Option<Mark>,
    /// It ends with this mark; `None` = with the last.
    pub up_to: Option<Mark>,
}

impl Span {
    /// Whether a channel (`None`) or a client in it lies in the span.
    pub fn covers(&self, channel: &Channel, client: Option<ClientId>) -> bool {
        let mark = (channel, client);
        let begun = self.after.as_ref().is_none_or(|(c, k)| (c, *k) < mark);
        begun && self.up_to.as_ref().is_none_or(|(c, k)| mark <= (c, *k))
    }
}

/// A gateway's interest in one channel.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct ChannelInterest {
    /// The channel.
    pub channel: Channel,
    /// Its configuration at the gateway.
    pub options: ChannelOptions,
    /// How far the gateway has delivered; `None` for ephemeral channels.
    pub position: Option<Position>,
    /// The clients that are present.
    pub present: Vec<ClientInfo>,
}

/// A copy of (a part of) what a node holds of a slot.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct SlotCopy {
    /// The slot.
    pub slot: Slot,
    /// The highest operation number applied of each gateway.
    pub applied: Vec<(Incarnation, u64)>,
    /// Its streams.
    pub streams: Vec<StreamCopy>,
    /// Publications without a place on their channel's line: their turn comes, or theirs parted.
    pub loose: Vec<(Channel, LooseCopy)>,
    /// What idempotency keys stand for.
    pub keys: Vec<KeyCopy>,
    /// Records of users.
    pub users: Vec<UserCopy>,
}

/// A copy of (a part of) a user's record.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct UserCopy {
    /// The user's inbox.
    pub user: Channel,
    /// What it is kept for, in milliseconds.
    pub ttl_ms: u64,
    /// Its fields.
    pub fields: Vec<FieldCopy>,
}

/// The last change of a field of a record.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct FieldCopy {
    /// The change.
    pub stamped: Stamped,
    /// Whether it is committed.
    pub committed: bool,
    /// Milliseconds since it was made.
    pub age_ms: u64,
}

/// A publication beside its channel's line.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct LooseCopy {
    /// The channel's configuration when it was published.
    pub options: ChannelOptions,
    /// The position that it follows on its own line.
    pub follows: Position,
    /// The publication.
    pub entry: EntryCopy,
}

/// An idempotency key that was used.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct KeyCopy {
    /// In which channel.
    pub channel: Channel,
    /// The key.
    pub key: Arc<str>,
    /// The operation that used it first.
    pub operation: OperationId,
    /// Milliseconds until it is forgotten.
    pub ttl_ms: u64,
}

/// Changes of one slot, in order.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct SlotTail {
    /// The slot.
    pub slot: Slot,
    /// The term of the owner's epoch.
    pub term: u64,
    /// The receiver holds changes behind this index, and what was before them once it has followed.
    pub from: u64,
    /// The index of the change before the first of these.
    pub after: u64,
    /// The changes.
    pub changes: Vec<Arc<Change>>,
    /// Changes up to this index are committed.
    pub committed: u64,
}

/// How far a node holds the changes of a slot.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct TailAck {
    /// The slot.
    pub slot: Slot,
    /// The term of the owner's epoch.
    pub term: u64,
    /// As in the tail that is answered.
    pub from: u64,
    /// It holds all changes from there to this index.
    pub index: u64,
    /// Whether changes were missing before those that came.
    pub behind: bool,
}

/// A slot that a node is to hold a whole copy of.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct FollowedSlot {
    /// The slot.
    pub slot: Slot,
    /// The term of the owner's epoch.
    pub term: u64,
    /// The owner's number for the copy; a later one replaces it.
    pub number: u64,
    /// The fingerprint of what the owner holds.
    pub digest: u64,
    /// Whether all of it is committed.
    pub settled: bool,
}

/// One change of what is held of a slot. Only the owner makes changes, each with an index.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub enum Change {
    /// A publication in its place.
    Publish {
        /// The channel.
        channel: Channel,
        /// Its configuration.
        options: ChannelOptions,
        /// The position that it follows; `None` if the one before it in the same epoch.
        follows: Option<Position>,
        /// The publication with its identity.
        entry: EntryCopy,
        /// The idempotency key that it used.
        key: Option<Arc<str>>,
    },
    /// A stream is made, empty.
    Begin {
        /// The channel.
        channel: Channel,
        /// Its configuration.
        options: ChannelOptions,
        /// Its first epoch.
        epoch: StreamEpoch,
    },
    /// A stream is forgotten: it was empty for long.
    Forget {
        /// The channel.
        channel: Channel,
        /// Where it stood.
        position: Position,
    },
    /// A user's record is changed.
    User {
        /// The user's inbox.
        user: Channel,
        /// What a record of it is kept for, in milliseconds.
        ttl_ms: u64,
        /// The operation, unless it was noted before.
        operation: Option<OperationId>,
        /// The change.
        stamped: Stamped,
    },
    /// What was deleted of a user's record up to a stamp is forgotten.
    ForgetUser {
        /// The user's inbox.
        user: Channel,
        /// The last one.
        upto: Stamp,
    },
}

/// A copy of (the end of) a stream.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct StreamCopy {
    /// The channel.
    pub channel: Channel,
    /// Its configuration as of the last publication.
    pub options: ChannelOptions,
    /// Its epochs, oldest first.
    pub lineage: Vec<Turn>,
    /// The offset of its last publication.
    pub top: u64,
    /// Publications up to here are gone.
    pub low: u64,
    /// Publications up to here are committed.
    pub committed: u64,
    /// Milliseconds since something was published or the stream was followed.
    pub idle_ms: u64,
    /// `entries` starts behind this offset.
    pub after: u64,
    /// The publications behind `after`, in order.
    pub entries: Vec<EntryCopy>,
    /// The next part begins with more of them: a stream may be longer than a part.
    pub goes_on: bool,
}

/// An epoch of a stream and the first offset that it names.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Turn {
    /// The epoch.
    pub epoch: StreamEpoch,
    /// Its first offset.
    pub first: u64,
}

/// A publication with its identity and what is left of its time.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct EntryCopy {
    /// The publication under its name.
    pub publication: Publication,
    /// Its identity.
    pub operation: OperationId,
    /// Milliseconds until it expires.
    pub ttl_ms: u64,
}
