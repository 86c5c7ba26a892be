//! What an operator can set, where each value came from, and how it is checked. Read by the command
//! line, handed to the node; never changed while a node runs.
//!
//! [`knobs::KNOBS`] lists every key once: file, environment, flags, `config show` and error messages
//! all go by that list.
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::NonZero;
use std::path::PathBuf;
use std::thread::available_parallelism;
use std::time::Duration;

use crate::protocol::ids::{NodeName, SLOTS_DEFAULT};

pub mod address;
pub mod channels;
mod check;
pub mod error;
mod files;
pub mod knobs;
pub mod layers;
pub mod secret;
pub mod setting;
mod show;
#[cfg(test)]
mod tests;

pub use address::{HostPort, MESH_PORT_DEFAULT};
pub use channels::{Channels, Namespace};
pub use error::{ConfigError, Origin, Problem};
pub use layers::{Layers, Surroundings};
pub use secret::SecretText;
pub use setting::MeshListen;

/// Most copies of a publication; the ring keeps one spare beyond them.
pub const COPIES_MAX: u8 = 5;
/// The greatest share of the ring, in units of 256 virtual entries.
pub const WEIGHT_MAX: u16 = 64;

/// Everything that can be set, with defaults, files and checks applied.
#[derive(Clone, PartialEq, Debug)]
pub struct Config {
    /// The operator's name of this node.
    pub name: NodeName,
    /// The cluster's name.
    pub cluster: String,
    /// Where clients and HTTP are served.
    pub listen: SocketAddr,
    /// How others reach what `listen` serves; see [`Config::client_url`].
    pub client_url: Option<String>,
    /// Where peers are served (UDP); see [`Config::mesh_address`].
    pub mesh_listen: Option<MeshListen>,
    /// How peers reach `mesh_listen`.
    pub mesh_advertise: Option<HostPort>,
    /// Peers to ask for the way into the cluster.
    pub join: Vec<HostPort>,
    /// The cluster's secret.
    pub secret: Option<SecretText>,
    /// A file with the cluster's secret.
    pub secret_file: Option<PathBuf>,
    /// The secret before, accepted from peers while it is being replaced.
    pub previous_secret: Option<SecretText>,
    /// A file with the secret before.
    pub previous_secret_file: Option<PathBuf>,
    /// Certificates of an operator's own authority for the links.
    pub tls: Tls,
    /// Units of ownership of the cluster.
    pub slots: u16,
    /// Nodes that a part of the cluster must see to serve without being degraded.
    pub copies: u8,
    /// What a part of the cluster may do alone.
    pub degraded: Degraded,
    /// This node's share of the ring.
    pub weight: u16,
    /// Pause between two rounds of gossip.
    pub gossip_interval: Duration,
    /// How long leaving may take.
    pub drain_timeout: Duration,
    /// Development mode.
    pub dev: bool,
    /// Development mode on addresses outside loopback.
    pub dev_anywhere: bool,
    /// Client connections.
    pub client: Client,
    /// Users without a connection.
    pub session: Session,
    /// Connect tokens.
    pub token: Token,
    /// The server API.
    pub api: Api,
    /// Logs.
    pub log: Log,
    /// Options of channels, namespaces and inboxes.
    pub channels: Channels,
    /// Where each value that isn't a default came from, by key.
    pub origins: BTreeMap<String, Origin>,
}

/// Files (PEM) for links that an operator's own authority vouches for.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Tls {
    /// The authority that peers' certificates must come from.
    pub ca: Option<PathBuf>,
    /// This node's certificate.
    pub cert: Option<PathBuf>,
    /// Its key.
    pub key: Option<PathBuf>,
}

/// What a part of the cluster that sees fewer than `copies` nodes may do.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Degraded {
    /// Serve if it is at least half of the stable membership.
    #[default]
    Half,
    /// Refuse, with a temporary error.
    Refuse,
    /// Serve.
    Accept,
}

/// When users count as gone.
#[derive(Clone, PartialEq, Debug)]
pub struct Session {
    /// How long without a connection they aren't called offline.
    pub offline_after: Duration,
    /// How long what is kept of them outlives their last connection.
    pub ttl: Duration,
}

/// Limits and rights of client connections.
#[derive(Clone, PartialEq, Debug)]
pub struct Client {
    /// Whether clients may connect without a token.
    pub allow_anonymous: bool,
    /// Whether clients may keep attributes of their own user.
    pub allow_sessions: bool,
    /// Whether clients may be told who is connected.
    pub allow_status: bool,
    /// Web origins besides the node's own that may connect.
    pub allowed_origins: Vec<String>,
    /// Connections of this node at most.
    pub connections_max: u32,
    /// How long a connection may stay without credentials.
    pub auth_timeout: Duration,
    /// Pause between pings.
    pub ping_interval: Duration,
    /// How long a pong may take.
    pub pong_timeout: Duration,
    /// Threads that serve connections; 0 = one a core. See [`Client::threads`].
    pub shards: u16,
}

