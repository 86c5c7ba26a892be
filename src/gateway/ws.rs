//! WebSocket framing (RFC 6455), server side, without input or output: bytes in, messages out,
//! and frames as bytes that any number of connections can share. It knows nothing of what the
//! messages mean.
use bytes::{BufMut, Bytes, BytesMut};
use thiserror::Error;

use crate::protocol::message::DATA_BYTES_MAX;

/// Longest message from a client, over all of its fragments.
pub const MESSAGE_BYTES_MAX: usize = DATA_BYTES_MAX;
/// Most fragments of a message: real clients send one, and empty ones cost work without bytes.
pub const FRAGMENTS_MAX: u32 = 256;
/// Longest payload of a ping, pong or close, by the RFC.
const CONTROL_BYTES_MAX: usize = 125;

const CONTINUATION: u8 = 0;
const TEXT: u8 = 1;
const BINARY: u8 = 2;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;

/// Why the bytes of a client can't be read on. [`WsError::code`] is the close code to answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum WsError {
    /// The framing rules are broken.
    #[error("broken WebSocket framing: {0}")]
    Framing(&'static str),
    /// A text message isn't UTF-8.
    #[error("a text message is not valid UTF-8")]
    NotUtf8,
    /// A message has more bytes or fragments than allowed.
    #[error(
        "a message is too big: at most {MESSAGE_BYTES_MAX} bytes in {FRAGMENTS_MAX} fragments are allowed"
    )]
    TooBig,
}

impl WsError {
    /// The close code.
    pub fn code(self) -> u16 {
        match self {
            Self::Framing(_) => 1002,
            Self::NotUtf8 => 1007,
            Self::TooBig => 1009,
        }
    }
}

