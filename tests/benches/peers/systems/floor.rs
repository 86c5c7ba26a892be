//! The floor as a system: two processes of this program.
use std::net::SocketAddr;
use std::path::Path;

use anyhow::Result;

use super::{Step, System, pids, upgrade};
use crate::frame::{Opcode, client_frame};
use crate::ports;
use crate::process::Server;
use crate::scenario::Member;

pub(super) struct Floor {
    servers: [Server; 2],
    addresses: [SocketAddr; 2],
}

impl Floor {
    pub(super) fn start(folder: &Path) -> Result<Self> {
        let addresses = [ports::free()?, ports::free()?];
        let mesh = ports::free()?;
        let program = std::env::current_exe()?;
        let node = |name: &str, clients: SocketAddr, mesh: [&str; 2]| {
            let clients = clients.to_string();
            let words = ["floor", "--clients", &clients, mesh[0], mesh[1]];
            Server::start(folder, name, &program, words)
        };
        let mesh = mesh.to_string();
        let mut first = node("floor-1", addresses[0], ["--mesh", &mesh])?;
        first.listens(addresses[0])?;
        let mut second = node("floor-2", addresses[1], ["--join", &mesh])?;
        second.listens(addresses[1])?;
        Ok(Self { servers: [first, second], addresses })
    }
}

impl System for Floor {
    fn pids(&self) -> Vec<u32> {
        pids(&self.servers)
    }

    fn addresses(&self) -> [SocketAddr; 2] {
        self.addresses
    }

    fn entry(&self, member: &Member) -> Result<Vec<Step>> {
        Ok(vec![upgrade(&format!("/{}/{}", member.room, member.to), None)])
    }

    fn publication(&self, _: &Member, _: usize, data: &[u8]) -> Vec<u8> {
        client_frame(Opcode::Text, data)
    }
}
