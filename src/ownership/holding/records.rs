//! What is held of a slot's users: their records by inbox, as changed, committed and forgotten by
//! the owner's word. What a record is: `user`.
use super::Holding;
use crate::ownership::user::{News, Record};
use crate::protocol::channel::Channel;
use crate::protocol::message::OperationId;
use crate::protocol::time::Millis;
use crate::protocol::user::{Stamp, Stamped};

impl Holding {
    /// The record of the user whose inbox this is.
    pub fn user(&self, user: &Channel) -> Option<&Record> {
        self.users.get(user)
    }

    /// All records, in the order of the inboxes.
    pub fn users(&self) -> impl Iterator<Item = (&Channel, &Record)> {
        self.users.iter()
    }

    /// Changes a record; it is kept for `ttl_ms` at least.
    pub fn change_user(
        &mut self,
        user: &Channel,
        ttl_ms: u64,
        operation: Option<OperationId>,
        stamped: Stamped,
        now: Millis,
    ) {
        self.changed();
        if let Some(operation) = operation {
            self.note(operation);
        }
        let record = self.users.get_or_insert_with(user.clone(), || Record::new(now));
        record.apply(stamped, ttl_ms, now);
    }

    /// Notes that a change is committed, and tells what is shown otherwise since.
    pub fn commit_user(&mut self, user: &Channel, stamped: &Stamped) -> News {
        self.users.get_mut(user).map_or(News::None, |record| record.commit(stamped))
    }

    /// What isn't known to be committed of the records.
    pub fn uncommitted_users(&self) -> Vec<(Channel, Stamped)> {
        let records = self.users.iter();
        let changes = records.flat_map(|(user, record)| {
            record.uncommitted().map(|stamped| (user.clone(), stamped.clone()))
        });
        changes.collect()
    }

    /// Records with tombstones that nobody needs any more, and up to where.
    pub fn idle_users(&self, now: Millis) -> Vec<(Channel, Stamp)> {
        let records = self.users.iter();
        records.filter_map(|(user, record)| Some((user.clone(), record.idle(now)?))).collect()
    }

    /// Forgets tombstones of a record up to a stamp, and the record if nothing is left.
    pub fn forget_user(&mut self, user: &Channel, upto: Stamp) {
        if let Some(record) = self.users.get_mut(user) {
            record.forget(upto);
            if record.is_empty() {
                self.users.remove(user);
            }
            self.changed();
        }
    }

    /// Keeps records while this node has a part in them.
    pub fn touch_users(&mut self, now: Millis) {
        self.users.values_mut().for_each(|record| record.touch(now));
    }

    /// Forgets records that this node has had no part in for long.
    pub fn forget_stale_users(&mut self, now: Millis) {
        let before = self.users.len();
        self.users.retain(|_, record| !record.is_stale(now));
        if self.users.len() != before {
            self.changed();
        }
    }
}
