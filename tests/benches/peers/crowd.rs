//! All clients of a run: raw sockets on one thread, so that the generator takes as little of the
//! machine as it can. Knows nothing of what systems wrap around a publication.
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use memchr::memmem;

use crate::frame::{Stamp, Stamps};
use crate::watch::Watch;

/// Clients that are on their way in at one time; fewer than servers let wait.
const GREETING_AT_ONCE: usize = 64;
/// How long nothing may come while clients get in.
const GREETING_SILENCE: Duration = Duration::from_secs(10);
const READ_BYTES: usize = 64 * 1024;
/// More of an answer than this is nothing that was asked for.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// A word to a server, and by what its answer is known.
#[derive(Clone, Debug)]
pub(crate) struct Step {
    pub(crate) send: Vec<u8>,
    pub(crate) until: &'static [u8],
}

/// Where a client goes and what it says until it is in its room.
pub(crate) struct Entry {
    pub(crate) address: SocketAddr,
    pub(crate) steps: Vec<Step>,
}

/// The clients.
pub(crate) struct Crowd {
    clients: Vec<Client>,
    watch: Watch,
    stamps: Stamps,
    buffer: Vec<u8>,
    started: Instant,
    /// Clients whose connection the server ended.
    pub(crate) closed: usize,
}

struct Client {
    socket: TcpStream,
    /// The end of what was read: perhaps half a stamp.
    carry: Vec<u8>,
    /// What the socket had no room for.
    unsent: Vec<u8>,
    open: bool,
}

/// A delivery, as it came in.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Delivery {
    pub(crate) client: usize,
    pub(crate) stamp: Stamp,
    pub(crate) came_ns: u64,
}

impl Crowd {
    /// Connects everybody, some at a time, and has them say their words.
    pub(crate) fn enter(entries: impl ExactSizeIterator<Item = Entry>) -> Result<Self> {
        let mut crowd = Self {
            clients: Vec::with_capacity(entries.len()),
            watch: Watch::new()?,
            stamps: Stamps::new(),
            buffer: vec![0; READ_BYTES],
            started: Instant::now(),
            closed: 0,
        };
        let mut greetings = Greetings::default();
        let mut entries = entries.fuse();
        loop {
            while greetings.under_way < GREETING_AT_ONCE
                && let Some(entry) = entries.next()
            {
                crowd.connect(entry, &mut greetings)?;
            }
            if greetings.under_way == 0 {
                return Ok(crowd);
            }
            crowd.greet(&mut greetings)?;
        }
    }

    fn connect(&mut self, entry: Entry, greetings: &mut Greetings) -> Result<()> {
        let number = self.clients.len();
        let socket = TcpStream::connect(entry.address).context("a client's connection")?;
        socket.set_nodelay(true)?;
        socket.set_nonblocking(true)?;
        self.watch.add(&socket, number)?;
        self.clients.push(Client { socket, carry: vec![], unsent: vec![], open: true });
        greetings.steps.push(entry.steps.into_iter());
        greetings.under_way += 1;
        self.say_next(number, greetings)
    }

    fn say_next(&mut self, number: usize, greetings: &mut Greetings) -> Result<()> {
        greetings.awaited.resize(self.clients.len(), None);
        let step = greetings.steps[number].next();
        greetings.awaited[number] = step.as_ref().map(|step| step.until);
        match step {
            Some(step) if !step.send.is_empty() => self.send(number, &step.send)?,
            Some(_) => {}
            None => greetings.under_way -= 1,
        }
        Ok(())
    }

    fn greet(&mut self, greetings: &mut Greetings) -> Result<()> {
        let ready = self.watch.wait(Some(GREETING_SILENCE))?.to_vec();
        ensure!(!ready.is_empty(), "{} clients wait for an answer in vain", greetings.under_way);
        for ready in ready {
            if ready.writable {
                self.flush(ready.number)?;
            }
            if !ready.readable {
                continue;
            }
            let client = &mut self.clients[ready.number];
            let read = match client.socket.read(&mut self.buffer) {
                Ok(read) => read,
                Err(error) if error.kind() == ErrorKind::WouldBlock => continue,
                Err(error) => return Err(error).context("a client on its way in"),
            };
            client.carry.extend_from_slice(&self.buffer[..read]);
            let ended = read == 0;
            self.hear(ready.number, ended, greetings)?;
        }
        Ok(())
    }

