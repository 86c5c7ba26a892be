//! What an owner does for users: changes of their records, reads of them, and the end of what was
//! deleted. Who is connected: `attendance`.
use super::holding::Holding;
use super::log::{Log, Place};
use super::out::Out;
use super::owner::Ownership;
use super::user::{News, Record, SESSION_TTL_MS};
use crate::protocol::channel::Channel;
use crate::protocol::codes::ErrorCode;
use crate::protocol::ids::Slot;
use crate::protocol::message::OperationId;
use crate::protocol::peer::{Change, Lane, Outcome, PeerFrame};
use crate::protocol::time::Millis;
use crate::protocol::user::{Stamp, Stamped, Status, UserChange, UserState};

impl Ownership {
    /// Changes a record once, for an operation that may be `known` to have been applied before;
    /// the inbox keeps what it holds for `ttl_ms`. `None`: its sender is told once it is committed.
    pub(super) fn change_user(
        &mut self,
        slot: Slot,
        (id, known): (OperationId, bool),
        (user, ttl_ms): (Channel, u64),
        change: UserChange,
        now: Millis,
    ) -> Option<Outcome> {
        if known {
            return self.changed_before(slot, id, &user, &change, now);
        }
        let record = self.holdings.get(&slot).and_then(|holding| holding.user(&user));
        let refused = record.and_then(|record| record.refuses(&change));
        let full = (!self.takes_changes(slot)).then_some(ErrorCode::TooManyRequests);
        if let Some(code) = refused.or(full) {
            return Some(Outcome::Failed(code));
        }
        if !self.log_new(slot, Some(id), (user, ttl_ms), change, now) {
            return Some(Outcome::NotOwner(None));
        }
        self.wait_for_last(slot, id);
        None
    }

    /// Changes a record on the owner's own account. False if that can't be done now.
    pub(super) fn log_user_change(
        &mut self,
        slot: Slot,
        user: &Channel,
        change: UserChange,
        now: Millis,
    ) -> bool {
        let may = self.takes_changes(slot) && self.world.required > 0;
        may && self.log_new(slot, None, (user.clone(), 0), change, now)
    }

    /// Logs a change under a stamp of its own. False if the slot isn't owned.
    fn log_new(
        &mut self,
        slot: Slot,
        operation: Option<OperationId>,
        (user, ttl_ms): (Channel, u64),
        change: UserChange,
        now: Millis,
    ) -> bool {
        let Some((epoch, index)) = self.table.next_index(slot) else { return false };
        let stamped = Stamped { stamp: Stamp { epoch, index }, change };
        let ttl_ms = ttl_ms.max(SESSION_TTL_MS).max(self.sessions.ttl_ms);
        let holding = self.holdings.entry(slot).or_default();
        holding.change_user(&user, ttl_ms, operation, stamped.clone(), now);
        let place = Some(Place::User(user.clone(), stamped.clone()));
        let change = Change::User { user, ttl_ms, operation, stamped };
        self.log_change(slot, index, change, place, now);
        true
    }

    /// What is said of an operation that was applied before. A record keeps no operations, so that
    /// is told from the field. Whoever knows that the number was applied has taken in what it did
    /// (copies bring records first), and the field is as the operation left it or as a later change
    /// did, which undid it for good. So once the field, as it is, is held by enough nodes, so is
    /// the operation. A change of it that isn't committed waits in the log, also after a change of
    /// owner: what was taken over without being known to be committed was logged anew.
    fn changed_before(
        &mut self,
        slot: Slot,
        id: OperationId,
        user: &Channel,
        change: &UserChange,
        now: Millis,
    ) -> Option<Outcome> {
        self.counts.repeated += 1;
        let field = change.field();
        let log = self.logs.get_mut(&slot);
        if let Some(waiting) = log.and_then(|log| log.waiting_for_field(user, &field)) {
            let waits = waiting.tell(id.gateway, id.number);
            return (!waits).then_some(Outcome::NotOwner(None));
        }
        let copies = self.logs.get(&slot).map_or(1, Log::committed_copies).min(255);
        if copies >= self.world.required {
            return Some(Outcome::Changed { copies: copies as u8 });
        }
        // It has lost holders since: it is held anew first.
        let record = self.holdings.get(&slot).and_then(|holding| holding.user(user));
        let last = record.and_then(|record| record.last(&field)).cloned();
        if last.is_some_and(|stamped| self.log_user_again(slot, user, stamped, now)) {
            self.wait_for_last(slot, id);
            return None;
        }
        Some(Outcome::NotOwner(None))
    }

