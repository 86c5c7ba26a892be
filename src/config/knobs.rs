//! The one list of everything that can be set. Reading, showing, checking single values and the
//! documentation go by it; what concerns two knobs is in `check`.
use std::time::Duration;

use toml::Value;

use super::setting::{Raw, Setting};
use super::{COPIES_MAX, Config, Namespace, WEIGHT_MAX};

/// Prefix of environment variables.
pub const ENV_PREFIX: &str = "ORBWEB_";
/// Publications that a channel may be configured to keep: bounds a stream's memory.
const HISTORY_SIZE_MAX: u32 = 100_000;
/// How long they may be configured to be kept: streams are in memory, not an archive.
const HISTORY_TTL_MAX: Duration = Duration::from_secs(30 * 24 * 3600);
/// Shortest key of HS256: RFC 7518, section 3.2, asks for the size of the hash.
const HMAC_SECRET_BYTES_MIN: usize = 32;
/// Shortest API key: it opens everything, and its guesses aren't limited.
const API_KEY_BYTES_MIN: usize = 16;
/// Longest drain: beyond it, an operator wants an end.
const DRAIN_TIMEOUT_MAX: Duration = Duration::from_secs(3600);

/// A key that can be set in a `T`.
pub struct Knob<T: 'static> {
    /// The key in the file, with dots for tables.
    pub key: &'static str,
    /// What it takes: "must be …".
    pub allowed: &'static str,
    /// What it does, its unit, what it trades, how it relates to others.
    pub doc: &'static str,
    write: fn(&mut T, Raw<'_>) -> bool,
    read: fn(&T) -> Option<Value>,
}

impl<T> Knob<T> {
    /// Sets the value; false if it isn't allowed, and then nothing changes.
    pub fn set(&self, target: &mut T, raw: Raw<'_>) -> bool {
        (self.write)(target, raw)
    }

    /// The value, secrets masked; `None` if nothing is set.
    pub fn get(&self, target: &T) -> Option<Value> {
        (self.read)(target)
    }
}

impl Knob<Config> {
    /// The environment variable that sets it.
    pub fn env(&self) -> String {
        format!("{ENV_PREFIX}{}", self.key.to_ascii_uppercase().replace('.', "_"))
    }

    /// Whether its value mustn't be shown.
    pub fn secret(&self) -> bool {
        matches!(self.key, "secret" | "previous_secret" | "token.hmac_secret" | "api.keys")
    }
}

/// What the type of a field takes.
const fn allowed_of<T, F: Setting>(_: fn(&T) -> &F) -> &'static str {
    F::ALLOWED
}

macro_rules! knob {
    ($in:ty, $key:literal, $($field:ident).+, $doc:literal) => {
        knob!($in, $key, $($field).+, $doc, allowed_of(|it: &$in| &it.$($field).+), |_| true)
    };
    ($in:ty, $key:literal, $($field:ident).+, $doc:literal, $allowed:expr, $fits:expr) => {
        Knob {
            key: $key,
            allowed: $allowed,
            doc: $doc,
            write: |it: &mut $in, raw| {
                let value = Setting::read(raw);
                let value = value.filter(fitting(|it: &$in| &it.$($field).+, $fits));
                let Some(value) = value else { return false };
                it.$($field).+ = value;
                true
            },
            read: |it: &$in| it.$($field).+.show(),
        }
    };
}

/// Ties the type of a check to that of the field it is for.
fn fitting<T, F>(_: fn(&T) -> &F, fits: fn(&F) -> bool) -> fn(&F) -> bool {
    fits
}

