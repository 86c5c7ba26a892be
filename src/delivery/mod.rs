//! The core beside the clients: which channels they want, what was promised to them, where each
//! request goes. Sync, without sockets, clock, entropy or tasks: `(event, now)` in, actions out.
#![deny(clippy::disallowed_methods)]

pub mod core;
pub mod event;
pub mod hub;
pub mod interest;
pub mod mailbox;
pub mod operations;
pub mod router;
