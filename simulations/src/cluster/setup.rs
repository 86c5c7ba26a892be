//! The sizes of a run, drawn from the seed, and the configuration that its nodes ship with.
use std::net::{Ipv4Addr, SocketAddr};
use std::ops::{Range, RangeInclusive};
use std::time::Duration;

use jsonwebtoken::{Algorithm, EncodingKey, Header};
use orbweb::config::{self, Config, HostPort, MeshListen, Namespace, SecretText};
use orbweb::ownership::stream::READ_LEN_MAX;
use orbweb::protocol::channel::Channel;
use orbweb::protocol::link::{PROTOCOL_MAX, PROTOCOL_MIN};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::conditions::Weather;

/// The secret of the cluster: 32 bytes in base64.
pub(crate) const SECRET: &str = "b3JicyBvZiBzaWxrIGluIHRoZSBkZXcgYXQgZGF3bi4=";
/// The secret of a cluster that has nothing to do with this one.
const SECRET_OF_STRANGERS: &str = "YW5vdGhlciB3ZWIsIGluIGFub3RoZXIgb2xkIGJhcm4=";
/// The key of connect tokens: 32 bytes or more, as nodes ask for.
pub(crate) const TOKEN_KEY: &str = "who are you, and who says so beside you?";
const CLIENT_PORT: u16 = 8_000;
const MESH_PORT: u16 = 7_400;
/// How long it takes until clients are served again when a fault has ended, at most.
const BACK_MS: u64 = 1_000;
/// How long publications are kept, so that none is forgotten within a run; and so that many are.
pub(crate) const KEPT_FOR: Duration = Duration::from_secs(600);
const SHORT: Duration = Duration::from_secs(10);
/// How many of a channel are kept, so that none is dropped within a run; and so that many are.
pub(crate) const KEPT: u32 = 10_000;
const FEW: u32 = 10;
/// Bytes of a large publication.
const LARGE_BYTES: usize = 16_000;
/// Nodes that may join those of the start.
const GUESTS_MAX: usize = 5;
/// Nodes of another cluster, if there is one.
const STRANGERS: usize = 3;

/// See the module.
#[derive(Clone, Debug)]
pub(crate) struct Setup {
    pub(crate) nodes: usize,
    pub(crate) copies: u8,
    pub(crate) slots: u16,
    /// Shards of each gateway.
    pub(crate) shards: u16,
    pub(crate) clients: usize,
    /// Whom clients belong to; some have two, and every fourth client belongs to nobody.
    pub(crate) users: usize,
    pub(crate) channels: usize,
    /// Channels of each client.
    pub(crate) subscriptions: usize,
    /// Between two publications of a client, on average.
    pub(crate) pace_ms: u64,
    /// Bytes that a publication's payload has more than it needs.
    pub(crate) padding: usize,
    /// How many publications of a channel are kept, and how long.
    pub(crate) kept: u32,
    pub(crate) kept_for: Duration,
    /// Whether clients keep attributes of their users.
    pub(crate) attributes: bool,
    pub(crate) weather: Weather,
    /// The versions of peer frames that nodes speak which start from now on.
    pub(crate) versions: RangeInclusive<u16>,
    /// Whether the machines' clocks differ.
    pub(crate) skewed: bool,
    /// Nodes of another cluster, on the machines behind those of the nodes and with their names. All
    /// of both clusters are told to join all others.
    pub(crate) strangers: usize,
}

impl Setup {
    pub(crate) fn draw(seed: u64) -> Self {
        let mut random = StdRng::seed_from_u64(seed ^ 0x5e70);
        let shortest = random.random_range(1..=2);
        let clients = random.random_range(20..=30);
        Self {
            nodes: 5,
            copies: random.random_range(2..=3),
            slots: 1 << random.random_range(6..=10),
            shards: random.random_range(1..=2),
            clients,
            users: clients / 2,
            channels: random.random_range(10..=16),
            subscriptions: random.random_range(2..=3),
            pace_ms: random.random_range(80..=100),
            padding: 0,
            kept: KEPT,
            kept_for: KEPT_FOR,
            attributes: false,
            weather: Weather {
                latency_ms: (shortest, shortest + random.random_range(0..=4)),
                ..Weather::default()
            },
            versions: PROTOCOL_MIN..=PROTOCOL_MAX,
            skewed: false,
            strangers: 0,
        }
    }

    /// With other numbers of nodes and clients.
    pub(crate) fn resized(mut self, nodes: Option<usize>, clients: Option<usize>) -> Self {
        self.nodes = nodes.unwrap_or(self.nodes);
        if let Some(clients) = clients {
            (self.clients, self.users) = (clients, clients.div_ceil(2));
        }
        self
    }

    /// With all clients in one channel, which publish twice as often.
    pub(crate) fn in_one_channel(self) -> Self {
        Self { channels: 1, subscriptions: 1, pace_ms: self.pace_ms / 2, ..self }
    }

