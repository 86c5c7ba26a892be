//! Orbweb as it ships, or each node on one thread: two nodes, two copies of what has history.
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::{Step, System, installed, pids, room_name, token, upgrade};
use crate::frame::{Opcode, client_frame};
use crate::ports;
use crate::process::Server;
use crate::scenario::{Member, Reach};

const TOKEN_SECRET: &str = "the secret of tokens that open nothing but a benchmark";
const API_KEY: &str = "the-key-of-a-benchmark";
const SLOTS: u64 = 16_384;
/// Pings are further apart than a run is long: the load generator answers none, of no system.
const CONFIG: &str = r#"
copies = 2
[client]
ping_interval = "10m"
shards = SHARDS
[token]
hmac_secret = "the secret of tokens that open nothing but a benchmark"
[api]
keys = ["the-key-of-a-benchmark"]
[channels]
allow_subscribe = true
allow_publish = true
ROOMS
[inbox]
allow_publish = true
"#;
/// Rooms that keep what inboxes keep.
const STREAM: &str = "history_size = 100\nhistory_ttl = \"2m\"\nrecovery = true\n";
/// Inboxes as they are for who wants no history.
const EPHEMERAL: &str = "history_size = 0\nhistory_ttl = \"0s\"\nrecovery = false\n";

pub(super) struct Orbweb {
    servers: [Server; 2],
    addresses: [SocketAddr; 2],
    reach: Reach,
}

/// What is measured.
pub(super) fn binary() -> PathBuf {
    let given = std::env::var_os("ORBWEB_BINARY").map(PathBuf::from);
    // Nodes are started in a folder of their own.
    let given = given.map(|path| std::path::absolute(&path).unwrap_or(path));
    given.unwrap_or_else(|| installed().with_file_name("dist").join("orbweb"))
}

impl Orbweb {
    /// Nodes with so many threads for connections; 0 = what they choose themselves.
    pub(super) fn start(folder: &Path, reach: Reach, shards: u16) -> Result<Self> {
        let config = folder.join("orbweb.toml");
        let (rooms, inboxes) = match reach {
            Reach::Rooms { history: true, .. } => (STREAM, ""),
            Reach::User { history: false } => ("", EPHEMERAL),
            Reach::Rooms { .. } | Reach::User { .. } => ("", ""),
        };
        let text = CONFIG.replace("SHARDS", &shards.to_string()).replace("ROOMS\n", rooms);
        std::fs::write(&config, format!("{text}{inboxes}"))?;
        let secret = folder.join("secret");
        std::fs::write(
            &secret,
            format!("{:032x}{:032x}", rand::random::<u128>(), rand::random::<u128>()),
        )?;
        let addresses = [ports::free()?, ports::free()?];
        let mesh = [ports::free()?, ports::free()?];
        let binary = binary();
        let node = |number: usize, join: Option<SocketAddr>| {
            let mut words = vec!["serve".to_owned()];
            for (flag, value) in [
                ("--name", format!("n{number}")),
                ("--listen", addresses[number].to_string()),
                ("--mesh-listen", mesh[number].to_string()),
                ("--config", config.display().to_string()),
                ("--secret-file", secret.display().to_string()),
            ] {
                words.extend([flag.to_owned(), value]);
            }
            words.extend(join.map(|seed| format!("--join={seed}")));
            Server::start(folder, &format!("orbweb-{number}"), &binary, words)
        };
        let mut first = node(0, None)?;
        first.listens(addresses[0])?;
        let mut second = node(1, Some(mesh[0]))?;
        second.listens(addresses[1])?;
        for (server, address) in [(&mut first, addresses[0]), (&mut second, addresses[1])] {
            server.until("in a whole cluster", || whole(address).unwrap_or(false))?;
        }
        Ok(Self { servers: [first, second], addresses, reach })
    }
}

/// Whether this node sees two, and all slots with their copies.
fn whole(address: SocketAddr) -> Result<bool> {
    let mut answer =
        ureq::get(format!("http://{address}/api/status")).header("X-API-Key", API_KEY).call()?;
    let status: Value = answer.body_mut().read_json()?;
    let nodes = status["result"]["nodes"].as_array().context("no nodes")?;
    let sum = |field: &str| nodes.iter().filter_map(|node| node[field].as_u64()).sum::<u64>();
    let up = nodes.iter().filter(|node| node["state"] == "up" && node["serving"] == "full");
    Ok(up.count() == 2
        && sum("slots_owned") == SLOTS
        && sum("slots_claiming") == 0
        && sum("slots_under_replicated") == 0)
}

impl Orbweb {
    fn channel(&self, room: usize) -> String {
        match self.reach {
            Reach::Rooms { .. } => room_name(room),
            Reach::User { .. } => format!("#u{room}"),
        }
    }
}

impl System for Orbweb {
    fn pids(&self) -> Vec<u32> {
        pids(&self.servers)
    }

    fn addresses(&self) -> [SocketAddr; 2] {
        self.addresses
    }

    fn entry(&self, member: &Member) -> Result<Vec<Step>> {
        let connect = json!({"id": 1, "connect": {"token": token(&member.user, TOKEN_SECRET)?}});
        let subscribe = json!({"id": 2, "subscribe": {"channel": self.channel(member.room)}});
        let say = |word: Value, until| Step {
            send: client_frame(Opcode::Text, word.to_string().as_bytes()),
            until,
        };
        let mut steps =
            vec![upgrade("/connection/websocket", None), say(connect, b"\"connect\":{")];
        // Who connects is subscribed to the own inbox.
        if matches!(self.reach, Reach::Rooms { .. }) {
            steps.push(say(subscribe, b"\"subscribe\":{"));
        }
        Ok(steps)
    }

    fn publication(&self, member: &Member, number: usize, data: &[u8]) -> Vec<u8> {
        // Beyond the ids of the entry.
        let id = number + 3;
        let channel = self.channel(member.to);
        let head = format!(r#"{{"id":{id},"publish":{{"channel":"{channel}","data":"#);
        client_frame(Opcode::Text, &[head.as_bytes(), data, b"}}"].concat())
    }
}
