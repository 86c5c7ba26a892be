//! The fingerprint by which nodes find out that they hold the same of a slot: remembered until what
//! is held changes.
use xxhash_rust::xxh3::Xxh3;

use super::Holding;
use super::loose::Loose;
use crate::protocol::ids::Position;

impl Holding {
    /// Equal for equal content, on every node.
    pub fn digest(&self) -> u64 {
        if let Some(known) = self.digest.get() {
            return known;
        }
        let mut hash = Xxh3::new();
        for (channel, stream) in &self.streams {
            hash.update(channel.as_str().as_bytes());
            update_position(&mut hash, stream.position());
            stream.gaps().for_each(|before| hash.update(&before.to_le_bytes()));
            stream.side_positions().for_each(|name| update_position(&mut hash, name));
        }
        for (gateway, number) in &self.applied {
            hash.update(&gateway.0.to_le_bytes());
            hash.update(&number.to_le_bytes());
        }
        for (channel, loose) in &self.loose {
            hash.update(channel.as_str().as_bytes());
            for Loose { entry, .. } in loose {
                hash.update(&entry.operation.gateway.0.to_le_bytes());
                hash.update(&entry.operation.number.to_le_bytes());
            }
        }
        for (user, record) in &self.users {
            hash.update(user.as_str().as_bytes());
            record.update(&mut hash);
        }
        let digest = hash.digest();
        self.digest.set(Some(digest));
        digest
    }

    pub(super) fn changed(&mut self) {
        self.digest.set(None);
    }
}

/// Adds a position to a fingerprint.
pub(in crate::ownership) fn update_position(hash: &mut Xxh3, position: Position) {
    hash.update(&position.epoch.epoch.term.to_le_bytes());
    hash.update(&position.epoch.epoch.owner.0.to_le_bytes());
    hash.update(&position.epoch.index.to_le_bytes());
    hash.update(&position.offset.to_le_bytes());
}