/// What a client sent.
#[derive(Debug, PartialEq, Eq)]
pub enum Incoming<'a> {
    /// A whole text message.
    Text(&'a str),
    /// A whole binary message.
    Binary(&'a [u8]),
    /// To be answered by a pong with the same payload.
    Ping(&'a [u8]),
    /// Nothing to do.
    Pong,
    /// The client closes: its code (1005 = none given). Nothing comes behind it.
    Close(u16),
}

/// Whether the reader wants the next message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flow {
    /// Yes.
    Continue,
    /// The connection is done with reading.
    Stop,
}

/// The reading half of one connection. It holds bytes only of a frame or message that hasn't
/// arrived in full.
#[derive(Debug, Default)]
pub struct Decoder {
    partial: Vec<u8>,
    /// Bytes that the frame at the start of `partial` needs at least.
    wanted: usize,
    fragments: Option<Box<Fragments>>,
}

#[derive(Debug)]
struct Fragments {
    text: bool,
    count: u32,
    bytes: Vec<u8>,
}

impl Decoder {
    /// Reads what arrived (unmasking it in place) and hands each message to `on`.
    pub fn feed(
        &mut self,
        arrived: &mut [u8],
        on: impl FnMut(Incoming<'_>) -> Flow,
    ) -> Result<(), WsError> {
        if self.partial.is_empty() {
            let (used, wanted) = self.parse(arrived, on)?;
            self.partial.extend_from_slice(&arrived[used..]);
            self.wanted = wanted;
            return Ok(());
        }
        self.partial.extend_from_slice(arrived);
        if self.partial.len() < self.wanted {
            return Ok(());
        }
        let mut bytes = std::mem::take(&mut self.partial);
        let (used, wanted) = self.parse(&mut bytes, on)?;
        if used < bytes.len() {
            bytes.drain(..used);
            self.partial = bytes;
        }
        self.wanted = wanted;
        Ok(())
    }

    /// Bytes held for what hasn't arrived in full.
    pub fn held(&self) -> usize {
        self.partial.capacity() + self.fragments.as_ref().map_or(0, |f| f.bytes.capacity())
    }

    /// Returns the bytes used, and how many are needed to go on behind them.
    fn parse(
        &mut self,
        bytes: &mut [u8],
        mut on: impl FnMut(Incoming<'_>) -> Flow,
    ) -> Result<(usize, usize), WsError> {
        let mut used = 0;
        loop {
            let rest = &mut bytes[used..];
            let header = match Header::parse(rest)? {
                Ok(header) => header,
                Err(wanted) => return Ok((used, wanted)),
            };
            self.check(&header)?;
            let end = header.len + header.payload;
            if rest.len() < end {
                return Ok((used, end));
            }
            let payload = &mut rest[header.len..end];
            unmask(payload, header.mask);
            used += end;
            if self.take(&header, payload, &mut on)? == Flow::Stop {
                return Ok((bytes.len(), 0));
            }
        }
    }

    /// Refuses a frame by its header, before its payload is waited for.
    fn check(&self, header: &Header) -> Result<(), WsError> {
        let control = header.opcode >= CLOSE;
        if control && (!header.fin || header.payload > CONTROL_BYTES_MAX) {
            return Err(WsError::Framing("a control frame is fragmented or too long"));
        }
        match (header.opcode, &self.fragments) {
            (CONTINUATION, None) => Err(WsError::Framing("nothing to continue")),
            (TEXT | BINARY, Some(_)) => Err(WsError::Framing("a message inside another")),
            (CONTINUATION, Some(so_far)) => {
                let fits = so_far.bytes.len() + header.payload <= MESSAGE_BYTES_MAX
                    && so_far.count < FRAGMENTS_MAX;
                if fits { Ok(()) } else { Err(WsError::TooBig) }
            }
            (TEXT | BINARY, None) if header.payload > MESSAGE_BYTES_MAX => Err(WsError::TooBig),
            (TEXT | BINARY | CLOSE | PING | PONG, _) => Ok(()),
            _ => Err(WsError::Framing("unknown kind of frame")),
        }
    }

    fn take(
        &mut self,
        header: &Header,
        payload: &[u8],
        on: &mut impl FnMut(Incoming<'_>) -> Flow,
    ) -> Result<Flow, WsError> {
        match header.opcode {
            PING => Ok(on(Incoming::Ping(payload))),
            PONG => Ok(on(Incoming::Pong)),
            CLOSE => {
                on(Incoming::Close(close_code(payload)?));
                Ok(Flow::Stop)
            }
            CONTINUATION => {
                let Some(mut message) = self.fragments.take() else { return Ok(Flow::Continue) };
                message.bytes.extend_from_slice(payload);
                message.count += 1;
                if header.fin {
                    return hand_over(message.text, &message.bytes, on);
                }
                self.fragments = Some(message);
                Ok(Flow::Continue)
            }
            kind if header.fin => hand_over(kind == TEXT, payload, on),
            kind => {
                let message = Fragments { text: kind == TEXT, count: 1, bytes: payload.to_vec() };
                self.fragments = Some(Box::new(message));
                Ok(Flow::Continue)
            }
        }
    }
}

fn hand_over(
    text: bool,
    payload: &[u8],
    on: &mut impl FnMut(Incoming<'_>) -> Flow,
) -> Result<Flow, WsError> {
    if !text {
        return Ok(on(Incoming::Binary(payload)));
    }
    let text = std::str::from_utf8(payload).map_err(|_| WsError::NotUtf8)?;
    Ok(on(Incoming::Text(text)))
}

struct Header {
    fin: bool,
    opcode: u8,
    mask: [u8; 4],
    /// Bytes of the header itself.
    len: usize,
    /// Bytes behind it.
    payload: usize,
}

impl Header {
    /// `Ok(Err(n))`: at least `n` bytes are needed.
    fn parse(bytes: &[u8]) -> Result<Result<Self, usize>, WsError> {
        let &[first, second, ref rest @ ..] = bytes else { return Ok(Err(2)) };
        if first & 0x70 != 0 {
            return Err(WsError::Framing("reserved bits are set without an extension"));
        }
        if second & 0x80 == 0 {
            return Err(WsError::Framing("frames of clients must be masked"));
        }
        let (payload, rest) = match (second & 0x7f, rest) {
            (126, &[a, b, ref rest @ ..]) => (u64::from(u16::from_be_bytes([a, b])), rest),
            (127, &[a, b, c, d, e, f, g, h, ref rest @ ..]) => {
                (u64::from_be_bytes([a, b, c, d, e, f, g, h]), rest)
            }
            (126, _) => return Ok(Err(8)),
            (127, _) => return Ok(Err(14)),
            (short, rest) => (u64::from(short), rest),
        };
        let minimal = match second & 0x7f {
            126 => payload > 125,
            127 => payload > 0xffff,
            _ => true,
        };
        if !minimal {
            return Err(WsError::Framing("a length is not in its shortest form"));
        }
        let len = bytes.len() - rest.len() + 4;
        let payload = usize::try_from(payload).map_err(|_| WsError::TooBig)?;
        // Longer ones are refused by kind, but this far the sum below mustn't overflow.
        if payload > MESSAGE_BYTES_MAX {
            return Err(WsError::TooBig);
        }
        let &[a, b, c, d, ..] = rest else { return Ok(Err(len)) };
        let header =
            Self { fin: first & 0x80 != 0, opcode: first & 0xf, mask: [a, b, c, d], len, payload };
        Ok(Ok(header))
    }
}

/// The word-sized middle lets the compiler use wide registers.
fn unmask(payload: &mut [u8], mask: [u8; 4]) {
    let wide = u64::from_ne_bytes([
        mask[0], mask[1], mask[2], mask[3], mask[0], mask[1], mask[2], mask[3],
    ]);
    let (words, rest) = payload.as_chunks_mut::<8>();
    for word in words {
        *word = (u64::from_ne_bytes(*word) ^ wide).to_ne_bytes();
    }
    for (byte, key) in rest.iter_mut().zip(mask.iter().cycle()) {
        *byte ^= key;
    }
}

fn close_code(payload: &[u8]) -> Result<u16, WsError> {
    match payload {
        [] => Ok(1005),
        [_] => Err(WsError::Framing("a close code has two bytes")),
        [high, low, reason @ ..] => {
            if std::str::from_utf8(reason).is_err() {
                return Err(WsError::NotUtf8);
            }
            match u16::from_be_bytes([*high, *low]) {
                code @ (1000..=1003 | 1007..=1014 | 3000..=4999) => Ok(code),
                _ => Err(WsError::Framing("a close code that must not be sent")),
            }
        }
    }
}

/// A text frame: header and payload in one buffer, the same for all recipients.
pub fn text(payload: &[u8]) -> Bytes {
    frame(TEXT, payload)
}

/// The answer to a ping.
pub fn pong(payload: &[u8]) -> Bytes {
    frame(PONG, payload)
}

/// A close frame. Reasons longer than the RFC allows are cut.
pub fn close(code: u16, reason: &str) -> Bytes {
    let cut = (0..=CONTROL_BYTES_MAX - 2).rev().find(|&n| reason.is_char_boundary(n));
    let reason = reason.get(..cut.unwrap_or(0)).unwrap_or(reason);
    let mut payload = Vec::with_capacity(2 + reason.len());
    payload.extend_from_slice(&code.to_be_bytes());
    payload.extend_from_slice(reason.as_bytes());
    frame(CLOSE, &payload)
}

fn frame(opcode: u8, payload: &[u8]) -> Bytes {
    let mut frame = BytesMut::with_capacity(payload.len() + 10);
    frame.put_u8(0x80 | opcode);
    match payload.len() {
        short @ 0..=125 => frame.put_u8(short as u8),
        middle @ 126..=0xffff => {
            frame.put_u8(126);
            frame.put_u16(middle as u16);
        }
        long => {
            frame.put_u8(127);
            frame.put_u64(long as u64);
        }
    }
    frame.extend_from_slice(payload);
    frame.freeze()
}

#[cfg(test)]
mod tests;
