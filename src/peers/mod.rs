//! Links to other nodes over QUIC.
