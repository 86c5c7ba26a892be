//! Ports for servers that must be told theirs.
use std::cell::Cell;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};

use anyhow::{Context as _, Result};

/// Below what Linux gives to outgoing connections, of which the generator makes many.
const RANGE: std::ops::Range<u16> = 15_000..30_000;

thread_local! {
    static NEXT: Cell<u16> = Cell::new(rand::random_range(RANGE));
}

/// A port that nobody listens on, by TCP or UDP, and that wasn't given before. Another program can
/// still take it until the server does: whoever starts the server tries again with other ports.
pub(crate) fn free() -> Result<SocketAddr> {
    let mut tries = RANGE.map(|_| {
        let port = NEXT.get();
        NEXT.set(if port + 1 < RANGE.end { port + 1 } else { RANGE.start });
        SocketAddr::from((Ipv4Addr::LOCALHOST, port))
    });
    tries
        .find(|address| TcpListener::bind(address).is_ok() && UdpSocket::bind(address).is_ok())
        .context("no free port on 127.0.0.1")
}
