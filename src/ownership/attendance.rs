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
    since: BTreeMap<Slot, BTreeMap<Channel, Away>>,
    /// The same in the order of their turns.
    due: BTreeSet<(Millis, Slot, Channel)>,
}

#[derive(Clone, Copy, Debug)]
struct Away {
    since: Millis,
    /// Called offline as if the user had gone then.
    turn: Millis,
}

/// How long a user whose slot takes no change is left alone.
const AGAIN_MS: u64 = 250;

impl Attendance {
    fn leave(&mut self, slot: Slot, user: &Channel, now: Millis) {
        let users = self.since.entry(slot).or_default();
        if let Entry::Vacant(entry) = users.entry(user.clone()) {
            entry.insert(Away { since: now, turn: now });
            self.due.insert((now, slot, user.clone()));
        }
    }

    fn stay(&mut self, slot: Slot, user: &Channel) {
        let Entry::Occupied(mut users) = self.since.entry(slot) else { return };
        if let Some(Away { turn, .. }) = users.get_mut().remove(user) {
            self.due.remove(&(turn, slot, user.clone()));
        }
        if users.get().is_empty() {
            users.remove();
        }
    }

    /// The slot is owned no more.
    pub(super) fn forget(&mut self, slot: Slot) {
        for (user, Away { turn, .. }) in self.since.remove(&slot).into_iter().flatten() {
            self.due.remove(&(turn, slot, user));
        }
    }

    /// Takes who comes next of those whose turn is at `until` or before: the user's turn is at `again`
    /// then, if not told otherwise. Returns since when the user is away.
    fn next(&mut self, until: Millis, again: Millis) -> Option<(Millis, Slot, Channel)> {
        let (turn, slot, user) = self.due.pop_first()?;
        if turn > until {
            self.due.insert((turn, slot, user));
            return None;
        }
        let away = self.since.get_mut(&slot)?.get_mut(&user)?;
        away.turn = again;
        self.due.insert((again, slot, user.clone()));
        Some((away.since, slot, user))
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
        let Some(until) = now.0.checked_sub(wait_ms).map(Millis) else { return };
        if self.world.required == 0 {
            return;
        }
        while let Some((since, slot, user)) = self.attendance.next(until, until + AGAIN_MS) {
            let here = self.audiences.get(&slot).is_some_and(|audience| audience.wants(&user));
            let gone = self.table.owns(slot) && !here && self.is_online(slot, &user);
            let change = UserChange::Offline { ago_ms: now.since(since) };
            // Who can't be called offline now, because the slot takes no change, stays due.
            if !gone || self.log_user_change(slot, &user, change, now) {
                self.attendance.stay(slot, &user);
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
