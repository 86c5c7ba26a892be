//! Socket.IO: two Node.js processes, and the Redis between them.
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::Result;
use serde_json::json;

use super::{Step, System, installed, pids, program, room_name, sources, token, upgrade};
use crate::frame::{Opcode, client_frame};
use crate::ports;
use crate::process::Server;
use crate::scenario::Member;

const TOKEN_SECRET: &str = "the secret of tokens that open nothing but a benchmark";

pub(super) struct SocketIo {
    servers: [Server; 3],
    addresses: [SocketAddr; 2],
}

pub(super) fn packages() -> PathBuf {
    installed().join("js/node_modules/socket.io")
}

impl SocketIo {
    pub(super) fn start(folder: &Path) -> Result<Self> {
        let at = ports::free()?;
        let port = at.port().to_string();
        let words = ["--bind", "127.0.0.1", "--port", &port, "--save", "", "--appendonly", "no"];
        let mut redis = Server::start(folder, "redis", &program("redis-server")?, words)?;
        redis.listens(at)?;
        // Beside the packages: Node.js looks for them from where the script is.
        let script = installed().join("js/server.mjs");
        std::fs::copy(sources().join("js/server.mjs"), &script)?;
        let addresses = [ports::free()?, ports::free()?];
        let node = |number: usize| -> Result<Server> {
            let words = [
                script.display().to_string(),
                addresses[number].port().to_string(),
                port.clone(),
                TOKEN_SECRET.to_owned(),
            ];
            let name = format!("socketio-{number}");
            Server::start(folder, &name, &program("node")?, words)
        };
        let mut nodes = [node(0)?, node(1)?];
        for (node, address) in nodes.iter_mut().zip(addresses) {
            node.listens(address)?;
        }
        let [first, second] = nodes;
        Ok(Self { servers: [redis, first, second], addresses })
    }
}

impl System for SocketIo {
    fn pids(&self) -> Vec<u32> {
        pids(&self.servers)
    }

    fn addresses(&self) -> [SocketAddr; 2] {
        self.addresses
    }

    fn entry(&self, member: &Member) -> Result<Vec<Step>> {
        let auth = json!({"token": token(&member.user, TOKEN_SECRET)?});
        let say = |words: String, until| Step {
            send: client_frame(Opcode::Text, words.as_bytes()),
            until,
        };
        Ok(vec![
            upgrade("/socket.io/?EIO=4&transport=websocket", None),
            // The engine's greeting, the namespace's, and the answer to the first event.
            Step { send: vec![], until: b"0{\"sid\"" },
            say(format!("40{auth}"), b"40{\"sid\""),
            say(format!("420{}", json!(["join", room_name(member.room)])), b"430["),
        ])
    }

    fn publication(&self, member: &Member, _: usize, data: &[u8]) -> Vec<u8> {
        let head = format!(r#"42["publish","{}","#, room_name(member.to));
        client_frame(Opcode::Text, &[head.as_bytes(), data, b"]"].concat())
    }
}
