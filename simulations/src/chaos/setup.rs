//! The sizes of a run, drawn from the seed, and the configuration file of its nodes.
use orbweb::protocol::link::{PROTOCOL_MAX, PROTOCOL_MIN};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::cluster::conditions::Weather;
use crate::cluster::setup::{KEPT, KEPT_FOR, Setup, TOKEN_KEY};

/// The key of the server API, which the run asks nodes by.
pub(super) const API_KEY: &str = "all-the-threads-lead-here";

/// Virtual clients publish so much that a machine with two cores bears it beside five nodes, and so
/// little that who was away for as long as the longest fault is given all that it missed.
pub(super) fn draw(seed: u64) -> Setup {
    let mut random = StdRng::seed_from_u64(seed ^ 0x5e70);
    let clients = random.random_range(30..=36);
    Setup {
        nodes: 5,
        copies: random.random_range(2..=3),
        slots: 1 << random.random_range(8..=14),
        shards: random.random_range(1..=2),
        clients,
        users: clients / 2,
        channels: random.random_range(12..=16),
        subscriptions: random.random_range(2..=3),
        pace_ms: random.random_range(200..=250),
        padding: 0,
        kept: KEPT,
        kept_for: KEPT_FOR,
        attributes: false,
        versions: PROTOCOL_MIN..=PROTOCOL_MAX,
        skewed: false,
        strangers: 0,
        weather: Weather::default(),
    }
}

/// Pings are frequent, so that who waits for a node that stands still turns to another soon.
pub(super) fn configuration(setup: &Setup) -> String {
    let Setup { copies, slots, shards, .. } = setup;
    let namespace = "history_size = 10000\nhistory_ttl = \"10m\"\nrecovery = true\n\
                     allow_subscribe = true\nallow_publish = true\n";
    format!(
        "copies = {copies}\nslots = {slots}\n\
         [client]\nallow_anonymous = true\nshards = {shards}\n\
         ping_interval = \"5s\"\npong_timeout = \"3s\"\n\
         [token]\nhmac_secret = \"{TOKEN_KEY}\"\n\
         [api]\nkeys = [\"{API_KEY}\"]\n\
         [inbox]\n{namespace}\
         [namespaces.chat]\n{namespace}presence = true\nallow_presence = true\n"
    )
}
