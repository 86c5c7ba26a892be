//! The words that every other part speaks: no logic beyond parsing, ordering and encoding.
pub mod channel;
pub mod client;
pub mod codes;
pub mod ids;
pub mod link;
pub mod message;
pub mod peer;
pub mod time;
pub mod user;