/// All keys but those of channels, in the order of `config show`: plain ones first, then tables.
pub const KNOBS: &[Knob<Config>] = &[
    knob!(
        Config,
        "name",
        name,
        "This node's name, unique in the cluster. Places on the ring follow it, so keep it over restarts. Default: the host's name, with the port of `listen` behind it unless that is 8000."
    ),
    knob!(
        Config,
        "cluster",
        cluster,
        "The cluster's name. Nodes of another one are refused.",
        "1 to 64 letters, digits, dots, dashes and underscores",
        |name| name.parse::<crate::protocol::ids::NodeName>().is_ok()
    ),
    knob!(
        Config,
        "listen",
        listen,
        "Address and TCP port for clients and HTTP: WebSocket, server API, health, metrics. Outside loopback, put TLS in front of it."
    ),
    knob!(
        Config,
        "client_url",
        client_url,
        "How others reach what `listen` serves, such as https://eu1.example.org; told to other nodes and shown by `orbweb status`. Default: made of `listen`.",
        "a URL that begins with http:// or https://",
        |url| url.as_ref().is_none_or(|url| is_http_url(url))
    ),
    knob!(
        Config,
        "mesh_listen",
        mesh_listen,
        "Address and UDP port for peers; TCP on the same number is optional and tells of dead processes sooner. Needs a secret. Default: 0.0.0.0:7400 if there is a secret, else none."
    ),
    knob!(
        Config,
        "mesh_advertise",
        mesh_advertise,
        "How peers reach `mesh_listen` if not at that very address: behind address translation, in containers. Needs a secret."
    ),
    knob!(
        Config,
        "join",
        join,
        "Peers to ask for the way into the cluster; one that is up is enough. Names are looked up every 10 s, and every second while one of them never had an answer. Without any, the node starts a cluster of its own. Needs a secret.",
        "a list of HOST:PORT or HOST (port 7400)",
        |_| true
    ),
    knob!(
        Config,
        "secret",
        secret,
        "The cluster's secret, the same on all nodes, as `orbweb secret` makes it. Prefer `secret_file`: a file can be kept from other users."
    ),
    knob!(
        Config,
        "secret_file",
        secret_file,
        "A file with the cluster's secret. Excludes `secret`."
    ),
    knob!(
        Config,
        "previous_secret",
        previous_secret,
        "The secret before, accepted from peers while it is being replaced node by node."
    ),
    knob!(
        Config,
        "previous_secret_file",
        previous_secret_file,
        "A file with the secret before. Excludes `previous_secret`."
    ),
    knob!(
        Config,
        "slots",
        slots,
        "Units of ownership; the same on all nodes, never changed in a running cluster. More spread load more evenly over many nodes and cost some memory.",
        "a whole number from 16 to 65535",
        |slots| *slots >= 16
    ),
    knob!(
        Config,
        "copies",
        copies,
        "How many nodes hold a publication to a channel with history before it is acknowledged; the same on all nodes. All of them but one may die at once without a loss. More cost traffic and memory; 1 = the owner alone.",
        "a whole number from 1 to 5",
        |copies| (1..=COPIES_MAX).contains(copies)
    ),
    knob!(
        Config,
        "degraded",
        degraded,
        "What a node does that sees fewer nodes than `copies`: serve with fewer copies, and say so, it sees at least half of the stable membership for 3 s (half), never (refuse), always after 3 s (accept). Accept stays available on both sides of a split, which then take publications apart from each other."
    ),
    knob!(
        Config,
        "weight",
        weight,
        "This node's share of the ring relative to others.",
        "a whole number from 1 to 64",
        |weight| (1..=WEIGHT_MAX).contains(weight)
    ),
    knob!(
        Config,
        "gossip_interval",
        gossip_interval,
        "Pause between two rounds of gossip. Shorter notices dead nodes sooner and costs traffic; from 100 nodes on, 200ms to 250ms is right.",
        "a duration from 20ms to 5s",
        |pause| (Duration::from_millis(20)..=Duration::from_secs(5)).contains(pause)
    ),
    knob!(
        Config,
        "drain_timeout",
        drain_timeout,
        "How long a node that was told to stop may hand over slots and close connections before it exits anyway. Give the service manager more than this.",
        "a duration from 0s to 1h",
        |limit| *limit <= DRAIN_TIMEOUT_MAX
    ),
    knob!(
        Config,
        "dev",
        dev,
        "Development mode: users are who they say they are, clients may do everything, `/demo` is served and a namespace `chat` exists. Only on loopback, unless `dev_anywhere`."
    ),
    knob!(
        Config,
        "dev_anywhere",
        dev_anywhere,
        "Allows `dev` on an address outside loopback, for trusted networks."
    ),
    knob!(
        Config,
        "tls.ca",
        tls.ca,
        "Authority (PEM) that peers' certificates must come from, in place of one derived from the secret. With `tls.cert` and `tls.key`."
    ),
    knob!(
        Config,
        "tls.cert",
        tls.cert,
        "This node's certificate (PEM) for peers. With `tls.ca` and `tls.key`."
    ),
    knob!(Config, "tls.key", tls.key, "The key (PEM) of `tls.cert`."),
    knob!(
        Config,
        "client.allow_anonymous",
        client.allow_anonymous,
        "Whether clients may connect without a token, as a user with an empty name."
    ),
    knob!(
        Config,
        "client.allow_sessions",
        client.allow_sessions,
        "Whether clients with a user name may keep attributes of their own user, by the RPC methods `session_set`, `session_get` and `session_delete`. The server API may always. On in `dev`."
    ),
    knob!(
        Config,
        "client.allow_status",
        client.allow_status,
        "Whether clients may subscribe to `@USER`, where they are told whether that user is connected. On in `dev`."
    ),
    knob!(
        Config,
        "client.allowed_origins",
        client.allowed_origins,
        "Web origins besides the node's own whose pages may connect; \"*\" = any. Requests without an Origin header aren't browsers' and pass.",
        "a list of origins such as https://example.org, or \"*\"",
        |origins| origins.iter().all(|o| o == "*" || is_origin(o))
    ),
    knob!(
        Config,
        "client.connections_max",
        client.connections_max,
        "Connections of this node; more are refused. Bounds memory and file descriptors.",
        "a whole number from 1",
        |n| *n >= 1
    ),
    knob!(
        Config,
        "client.auth_timeout",
        client.auth_timeout,
        "How long a connection may stay without having connected (close code 3502).",
        "a duration from 100ms to 5m",
        |t| (Duration::from_millis(100)..=Duration::from_secs(300)).contains(t)
    ),
    knob!(
        Config,
        "client.ping_interval",
        client.ping_interval,
        "Pause between pings. Longer costs less; proxies close connections that are silent for too long. Longer than `client.pong_timeout`.",
        "a duration from 1s to 10m in whole seconds",
        |t| {
            let within = (Duration::from_secs(1)..=Duration::from_secs(600)).contains(t);
            // Clients are told it as a number of seconds.
            within && t.subsec_nanos() == 0
        }
    ),
    knob!(
        Config,
        "client.pong_timeout",
        client.pong_timeout,
        "How long a pong may take (close code 3012).",
        "a duration from 100ms to 5m",
        |t| (Duration::from_millis(100)..=Duration::from_secs(300)).contains(t)
    ),
    knob!(
        Config,
        "client.shards",
        client.shards,
        "Threads that serve connections; 0 = one a core. Where that makes 1, all else of the node runs on the same thread: least CPU a message, and one core at most.",
        "a whole number from 0 to 1024",
        |n| *n <= 1024
    ),
    knob!(
        Config,
        "session.offline_after",
        session.offline_after,
        "How long a user may be without a connection before they are called offline; the same on all nodes. Longer hides more reconnects, shorter tells sooner.",
        "a duration from 1s to 10m",
        |t| (Duration::from_secs(1)..=Duration::from_secs(600)).contains(t)
    ),
    knob!(
        Config,
        "session.ttl",
        session.ttl,
        "How long subscriptions made by the server API and attributes outlive a user's last connection and last change; the same on all nodes. Longer than `session.offline_after`.",
        "a duration from 10s to 7days",
        |t| (Duration::from_secs(10)..=Duration::from_secs(7 * 24 * 3600)).contains(t)
    ),
    knob!(
        Config,
        "token.hmac_secret",
        token.hmac_secret,
        "Key of connect tokens (JWT, HS256), shared with whoever issues them. `orbweb token` issues some for trying out.",
        "text of at least 32 bytes",
        |key| key.as_ref().is_none_or(|key| key.expose().len() >= HMAC_SECRET_BYTES_MIN)
    ),
    knob!(
        Config,
        "api.keys",
        api.keys,
        "Keys that open the server API, several so that they can be replaced; `orbweb status` uses the first. Without any it is closed.",
        "a list of texts of at least 16 printable characters each, none of them a comma, a quote or a bracket",
        |keys| keys.iter().all(|key| is_api_key(key.expose()))
    ),
    knob!(
        Config,
        "log.level",
        log.level,
        "What is logged: error, warn, info, debug, trace, or by module, such as \"info,orbweb::peers=debug\".",
        "a level or a list of MODULE=LEVEL",
        |level| tracing_subscriber::EnvFilter::try_new(level).is_ok()
    ),
    knob!(Config, "log.format", log.format, "How log lines look."),
];

