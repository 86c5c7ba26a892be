//! Every number that a client can see, with what it tells the SDK to do.
use serde::{Deserialize, Serialize};

/// An error in a reply. Temporary ones are retried by SDKs.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[repr(u32)]
pub enum ErrorCode {
    /// Something here isn't ready or failed; try again.
    Internal = 100,
    /// No or bad credentials.
    Unauthorized = 101,
    /// No such channel or namespace.
    UnknownChannel = 102,
    /// Configuration or token doesn't allow it.
    PermissionDenied = 103,
    /// No such RPC or API method.
    MethodNotFound = 104,
    /// The connection is subscribed to this channel already.
    AlreadySubscribed = 105,
    /// A size or count is over its limit.
    LimitExceeded = 106,
    /// The request can't be understood.
    BadRequest = 107,
    /// The channel doesn't have this feature.
    NotAvailable = 108,
    /// The token's time is over; SDKs ask for a new one.
    TokenExpired = 109,
    /// The connection's or subscription's time is over.
    Expired = 110,
    /// Too many requests at the moment; try again.
    TooManyRequests = 111,
    /// The position can't be recovered, and the client asked to be told.
    UnrecoverablePosition = 112,
}

impl ErrorCode {
    /// The number on the wire.
    pub fn code(self) -> u32 {
        self as u32
    }

    /// The text on the wire.
    pub fn message(self) -> &'static str {
        match self {
            Self::Internal => "internal server error",
            Self::Unauthorized => "unauthorized",
            Self::UnknownChannel => "unknown channel",
            Self::PermissionDenied => "permission denied",
            Self::MethodNotFound => "method not found",
            Self::AlreadySubscribed => "already subscribed",
            Self::LimitExceeded => "limit exceeded",
            Self::BadRequest => "bad request",
            Self::NotAvailable => "not available",
            Self::TokenExpired => "token expired",
            Self::Expired => "expired",
            Self::TooManyRequests => "too many requests",
            Self::UnrecoverablePosition => "unrecoverable position",
        }
    }

    /// Whether SDKs retry by themselves.
    pub fn temporary(self) -> bool {
        matches!(self, Self::Internal | Self::TooManyRequests)
    }
}

/// Why the server ended one subscription. Codes from 2500 make SDKs subscribe again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum Unsubscribe {
    /// The server or its API said so; the SDK stays unsubscribed.
    Server = 2000,
    /// The stream can't be continued here; the SDK subscribes again and recovers.
    InsufficientState = 2500,
    /// The subscription's time is over.
    Expired = 2501,
}

impl Unsubscribe {
    /// The number on the wire.
    pub fn code(self) -> u32 {
        self as u32
    }

    /// The text on the wire.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Server => "server unsubscribe",
            Self::InsufficientState => "insufficient state",
            Self::Expired => "subscription expired",
        }
    }
}

/// Why the server closed a connection: the WebSocket close code. SDKs connect again unless
/// [`Disconnect::reconnect`] is false.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u16)]
pub enum Disconnect {
    /// The node is shutting down.
    Shutdown = 3001,
    /// Something failed here.
    ServerError = 3004,
    /// The connection's credentials ran out.
    Expired = 3005,
    /// A subscription's credentials ran out.
    SubscriptionExpired = 3006,
    /// The client reads too slowly: its outbox is full.
    Slow = 3008,
    /// Writing to the client failed.
    WriteError = 3009,
    /// A server-side subscription can't be continued.
    InsufficientState = 3010,
    /// The server wants the client to connect again, perhaps elsewhere.
    ForceReconnect = 3011,
    /// No pong within the time allowed.
    NoPong = 3012,
    /// Too many requests.
    TooManyRequests = 3013,
    /// The token is invalid.
    InvalidToken = 3500,
    /// The client broke the protocol.
    BadRequest = 3501,
    /// The client didn't authenticate in time.
    Stale = 3502,
    /// The server's API said so.
    ForceDisconnect = 3503,
    /// Too many connections.
    ConnectionLimit = 3504,
    /// Too many channels on one connection.
    ChannelLimit = 3505,
    /// The endpoint doesn't speak the protocol asked for.
    InappropriateProtocol = 3506,
    /// Not allowed.
    PermissionDenied = 3507,
    /// The feature isn't there.
    NotAvailable = 3508,
    /// Too many errors.
    TooManyErrors = 3509,
}

impl Disconnect {
    /// The close code.
    pub fn code(self) -> u16 {
        self as u16
    }

    /// The close reason.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Shutdown => "shutdown",
            Self::ServerError => "internal server error",
            Self::Expired => "connection expired",
            Self::SubscriptionExpired => "subscription expired",
            Self::Slow => "slow",
            Self::WriteError => "write error",
            Self::InsufficientState => "insufficient state",
            Self::ForceReconnect => "force reconnect",
            Self::NoPong => "no pong",
            Self::TooManyRequests => "too many requests",
            Self::InvalidToken => "invalid token",
            Self::BadRequest => "bad request",
            Self::Stale => "stale",
            Self::ForceDisconnect => "force disconnect",
            Self::ConnectionLimit => "connection limit",
            Self::ChannelLimit => "channel limit",
            Self::InappropriateProtocol => "inappropriate protocol",
            Self::PermissionDenied => "permission denied",
            Self::NotAvailable => "not available",
            Self::TooManyErrors => "too many errors",
        }
    }

    /// Whether SDKs connect again by themselves: 3500 to 3999 end for good.
    pub fn reconnect(self) -> bool {
        !(3500..4000).contains(&self.code())
    }
}
