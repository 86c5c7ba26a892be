//! nats-server: a cluster of two, each with its WebSocket listener.
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::Result;

use super::{Step, System, installed, pids, room_name, upgrade};
use crate::frame::{Opcode, client_frame};
use crate::ports;
use crate::process::Server;
use crate::scenario::Member;

const USER: &str = "bench";
const PASSWORD: &str = "a password that opens nothing but a benchmark";

pub(super) struct Nats {
    servers: [Server; 2],
    addresses: [SocketAddr; 2],
}

pub(super) fn binary() -> PathBuf {
    installed().join("venv/bin/nats-server")
}

impl Nats {
    pub(super) fn start(folder: &Path) -> Result<Self> {
        let addresses = [ports::free()?, ports::free()?];
        let routes = [ports::free()?, ports::free()?];
        let node = |number: usize| -> Result<Server> {
            let config = format!(
                "server_name: n{number}\n\
                 listen: \"{}\"\n\
                 authorization {{ user: {USER}, password: \"{PASSWORD}\" }}\n\
                 websocket {{ listen: \"{}\", no_tls: true }}\n\
                 cluster {{ name: bench, listen: \"{}\", routes: [\"nats://{}\"] }}\n\
                 ping_interval: \"10m\"\n",
                ports::free()?,
                addresses[number],
                routes[number],
                routes[1 - number],
            );
            let path = folder.join(format!("nats-{number}.conf"));
            std::fs::write(&path, config)?;
            let words = ["--config".as_ref(), path.as_os_str()];
            let mut server = Server::start(folder, &format!("nats-{number}"), &binary(), words)?;
            server.listens(addresses[number])?;
            Ok(server)
        };
        Ok(Self { servers: [node(0)?, node(1)?], addresses })
    }
}

impl System for Nats {
    fn pids(&self) -> Vec<u32> {
        pids(&self.servers)
    }

    fn addresses(&self) -> [SocketAddr; 2] {
        self.addresses
    }

    fn entry(&self, member: &Member) -> Result<Vec<Step>> {
        let connect = format!(
            "CONNECT {{\"verbose\":false,\"pedantic\":false,\"user\":\"{USER}\",\
             \"pass\":\"{PASSWORD}\",\"lang\":\"rust\",\"version\":\"1\",\"protocol\":1}}\r\nPING\r\n"
        );
        let subscribe = format!("SUB {} 1\r\nPING\r\n", room_name(member.room));
        let say = |words: String| Step {
            send: client_frame(Opcode::Binary, words.as_bytes()),
            until: b"PONG\r\n",
        };
        let greeting = Step { send: vec![], until: b"INFO {" };
        Ok(vec![upgrade("/", None), greeting, say(connect), say(subscribe)])
    }

    fn publication(&self, member: &Member, _: usize, data: &[u8]) -> Vec<u8> {
        let head = format!("PUB {} {}\r\n", room_name(member.to), data.len());
        client_frame(Opcode::Binary, &[head.as_bytes(), data, b"\r\n"].concat())
    }
}