/// The keys of a group of channels: `[channels]`, `[inbox]` and each `[namespaces.NAME]`.
pub const CHANNEL_KNOBS: &[Knob<Namespace>] = &[
    knob!(
        Namespace,
        "history_size",
        history_size,
        "Publications kept a channel; 0 = ephemeral: at most once, the fast path. With `history_ttl`.",
        "a whole number from 0 to 100000",
        |n| *n <= HISTORY_SIZE_MAX
    ),
    knob!(
        Namespace,
        "history_ttl",
        history_ttl,
        "How long they are kept. With `history_size`. Longer lets clients come back later and costs memory.",
        "a duration from 0s to 30days",
        |ttl| *ttl <= HISTORY_TTL_MAX
    ),
    knob!(
        Namespace,
        "recovery",
        recovery,
        "Whether clients that come back get what they missed. Needs `history_size`."
    ),
    knob!(
        Namespace,
        "presence",
        presence,
        "Whether it is known who is subscribed. Costs a little at every subscribe."
    ),
    knob!(
        Namespace,
        "join_leave",
        join_leave,
        "Whether subscribers are told of others coming and going. Costs a message a subscriber each time: for small channels."
    ),
    knob!(Namespace, "allow_subscribe", allow_subscribe, "Whether clients may subscribe."),
    knob!(
        Namespace,
        "allow_publish",
        allow_publish,
        "Whether clients may publish to channels that they are subscribed to."
    ),
    knob!(
        Namespace,
        "allow_presence",
        allow_presence,
        "Whether subscribed clients may ask who is there. Needs `presence`."
    ),
    knob!(
        Namespace,
        "allow_history",
        allow_history,
        "Whether subscribed clients may read history. Needs `history_size`."
    ),
];

