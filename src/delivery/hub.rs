//! The hub: local subscribers by channel.
