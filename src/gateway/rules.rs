//! What holds for every connection of a node: configuration, limits, times. Made once at start.
use std::time::Duration;

use thiserror::Error;

use crate::config::channels::{Channels, Namespace};
use crate::protocol::channel::Channel;
use crate::protocol::ids::NodeName;
use crate::protocol::time::{self, WallClock};

use super::token::TokenVerifier;

/// Channels of one connection, server-side ones included.
pub const CHANNELS_MAX: usize = 128;
/// Requests of one connection that wait for the cores; more get temporary error 111.
pub const REQUESTS_MAX: usize = 256;
/// Publications in one reply to `history`.
pub const HISTORY_MAX: u32 = 300;
/// Payload bytes in one reply to `history`; clients page on from the last publication they got.
pub const HISTORY_BYTES_MAX: usize = 512 * 1024;

/// What a gateway is started with.
#[derive(Debug, Clone)]
pub struct GatewayConfig {
    /// The node's name, told to clients.
    pub node: NodeName,
    /// The version, told to clients.
    pub version: String,
    /// What clients may do. Its `dev` also takes user ids without a token.
    pub channels: Channels,
    /// The secret that connect tokens are signed with; `None` = no token is accepted.
    pub token_secret: Option<Vec<u8>>,
    /// Whether clients without a token are let in with an empty user id. Default no.
    pub allow_anonymous: bool,
    /// Whether clients may keep attributes of their own user. Default no.
    pub allow_sessions: bool,
    /// Where browsers may come from.
    pub origins: Origins,
    /// How many may be connected.
    pub limits: Limits,
    /// When silence ends a connection.
    pub times: Times,
    /// What credentials are checked by, and publications are stamped with.
    pub wall: WallClock,
}

/// A gateway's configuration contradicts itself.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ConfigError {
    /// SDKs count pings in whole seconds and expect the next one in time.
    #[error(
        "pong_timeout ({pong:?}) must be shorter than ping_interval ({ping:?}), which must be whole seconds"
    )]
    Times {
        /// Configured.
        pong: Duration,
        /// Configured.
        ping: Duration,
    },
    /// An empty secret would accept tokens of anybody.
    #[error("the token secret is empty: leave it out to accept no tokens")]
    EmptySecret,
}

impl GatewayConfig {
    /// Safe defaults: no token is accepted, nobody is anonymous.
    pub fn new(node: NodeName, channels: Channels) -> Self {
        Self {
            node,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            channels,
            token_secret: None,
            allow_anonymous: false,
            allow_sessions: false,
            origins: Origins::default(),
            limits: Limits::default(),
            times: Times::default(),
            wall: time::wall,
        }
    }

    pub(super) fn rules(self) -> Result<Rules, ConfigError> {
        let Times { ping_interval: ping, pong_timeout: pong, .. } = self.times;
        if pong >= ping || ping.subsec_nanos() != 0 {
            return Err(ConfigError::Times { pong, ping });
        }
        if self.token_secret.as_ref().is_some_and(Vec::is_empty) {
            return Err(ConfigError::EmptySecret);
        }
        let tokens = self.token_secret.as_deref().map(TokenVerifier::new);
        Ok(Rules {
            node: self.node,
            version: self.version,
            channels: self.channels,
            tokens,
            allow_anonymous: self.allow_anonymous,
            allow_sessions: self.allow_sessions,
            origins: self.origins,
            limits: self.limits,
            times: self.times,
            wall: self.wall,
        })
    }
}

/// Where browsers may come from: the `Origin` header of their handshake. Programs send none and are
/// let in.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Origins {
    /// Pages of the host that the handshake itself names.
    #[default]
    SameHost,
    /// These, such as `https://example.org`, beside pages of the same host.
    Listed(Vec<String>),
    /// All.
    Any,
}

/// How many may be connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Connections of the node; more get HTTP status 503.
    pub connections_max: usize,
    /// Connections from one address. Behind a proxy all clients have one, so the default doesn't
    /// limit them further.
    pub connections_per_ip_max: usize,
    /// HTTP connections that aren't WebSockets (yet).
    pub http_max: usize,
    /// The same from one address.
    pub http_per_ip_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        let (connections_max, http_max) = (200_000, 8192);
        Self {
            connections_max,
            connections_per_ip_max: connections_max,
            http_max,
            http_per_ip_max: 1024,
        }
    }
}

/// When silence ends a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Times {
    /// Between two pings, in whole seconds.
    pub ping_interval: Duration,
    /// For the answer to one; shorter than the interval.
    pub pong_timeout: Duration,
    /// For authenticating, from the handshake on.
    pub connect_timeout: Duration,
}

impl Default for Times {
    fn default() -> Self {
        Self {
            ping_interval: Duration::from_secs(25),
            pong_timeout: Duration::from_secs(8),
            connect_timeout: Duration::from_secs(10),
        }
    }
}

/// The checked form.
#[derive(Debug)]
pub(super) struct Rules {
    pub(super) node: NodeName,
    pub(super) version: String,
    pub(super) channels: Channels,
    pub(super) tokens: Option<TokenVerifier>,
    pub(super) allow_anonymous: bool,
    pub(super) allow_sessions: bool,
    pub(super) origins: Origins,
    pub(super) limits: Limits,
    pub(super) times: Times,
    wall: WallClock,
}

impl Rules {
    /// Wall-clock milliseconds, for credentials and for display.
    pub(super) fn unix_ms(&self) -> u64 {
        u64::try_from((self.wall)().as_millis()).unwrap_or(u64::MAX)
    }

    /// The namespace of a channel, with everything allowed in development.
    pub(super) fn of(&self, channel: &Channel) -> Option<Namespace> {
        let mut namespace = self.channels.of(channel)?.clone();
        if self.channels.dev {
            namespace.allow_subscribe = true;
            // A status is what the owner sees.
            namespace.allow_publish = channel.status_user().is_none();
            namespace.allow_presence = true;
            namespace.allow_history = true;
        }
        Some(namespace)
    }
}
