//! The core beside the slots: who owns what, and what the owner keeps. Sync, without sockets,
//! clock, entropy or tasks: `(event, now)` in, actions out.
#![deny(clippy::disallowed_methods)]

pub mod attendance;
pub mod audience;
pub mod claim;
mod doubtful;
mod following;
pub mod holding;
pub mod learner;
mod lease;
mod log;
pub mod out;
pub mod owner;
pub mod parked;
pub mod placement;
pub mod pull;
mod rare;
pub mod replication;
mod requests;
pub mod serving;
pub mod stray;
pub mod stream;
pub mod table;
pub mod user;
mod users;
pub mod validate;
pub mod view;

pub use log::{UNCOMMITTED_BYTES_MAX, UNCOMMITTED_MAX};
