//! What outlives a user's connections: server-side subscriptions, attributes, and whether there are
//! connections. For each field the last change of it, by stamp; what is gone leaves a tombstone. Pure
//! bookkeeping of a holding.
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
    ATTRIBUTES_MAX, Field, Stamp, Stamped, Status, USER_SUBSCRIPTIONS_MAX, UserChange, UserState,
};

/// How long a record is kept at least where nobody needs it, whatever the inbox and sessions are
/// configured to keep.
pub const SESSION_TTL_MS: u64 = 120_000;
/// Fields of a record, tombstones included: over it new ones are refused until tombstones went.
pub const FIELDS_MAX: usize = 1_024;
/// Fields in one piece of a copy, which is then within the bytes that one part carries.
const FIELDS_PER_COPY: usize = 48;

/// A field: the last change of it and what of it is shown.
#[derive(Clone, Debug)]
struct Kept {
    field: Field,
    last: Stamped,
    /// Since when this node knows it.
    since: Millis,
    shown: Shown,
}

/// The last committed change of a field: only this is shown.
#[derive(Clone, Debug)]
enum Shown {
    Nothing,
    Last,
    Earlier(Box<Stamped>),
}

impl Kept {
    fn committed(&self) -> Option<&Stamped> {
        match &self.shown {
            Shown::Nothing => None,
            Shown::Last => Some(&self.last),
            Shown::Earlier(stamped) => Some(stamped),
        }
    }
}

/// What of a record is shown otherwise since a commit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum News {
    /// Nothing that anybody is told of.
    None,
    /// The subscriptions.
    Subscriptions,
    /// Whether the user is connected.
    Status,
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Record {
    /// In the order of the fields. A vector, since most records have one or two.
    fields: Vec<Kept>,
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
        Self { fields: Vec::new(), ttl_ms: SESSION_TTL_MS, touched: now }
    }

    fn find(&self, field: &Field) -> Result<usize, usize> {
        self.fields.binary_search_by(|kept| kept.field.cmp(field))
    }

    fn kept(&self, field: &Field) -> Option<&Kept> {
        self.find(field).ok().map(|at| &self.fields[at])
    }

    /// Takes a change, unless a later one of its field is known. True if it is news.
    pub fn apply(&mut self, stamped: Stamped, ttl_ms: u64, now: Millis) -> bool {
        self.ttl_ms = self.ttl_ms.max(ttl_ms);
        let field = stamped.change.field();
        match self.find(&field) {
            Ok(at) => {
                let kept = &mut self.fields[at];
                // Of equal stamps there is one change; were there two, every node would take the same.
                if kept.last >= stamped && !without(Rule::LaterStamp) {
                    return false;
                }
                let before = std::mem::replace(&mut kept.last, stamped);
                if matches!(kept.shown, Shown::Last) {
                    kept.shown = Shown::Earlier(Box::new(before));
                }
                kept.since = now;
            }
            Err(at) => {
                let kept = Kept { field, last: stamped, since: now, shown: Shown::Nothing };
                if self.fields.is_empty() {
                    // Most have one or two; a vector begins with room for four.
                    self.fields.reserve_exact(1);
                }
                self.fields.insert(at, kept);
            }
        }
        true
    }

    /// Notes that a change is committed.
    pub fn commit(&mut self, stamped: &Stamped) -> News {
        let Ok(at) = self.find(&stamped.change.field()) else { return News::None };
        let kept = &mut self.fields[at];
        let known = kept.committed();
        if known.is_some_and(|known| known >= stamped) {
            return News::None;
        }
        let was = known.is_some_and(|known| !known.change.is_tombstone());
        let is = !stamped.change.is_tombstone();
        kept.shown = match kept.last == *stamped {
            true => Shown::Last,
            false => Shown::Earlier(Box::new(stamped.clone())),
        };
        match kept.field {
            _ if was == is => News::None,
            Field::Subscription(_) => News::Subscriptions,
            Field::Status => News::Status,
            Field::Attribute(_) => News::None,
        }
    }

    /// Everything held is committed.
    pub fn commit_all(&mut self) {
        self.fields.iter_mut().for_each(|kept| kept.shown = Shown::Last);
    }

    /// What is held and isn't known to be committed.
    pub fn uncommitted(&self) -> impl Iterator<Item = &Stamped> {
        let fields = self.fields.iter();
        fields.filter(|kept| kept.committed() < Some(&kept.last)).map(|kept| &kept.last)
    }

    /// The last change of each field, in the order of the fields.
    pub fn changes(&self) -> impl Iterator<Item = &Stamped> {
        self.fields.iter().map(|kept| &kept.last)
    }

    /// The last change of a field.
    pub fn last(&self, field: &Field) -> Option<&Stamped> {
        self.kept(field).map(|kept| &kept.last)
    }

    /// Why a change isn't taken, if it isn't: there are too many of something.
    pub fn refuses(&self, change: &UserChange) -> Option<ErrorCode> {
        let known = self.last(&change.field());
        if known.is_some_and(|known| change.is_tombstone() || !known.change.is_tombstone()) {
            return None;
        }
        let most = match change {
            UserChange::Subscribe(_) => USER_SUBSCRIPTIONS_MAX,
            UserChange::Set { .. } => ATTRIBUTES_MAX,
            _ => usize::MAX,
        };
        let kind = std::mem::discriminant(change);
        let like = self.changes().filter(|other| std::mem::discriminant(&other.change) == kind);
        if like.count() >= most {
            return Some(ErrorCode::LimitExceeded);
        }
        // Tombstones go by themselves.
        let full = known.is_none() && self.fields.len() >= FIELDS_MAX;
        full.then_some(ErrorCode::TooManyRequests)
    }

    fn shown(&self) -> impl Iterator<Item = &UserChange> {
        self.fields.iter().filter_map(|kept| Some(&kept.committed()?.change))
    }

    /// The channels that the user's connections are subscribed to, in their order.
    pub fn subscriptions(&self) -> Vec<Channel> {
        let channels = self.shown().filter_map(|change| match change {
            UserChange::Subscribe(channel) => Some(channel.clone()),
            _ => None,
        });
        channels.collect()
    }

    /// The attributes, or the one of a key, in the order of their keys.
    pub fn attributes(&self, key: Option<&str>) -> Vec<(Arc<str>, Bytes)> {
        let attributes = self.shown().filter_map(|change| match change {
            UserChange::Set { key, value } => Some((key.clone(), value.clone())),
            _ => None,
        });
        attributes.filter(|(other, _)| key.is_none_or(|key| **other == *key)).collect()
    }

    /// Whether the user is connected.
    pub fn status(&self, now: Millis) -> Status {
        let Some(kept) = self.kept(&Field::Status) else { return Status::Unknown };
        match kept.committed().map(|stamped| &stamped.change) {
            Some(UserChange::Online) => Status::Online,
            Some(UserChange::Offline { ago_ms }) => {
                Status::Offline(ago_ms.saturating_add(now.since(kept.since)))
            }
            _ => Status::Unknown,
        }
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
                UserChange::Online | UserChange::Offline { .. } => {}
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
        let tombstones = self.fields.iter().filter(|kept| kept.last.change.is_tombstone());
        let old = |kept: &&Kept| now.since(kept.since) >= 2 * self.ttl_ms;
        let young = tombstones.clone().filter(|kept| !old(kept));
        let bound = young.map(|kept| kept.last.stamp).min();
        let idle = tombstones.filter(old).map(|kept| kept.last.stamp);
        // What isn't committed is waited for.
        let uncommitted = self.uncommitted().map(|stamped| stamped.stamp).min();
        idle.filter(|stamp| bound.is_none_or(|bound| *stamp < bound))
            .filter(|stamp| uncommitted.is_none_or(|bound| *stamp < bound))
            .max()
    }

    /// Forgets tombstones up to a stamp.
    pub fn forget(&mut self, upto: Stamp) {
        let goes = |last: &Stamped| last.change.is_tombstone() && last.stamp <= upto;
        self.fields.retain(|kept| !goes(&kept.last));
    }

    /// The changes that end what is kept of a user, once there was no connection and no change for
    /// `ttl_ms`; none before.
    pub fn end(&self, ttl_ms: u64, now: Millis) -> Vec<UserChange> {
        let quiet_ms = self.fields.iter().map(|kept| match kept.last.change {
            UserChange::Online => 0,
            UserChange::Offline { ago_ms } => now.since(kept.since).saturating_add(ago_ms),
            _ if kept.last.change.is_tombstone() => u64::MAX,
            _ => now.since(kept.since),
        });
        if quiet_ms.min().is_none_or(|quiet_ms| quiet_ms < ttl_ms) {
            return Vec::new();
        }
        let changes = self.changes().filter_map(|last| match &last.change {
            UserChange::Subscribe(channel) => Some(UserChange::Unsubscribe(channel.clone())),
            UserChange::Set { key, .. } => Some(UserChange::Delete { key: key.clone() }),
            _ => None,
        });
        changes.collect()
    }
}