    /// With large publications: a client that reads nothing is owed more than a node keeps for it within
    /// seconds.
    pub(crate) fn with_large_publications(self) -> Self {
        Self { padding: LARGE_BYTES, ..self }
    }

    /// With publications that are soon forgotten.
    pub(crate) fn with_short_histories(self) -> Self {
        Self { kept_for: SHORT, ..self }
    }

    /// With channels that keep few publications, in clusters of which each half has enough nodes for
    /// all copies.
    pub(crate) fn with_small_histories(self) -> Self {
        Self { kept: FEW, copies: 2, ..self }
    }

    /// With attributes.
    pub(crate) fn with_attributes(self) -> Self {
        Self { attributes: true, ..self }
    }

    /// On machines whose clocks differ.
    pub(crate) fn with_clocks_that_differ(self) -> Self {
        Self { skewed: true, ..self }
    }

    /// Beside another cluster.
    pub(crate) fn with_strangers(self) -> Self {
        Self { strangers: STRANGERS, ..self }
    }

    /// The machines of the other cluster.
    pub(crate) fn strangers(&self) -> Range<usize> {
        self.nodes..self.nodes + self.strangers
    }

    /// There are so many machines, of which not all run nodes.
    pub(crate) fn machines(&self) -> usize {
        self.nodes + GUESTS_MAX
    }

    pub(crate) fn channel(&self, number: usize) -> Channel {
        let name = format!("chat:{}", number % self.channels);
        Channel::parse(&name).expect("a name of a few letters")
    }

    /// The user that a client belongs to.
    pub(crate) fn user(&self, client: usize) -> Option<String> {
        (!client.is_multiple_of(4)).then(|| format!("u{}", client % self.users))
    }

    /// What shows that.
    pub(crate) fn token(user: &str) -> anyhow::Result<String> {
        let key = EncodingKey::from_secret(TOKEN_KEY.as_bytes());
        let claims = serde_json::json!({ "sub": user });
        Ok(jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &key)?)
    }

    /// How long a client may be away, in milliseconds, so that one answer carries all that it missed
    /// of a channel that is twice as busy as the others.
    pub(crate) fn absence_ms_max(&self) -> u64 {
        let busiest = 2 * self.clients as u64;
        READ_LEN_MAX as u64 * self.pace_ms * self.channels as u64 / busiest
    }

    /// The longest fault, in milliseconds, that no client misses more by than that.
    pub(crate) fn outage_ms_max(&self) -> u64 {
        self.absence_ms_max().saturating_sub(BACK_MS)
    }

    /// The configuration of a node of the other cluster, by its machine.
    pub(super) fn config_of_stranger(&self, machine: usize) -> Config {
        Config {
            name: name(machine - self.nodes).parse().expect("a letter and a number"),
            secret: Some(SecretText::new(SECRET_OF_STRANGERS)),
            ..self.config(machine, true)
        }
    }

    /// The node's configuration; it finds the others if it is to join.
    pub(crate) fn config(&self, node: usize, join: bool) -> Config {
        let chat = Namespace {
            history_size: self.kept,
            history_ttl: self.kept_for,
            recovery: true,
            allow_subscribe: true,
            allow_publish: true,
            presence: true,
            allow_presence: true,
            ..Namespace::default()
        };
        let inbox = Namespace { presence: false, allow_presence: false, ..chat.clone() };
        let all = self.nodes + self.strangers;
        let seeds = (0..all).filter(|other| join && *other != node);
        let mut config = Config {
            name: name(node).parse().expect("a letter and a number"),
            listen: client_address(node),
            mesh_listen: Some(MeshListen(mesh_address(node))),
            join: seeds.map(|other| seed(mesh_address(other))).collect(),
            secret: Some(SecretText::new(SECRET)),
            slots: self.slots,
            copies: self.copies,
            client: config::Client {
                allow_anonymous: true,
                allow_sessions: self.attributes,
                shards: self.shards,
                ..config::Client::default()
            },
            ..Config::default()
        };
        config.token.hmac_secret = Some(SecretText::new(TOKEN_KEY));
        config.channels.inbox = inbox;
        config.channels.namespaces.insert("chat".to_owned(), chat);
        config
    }
}

fn seed(address: SocketAddr) -> HostPort {
    HostPort { host: address.ip().to_string(), port: address.port() }
}

pub(crate) fn name(node: usize) -> String {
    format!("n{node}")
}

/// A user's own channel, to which the server subscribes all that belong to the user.
pub(crate) fn inbox(user: &str) -> Channel {
    Channel::parse(&format!("#{user}")).expect("a name of a few letters")
}

/// The machine of a node.
pub(super) fn host(node: usize) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, 0, node as u8 + 1)
}

/// Whose machine that is.
pub(super) fn node_of(host: Ipv4Addr) -> usize {
    usize::from(host.octets()[3]).saturating_sub(1)
}

pub(super) fn client_address(node: usize) -> SocketAddr {
    (host(node), CLIENT_PORT).into()
}

pub(super) fn mesh_address(node: usize) -> SocketAddr {
    (host(node), MESH_PORT).into()
}
