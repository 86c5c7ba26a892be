//! The core beside the slots: who owns what, and what the owner keeps. Sync, without sockets,
//! clock, entropy or tasks: `(event, now)` in, actions out.
#![deny(clippy::disallowed_methods)]

pub mod placement;
pub mod serving;
pub mod view;
