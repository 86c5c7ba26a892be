//! The socket seam: all that a shard knows of a client's socket. TCP in production; anything else
//! that the caller brings, such as the in-memory pair here, in tests and simulation.
use std::future::{Future, poll_fn};
use std::io::{self, IoSlice, Read as _};
use std::net::SocketAddr;

use tokio::io::Interest;
use tokio::net::{TcpListener, TcpStream};

pub mod memory;

/// A connected stream, used by one thread. Reading and writing never wait.
pub trait Socket: 'static {
    /// Reads what is there; 0 = the client sends nothing more, `WouldBlock` = nothing now.
    fn try_read(&self, into: &mut [u8]) -> io::Result<usize>;
    /// Writes as much as there is room for.
    fn try_write_vectored(&self, slices: &[IoSlice<'_>]) -> io::Result<usize>;
    /// Tells the client that nothing more comes; it can still be read.
    fn end_writing(&self);
    /// Waits until reading may succeed, in one task at a time. Cancel-safe.
    fn readable(&self) -> impl Future<Output = io::Result<()>>;
    /// Waits until writing may succeed, in one task at a time. Cancel-safe.
    fn writable(&self) -> impl Future<Output = io::Result<()>>;
}

/// A stream on its way from the thread that accepted it to the one that will hold it.
pub trait Transport: Send + 'static {
    /// What it becomes there.
    type Socket: Socket;
    /// Called on the thread that will hold it.
    fn attach(self) -> io::Result<Self::Socket>;
}

/// Where streams come from: HTTP is spoken over `Io` first.
pub trait Listener: Send + 'static {
    /// The stream while HTTP is spoken.
    type Io: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static;
    /// The stream when it becomes a WebSocket.
    type Transport: Transport;
    /// Waits for a client. Cancel-safe.
    fn accept(&mut self) -> impl Future<Output = io::Result<(Self::Io, SocketAddr)>> + Send;
    /// Takes the stream back after HTTP.
    fn detach(io: Self::Io) -> io::Result<Self::Transport>;
}

impl Socket for TcpStream {
    fn try_read(&self, into: &mut [u8]) -> io::Result<usize> {
        let socket = socket2::SockRef::from(self);
        let mut read = 0;
        // What doesn't fill the buffer was all there is, but for urgent data, which no client sends: the
        // next try is told so without a system call.
        let all = self.try_io(Interest::READABLE, || {
            read = (&*socket).read(into)?;
            let more = read == 0 || read == into.len();
            more.then_some(()).ok_or_else(|| io::ErrorKind::WouldBlock.into())
        });
        all.map(|()| read).or_else(|error| if read > 0 { Ok(read) } else { Err(error) })
    }

    fn try_write_vectored(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match slices {
            // A simpler system call for most of what is written.
            [one] => self.try_write(one),
            _ => Self::try_write_vectored(self, slices),
        }
    }

    fn end_writing(&self) {
        // An error means that the client is gone, and reading will tell.
        let _ended = socket2::SockRef::from(self).shutdown(std::net::Shutdown::Write);
    }

    // Each connection waits in one of these: the library's own futures are larger, since several tasks
    // could wait at once.
    fn readable(&self) -> impl Future<Output = io::Result<()>> {
        poll_fn(|context| self.poll_read_ready(context))
    }

    fn writable(&self) -> impl Future<Output = io::Result<()>> {
        poll_fn(|context| self.poll_write_ready(context))
    }
}

/// A TCP stream away from any runtime.
impl Transport for std::net::TcpStream {
    type Socket = TcpStream;

    fn attach(self) -> io::Result<TcpStream> {
        TcpStream::from_std(self)
    }
}

impl Listener for TcpListener {
    type Io = TcpStream;
    type Transport = std::net::TcpStream;

    async fn accept(&mut self) -> io::Result<(TcpStream, SocketAddr)> {
        let (stream, from) = Self::accept(self).await?;
        // Deliveries are small and written whole: waiting to fill a packet only delays them.
        stream.set_nodelay(true)?;
        Ok((stream, from))
    }

    fn detach(io: TcpStream) -> io::Result<std::net::TcpStream> {
        io.into_std()
    }
}
