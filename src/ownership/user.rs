//! What outlives a user's connections: server-side subscriptions and attributes. For each field the
//! last change of it, by stamp; what is gone leaves a tombstone. Pure bookkeeping of a holding.
use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use xxhash_rust::xxh3::Xxh3;

use crate::mutant::{Rule, without};
use crate::protocol::channel::Channel;
use crate::protocol::codes::ErrorCode;
use crate::protocol::ids::Epoch;
use crate::protocol::peer::{FieldCopy, UserCopy};
use crate::protocol::time::Millis;
use crate::protocol::user::{
    ATTRIBUTES_MAX, Field, Stamp, Stamped, USER_SUBSCRIPTIONS_MAX, UserChange,
};

/// How long a record is kept at least where nobody needs it, whatever the inbox keeps: what a user
/// who lost a connection may take to come back.
pub const SESSION_TTL_MS: u64 = 120_000;
/// Fields of a record, tombstones included: over it new ones are refused until tombstones went.
pub const FIELDS_MAX: usize = 1_024;
/// Fields in one piece of a copy, which is then within the bytes that one part carries.
const FIELDS_PER_COPY: usize = 48;

/// The last change of a field, and since when this node knows it.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Last {
    stamped: Stamped,
    since: Millis,
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Record {
    fields: BTreeMap<Field, Last>,
    /// The last committed change of each field: only this is shown.
    committed: BTreeMap<Field, Stamped>,
    /// What it is kept for, the longest that a change asked for.
    ttl_ms: u64,
    /// When its holder last owned it or was to hold it.
    touched: Millis,
}

/// What is held; how much of it is known to be committed, and for how long, isn't compared.
impl PartialEq for Record {
    fn eq(&self, other: &Self) -> bool {
        self.changes().eq(other.changes())
    }
}

impl Record {
    /// A record of which nothing is known yet.
    pub fn new(now: Millis) -> Self {
        let (fields, committed) = (BTreeMap::new(), BTreeMap::new());
        Self { fields, committed, ttl_ms: SESSION_TTL_MS, touched: now }
    }

    /// Takes a change, unless a later one of its field is known. True if it is news.
    pub fn apply(&mut self, stamped: Stamped, ttl_ms: u64, now: Millis) -> bool {
        self.ttl_ms = self.ttl_ms.max(ttl_ms);
        let field = stamped.change.field();
        // Of equal stamps there is one change; were there two, every node would take the same.
        let known = self.fields.get(&field).is_some_and(|last| last.stamped >= stamped);
        if known && !without(Rule::LaterStamp) {
            return false;
        }
        self.fields.insert(field, Last { stamped, since: now });
        true
    }

    /// Notes that a change is committed. True if that changes what is shown of subscriptions.
    pub fn commit(&mut self, stamped: &Stamped) -> bool {
        let field = stamped.change.field();
        let known = self.committed.get(&field);
        if known.is_some_and(|known| known >= stamped) {
            return false;
        }
        let was = known.is_some_and(|known| !known.change.is_tombstone());
        let is = !stamped.change.is_tombstone();
        let subscription = matches!(field, Field::Subscription(_));
        self.committed.insert(field, stamped.clone());
        subscription && was != is
    }

    /// Everything held is committed.
    pub fn commit_all(&mut self) {
        let held = self.fields.iter();
        self.committed = held.map(|(field, last)| (field.clone(), last.stamped.clone())).collect();
    }

    /// What is held and isn't known to be committed.
    pub fn uncommitted(&self) -> impl Iterator<Item = &Stamped> {
        self.changes().filter(|stamped| self.committed.get(&stamped.change.field()) < Some(stamped))
    }

    /// The last change of each field, in the order of the fields.
    pub fn changes(&self) -> impl Iterator<Item = &Stamped> {
        self.fields.values().map(|last| &last.stamped)
    }

    /// The last change of a field.
    pub fn last(&self, field: &Field) -> Option<&Stamped> {
        self.fields.get(field).map(|last| &last.stamped)
    }

    /// Why a change isn't taken, if it isn't: there are too many of something.
    pub fn refuses(&self, change: &UserChange) -> Option<ErrorCode> {
        let known = self.last(&change.field());
        if known.is_some_and(|known| change.is_tombstone() || !known.change.is_tombstone()) {
            return None;
        }
        let like = |other: &&Stamped| {
            let subscription = |change: &UserChange| matches!(change, UserChange::Subscribe(_));
            subscription(&other.change) == subscription(change)
        };
        let alive = self.changes().filter(|other| !other.change.is_tombstone());
        let most = match change {
            UserChange::Subscribe(_) => USER_SUBSCRIPTIONS_MAX,
            UserChange::Set { .. } => ATTRIBUTES_MAX,
            UserChange::Unsubscribe(_) | UserChange::Delete { .. } => usize::MAX,
        };
        if alive.filter(like).count() >= most {
            return Some(ErrorCode::LimitExceeded);
        }
        // Tombstones go by themselves.
        let full = known.is_none() && self.fields.len() >= FIELDS_MAX;
        full.then_some(ErrorCode::TooManyRequests)
    }

    /// The channels that the user's connections are subscribed to, in their order.
    pub fn subscriptions(&self) -> Vec<Channel> {
        let committed = self.committed.values().map(|stamped| &stamped.change);
        let channels = committed.filter_map(|change| match change {
            UserChange::Subscribe(channel) => Some(channel.clone()),
            _ => None,
        });
        channels.collect()
    }

