//! Readiness of many sockets: epoll, level-triggered, by number.
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use anyhow::Result;
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::io::Errno;

/// Sockets that are told of at once.
const BATCH: usize = 256;

/// What can be done with a socket.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Ready {
    pub(crate) number: usize,
    pub(crate) readable: bool,
    pub(crate) writable: bool,
}

/// The sockets that are watched.
pub(crate) struct Watch {
    epoll: OwnedFd,
    ready: Vec<Ready>,
}

impl Watch {
    pub(crate) fn new() -> Result<Self> {
        Ok(Self { epoll: epoll::create(CreateFlags::CLOEXEC)?, ready: Vec::new() })
    }

    /// Watches a socket for something to read.
    pub(crate) fn add(&self, socket: impl AsFd, number: usize) -> Result<()> {
        Ok(epoll::add(&self.epoll, socket, EventData::new_u64(number as u64), EventFlags::IN)?)
    }

    /// Watches a socket for room to write, too, or no longer.
    pub(crate) fn writing(&self, socket: impl AsFd, number: usize, wanted: bool) -> Result<()> {
        let flags = if wanted { EventFlags::IN | EventFlags::OUT } else { EventFlags::IN };
        Ok(epoll::modify(&self.epoll, socket, EventData::new_u64(number as u64), flags)?)
    }

    pub(crate) fn remove(&self, socket: impl AsFd) -> Result<()> {
        Ok(epoll::delete(&self.epoll, socket)?)
    }

    /// Waits until something is ready, this long at most; for ever without a limit.
    pub(crate) fn wait(&mut self, limit: Option<Duration>) -> Result<&[Ready]> {
        let limit = limit.map(|limit| Timespec {
            tv_sec: limit.as_secs() as i64,
            tv_nsec: i64::from(limit.subsec_nanos()),
        });
        let mut events = [MaybeUninit::<Event>::uninit(); BATCH];
        self.ready.clear();
        match epoll::wait(&self.epoll, &mut events[..], limit.as_ref()) {
            Ok((events, _)) => self.ready.extend(events.iter().map(ready)),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(&self.ready)
    }
}

fn ready(event: &Event) -> Ready {
    let (flags, data) = (event.flags, event.data);
    Ready {
        number: data.u64() as usize,
        // An end or an error is found by reading.
        readable: flags.intersects(EventFlags::IN | EventFlags::HUP | EventFlags::ERR),
        writable: flags.contains(EventFlags::OUT),
    }
}
