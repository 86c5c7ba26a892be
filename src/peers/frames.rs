//! Frames on the wire: a length of four bytes (little endian), then a control frame on the link's
//! own stream, or a kind byte and a peer frame on a lane. Encoded once, shared by all recipients.
use bytes::{Buf, BufMut, Bytes, BytesMut};
use quinn::{ReadError, RecvStream};
use thiserror::Error;

use crate::protocol::ids::Incarnation;
use crate::protocol::link::{LinkFrame, LinkFrameError};
pub use crate::protocol::peer::FRAME_BYTES_MAX;
use crate::protocol::peer::PeerFrame;

/// Longest content of a frame on a lane: kind, relay header, peer frame.
pub(super) const LANE_BYTES_MAX: usize = RELAY_BYTES + FRAME_BYTES_MAX;
/// Pieces of a stream taken at once: some 45 KB, so a batch stays small and a wake-up worth it.
const CHUNKS_MAX: usize = 32;

/// What most frames fit into: they grow no buffer.
const SMALL_BYTES: usize = 256;

const LENGTH_BYTES: usize = 4;
const DIRECT: u8 = 0;
const RELAY: u8 = 1;
const RELAY_BYTES: usize = 1 + 16 + 16;

/// Why a frame could not be written or read.
#[derive(Debug, Error)]
pub enum FrameError {
    /// Over the limit.
    #[error("a frame of {bytes} bytes is over the limit of {limit}")]
    TooLong {
        /// Its length.
        bytes: usize,
        /// What is allowed.
        limit: usize,
    },
    /// An empty frame, or a kind that this version doesn't have.
    #[error("a frame of an unknown kind")]
    Kind,
    /// Not a peer frame.
    #[error("a peer frame could not be read: {0}")]
    Decode(#[from] rmp_serde::decode::Error),
    /// A peer frame that can't be written.
    #[error("a peer frame could not be written: {0}")]
    Encode(#[from] rmp_serde::encode::Error),
    /// A control frame.
    #[error(transparent)]
    Link(#[from] LinkFrameError),
    /// The peer ended a stream that lives as long as the link.
    #[error("a stream of the link was ended")]
    Ended,
    /// The stream broke, as a rule with the connection.
    #[error(transparent)]
    Read(#[from] ReadError),
}

/// Bytes ready to be written.
#[derive(Clone, Debug)]
pub(super) struct Wire {
    pub(super) head: Bytes,
    pub(super) body: Bytes,
}

impl Wire {
    pub(super) fn len(&self) -> usize {
        self.head.len() + self.body.len()
    }

    /// A control frame for the link's own stream.
    pub(super) fn control(frame: &LinkFrame) -> Result<Self, LinkFrameError> {
        let body = Bytes::from(frame.encode()?);
        let head = Bytes::copy_from_slice(&(body.len() as u32).to_le_bytes());
        Ok(Self { head, body })
    }

    /// A peer frame, already encoded, by way of one other node.
    pub(super) fn relay(to: Incarnation, origin: Incarnation, frame: Bytes) -> Self {
        let mut head = BytesMut::with_capacity(LENGTH_BYTES + RELAY_BYTES);
        head.put_u32_le((RELAY_BYTES + frame.len()) as u32);
        head.put_u8(RELAY);
        head.put_u128_le(to.0);
        head.put_u128_le(origin.0);
        Self { head: head.freeze(), body: frame }
    }
}

/// A peer frame encoded once for any number of recipients.
pub(super) struct Encoded(Bytes);

impl Encoded {
    pub(super) fn new(frame: &PeerFrame) -> Result<Self, FrameError> {
        let mut bytes = Vec::with_capacity(SMALL_BYTES);
        bytes.extend_from_slice(&[0; LENGTH_BYTES + 1]);
        rmp_serde::encode::write(&mut bytes, frame)?;
        let content = bytes.len() - LENGTH_BYTES;
        if content > FRAME_BYTES_MAX {
            return Err(FrameError::TooLong { bytes: content, limit: FRAME_BYTES_MAX });
        }
        bytes[..LENGTH_BYTES].copy_from_slice(&(content as u32).to_le_bytes());
        bytes[LENGTH_BYTES] = DIRECT;
        Ok(Self(bytes.into()))
    }

    pub(super) fn direct(&self) -> Wire {
        Wire { head: Bytes::new(), body: self.0.clone() }
    }

    pub(super) fn relay(&self, to: Incarnation, origin: Incarnation) -> Wire {
        Wire::relay(to, origin, self.0.slice(LENGTH_BYTES + 1..))
    }
}

/// A frame of a lane as it comes in.
#[derive(PartialEq, Debug)]
pub(super) enum LaneFrame {
    /// From the node at the other end.
    Direct(PeerFrame),
    /// From `origin`, for `to`; the frame stays encoded.
    Relay { to: Incarnation, origin: Incarnation, frame: Bytes },
}

impl LaneFrame {
    pub(super) fn read(mut content: Bytes) -> Result<Self, FrameError> {
        match content.try_get_u8() {
            Ok(DIRECT) => Ok(Self::Direct(decode(&content)?)),
            Ok(RELAY) if content.len() >= RELAY_BYTES - 1 => {
                let (to, origin) = (content.get_u128_le(), content.get_u128_le());
                Ok(Self::Relay { to: Incarnation(to), origin: Incarnation(origin), frame: content })
            }
            _ => Err(FrameError::Kind),
        }
    }
}

/// Reads a peer frame.
pub(super) fn decode(bytes: &[u8]) -> Result<PeerFrame, FrameError> {
    Ok(rmp_serde::from_slice(bytes)?)
}

/// Cuts a stream into frames.
pub(super) struct FrameReader {
    stream: RecvStream,
    chunks: Vec<Bytes>,
    /// The beginning of a frame that isn't complete.
    buffer: BytesMut,
    limit: usize,
}

impl FrameReader {
    /// No frame's content may be longer than `limit`.
    pub(super) fn new(stream: RecvStream, limit: usize) -> Self {
        Self { stream, chunks: vec![Bytes::new(); CHUNKS_MAX], buffer: BytesMut::new(), limit }
    }

    /// Waits for at least one complete frame and takes all that are complete.
    pub(super) async fn batch(&mut self, frames: &mut Vec<Bytes>) -> Result<(), FrameError> {
        self.split(frames)?;
        while frames.is_empty() {
            let read = self.stream.read_chunks(&mut self.chunks).await?;
            for n in 0..read.ok_or(FrameError::Ended)? {
                let mut chunk = std::mem::take(&mut self.chunks[n]);
                // Most frames came in one piece, which needs no copy.
                while self.buffer.is_empty()
                    && let Some(bytes) = first(&chunk, self.limit)?
                {
                    chunk.advance(LENGTH_BYTES);
                    frames.push(chunk.split_to(bytes));
                }
                self.buffer.extend_from_slice(&chunk);
                self.split(frames)?;
            }
        }
        Ok(())
    }

    /// One frame; what follows stays for the next call.
    pub(super) async fn one(&mut self) -> Result<Bytes, FrameError> {
        loop {
            if let Some(frame) = cut(&mut self.buffer, self.limit)? {
                return Ok(frame);
            }
            let chunk = self.stream.read_chunk(CHUNKS_MAX * 1024, true).await?;
            self.buffer.extend_from_slice(&chunk.ok_or(FrameError::Ended)?.bytes);
        }
    }

    fn split(&mut self, frames: &mut Vec<Bytes>) -> Result<(), FrameError> {
        while let Some(frame) = cut(&mut self.buffer, self.limit)? {
            frames.push(frame);
        }
        Ok(())
    }
}

/// How many bytes the content of the first frame has, if it is complete. The length is checked before
/// anything is kept for the frame.
fn first(bytes: &[u8], limit: usize) -> Result<Option<usize>, FrameError> {
    let Some((head, rest)) = bytes.split_first_chunk::<LENGTH_BYTES>() else { return Ok(None) };
    let bytes = u32::from_le_bytes(*head) as usize;
    if bytes > limit {
        return Err(FrameError::TooLong { bytes, limit });
    }
    Ok((rest.len() >= bytes).then_some(bytes))
}

/// Takes a complete frame. The buffer never holds more than came.
fn cut(buffer: &mut BytesMut, limit: usize) -> Result<Option<Bytes>, FrameError> {
    let Some(bytes) = first(buffer, limit)? else { return Ok(None) };
    buffer.advance(LENGTH_BYTES);
    Ok(Some(buffer.split_to(bytes).freeze()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FRAME: PeerFrame = PeerFrame::NotOwner { number: 7, owner: None };

    fn bytes(wire: &Wire) -> BytesMut {
        BytesMut::from(&[&wire.head[..], &wire.body[..]].concat()[..])
    }

    #[test]
    fn a_frame_survives_the_wire_directly_and_relayed() {
        let encoded = Encoded::new(&FRAME).unwrap();
        let mut stream = bytes(&encoded.direct());
        stream.unsplit(bytes(&encoded.relay(Incarnation(1), Incarnation(2))));
        let direct = cut(&mut stream, 100).unwrap().unwrap();
        assert_eq!(LaneFrame::read(direct).unwrap(), LaneFrame::Direct(FRAME));
        let relayed = cut(&mut stream, 100).unwrap().unwrap();
        let LaneFrame::Relay { to, origin, frame } = LaneFrame::read(relayed).unwrap() else {
            panic!("not relayed");
        };
        assert_eq!((to, origin), (Incarnation(1), Incarnation(2)));
        assert_eq!(decode(&frame).unwrap(), FRAME);
        assert!(stream.is_empty());
    }

    #[test]
    fn a_length_over_the_limit_is_refused_before_its_content_came() {
        let mut stream = BytesMut::from(&[0xff; 4][..]);
        assert!(matches!(cut(&mut stream, 100), Err(FrameError::TooLong { limit: 100, .. })));
    }

    #[test]
    fn part_of_a_frame_waits_for_the_rest() {
        let whole = bytes(&Encoded::new(&FRAME).unwrap().direct());
        for len in 0..whole.len() {
            assert_eq!(cut(&mut BytesMut::from(&whole[..len]), 100).unwrap(), None);
        }
    }

    #[test]
    fn foreign_content_is_an_error_not_a_panic() {
        for content in [&[][..], &[0], &[1; 32], &[2, 1], &[0, 0xc1]] {
            assert!(LaneFrame::read(Bytes::copy_from_slice(content)).is_err(), "{content:?}");
        }
    }
}
