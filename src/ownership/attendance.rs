//! Who of the users of owned slots is connected. A user with a connection follows the own inbox, so
//! the audience tells; what is kept of it is a field of the user's record. An owner that took over
//! has the record of it and hears of the interest again, wherever the one before it died.
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

use super::audience::Audience;
use super::owner::Ownership;
use super::user::Record;
use crate::mutant::{Rule, without};
use crate::protocol::channel::Channel;
use crate::protocol::ids::{Incarnation, Slot};
use crate::protocol::time::Millis;
use crate::protocol::user::{Field, UserChange};

/// When users count as gone, and what is kept of them ends. The same on all nodes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Sessions {
    /// How long a user may be without a connection and isn't called offline, in milliseconds.
    pub offline_after_ms: u64,
    /// How long subscriptions and attributes outlive the last connection, in milliseconds.
    pub ttl_ms: u64,
}

impl Default for Sessions {
    fn default() -> Self {
        Self { offline_after_ms: 10_000, ttl_ms: 120_000 }
    }
}

/// Users of owned slots who were connected and, as far as this owner knows, are no more. Each stands
/// in it once, however often they come and go.
#[derive(Debug, Default)]
pub(super) struct Attendance {
    since: BTreeMap<Slot, BTreeMap<Channel, Millis>>,
    /// The same in the order of time.
    due: BTreeSet<(Millis, Slot, Channel)>,
}

impl Attendance {
    fn leave(&mut self, slot: Slot, user: &Channel, now: Millis) {
        let users = self.since.entry(slot).or_default();
        if let Entry::Vacant(entry) = users.entry(user.clone()) {
            entry.insert(now);
            self.due.insert((now, slot, user.clone()));
        }
    }

    fn stay(&mut self, slot: Slot, user: &Channel) {
        let Entry::Occupied(mut users) = self.since.entry(slot) else { return };
        if let Some(since) = users.get_mut().remove(user) {
            self.due.remove(&(since, slot, user.clone()));
        }
        if users.get().is_empty() {
            users.remove();
        }
    }

    /// The slot is owned no more.
    pub(super) fn forget(&mut self, slot: Slot) {
        for (user, since) in self.since.remove(&slot).into_iter().flatten() {
            self.due.remove(&(since, slot, user));
        }
    }

    /// The next who has been away since `until` or longer.
    fn take_due(&mut self, until: Millis) -> Option<(Slot, Channel, Millis)> {
        let (since, slot, user) = self.due.first().filter(|(since, ..)| *since <= until)?.clone();
        self.stay(slot, &user);
        Some((slot, user, since))
    }
}

impl Ownership {
    /// Compares what is kept of a user with whether there are connections.
    pub(super) fn attend(&mut self, slot: Slot, user: &Channel, now: Millis) {
        if user.inbox_user().is_none() || !self.table.owns(slot) {
            return;
        }
        let here = self.audiences.get(&slot).is_some_and(|audience| audience.wants(user));
        match (here, self.is_online(slot, user)) {
            (false, true) => self.attendance.leave(slot, user, now),
            (true, false) => {
                self.attendance.stay(slot, user);
                self.log_user_change(slot, user, UserChange::Online, now);
            }
            _ => self.attendance.stay(slot, user),
        }
    }

    /// Compares all users of a slot.
    pub(super) fn attend_all(&mut self, slot: Slot, now: Millis) {
        let audience = self.audiences.get(&slot);
        let here = audience.into_iter().flat_map(Audience::channels);
        let here = here.filter(|user| user.inbox_user().is_some());
        let came = here.filter(|user| !self.is_online(slot, user));
        let records = self.holdings.get(&slot).into_iter().flat_map(|holding| holding.users());
        let records = records.filter(|(_, record)| is_online(record)).map(|(user, _)| user);
        let left = records.filter(|user| !audience.is_some_and(|a| a.wants(user)));
        for user in came.chain(left).cloned().collect::<Vec<_>>() {
            self.attend(slot, &user, now);
        }
    }

    /// The inboxes that a gateway follows, in one slot or in all.
    pub(super) fn inboxes_of(
        &self,
        gateway: Incarnation,
        within: Option<Slot>,
    ) -> Vec<(Slot, Channel)> {
        let slots = match within {
            Some(slot) => self.audiences.range(slot..=slot),
            None => self.audiences.range(..),
        };
        let channels = slots.flat_map(|(slot, audience)| {
            audience.channels_of(gateway).map(|channel| (*slot, channel.clone()))
        });
        channels.filter(|(_, channel)| channel.inbox_user().is_some()).collect()
    }

    /// Calls those offline who have been away for long enough.
    pub(super) fn check_attendance(&mut self, now: Millis) {
        let wait_ms = self.sessions.offline_after_ms;
        let wait_ms = if without(Rule::WaitForReturn) { 0 } else { wait_ms };
        let Some(until) = now.0.checked_sub(wait_ms) else { return };
        while let Some((slot, user, since)) = self.attendance.take_due(Millis(until)) {
            let here = self.audiences.get(&slot).is_some_and(|audience| audience.wants(&user));
            if self.table.owns(slot) && !here && self.is_online(slot, &user) {
                let ago_ms = now.since(since);
                if !self.log_user_change(slot, &user, UserChange::Offline { ago_ms }, now) {
                    // Not now: it is looked at again with its slot.
                    return;
                }
            }
        }
    }

    /// Ends what is kept of users of an owned slot who have been away for too long.
    pub(super) fn end_sessions(&mut self, slot: Slot, now: Millis) {
        let ttl_ms = self.sessions.ttl_ms;
        let audience = self.audiences.get(&slot);
        let records = self.holdings.get(&slot).into_iter().flat_map(|holding| holding.users());
        let away = records.filter(|(user, _)| !audience.is_some_and(|a| a.wants(user)));
        let ends = away.flat_map(|(user, record)| {
            record.end(ttl_ms, now).into_iter().map(|change| (user.clone(), change))
        });
        for (user, change) in ends.collect::<Vec<_>>() {
            if !self.log_user_change(slot, &user, change, now) {
                return;
            }
        }
    }

    fn is_online(&self, slot: Slot, user: &Channel) -> bool {
        let record = self.holdings.get(&slot).and_then(|holding| holding.user(user));
        record.is_some_and(is_online)
    }
}

/// Whether the last that was noted of a user is that there is a connection.
fn is_online(record: &Record) -> bool {
    record.last(&Field::Status).is_some_and(|last| last.change == UserChange::Online)
}