impl Client {
    /// Threads that serve connections, at least 1. With 1 all of the node runs on that thread.
    pub fn threads(&self) -> u16 {
        match self.shards {
            0 => available_parallelism().map_or(1, NonZero::get).try_into().unwrap_or(u16::MAX - 1),
            n => n,
        }
    }
}

/// Connect tokens (JWT).
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Token {
    /// The key of HS256.
    pub hmac_secret: Option<SecretText>,
}

/// The server API.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Api {
    /// Keys that open it; none = closed.
    pub keys: Vec<SecretText>,
}

/// Logs go to standard error.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Log {
    /// What is logged, in the words of `tracing`'s filter.
    pub level: String,
    /// How it looks.
    pub format: LogFormat,
}

/// How log lines look.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            name: "orbweb".parse().expect("a literal of letters is a node name"),
            cluster: "orbweb".to_owned(),
            listen: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8000),
            client_url: None,
            mesh_listen: None,
            mesh_advertise: None,
            join: Vec::new(),
            secret: None,
            secret_file: None,
            previous_secret: None,
            previous_secret_file: None,
            tls: Tls::default(),
            slots: SLOTS_DEFAULT,
            copies: 2,
            degraded: Degraded::default(),
            weight: 1,
            gossip_interval: Duration::from_millis(100),
            drain_timeout: Duration::from_secs(30),
            dev: false,
            dev_anywhere: false,
            client: Client::default(),
            session: Session::default(),
            token: Token::default(),
            api: Api::default(),
            log: Log { level: "info".to_owned(), format: LogFormat::default() },
            channels: Channels::default(),
            origins: BTreeMap::new(),
        }
    }
}

impl Default for Session {
    fn default() -> Self {
        Self { offline_after: Duration::from_secs(10), ttl: Duration::from_secs(120) }
    }
}

impl Default for Client {
    fn default() -> Self {
        Self {
            allow_anonymous: false,
            allow_sessions: false,
            allow_status: false,
            allowed_origins: Vec::new(),
            connections_max: 100_000,
            auth_timeout: Duration::from_secs(10),
            ping_interval: Duration::from_secs(25),
            pong_timeout: Duration::from_secs(8),
            shards: 0,
        }
    }
}

impl Config {
    /// Whether peers are wanted: an address for them, a seed, or a secret is configured.
    pub fn mesh_wanted(&self) -> bool {
        self.mesh_named() || self.has_secret()
    }

    /// Where to listen for peers (UDP); `None` for a node alone.
    pub fn mesh_address(&self) -> Option<SocketAddr> {
        let any = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), MESH_PORT_DEFAULT);
        let configured = self.mesh_listen.map(|listen| listen.0);
        configured.or_else(|| self.mesh_wanted().then_some(any))
    }

    /// The URL that others are told of this node's HTTP side, given the address it is bound to. An
    /// unspecified address (0.0.0.0) is replaced by the host that peers are told, if there is one.
    pub fn client_url(&self, bound: SocketAddr) -> String {
        if let Some(url) = &self.client_url {
            return url.trim_end_matches('/').to_owned();
        }
        if !bound.ip().is_unspecified() {
            return format!("http://{bound}");
        }
        let host = self.mesh_advertise.as_ref().map_or("127.0.0.1", |mesh| mesh.host.as_str());
        format!("http://{}", HostPort { host: host.to_owned(), port: bound.port() })
    }

    /// Where the value of a key came from.
    pub fn origin(&self, key: &str) -> Origin {
        self.origins.get(key).cloned().unwrap_or_default()
    }

    /// What other settings mean for channels. Development mode brings along every right, and a
    /// namespace to chat in unless there is one.
    fn complete_channels(&mut self) {
        self.channels.dev = self.dev;
        self.channels.status.allow_subscribe = self.client.allow_status;
        if self.dev {
            self.channels.namespaces.entry("chat".to_owned()).or_insert_with(Channels::dev_chat);
        }
    }

    /// Whether a seed or an address for peers is configured.
    fn mesh_named(&self) -> bool {
        !self.join.is_empty() || self.mesh_listen.is_some() || self.mesh_advertise.is_some()
    }

    /// Whether a secret is configured, here or in a file.
    fn has_secret(&self) -> bool {
        self.secret.is_some() || self.secret_file.is_some()
    }
}
