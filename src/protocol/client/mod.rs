//! Frames of the Centrifuge client protocol v2: what clients say, and what they are told.
//! The gateway reads and writes them; nothing here knows a connection or a rule.
pub mod command;
mod json;
pub mod reply;

pub use command::{Command, Method, commands};
pub use reply::{ConnectResult, Format, PublicationFields, Push, Reply, SubscribeResult};

#[cfg(test)]
mod tests;