    /// The attributes, or the one of a key, in the order of their keys.
    pub fn attributes(&self, key: Option<&str>) -> Vec<(Arc<str>, Bytes)> {
        let committed = self.committed.values().map(|stamped| &stamped.change);
        let attributes = committed.filter_map(|change| match change {
            UserChange::Set { key, value } => Some((key.clone(), value.clone())),
            _ => None,
        });
        attributes.filter(|(other, _)| key.is_none_or(|key| **other == *key)).collect()
    }

    /// What it is kept for at least, in milliseconds.
    pub fn ttl_ms(&self) -> u64 {
        self.ttl_ms
    }

    /// The highest epoch in which anything of it was changed.
    pub fn epoch(&self) -> Option<Epoch> {
        self.changes().map(|stamped| stamped.stamp.epoch).max()
    }

    /// Whether nothing is left of it.
    pub fn is_empty(&self) -> bool {
        self.fields.is_empty()
    }

    /// Adds what is held to a fingerprint.
    pub fn update(&self, hash: &mut Xxh3) {
        for Stamped { stamp, change } in self.changes() {
            hash.update(&stamp.epoch.term.to_le_bytes());
            hash.update(&stamp.epoch.owner.0.to_le_bytes());
            hash.update(&stamp.index.to_le_bytes());
            match change {
                UserChange::Subscribe(c) | UserChange::Unsubscribe(c) => {
                    hash.update(c.as_str().as_bytes());
                }
                UserChange::Set { key, .. } | UserChange::Delete { key } => {
                    hash.update(key.as_bytes());
                }
            }
        }
    }
}

// Time.
impl Record {
    /// Its holder owns it, or is to hold it.
    pub fn touch(&mut self, now: Millis) {
        self.touched = now;
    }

    /// Whether its holder has had no part in it for so long that what was deleted since may soon be
    /// forgotten elsewhere.
    pub fn is_stale(&self, now: Millis) -> bool {
        now.since(self.touched) >= self.ttl_ms
    }

    /// The stamp up to which all tombstones have been kept for twice the time that anybody may take
    /// to come back with something older.
    pub fn idle(&self, now: Millis) -> Option<Stamp> {
        let tombstones = self.fields.values().filter(|last| last.stamped.change.is_tombstone());
        let old = |last: &&Last| now.since(last.since) >= 2 * self.ttl_ms;
        let young = tombstones.clone().filter(|last| !old(last));
        let bound = young.map(|last| last.stamped.stamp).min();
        let idle = tombstones.filter(old).map(|last| last.stamped.stamp);
        // What isn't committed is waited for.
        let uncommitted = self.uncommitted().map(|stamped| stamped.stamp).min();
        idle.filter(|stamp| bound.is_none_or(|bound| *stamp < bound))
            .filter(|stamp| uncommitted.is_none_or(|bound| *stamp < bound))
            .max()
    }

    /// Forgets tombstones up to a stamp.
    pub fn forget(&mut self, upto: Stamp) {
        let goes = |s: &Stamped| s.change.is_tombstone() && s.stamp <= upto;
        self.fields.retain(|_, last| !goes(&last.stamped));
        self.committed.retain(|_, stamped| !goes(stamped));
    }
}

// Copies.
impl Record {
    /// All of it, in pieces.
    pub fn copies(&self, user: &Channel, now: Millis) -> Vec<UserCopy> {
        let copy = |(field, last): (&Field, &Last)| FieldCopy {
            stamped: last.stamped.clone(),
            committed: self.committed.get(field) == Some(&last.stamped),
            age_ms: now.since(last.since),
        };
        let fields: Vec<FieldCopy> = self.fields.iter().map(copy).collect();
        let pieces = fields.chunks(FIELDS_PER_COPY);
        let (user, ttl_ms) = (user.clone(), self.ttl_ms);
        pieces
            .map(|fields| UserCopy { user: user.clone(), ttl_ms, fields: fields.to_vec() })
            .collect()
    }

    /// Adds what a copy has and this record lacks.
    pub fn merge(&mut self, copy: UserCopy, now: Millis) {
        for FieldCopy { stamped, committed, age_ms } in copy.fields {
            let field = stamped.change.field();
            let expired = stamped.change.is_tombstone() && age_ms >= 2 * copy.ttl_ms;
            // Nobody can come back with what it is to keep away: it isn't brought back.
            if expired && !self.fields.contains_key(&field) {
                continue;
            }
            self.apply(stamped.clone(), copy.ttl_ms, now - age_ms);
            if committed {
                self.commit(&stamped);
            }
        }
    }
}

/// The fingerprint of subscriptions that gateways and owners compare; 0 for none.
pub fn subscriptions_digest(channels: &[Channel]) -> u64 {
    if channels.is_empty() {
        return 0;
    }
    let mut hash = Xxh3::new();
    for channel in channels {
        hash.update(channel.as_str().as_bytes());
        hash.update(&[0]);
    }
    hash.digest()
}

/// Adds the fingerprints of users' subscriptions, in the order of their inboxes, to that of where
/// streams stand.
pub fn with_subscriptions<'a>(tops: u64, users: impl Iterator<Item = (&'a Channel, u64)>) -> u64 {
    let mut hash = Xxh3::new();
    hash.update(&tops.to_le_bytes());
    for (user, digest) in users.filter(|(_, digest)| *digest != 0) {
        hash.update(user.as_str().as_bytes());
        hash.update(&digest.to_le_bytes());
    }
    hash.digest()
}

#[cfg(test)]
mod tests;
