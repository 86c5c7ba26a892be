//! The floor: a server that does nothing but what every server must. It reads a publication and
//! writes one ready-made frame to each socket of the room, one `write` each; a TCP connection
//! carries publications to the other node. It checks nothing, asks nobody and answers nothing.
use std::collections::BTreeMap;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};

use anyhow::{Context as _, Result, bail, ensure};
use memchr::memmem;

use crate::frame::server_frame;
use crate::watch::Watch;

const LISTENER: usize = 0;
const LINK: usize = 1;
/// Numbers from here on are clients'.
const CLIENTS: usize = 2;
const READ_BYTES: usize = 64 * 1024;
const ANSWER: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\
    Connection: Upgrade\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

/// Serves until it is killed. One of two nodes has `join`, where the other's `mesh` is.
pub(crate) fn serve(
    clients: SocketAddr,
    mesh: Option<SocketAddr>,
    join: Option<SocketAddr>,
) -> Result<()> {
    // Before the clients' port, which tells that this node is there.
    let mesh = mesh.map(TcpListener::bind).transpose()?;
    let listener = TcpListener::bind(clients)?;
    let link = match (mesh, join) {
        (_, Some(other)) => TcpStream::connect(other)?,
        (Some(mesh), None) => mesh.accept()?.0,
        (None, None) => bail!("--mesh or --join is needed"),
    };
    link.set_nodelay(true)?;
    link.set_nonblocking(true)?;
    listener.set_nonblocking(true)?;
    let watch = Watch::new()?;
    watch.add(&listener, LISTENER)?;
    watch.add(&link, LINK)?;
    let mut floor = Floor {
        listener,
        link: Peer { socket: link, unread: vec![] },
        clients: vec![],
        rooms: BTreeMap::new(),
        buffer: vec![0; READ_BYTES],
    };
    floor.run(watch)
}

struct Floor {
    listener: TcpListener,
    link: Peer,
    clients: Vec<Option<Client>>,
    rooms: BTreeMap<u32, Vec<usize>>,
    buffer: Vec<u8>,
}

struct Peer {
    socket: TcpStream,
    /// A frame that isn't whole yet.
    unread: Vec<u8>,
}

struct Client {
    peer: Peer,
    rooms: Option<Rooms>,
}

#[derive(Clone, Copy)]
struct Rooms {
    own: u32,
    /// The one that it publishes to.
    to: u32,
}

impl Floor {
    fn run(&mut self, mut watch: Watch) -> Result<()> {
        loop {
            for ready in watch.wait(None)?.to_vec() {
                match ready.number {
                    LISTENER => self.accept(&watch)?,
                    LINK => self.read_link()?,
                    number => self.read_client(number - CLIENTS)?,
                }
            }
        }
    }

    fn accept(&mut self, watch: &Watch) -> Result<()> {
        loop {
            let socket = match self.listener.accept() {
                Ok((socket, _)) => socket,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error).context("accept"),
            };
            socket.set_nodelay(true)?;
            socket.set_nonblocking(true)?;
            watch.add(&socket, CLIENTS + self.clients.len())?;
            let peer = Peer { socket, unread: vec![] };
            self.clients.push(Some(Client { peer, rooms: None }));
        }
    }

    fn read_client(&mut self, number: usize) -> Result<()> {
        let Some(client) = &mut self.clients[number] else { return Ok(()) };
        if !client.peer.read(&mut self.buffer) {
            let room = client.rooms.and_then(|rooms| self.rooms.get_mut(&rooms.own));
            room.into_iter().for_each(|members| members.retain(|&member| member != number));
            self.clients[number] = None;
            return Ok(());
        }
        let Some(Rooms { to, .. }) = client.rooms else { return self.welcome(number) };
        while let Some(data) =
            self.clients[number].as_mut().and_then(|client| take_frame(&mut client.peer.unread))
        {
            let head = [to.to_be_bytes(), (data.len() as u32).to_be_bytes()].concat();
            self.link.write(&[&head[..], &data].concat())?;
            self.deliver(to, &data);
        }
        Ok(())
    }

    /// Answers the upgrade; the path of its request names the client's room, and the one that it
    /// publishes to.
    fn welcome(&mut self, number: usize) -> Result<()> {
        let Some(client) = &mut self.clients[number] else { return Ok(()) };
        if memmem::find(&client.peer.unread, b"\r\n\r\n").is_none() {
            return Ok(());
        }
        let request = String::from_utf8_lossy(&client.peer.unread).into_owned();
        let path = request.split(' ').nth(1).and_then(|path| path.strip_prefix('/'));
        let (own, to) = path.and_then(|path| path.split_once('/')).context("the path is short")?;
        let rooms = Rooms { own: own.parse()?, to: to.parse()? };
        client.rooms = Some(rooms);
        client.peer.unread.clear();
        client.peer.write(ANSWER)?;
        self.rooms.entry(rooms.own).or_default().push(number);
        Ok(())
    }

    fn read_link(&mut self) -> Result<()> {
        ensure!(self.link.read(&mut self.buffer), "the other node is gone");
        while let Some((room, data)) = take_forwarded(&mut self.link.unread) {
            self.deliver(room, &data);
        }
        Ok(())
    }

    fn deliver(&mut self, room: u32, data: &[u8]) {
        let frame = server_frame(data);
        for &member in self.rooms.get(&room).into_iter().flatten() {
            if let Some(client) = &mut self.clients[member] {
                // A full socket misses it, which the measurement tells.
                let _ = client.peer.write(&frame);
            }
        }
    }
}

impl Peer {
    /// Takes what there is; false at the end.
    fn read(&mut self, buffer: &mut [u8]) -> bool {
        match self.socket.read(buffer) {
            Ok(0) => false,
            Ok(read) => {
                self.unread.extend_from_slice(&buffer[..read]);
                true
            }
            Err(error) => error.kind() == ErrorKind::WouldBlock,
        }
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        let sent = self.socket.write(bytes)?;
        ensure!(sent == bytes.len(), "a socket is full");
        Ok(())
    }
}

/// The payload of a masked frame, if it is whole.
fn take_frame(unread: &mut Vec<u8>) -> Option<Vec<u8>> {
    let (length, head) = match unread.get(1)? & 0x7f {
        126 => (usize::from(u16::from_be_bytes(*unread.get(2..)?.first_chunk()?)), 4),
        127 => (usize::try_from(u64::from_be_bytes(*unread.get(2..)?.first_chunk()?)).ok()?, 10),
        short => (usize::from(short), 2),
    };
    let mask: [u8; 4] = *unread.get(head..)?.first_chunk()?;
    let masked = unread.get(head + 4..head + 4 + length)?;
    let data = masked.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask).collect();
    unread.drain(..head + 4 + length);
    Some(data)
}

/// A publication of the other node, if it is whole: room, length, payload.
fn take_forwarded(unread: &mut Vec<u8>) -> Option<(u32, Vec<u8>)> {
    let room = u32::from_be_bytes(*unread.first_chunk()?);
    let length = u32::from_be_bytes(*unread.get(4..)?.first_chunk()?) as usize;
    let data = unread.get(8..8 + length)?.to_vec();
    unread.drain(..8 + length);
    Some((room, data))
}
