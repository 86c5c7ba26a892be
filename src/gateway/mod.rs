//! Clients over WebSocket.
pub mod socket;
pub mod token;
mod wheel;
pub mod ws;
