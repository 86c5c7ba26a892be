//! One publication of a stream with its identity, and its copy for other nodes.
use crate::protocol::message::{OperationId, Publication};
use crate::protocol::peer::EntryCopy;
use crate::protocol::time::Millis;

/// One publication with its identity.
#[derive(Clone, PartialEq, Debug)]
pub struct Entry {
    /// The publication under its name.
    pub publication: Publication,
    /// Its identity for ever.
    pub operation: OperationId,
    /// When it is dropped.
    pub expires: Millis,
}

impl Entry {
    /// A copy with what is left of its time.
    pub(in crate::ownership) fn copy(&self, now: Millis) -> EntryCopy {
        EntryCopy {
            publication: self.publication.clone(),
            operation: self.operation,
            ttl_ms: self.expires.since(now),
        }
    }

    pub(in crate::ownership) fn from_copy(copy: EntryCopy, now: Millis) -> Self {
        Self {
            publication: copy.publication,
            operation: copy.operation,
            expires: now + copy.ttl_ms,
        }
    }
}
