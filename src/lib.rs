//! Orbweb: N copies of one binary form a cluster for realtime messaging.
//!
//! The modules in reading order; arrows between them point down this list only:
//!
//! - [`config`]: what an operator can set, and how it is checked.
//! - [`node`]: the composition root. It wires the parts and decides nothing.
//! - [`engine`]: the one task that runs the cores: events in, actions out to the shells.
//! - Shells, which move bytes and events and never import each other:
//!   [`gateway`] (clients over WebSocket), [`peers`] (links over QUIC), [`membership`] (gossip),
//!   [`api`] (server API, health, metrics).
//! - [`delivery`]: the core beside the clients: interest, positions, retries, hub.
//! - [`ownership`]: the core beside the slots: placement, claims, streams.
//! - [`mutant`]: rules of the cores that a test build can switch off.
//! - [`protocol`]: the words: ids, channels, client frames, peer frames, codes.
//! - [`small_map`]: a map that is small while it has few entries.
//! - [`tasks`]: what runs the tasks in which a node thinks.
#![forbid(unsafe_code)]

pub mod api;
pub mod cli;
pub mod config;
pub mod delivery;
pub mod engine;
pub mod gateway;
pub mod membership;
pub mod mutant;
pub mod node;
pub mod ownership;
pub mod peers;
pub mod protocol;
pub mod small_map;
pub mod tasks;
