//! An outbox: frames that wait for one connection, bounded in bytes. It is filled by deliveries and
//! emptied by whoever writes to the socket; it never writes itself.
use std::collections::VecDeque;
use std::io::IoSlice;

use bytes::{Buf, Bytes};
use smallvec::SmallVec;
use thiserror::Error;

use crate::ownership::stream::READ_BYTES_MAX;
use crate::protocol::message::DATA_BYTES_MAX;

/// Bytes that may wait for one client; with more it reads too slowly to be kept.
pub const OUTBOX_BYTES_MAX: usize = 1024 * 1024;
// Or a publication could never be delivered.
const _: () = assert!(OUTBOX_BYTES_MAX > 2 * DATA_BYTES_MAX);
/// Bytes of answers that may wait beside them: a client that continues many streams at once gets
/// more than the limit in one go, through no fault of its own.
pub const REPLY_BYTES_MAX: usize = 32 * 1024 * 1024;
const _: () = assert!(REPLY_BYTES_MAX > READ_BYTES_MAX, "one stream's answer has room");
/// Frames that leave in one vectored write; Linux takes up to 1024, but few gain from it.
pub const WRITE_SLICES_MAX: usize = 64;
/// Frames of room that an idle outbox keeps.
const IDLE_CAPACITY: usize = 8;

/// The outbox can't take the frame, and doesn't hold it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("too many bytes wait for the client: at most {OUTBOX_BYTES_MAX} are allowed")]
pub struct Full;

/// Frames in order.
#[derive(Debug, Default)]
pub struct Outbox {
    /// Kept apart: most frames leave before the next one comes, and need no queue.
    first: Option<Bytes>,
    /// What is behind it; nothing if there is no first.
    rest: VecDeque<Bytes>,
    bytes: usize,
    /// Bytes of answers pushed since it was last empty; they don't count for the limit.
    owed: usize,
    /// Whether the first frame has been written in part.
    begun: bool,
}

impl Outbox {
    /// Adds an answer to the client behind the other frames.
    pub fn try_push_reply(&mut self, frame: Bytes) -> Result<(), Full> {
        if self.owed + frame.len() > REPLY_BYTES_MAX {
            return Err(Full);
        }
        self.owed += frame.len();
        self.push(frame);
        Ok(())
    }

    /// Adds a frame that the client didn't ask for behind the other frames.
    pub fn try_push(&mut self, frame: Bytes) -> Result<(), Full> {
        if self.bytes + frame.len() > OUTBOX_BYTES_MAX + self.owed {
            return Err(Full);
        }
        self.push(frame);
        Ok(())
    }

    fn push(&mut self, frame: Bytes) {
        self.bytes += frame.len();
        match self.first {
            None => self.first = Some(frame),
            Some(_) => self.rest.push_back(frame),
        }
    }

    fn frames(&self) -> impl Iterator<Item = &Bytes> {
        self.first.iter().chain(&self.rest)
    }

    /// Drops all frames but the rest of one that has been begun, and adds `last` regardless of the
    /// limit: what a connection is told when it is closed for slowness.
    pub fn cut_short(&mut self, last: Bytes) {
        self.first.take_if(|_| !self.begun);
        self.rest.clear();
        self.bytes = self.first.as_ref().map_or(0, Bytes::len);
        self.push(last);
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.first.is_none()
    }

    /// Bytes that wait.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// What to write next.
    pub fn slices(&self) -> SmallVec<[IoSlice<'_>; 8]> {
        self.frames().take(WRITE_SLICES_MAX).map(|frame| IoSlice::new(frame)).collect()
    }

    /// Takes off what was written.
    pub fn advance(&mut self, mut written: usize) {
        self.bytes -= written.min(self.bytes);
        while let Some(first) = &mut self.first {
            if first.len() > written {
                first.advance(written);
                self.begun |= written > 0;
                return;
            }
            written -= first.len();
            self.first = self.rest.pop_front();
            self.begun = false;
        }
        self.owed = 0;
        self.rest.shrink_to(IDLE_CAPACITY);
    }

    /// Moves the frames of another outbox behind those of this one.
    pub fn append(&mut self, other: Self) {
        self.owed += other.owed;
        other.first.into_iter().chain(other.rest).for_each(|frame| self.push(frame));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(len: usize) -> Bytes {
        Bytes::from(vec![b'x'; len])
    }

    #[test]
    fn frames_leave_in_order_however_they_are_cut() {
        let mut outbox = Outbox::default();
        for text in ["ab", "cde", "f"] {
            outbox.try_push(Bytes::from_static(text.as_bytes())).expect("room");
        }
        let mut written = Vec::new();
        while !outbox.is_empty() {
            let next = outbox.slices().iter().flat_map(|s| s.to_vec()).take(4).collect::<Vec<_>>();
            outbox.advance(next.len());
            written.extend(next);
        }
        assert_eq!(written, b"abcdef");
        assert_eq!(outbox.bytes(), 0);
    }

    #[test]
    fn it_is_bounded() {
        let mut outbox = Outbox::default();
        outbox.try_push(frame(OUTBOX_BYTES_MAX)).expect("room");
        assert_eq!(outbox.try_push(frame(1)), Err(Full));
        outbox.advance(1);
        assert_eq!(outbox.try_push(frame(1)), Ok(()));
    }

    #[test]
    fn answers_have_room_of_their_own() {
        let mut outbox = Outbox::default();
        outbox.try_push_reply(frame(2 * OUTBOX_BYTES_MAX)).expect("room");
        assert_eq!(outbox.try_push(frame(OUTBOX_BYTES_MAX)), Ok(()));
        assert_eq!(outbox.try_push(frame(1)), Err(Full));
        assert_eq!(outbox.try_push_reply(frame(REPLY_BYTES_MAX)), Err(Full));
    }

    #[test]
    fn a_begun_frame_is_finished_before_the_last_word() {
        let mut outbox = Outbox::default();
        outbox.try_push(frame(10)).expect("room");
        outbox.try_push(frame(10)).expect("room");
        outbox.advance(4);
        outbox.cut_short(Bytes::from_static(b"end"));
        assert_eq!(outbox.bytes(), 6 + 3);
        outbox.advance(6);
        outbox.cut_short(Bytes::from_static(b"END"));
        assert_eq!(outbox.slices().iter().map(|s| s.to_vec()).collect::<Vec<_>>(), [b"END"]);
    }
}
