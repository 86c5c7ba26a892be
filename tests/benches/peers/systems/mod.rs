//! The systems that are measured: how each is started, and how a client speaks to it.
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use clap::ValueEnum;

use crate::crowd::Step;
use crate::process::Server;
use crate::scenario::{Member, Scenario};

mod floor;
mod mosquitto;
mod nats;
mod orbweb;
mod socketio;

/// What installs the peers.
const SETUP: &str = "tests/benches/peers/setup";
/// How often a start is tried whose ports somebody else took.
const STARTS: usize = 3;

/// A system, by name.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, ValueEnum)]
pub(crate) enum Kind {
    /// What no server on this kernel can beat that writes once a delivery
    Floor,
    /// The binary of the profile `dist`, or the one that ORBWEB_BINARY names
    Orbweb,
    /// The same, each node on one thread (`client.shards = 1`)
    OrbwebOne,
    /// nats-server
    Nats,
    /// Socket.IO with its Redis adapter, and Redis
    Socketio,
    /// Mosquitto, two brokers with a bridge
    Mosquitto,
}

/// Two nodes that run, and the words of their clients.
pub(crate) trait System {
    /// The processes that it consists of.
    fn pids(&self) -> Vec<u32>;
    /// Where clients of each node connect.
    fn addresses(&self) -> [SocketAddr; 2];
    /// What a client says until it is authenticated and in its room.
    fn entry(&self, member: &Member) -> Result<Vec<Step>>;
    /// The frame by which a client publishes data to where it publishes to.
    fn publication(&self, member: &Member, number: usize, data: &[u8]) -> Vec<u8>;
}

impl Kind {
    /// Whether all that it needs is here.
    pub(crate) fn check(self) -> Result<()> {
        match self {
            Self::Floor => Ok(()),
            Self::Orbweb | Self::OrbwebOne => {
                needed(&orbweb::binary(), "cargo build --profile dist")
            }
            Self::Nats => needed(&nats::binary(), SETUP),
            Self::Socketio => {
                needed(&socketio::packages(), SETUP)?;
                program("node").and(program("redis-server")).map(drop)
            }
            Self::Mosquitto => program("mosquitto").map(drop),
        }
    }

    /// Starts two nodes as the scenario needs them; logs go into the folder.
    pub(crate) fn start(self, folder: &Path, scenario: &Scenario) -> Result<Box<dyn System>> {
        let mut tries = (0..STARTS).map(|_| -> Result<Box<dyn System>> {
            Ok(match self {
                Self::Floor => Box::new(floor::Floor::start(folder)?),
                Self::Orbweb => Box::new(orbweb::Orbweb::start(folder, scenario.reach, 0)?),
                Self::OrbwebOne => Box::new(orbweb::Orbweb::start(folder, scenario.reach, 1)?),
                Self::Nats => Box::new(nats::Nats::start(folder)?),
                Self::Socketio => Box::new(socketio::SocketIo::start(folder)?),
                Self::Mosquitto => Box::new(mosquitto::Mosquitto::start(folder)?),
            })
        });
        let first = tries.next().context("no start is allowed")?;
        first.or_else(|error| tries.find_map(Result::ok).ok_or(error))
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Floor => "floor",
            Self::Orbweb => "orbweb",
            Self::OrbwebOne => "orbweb-one",
            Self::Nats => "nats",
            Self::Socketio => "socketio",
            Self::Mosquitto => "mosquitto",
        })
    }
}

/// Where `setup` puts what it installs.
fn installed() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("peers")
}

/// This folder of the repository.
fn sources() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/benches/peers")
}

fn needed(path: &Path, command: &str) -> Result<()> {
    ensure!(path.exists(), "{} is missing; it comes by: {command}", path.display());
    Ok(())
}

/// A program of the machine. Debian keeps some servers where only root looks.
fn program(name: &str) -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]);
    let found = folders.map(|folder| folder.join(name)).find(|path| path.is_file());
    found.with_context(|| format!("{name} is missing; it comes by: {SETUP}"))
}

fn pids(servers: &[Server]) -> Vec<u32> {
    servers.iter().map(Server::pid).collect()
}

/// What those who have no name of their own for it call a room.
fn room_name(room: usize) -> String {
    format!("room-{room}")
}

/// The first step of every client.
fn upgrade(path: &str, protocol: Option<&str>) -> Step {
    Step { send: crate::frame::upgrade(path, protocol), until: b"HTTP/1.1 101 " }
}

/// A connect token (JWT, HS256) of a user, for an hour.
fn token(user: &str, secret: &str) -> Result<String> {
    let until =
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_secs() + 3600;
    let claims = serde_json::json!({"sub": user, "exp": until});
    let key = jsonwebtoken::EncodingKey::from_secret(secret.as_bytes());
    Ok(jsonwebtoken::encode(&jsonwebtoken::Header::default(), &claims, &key)?)
}
