//! Pieces of a stream that is longer than a part of a copy, joined again where they are pulled to.
//! It takes parts in the order in which `copies` made them.
use crate::protocol::peer::{SlotCopy, StreamCopy};

/// Pieces of a stream's copy until all of it has come: where lines have parted, a beginning of one
/// says too little to be merged.
#[derive(Debug, Default)]
pub struct Pieces(Option<StreamCopy>);

impl Pieces {
    /// Takes the next part of a copy, and gives what is whole of it. `None` if it doesn't continue
    /// the part before.
    pub fn join(&mut self, part: SlotCopy) -> Option<SlotCopy> {
        if self.0.is_some() && part.streams.is_empty() {
            return None;
        }
        let mut streams = Vec::with_capacity(part.streams.len());
        for mut copy in part.streams {
            if let Some(mut begun) = self.0.take() {
                if begun.channel != copy.channel {
                    return None;
                }
                begun.entries.append(&mut copy.entries);
                begun.goes_on = copy.goes_on;
                copy = begun;
            }
            match copy.goes_on {
                true => self.0 = Some(copy),
                false => streams.push(copy),
            }
        }
        Some(SlotCopy { streams, ..part })
    }
}
