//! A bounded queue of frames to one link and lane: whoever pushes never waits, the writer takes
//! everything at once and coalesces it.
use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::{Bytes, BytesMut};
use tokio::sync::Notify;

use super::frames::{LANE_BYTES_MAX, Wire};

/// Bytes that leave the queue for one write: enough to fill packets, little enough that what is
/// being written adds next to nothing to the queue's own bound.
const WRITE_BYTES: usize = 256 << 10;
/// From this size a frame is handed on as it is; below, copying it is cheaper.
const COPY_BYTES_MAX: usize = 4 << 10;

/// The queue is full; the frame was dropped and counted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Full;

/// Bounds of a queue.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    pub(super) frames: usize,
    pub(super) bytes: usize,
}

impl Bounds {
    /// Hello, pings and gossip: two seconds of gossip at its busiest. Older gossip is worthless.
    pub(super) const LINK: Self = Self { frames: 64, bytes: 4 << 20 };
    /// Claims and acknowledgements: what a second of 10,000 operations makes, or one frame of the
    /// greatest length.
    pub(super) const CONTROL: Self = Self { frames: 16 << 10, bytes: 2 * LANE_BYTES_MAX };
    /// Operations and deliveries: a quarter of a second of all that a core can write.
    pub(super) const DATA: Self = Self { frames: 64 << 10, bytes: 2 * LANE_BYTES_MAX };
    /// Copies of streams: their senders keep their own budget, far below.
    pub(super) const BULK: Self = Self { frames: 4 << 10, bytes: 2 * LANE_BYTES_MAX };
}

/// The queue.
pub(super) struct Outbox {
    bounds: Bounds,
    queue: Mutex<Queue>,
    filled: Notify,
}

#[derive(Default)]
struct Queue {
    frames: VecDeque<Wire>,
    bytes: usize,
}

impl Outbox {
    pub(super) fn new(bounds: Bounds) -> Self {
        Self { bounds, queue: Mutex::default(), filled: Notify::new() }
    }

    /// Never waits.
    pub(super) fn try_push(&self, wire: Wire) -> Result<(), Full> {
        let mut queue = self.lock();
        let bytes = queue.bytes + wire.len();
        if queue.frames.len() >= self.bounds.frames || bytes > self.bounds.bytes {
            return Err(Full);
        }
        let was_empty = queue.frames.is_empty();
        queue.bytes = bytes;
        queue.frames.push_back(wire);
        drop(queue);
        if was_empty {
            self.filled.notify_one();
        }
        Ok(())
    }

    /// Waits for frames and takes as many as one write should carry, and how many that were. For
    /// one writer; nothing is lost if the future is dropped.
    pub(super) async fn drain(&self) -> (Vec<Bytes>, usize) {
        loop {
            let batch = self.take();
            if batch.1 > 0 {
                return batch;
            }
            self.filled.notified().await;
        }
    }

    fn take(&self) -> (Vec<Bytes>, usize) {
        let mut taken = Vec::new();
        let mut bytes = 0;
        let mut queue = self.lock();
        while bytes < WRITE_BYTES
            && let Some(wire) = queue.frames.pop_front()
        {
            bytes += wire.len();
            taken.push(wire);
        }
        queue.bytes -= bytes;
        drop(queue);
        let frames = taken.len();
        (coalesce(taken, bytes), frames)
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Joins small frames; large ones, and one alone, stay what they are. `bytes`: of all of them.
fn coalesce(mut wires: Vec<Wire>, bytes: usize) -> Vec<Bytes> {
    if let [alone] = &mut wires[..]
        && alone.head.is_empty()
    {
        return vec![std::mem::take(&mut alone.body)];
    }
    let (mut chunks, mut joined) = (Vec::new(), BytesMut::with_capacity(bytes.min(COPY_BYTES_MAX)));
    for wire in wires {
        joined.extend_from_slice(&wire.head);
        if wire.body.len() <= COPY_BYTES_MAX {
            joined.extend_from_slice(&wire.body);
            continue;
        }
        if !joined.is_empty() {
            chunks.push(joined.split().freeze());
        }
        chunks.push(wire.body);
    }
    if !joined.is_empty() {
        chunks.push(joined.freeze());
    }
    chunks
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wire(head: usize, body: usize) -> Wire {
        Wire { head: vec![1; head].into(), body: vec![2; body].into() }
    }

    #[test]
    fn a_full_queue_says_so_by_count_and_by_bytes() {
        let outbox = Outbox::new(Bounds { frames: 2, bytes: 100 });
        assert_eq!(outbox.try_push(wire(0, 101)), Err(Full));
        assert_eq!(outbox.try_push(wire(10, 80)), Ok(()));
        assert_eq!(outbox.try_push(wire(0, 11)), Err(Full));
        assert_eq!(outbox.try_push(wire(0, 10)), Ok(()));
        assert_eq!(outbox.try_push(wire(0, 0)), Err(Full));
        assert_eq!(outbox.take().1, 2);
        assert_eq!(outbox.try_push(wire(0, 100)), Ok(()));
    }

    #[test]
    fn small_frames_leave_joined_and_in_order_around_large_ones() {
        let large = COPY_BYTES_MAX + 1;
        let lens = |wires: Vec<Wire>| {
            let bytes = wires.iter().map(Wire::len).sum();
            coalesce(wires, bytes).iter().map(Bytes::len).collect::<Vec<_>>()
        };
        let mixed = vec![wire(0, 5), wire(3, large), wire(0, 7), wire(0, 1)];
        assert_eq!(lens(mixed), [5 + 3, large, 7 + 1]);
        assert_eq!(lens(vec![wire(0, 5)]), [5]);
        assert_eq!(lens(vec![wire(3, 5)]), [3 + 5]);
    }

    #[tokio::test]
    async fn a_push_wakes_the_writer() {
        let outbox = Outbox::new(Bounds::LINK);
        let (batch, pushed) = tokio::join!(outbox.drain(), async { outbox.try_push(wire(0, 1)) });
        assert_eq!((batch.1, pushed), (1, Ok(())));
    }
}
