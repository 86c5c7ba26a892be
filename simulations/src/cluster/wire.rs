//! A client's end of a WebSocket, over the gateway's in-memory socket or TCP, by a library that knows
//! nothing of the gateway's own codec.
use std::io::{self, IoSlice, Read, Write};

use anyhow::Context as _;
use orbweb::gateway::PATH;
use orbweb::gateway::socket::Socket;
use tungstenite::client::IntoClientRequest as _;
use tungstenite::handshake::HandshakeError;
use tungstenite::protocol::WebSocketConfig;
use tungstenite::{Error, Message, WebSocket};

/// What is read at once. The library clears so much before each read, and most bring one short frame.
const READ_BYTES: usize = 4 * 1024;

/// What came.
pub(super) enum Frame {
    /// One or more messages.
    Text(String),
    /// The server ended the connection with this code.
    Close(u16),
    /// There is nobody any more.
    End,
}

/// The socket as blocking code wants it, which never blocks.
struct Stream<S>(S);

impl<S: Socket> Read for Stream<S> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.0.try_read(into)
    }
}

impl<S: Socket> Write for Stream<S> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.try_write_vectored(&[IoSlice::new(bytes)])
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

pub(crate) struct Wire<S>(WebSocket<Stream<S>>);

impl<S: Socket> Wire<S> {
    /// Shakes hands with the node behind the socket.
    pub(super) async fn open(socket: S) -> anyhow::Result<Self> {
        let request = format!("ws://orbweb.test{PATH}").into_client_request()?;
        let config = WebSocketConfig::default().read_buffer_size(READ_BYTES);
        let mut shaken =
            tungstenite::client::client_with_config(request, Stream(socket), Some(config));
        loop {
            match shaken {
                Ok((socket, _)) => return Ok(Self(socket)),
                Err(HandshakeError::Interrupted(halfway)) => {
                    halfway.get_ref().get_ref().0.readable().await?;
                    shaken = halfway.handshake();
                }
                Err(HandshakeError::Failure(error)) => return Err(error).context("handshake"),
            }
        }
    }

    /// The next frame. Cancel-safe: what has arrived stays in the library's buffer.
    pub(super) async fn read(&mut self) -> Frame {
        loop {
            match self.0.read() {
                Ok(Message::Text(text)) => return Frame::Text(text.as_str().to_owned()),
                Ok(Message::Close(frame)) => {
                    return frame.map_or(Frame::End, |frame| Frame::Close(frame.code.into()));
                }
                Ok(_) => {}
                Err(Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => {
                    if self.0.get_ref().0.readable().await.is_err() {
                        return Frame::End;
                    }
                }
                Err(_) => return Frame::End,
            }
        }
    }

    /// Sends a message; an error means that there is nobody any more.
    pub(super) async fn send(&mut self, text: String) -> Result<(), Error> {
        let mut sent = self.0.send(Message::text(text));
        loop {
            match sent {
                Err(Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.0.get_ref().0.writable().await?;
                    sent = self.0.flush();
                }
                other => return other,
            }
        }
    }
}