fn is_http_url(url: &str) -> bool {
    let rest = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://"));
    rest.is_some_and(|rest| !rest.is_empty() && !rest.starts_with('/') && !has_space(rest))
}

fn is_origin(origin: &str) -> bool {
    origin.split_once("://").is_some_and(|(scheme, host)| {
        let named = !scheme.is_empty() && scheme.bytes().all(|b| b.is_ascii_alphanumeric());
        named && !host.is_empty() && !host.contains(['/', '"', '\'']) && !has_space(host)
    })
}

fn is_api_key(key: &str) -> bool {
    // What separates and quotes keys in lists isn't part of one, so that a list that is written
    // wrong is no key.
    let plain = |b: u8| b.is_ascii_graphic() && !matches!(b, b',' | b'"' | b'\'' | b'[' | b']');
    key.len() >= API_KEY_BYTES_MIN && key.bytes().all(plain)
}

fn has_space(text: &str) -> bool {
    text.chars().any(|c| c.is_whitespace() || c.is_control())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_knob_has_a_variable_of_its_own() {
        let names: BTreeSet<String> = KNOBS.iter().map(Knob::env).collect();
        assert_eq!(names.len(), KNOBS.len());
        assert!(names.contains("ORBWEB_TOKEN_HMAC_SECRET") && names.contains("ORBWEB_SECRET"));
    }

    #[test]
    fn every_default_passes_its_own_check() {
        let defaults = Config::default();
        for knob in KNOBS.iter().filter(|knob| !knob.secret()) {
            let Some(value) = knob.get(&defaults) else { continue };
            let mut copy = defaults.clone();
            assert!(knob.set(&mut copy, Raw::Toml(&value)), "{}", knob.key);
            assert_eq!(copy, defaults, "{}", knob.key);
        }
    }

    #[test]
    fn secrets_are_masked_by_their_type() {
        let mut config = Config::default();
        for knob in KNOBS.iter().filter(|knob| knob.secret()) {
            let long = "0123456789abcdef0123456789abcdef";
            assert!(knob.set(&mut config, Raw::Text(long)), "{}", knob.key);
            let shown = knob.get(&config).expect("was set").to_string();
            assert!(!shown.contains("abc"), "{} shows {shown}", knob.key);
        }
        assert!(!format!("{config:?}").contains("0123456789"), "Debug shows a secret");
    }
}
