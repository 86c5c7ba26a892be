//! Gossip: who is there.
