//! Questions to the owner of a channel, and their answers. A question may be asked again, of
//! another owner too: unlike an operation it isn't applied once.
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::protocol::codes::ErrorCode;
use crate::protocol::ids::Position;
use crate::protocol::message::{ClientInfo, History, Publication, Recover};
use crate::protocol::user::UserState;

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

impl Query {
    /// About its bytes.
    pub fn bytes(&self) -> usize {
        match self {
            Self::Subscribe { info, .. } => info.as_ref().map_or(0, ClientInfo::bytes),
            Self::Attributes(key) => key.as_ref().map_or(0, |key| key.len()),
            Self::Resume(_)
            | Self::History(_)
            | Self::Presence
            | Self::PresenceStats
            | Self::User => 0,
        }
    }
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