    fn wait_for_last(&mut self, slot: Slot, id: OperationId) {
        if let Some(last) = self.logs.get_mut(&slot).and_then(|log| log.waiting.back_mut()) {
            // It is the first to wait for what was just made.
            last.tell(id.gateway, id.number);
        }
    }

    /// Logs a change under the stamp that it has, unless it is waiting to be committed.
    pub(super) fn log_user_again(
        &mut self,
        slot: Slot,
        user: &Channel,
        stamped: Stamped,
        now: Millis,
    ) -> bool {
        let log = self.logs.get(&slot);
        if log.is_some_and(|log| log.waits_for_change(user, &stamped)) {
            return false;
        }
        let record = self.holdings.get(&slot).and_then(|holding| holding.user(user));
        let ttl_ms = record.map_or(SESSION_TTL_MS, Record::ttl_ms);
        let Some((_, index)) = self.table.next_index(slot) else { return false };
        let place = Some(Place::User(user.clone(), stamped.clone()));
        let (user, operation) = (user.clone(), None);
        let change = Change::User { user, ttl_ms, operation, stamped };
        self.log_change(slot, index, change, place, now);
        true
    }

    /// A change is committed: gateways that follow what it is about ask what holds now.
    pub(super) fn show_user(
        &mut self,
        slot: Slot,
        user: Channel,
        stamped: &Stamped,
        out: &mut Out,
    ) {
        let holding = self.holdings.get_mut(&slot);
        let channel = match holding.map(|holding| holding.commit_user(&user, stamped)) {
            None | Some(News::None) => return,
            Some(News::Subscriptions) => user,
            Some(News::Status) => user.status_of_inbox(),
        };
        let gateways = self.gateways(slot, &channel);
        out.send_all(&gateways, Lane::Data, PeerFrame::UserChanged { slot, channel });
    }

    /// What subscribers of a user's channel are told of the user. `Err`: somebody may have a record
    /// that isn't known here.
    pub(super) fn user_state(
        &self,
        slot: Slot,
        channel: &Channel,
        now: Millis,
    ) -> Result<UserState, ErrorCode> {
        let holding = self.holdings.get(&slot);
        match holding.and_then(|holding| user_state(holding, channel, now)) {
            Some(state) => Ok(state),
            None if channel.user().is_some() && self.incomplete(slot, now) => {
                Err(ErrorCode::Internal)
            }
            None if channel.status_user().is_some() => Ok(UserState::Status(Status::Unknown)),
            None if channel.inbox_user().is_some() => Ok(UserState::Subscriptions(Vec::new())),
            None => Ok(UserState::None),
        }
    }

    /// A user's record, to be read. `Err`: somebody may have one that isn't known here.
    pub(super) fn user(
        &self,
        slot: Slot,
        user: &Channel,
        now: Millis,
    ) -> Result<Option<&Record>, ErrorCode> {
        let record = self.holdings.get(&slot).and_then(|holding| holding.user(user));
        match record {
            None if self.incomplete(slot, now) => Err(ErrorCode::Internal),
            record => Ok(record),
        }
    }

    /// Forgets what was deleted so long ago that nobody can bring it back. The owner decides that;
    /// its followers are told.
    pub(super) fn forget_user(&mut self, slot: Slot, user: Channel, upto: Stamp, now: Millis) {
        if !self.table.owns(slot) {
            if let Some(holding) = self.holdings.get_mut(&slot) {
                holding.forget_user(&user, upto);
            }
            return;
        }
        if !self.takes_changes(slot) || self.world.required == 0 {
            return;
        }
        let Some((_, index)) = self.table.next_index(slot) else { return };
        let holding = self.holdings.entry(slot).or_default();
        holding.forget_user(&user, upto);
        self.log_change(slot, index, Change::ForgetUser { user, upto }, None, now);
    }
}

/// What subscribers of a user's channel are told of the user, if there is a record.
pub(super) fn user_state(holding: &Holding, channel: &Channel, now: Millis) -> Option<UserState> {
    if channel.status_user().is_some() {
        let record = holding.user(&channel.inbox_of_status())?;
        return Some(UserState::Status(record.status(now)));
    }
    holding.user(channel).map(|record| UserState::Subscriptions(record.subscriptions()))
}
