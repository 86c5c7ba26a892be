//! A bound port of the virtual network, as QUIC wants its socket: always writable, and many datagrams
//! handed over at once.
use std::fmt;
use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use quinn::udp::{RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, UdpPoller};

use super::network::{Mailbox, Network};

/// Datagrams that QUIC may hand over at once.
const SEGMENTS_MAX: usize = 10;

pub(crate) struct Port {
    network: Network,
    address: SocketAddr,
    number: u64,
}

impl Port {
    pub(super) fn new(network: Network, address: SocketAddr, number: u64) -> Self {
        Self { network, address, number }
    }
}

impl fmt::Debug for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Port({} as {})", self.address, self.number)
    }
}

#[derive(Debug)]
struct Writable;

impl UdpPoller for Writable {
    fn poll_writable(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl AsyncUdpSocket for Port {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(Writable)
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        let whole = transmit.contents.len().max(1);
        let segment = transmit.segment_size.unwrap_or(whole);
        for bytes in transmit.contents.chunks(segment) {
            self.network.send((self.address, self.number), transmit.destination, bytes);
        }
        Ok(())
    }

    fn poll_recv(
        &self,
        context: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let taken = self.network.with_mailbox((self.address, self.number), |mailbox, still| {
            let taken = if still { 0 } else { take(mailbox, buffers, meta) };
            if taken == 0 {
                mailbox.reader = Some(context.waker().clone());
            }
            taken
        });
        match taken {
            Some(taken) if taken > 0 => Poll::Ready(Ok(taken)),
            _ => Poll::Pending,
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.address)
    }

    fn max_transmit_segments(&self) -> usize {
        SEGMENTS_MAX
    }

    fn may_fragment(&self) -> bool {
        false
    }
}

fn take(mailbox: &mut Mailbox, buffers: &mut [IoSliceMut<'_>], meta: &mut [RecvMeta]) -> usize {
    let mut taken = 0;
    for (buffer, meta) in buffers.iter_mut().zip(meta) {
        let Some(datagram) = mailbox.pop() else { break };
        // As a kernel does, what is longer than the buffer is cut off.
        let length = datagram.bytes.len().min(buffer.len());
        buffer[..length].copy_from_slice(&datagram.bytes[..length]);
        *meta =
            RecvMeta { addr: datagram.from, len: length, stride: length, ecn: None, dst_ip: None };
        taken += 1;
    }
    taken
}
