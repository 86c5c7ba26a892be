//! Clients over WebSocket.
