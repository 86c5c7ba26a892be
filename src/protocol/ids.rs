//! Identities: nodes, slots, epochs, positions, clients.
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use thiserror::Error;
use xxhash_rust::xxh3::xxh3_64;

/// Slots of a cluster unless configured otherwise: fewer would be too coarse for a ring of 100 nodes.
pub const SLOTS_DEFAULT: u16 = 16384;
/// Longest node name in bytes: it travels in gossip, certificates and logs.
pub const NODE_NAME_BYTES_MAX: usize = 64;

/// Why a word could not be read.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum IdError {
    /// A node name that isn't 1 to 64 bytes of letters, digits, `.`, `_` and `-`.
    #[error(
        "node name {0:?} is not allowed: use 1 to 64 letters, digits, dots, dashes and underscores"
    )]
    NodeName(String),
    /// Not 32 hexadecimal digits.
    #[error("{0:?} is not 32 hexadecimal digits")]
    Hex(String),
    /// A stream epoch that no node of this software made.
    #[error("{0:?} is not a stream epoch")]
    StreamEpoch(String),
}

/// The operator's name of a node; the ring hashes it, so a restarted node gets its old slots.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct NodeName(Arc<str>);

impl NodeName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for NodeName {
    type Err = IdError;
    fn from_str(text: &str) -> Result<Self, IdError> {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
        if text.is_empty() || text.len() > NODE_NAME_BYTES_MAX || !text.bytes().all(allowed) {
            return Err(IdError::NodeName(text.to_owned()));
        }
        Ok(Self(text.into()))
    }
}

impl TryFrom<String> for NodeName {
    type Error = IdError;
    fn try_from(text: String) -> Result<Self, IdError> {
        text.parse()
    }
}

impl From<NodeName> for String {
    fn from(name: NodeName) -> Self {
        name.0.as_ref().to_owned()
    }
}

impl fmt::Display for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

macro_rules! hex_u128 {
    ($name:ident, $doc:literal) => {
        #[doc = $doc]
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(from = "(u64, u64)", into = "(u64, u64)")]
        // As an aligned u128 it would add eight idle bytes to nearly all that it is a part of.
        #[repr(C, packed(8))]
        pub struct $name(pub u128);

        impl From<(u64, u64)> for $name {
            fn from((high, low): (u64, u64)) -> Self {
                Self(u128::from(high) << 64 | u128::from(low))
            }
        }

        impl From<$name> for (u64, u64) {
            fn from(id: $name) -> Self {
                ((id.0 >> 64) as u64, id.0 as u64)
            }
        }

        impl FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                let digits = text.len() == 32 && text.bytes().all(|b| b.is_ascii_hexdigit());
                match u128::from_str_radix(text, 16) {
                    Ok(id) if digits => Ok(Self(id)),
                    _ => Err(IdError::Hex(text.to_owned())),
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let Self(id) = *self;
                write!(f, "{id:032x}")
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:08x}", (self.0 >> 96) as u32)
            }
        }
    };
}

hex_u128!(
    Incarnation,
    "The random half of a node's identity, drawn at each start: a restarted process is a different holder of data."
);
hex_u128!(
    ClientId,
    "One connection of a client, unique in the cluster; clients see its 32 hexadecimal digits."
);

/// One process: the operator's name and the incarnation.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct NodeId {
    /// The operator's name.
    pub name: NodeName,
    /// Which start of it.
    pub incarnation: Incarnation,
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{:?}", self.name, self.incarnation)
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The unit of ownership, `0..slots`.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize, Default,
)]
pub struct Slot(pub u16);

impl Slot {
    /// The slot of a key in a cluster of `slots` slots: `xxh3(key) mod slots`.
    pub fn of(key: &str, slots: u16) -> Self {
        Self((xxh3_64(key.as_bytes()) % u64::from(slots.max(1))) as u16)
    }

    /// As an index into a table of all slots.
    pub fn index(self) -> usize {
        usize::from(self.0)
    }
}

/// One ownership of a slot; greater epochs fence lesser ones.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct Epoch {
    /// Counts claims; 0 is "nobody yet".
    pub term: u64,
    /// The incarnation that claimed.
    pub owner: Incarnation,
}

impl Epoch {
    /// Below every epoch that a node can take.
    pub const NONE: Self = Self { term: 0, owner: Incarnation(0) };
}

/// The epoch of a stream as clients keep it: the slot's epoch, and the owner's operation index in
/// the slot when this epoch began in this stream, so that a stream made anew never has an old one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct StreamEpoch {
    /// The slot's epoch.
    pub epoch: Epoch,
    /// The owner's operation index in the slot.
    pub index: u64,
}

impl StreamEpoch {
    /// No stream's.
    pub const NONE: Self = Self { epoch: Epoch::NONE, index: 0 };
}

impl fmt::Display for StreamEpoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}.{:x}.{}", self.epoch.term, self.index, self.epoch.owner)
    }
}

impl FromStr for StreamEpoch {
    type Err = IdError;
    fn from_str(text: &str) -> Result<Self, IdError> {
        let parse = || {
            let mut parts = text.split('.');
            let (term, index, owner) = (parts.next()?, parts.next()?, parts.next()?);
            let epoch = Self {
                epoch: Epoch {
                    term: u64::from_str_radix(term, 16).ok()?,
                    owner: owner.parse().ok()?,
                },
                index: u64::from_str_radix(index, 16).ok()?,
            };
            (parts.next().is_none() && epoch.to_string() == text).then_some(epoch)
        };
        parse().ok_or_else(|| IdError::StreamEpoch(text.chars().take(64).collect()))
    }
}

/// A point in a stream: everything up to and including `offset` on the path of `epoch`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct Position {
    /// Whose naming the offset belongs to.
    pub epoch: StreamEpoch,
    /// Offset of the last publication seen; 0 = none yet.
    pub offset: u64,
}

// Streams, copies and records are made of these.
const _: () = assert!(size_of::<Position>() == 40);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stream_epoch_survives_text() {
        let epoch =
            StreamEpoch { epoch: Epoch { term: 300, owner: Incarnation(7 << 90) }, index: 17 };
        assert_eq!(epoch.to_string().parse(), Ok(epoch));
    }

    #[test]
    fn foreign_epochs_are_errors_not_panics() {
        for text in ["", "xyz", "1.2", "1.2.3.4", "+1.2.00000000000000000000000000000003"] {
            assert!(text.parse::<StreamEpoch>().is_err(), "{text:?} was accepted");
        }
    }

    #[test]
    fn node_names_are_limited() {
        assert!("eu-1.a_b".parse::<NodeName>().is_ok());
        for text in ["", "a b", "a/b", &"x".repeat(65)] {
            assert!(text.parse::<NodeName>().is_err(), "{text:?} was accepted");
        }
    }

    #[test]
    fn slots_of_keys_never_change() {
        assert_eq!(Slot::of("alice", SLOTS_DEFAULT), Slot(5808));
    }
}
