//! A UDP socket that can be pulled: from then on nothing is sent or received, nobody is told, and
//! the port is free for another. It can also be deaf, and keeps what it sent if told to.
use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use quinn::udp::{RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, UdpPoller};

#[derive(Debug)]
pub(super) struct Plug {
    socket: Mutex<Option<Arc<dyn AsyncUdpSocket>>>,
    address: SocketAddr,
    deaf: AtomicBool,
    sent: Mutex<Option<Vec<u8>>>,
}

impl Plug {
    pub(super) fn new(socket: Arc<dyn AsyncUdpSocket>) -> Self {
        let address = socket.local_addr().unwrap();
        let (deaf, sent) = (AtomicBool::new(false), Mutex::new(None));
        Self { socket: Mutex::new(Some(socket)), address, deaf, sent }
    }

    pub(super) fn pull(&self) {
        *self.socket.lock().unwrap() = None;
    }

    /// Nothing comes in from now on.
    pub(super) fn deafen(&self) {
        self.deaf.store(true, Ordering::Relaxed);
    }

    /// Keeps what is sent from now on.
    pub(super) fn record(&self) {
        *self.sent.lock().unwrap() = Some(Vec::new());
    }

    /// What was sent since [`Plug::record`], as it went over the wire.
    pub(super) fn sent(&self) -> Vec<u8> {
        self.sent.lock().unwrap().clone().unwrap_or_default()
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
        if let Some(sent) = &mut *self.sent.lock().unwrap() {
            sent.extend_from_slice(transmit.contents);
        }
        self.socket().map_or(Ok(()), |socket| socket.try_send(transmit))
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        if self.deaf.load(Ordering::Relaxed) {
            return Poll::Pending;
        }
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
