//! Mosquitto: two brokers with a bridge, MQTT 3.1.1 over WebSocket, quality of service 0.
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use anyhow::{Result, ensure};

use super::{Step, System, pids, program, room_name, upgrade};
use crate::frame::{Opcode, client_frame};
use crate::ports;
use crate::process::Server;
use crate::scenario::Member;

const USER: &str = "bench";
const PASSWORD: &str = "a password that opens nothing but a benchmark";

pub(super) struct Mosquitto {
    servers: [Server; 2],
    addresses: [SocketAddr; 2],
}

impl Mosquitto {
    pub(super) fn start(folder: &Path) -> Result<Self> {
        let addresses = [ports::free()?, ports::free()?];
        let mqtt = [ports::free()?, ports::free()?];
        let passwords = passwords(folder)?;
        let node = |number: usize| -> Result<Server> {
            // Started by root, it would become a user that can't read the folder.
            let mut config = format!(
                "user root\npassword_file {passwords}\nmax_queued_messages 0\nset_tcp_nodelay true\n\
                 listener {} 127.0.0.1\n\
                 listener {} 127.0.0.1\nprotocol websockets\n",
                mqtt[number].port(),
                addresses[number].port(),
            );
            if number == 1 {
                config += &format!(
                    "connection other\naddress {}\ntopic # both 0\n\
                     remote_username {USER}\nremote_password {PASSWORD}\n",
                    mqtt[0]
                );
            }
            let path = folder.join(format!("mosquitto-{number}.conf"));
            std::fs::write(&path, config)?;
            let words = ["-c".as_ref(), path.as_os_str()];
            let name = format!("mosquitto-{number}");
            let mut server = Server::start(folder, &name, &program("mosquitto")?, words)?;
            server.listens(addresses[number])?;
            Ok(server)
        };
        Ok(Self { servers: [node(0)?, node(1)?], addresses })
    }
}

/// The file of users that a broker wants, made by its own tool.
fn passwords(folder: &Path) -> Result<String> {
    let file = folder.join("mosquitto.passwords");
    let tool = program("mosquitto_passwd")?;
    let made = Command::new(tool).args(["-c", "-b"]).arg(&file).args([USER, PASSWORD]).status()?;
    ensure!(made.success(), "mosquitto_passwd made no {}", file.display());
    Ok(file.display().to_string())
}

impl System for Mosquitto {
    fn pids(&self) -> Vec<u32> {
        pids(&self.servers)
    }

    fn addresses(&self) -> [SocketAddr; 2] {
        self.addresses
    }

    fn entry(&self, member: &Member) -> Result<Vec<Step>> {
        // Level 4; a name, a password and a clean session; no keep-alive.
        let mut connect = vec![0, 4, b'M', b'Q', b'T', b'T', 4, 0xc2, 0, 0];
        connect.extend([text(&member.user), text(USER), text(PASSWORD)].concat());
        let mut subscribe = vec![0, 1];
        subscribe.extend(text(&room_name(member.room)));
        subscribe.push(0);
        let say = |kind, body: &[u8], until| Step {
            send: client_frame(Opcode::Binary, &packet(kind, body)),
            until,
        };
        Ok(vec![
            upgrade("/mqtt", Some("mqtt")),
            say(0x10, &connect, &[0x20, 2, 0, 0]),
            say(0x82, &subscribe, &[0x90, 3, 0, 1, 0]),
        ])
    }

    fn publication(&self, member: &Member, _: usize, data: &[u8]) -> Vec<u8> {
        let body = [&text(&room_name(member.to)), data].concat();
        client_frame(Opcode::Binary, &packet(0x30, &body))
    }
}

/// Text with its length before it.
fn text(text: &str) -> Vec<u8> {
    [&(text.len() as u16).to_be_bytes(), text.as_bytes()].concat()
}

fn packet(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut packet = vec![kind];
    let mut length = body.len();
    loop {
        let more = if length > 127 { 0x80 } else { 0 };
        packet.push((length % 128) as u8 | more);
        length /= 128;
        if length == 0 {
            break;
        }
    }
    packet.extend_from_slice(body);
    packet
}
