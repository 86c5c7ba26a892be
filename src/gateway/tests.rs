//! The gateway as its clients see it: real handshakes, frames, shards; fake cores behind.
mod fake;
mod limits;
mod protocol;
mod records;
mod rig;
mod streams;
mod tcp;
