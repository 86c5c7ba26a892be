//! Frames between the cores of two nodes, carried by links. A frame to oneself takes the same way
//! without being encoded.
mod change;
mod copy;
mod interest;
mod operation;
mod question;

use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::channel::{Channel, ChannelOptions};
use super::ids::{ClientId, Epoch, Incarnation, Position, Slot};
use super::message::{ClientInfo, Message, Publication};
pub use change::{Change, FollowedSlot, SlotTail, TailAck};
pub use copy::{
    EntryCopy, FieldCopy, KeyCopy, LooseCopy, Side, SidesCopy, SlotCopy, StreamCopy, Turn, UserCopy,
};
pub use interest::{ChannelInterest, Mark, SlotInterest, Span, Vanished};
pub use operation::{Body, Operation, Outcome};
pub use question::{Answer, Query};

/// Longest frame: an answer with as many publications of the greatest length as one carries.
pub const FRAME_BYTES_MAX: usize = 24 << 20;
/// In place of a fingerprint in a `DigestAnswer`: nobody has asked, and the receiver lacks something.
pub const UNASKED: u64 = 0;

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
        /// what is told of the users in it, or [`UNASKED`].
        slots: Vec<(Slot, bool, u64)>,
    },
    /// The sender owns these slots: what waits for them can be sent.
    Owned {
        /// Ranges and the term of the sender's epoch in each.
        slots: Vec<(SlotRange, u64)>,
        /// As the sender sees the view, they belong to whom it tells: they can be claimed back.
        yours: bool,
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
        /// Members that it saw vanish a moment ago.
        vanished: Vec<Vanished>,
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
        /// Slot and fingerprint, as in `Stray`, and whether the receiver holds all that the sender does
        /// of the slot, too.
        slots: Vec<(Slot, u64, bool)>,
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