// Copies.
impl Record {
    /// All of it, in pieces.
    pub fn copies(&self, user: &Channel, now: Millis) -> Vec<UserCopy> {
        let copy = |kept: &Kept| FieldCopy {
            stamped: kept.last.clone(),
            committed: matches!(kept.shown, Shown::Last),
            age_ms: now.since(kept.since),
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
            if expired && self.kept(&field).is_none() {
                continue;
            }
            self.apply(stamped.clone(), copy.ttl_ms, now - age_ms);
            if committed {
                self.commit(&stamped);
            }
        }
    }
}

/// The fingerprint of what is told of a user that gateways and owners compare; 0 for nothing.
pub fn user_digest(state: &UserState) -> u64 {
    match state {
        UserState::Subscriptions(channels) if !channels.is_empty() => {
            let mut hash = Xxh3::new();
            for channel in channels {
                hash.update(channel.as_str().as_bytes());
                hash.update(&[0]);
            }
            hash.digest()
        }
        // How long ago a user left changes all the time.
        UserState::Status(status) => u64::from(status.is_online()),
        UserState::Subscriptions(_) | UserState::None => 0,
    }
}

/// Adds the fingerprints of what is told of users, in the order of their channels, to that of where
/// streams stand.
pub fn with_users<'a>(tops: u64, users: impl Iterator<Item = (&'a Channel, u64)>) -> u64 {
    let mut hash = Xxh3::new();
    hash.update(&tops.to_le_bytes());
    for (channel, digest) in users.filter(|(_, digest)| *digest != 0) {
        hash.update(channel.as_str().as_bytes());
        hash.update(&digest.to_le_bytes());
    }
    hash.digest()
}

#[cfg(test)]
mod tests;
