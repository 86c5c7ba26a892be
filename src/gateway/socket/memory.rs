//! A pair of connected in-memory sockets with bounded buffers, and a listener for them: the same
//! gateway runs on them under a paused clock on one thread.
use std::collections::VecDeque;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::mpsc;

use super::{Listener, Socket, Transport};

/// One end of a pair. Dropping it closes both directions.
#[derive(Debug)]
pub struct MemorySocket {
    incoming: Arc<Mutex<Pipe>>,
    outgoing: Arc<Mutex<Pipe>>,
}

#[derive(Debug)]
struct Pipe {
    bytes: VecDeque<u8>,
    bytes_max: usize,
    closed: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

impl Pipe {
    fn wake(&mut self) {
        for waker in [self.reader.take(), self.writer.take()].into_iter().flatten() {
            waker.wake();
        }
    }
}

fn lock(pipe: &Mutex<Pipe>) -> MutexGuard<'_, Pipe> {
    pipe.lock().unwrap_or_else(PoisonError::into_inner)
}

impl MemorySocket {
    /// Two ends; each direction holds up to `bytes_max` bytes, as a kernel's socket buffers do.
    pub fn pair(bytes_max: usize) -> (Self, Self) {
        let pipe = || {
            Arc::new(Mutex::new(Pipe {
                bytes: VecDeque::new(),
                bytes_max,
                closed: false,
                reader: None,
                writer: None,
            }))
        };
        let (a, b) = (pipe(), pipe());
        (Self { incoming: a.clone(), outgoing: b.clone() }, Self { incoming: b, outgoing: a })
    }

    fn poll_readable(&self, context: &Context<'_>) -> Poll<()> {
        let mut pipe = lock(&self.incoming);
        if !pipe.bytes.is_empty() || pipe.closed {
            return Poll::Ready(());
        }
        pipe.reader = Some(context.waker().clone());
        Poll::Pending
    }

    fn poll_writable(&self, context: &Context<'_>) -> Poll<()> {
        let mut pipe = lock(&self.outgoing);
        if pipe.bytes.len() < pipe.bytes_max || pipe.closed {
            return Poll::Ready(());
        }
        pipe.writer = Some(context.waker().clone());
        Poll::Pending
    }
}

impl Drop for MemorySocket {
    fn drop(&mut self) {
        for pipe in [&self.incoming, &self.outgoing] {
            let mut pipe = lock(pipe);
            pipe.closed = true;
            pipe.wake();
        }
    }
}

impl Socket for MemorySocket {
    fn try_read(&self, into: &mut [u8]) -> io::Result<usize> {
        let mut pipe = lock(&self.incoming);
        if pipe.bytes.is_empty() {
            return if pipe.closed { Ok(0) } else { Err(io::ErrorKind::WouldBlock.into()) };
        }
        let read = io::Read::read(&mut pipe.bytes, into)?;
        if let Some(writer) = pipe.writer.take() {
            writer.wake();
        }
        Ok(read)
    }

    fn try_write_vectored(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let mut pipe = lock(&self.outgoing);
        if pipe.closed {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let mut written = 0;
        for slice in slices {
            let room = pipe.bytes_max.saturating_sub(pipe.bytes.len());
            let part = &slice[..slice.len().min(room)];
            pipe.bytes.extend(part);
            written += part.len();
        }
        if written == 0 && slices.iter().any(|slice| !slice.is_empty()) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        if let Some(reader) = pipe.reader.take() {
            reader.wake();
        }
        Ok(written)
    }

    fn end_writing(&self) {
        let mut pipe = lock(&self.outgoing);
        pipe.closed = true;
        pipe.wake();
    }

    async fn readable(&self) -> io::Result<()> {
        poll_fn(|context| self.poll_readable(context)).await;
        Ok(())
    }

    async fn writable(&self) -> io::Result<()> {
        poll_fn(|context| self.poll_writable(context)).await;
        Ok(())
    }
}

impl Transport for MemorySocket {
    type Socket = Self;

    fn attach(self) -> io::Result<Self> {
        Ok(self)
    }
}

impl AsyncRead for MemorySocket {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            match self.try_read(into.initialize_unfilled()) {
                Ok(read) => {
                    into.advance(read);
                    return Poll::Ready(Ok(()));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    std::task::ready!(self.poll_readable(context));
                }
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

impl AsyncWrite for MemorySocket {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        loop {
            match self.try_write_vectored(&[IoSlice::new(bytes)]) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    std::task::ready!(self.poll_writable(context));
                }
                other => return Poll::Ready(other),
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.end_writing();
        Poll::Ready(Ok(()))
    }
}

/// Accepts what its [`MemoryDialer`] dials.
#[derive(Debug)]
pub struct MemoryListener(mpsc::Receiver<(MemorySocket, SocketAddr)>);

/// Connects to a [`MemoryListener`].
#[derive(Debug, Clone)]
pub struct MemoryDialer(mpsc::Sender<(MemorySocket, SocketAddr)>);

impl MemoryListener {
    /// A listener that lets `backlog` clients wait, and what connects to it.
    pub fn bind(backlog: usize) -> (Self, MemoryDialer) {
        let (tx, rx) = mpsc::channel(backlog);
        (Self(rx), MemoryDialer(tx))
    }
}

impl MemoryDialer {
    /// Connects as if from `from`; each direction holds up to `bytes_max` bytes.
    pub async fn dial(&self, from: SocketAddr, bytes_max: usize) -> io::Result<MemorySocket> {
        let (ours, theirs) = MemorySocket::pair(bytes_max);
        let refused = |_| io::Error::from(io::ErrorKind::ConnectionRefused);
        self.0.send((theirs, from)).await.map_err(refused)?;
        Ok(ours)
    }
}

impl Listener for MemoryListener {
    type Io = MemorySocket;
    type Transport = MemorySocket;

    async fn accept(&mut self) -> io::Result<(MemorySocket, SocketAddr)> {
        match self.0.recv().await {
            Some(accepted) => Ok(accepted),
            // Nobody can dial any more: like a port that nobody knows.
            None => std::future::pending().await,
        }
    }

    fn detach(io: MemorySocket) -> io::Result<MemorySocket> {
        Ok(io)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_full_pipe_blocks_until_it_is_read() {
        let (a, b) = MemorySocket::pair(4);
        assert_eq!(
            a.try_write_vectored(&[IoSlice::new(b"abc"), IoSlice::new(b"def")]).ok(),
            Some(4)
        );
        let full = a.try_write_vectored(&[IoSlice::new(b"ef")]).expect_err("full");
        assert_eq!(full.kind(), io::ErrorKind::WouldBlock);
        let reader = async {
            b.readable().await.expect("bytes are there");
            let mut into = [0; 8];
            assert_eq!(b.try_read(&mut into).ok(), Some(4));
            assert_eq!(&into[..4], b"abcd");
        };
        let (written, ()) = tokio::join!(a.writable(), reader);
        written.expect("room again");
        assert_eq!(a.try_write_vectored(&[IoSlice::new(b"ef")]).ok(), Some(2));
    }

    #[tokio::test]
    async fn the_end_is_read_after_the_bytes() {
        let (a, b) = MemorySocket::pair(4);
        a.try_write_vectored(&[IoSlice::new(b"x")]).expect("room");
        drop(a);
        let mut into = [0; 8];
        assert_eq!(b.try_read(&mut into).ok(), Some(1));
        b.readable().await.expect("the end is readable");
        assert_eq!(b.try_read(&mut into).ok(), Some(0));
        assert!(b.try_write_vectored(&[IoSlice::new(b"x")]).is_err());
    }
}