    /// Goes on to the next step for each answer that is there.
    fn hear(&mut self, number: usize, ended: bool, greetings: &mut Greetings) -> Result<()> {
        while let Some(awaited) = greetings.awaited[number] {
            let heard = &mut self.clients[number].carry;
            let Some(at) = memmem::find(heard, awaited) else {
                if ended || heard.len() > ANSWER_BYTES_MAX {
                    let (heard, awaited) = (heard.escape_ascii(), awaited.escape_ascii());
                    bail!("a client on its way in heard '{heard}' and waited for '{awaited}'");
                }
                return Ok(());
            };
            heard.drain(..at + awaited.len());
            self.say_next(number, greetings)?;
        }
        // Nothing that comes before the first publication is looked at.
        self.clients[number].carry = Vec::new();
        ensure!(!ended, "a server ended the connection of a client that was in");
        Ok(())
    }

    /// Nanoseconds since the crowd was there: the clock of stamps.
    pub(crate) fn now_ns(&self) -> u64 {
        self.started.elapsed().as_nanos() as u64
    }

    /// Sends as much as there is room for, and the rest when there is.
    pub(crate) fn send(&mut self, number: usize, bytes: &[u8]) -> Result<()> {
        let client = &mut self.clients[number];
        if !client.open {
            return Ok(());
        }
        let sent = if client.unsent.is_empty() { written(&client.socket, bytes)? } else { 0 };
        if sent < bytes.len() {
            if client.unsent.is_empty() {
                self.watch.writing(&client.socket, number, true)?;
            }
            client.unsent.extend_from_slice(&bytes[sent..]);
        }
        Ok(())
    }

    fn flush(&mut self, number: usize) -> Result<()> {
        let client = &mut self.clients[number];
        let sent = written(&client.socket, &client.unsent)?;
        client.unsent.drain(..sent);
        if client.unsent.is_empty() {
            self.watch.writing(&client.socket, number, false)?;
        }
        Ok(())
    }

    /// Waits until something comes, this long at most, and tells each delivery.
    pub(crate) fn receive(
        &mut self,
        limit: Duration,
        mut tell: impl FnMut(Delivery),
    ) -> Result<()> {
        let ready = self.watch.wait(Some(limit))?.to_vec();
        for ready in ready {
            if ready.writable && self.clients[ready.number].open {
                self.flush(ready.number)?;
            }
            if ready.readable {
                self.read(ready.number, &mut tell)?;
            }
        }
        Ok(())
    }

    fn read(&mut self, number: usize, tell: &mut impl FnMut(Delivery)) -> Result<()> {
        let client = &mut self.clients[number];
        let carried = client.carry.len();
        self.buffer[..carried].copy_from_slice(&client.carry);
        let read = match client.socket.read(&mut self.buffer[carried..]) {
            Ok(0) => 0,
            Ok(read) => read,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(_) => 0,
        };
        if read == 0 {
            client.open = false;
            self.closed += 1;
            return self.watch.remove(&client.socket);
        }
        let came_ns = self.started.elapsed().as_nanos() as u64;
        let read = &self.buffer[..carried + read];
        let half =
            self.stamps.each(read, |stamp| tell(Delivery { client: number, stamp, came_ns }));
        client.carry.clear();
        client.carry.extend_from_slice(&read[read.len() - half..]);
        Ok(())
    }
}

/// Clients that aren't in yet, by number.
#[derive(Default)]
struct Greetings {
    steps: Vec<std::vec::IntoIter<Step>>,
    awaited: Vec<Option<&'static [u8]>>,
    under_way: usize,
}

/// How much of it there was room for.
fn written(mut socket: &TcpStream, bytes: &[u8]) -> Result<usize> {
    match socket.write(bytes) {
        Ok(sent) => Ok(sent),
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(0),
        // The end is found by reading.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(bytes.len()),
        Err(error) if error.kind() == ErrorKind::ConnectionReset => Ok(bytes.len()),
        Err(error) => Err(error).context("a client's write"),
    }
}
