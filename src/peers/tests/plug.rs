//! A UDP socket that can be pulled: from then on nothing is sent or received, nobody is told, and
//! the port is free for another.
use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use quinn::udp::{RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, UdpPoller};

#[derive(Debug)]
pub(super) struct Plug {
    socket: Mutex<Option<Arc<dyn AsyncUdpSocket>>>,
    address: SocketAddr,
}

impl Plug {
    pub(super) fn new(socket: Arc<dyn AsyncUdpSocket>) -> Self {
        let address = socket.local_addr().unwrap();
        Self { socket: Mutex::new(Some(socket)), address }
    }

    pub(super) fn pull(&self) {
        *self.socket.lock().unwrap() = None;
    }

    fn socket(&self) -> Option<Arc<dyn AsyncUdpSocket>> {
        self.socket.lock().unwrap().clone()
    }
}

impl AsyncUdpSocket for Plug {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(Poller { plug: self, inner: Mutex::default() })
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        self.socket().map_or(Ok(()), |socket| socket.try_send(transmit))
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        self.socket().map_or(Poll::Pending, |socket| socket.poll_recv(cx, buffers, meta))
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.address)
    }

    fn max_transmit_segments(&self) -> usize {
        self.socket().map_or(1, |socket| socket.max_transmit_segments())
    }

    fn max_receive_segments(&self) -> usize {
        self.socket().map_or(1, |socket| socket.max_receive_segments())
    }
}

/// Holds the socket only while somebody waits for room in it.
struct Poller {
    plug: Arc<Plug>,
    inner: Mutex<Option<Pin<Box<dyn UdpPoller>>>>,
}

impl std::fmt::Debug for Poller {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Poller")
    }
}

impl UdpPoller for Poller {
    fn poll_writable(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut inner = self.inner.lock().unwrap();
        let Some(socket) = self.plug.socket() else {
            *inner = None;
            return Poll::Ready(Ok(()));
        };
        let polled =
            inner.get_or_insert_with(|| socket.create_io_poller()).as_mut().poll_writable(cx);
        if polled.is_ready() {
            *inner = None;
        }
        polled
    }
}
