//! The log of an owned slot: opened when it is won, given each change, closed when it is lost. Who
//! waits for a change is sent to the next owner then.
use crate::ownership::log::{Log, Place, Waiting};
use crate::ownership::owner::Ownership;
use crate::protocol::channel::Channel;
use crate::protocol::ids::{Epoch, Incarnation, Position, Slot};
use crate::protocol::message::OperationId;
use crate::protocol::peer::{Change, Outcome, PeerFrame};
use crate::protocol::time::Millis;

impl Ownership {
    /// Logs the next change of an owned slot; `place` is what is to be shown when it is committed.
    /// What it changes must have been changed already, under the index that
    /// [`SlotTable::next_index`](crate::ownership::table::SlotTable::next_index) gave.
    pub(in crate::ownership) fn log_change(
        &mut self,
        slot: Slot,
        index: u64,
        change: Change,
        place: Option<Place>,
        now: Millis,
    ) {
        if !self.logs.contains_key(&slot) {
            // The first change of a slot of which nothing was held.
            self.open_log(slot, true, now);
        }
        if let Some(log) = self.logs.get_mut(&slot) {
            log.push(index, change, place);
            self.due.unsent.insert(slot);
            self.due.unheld.insert(slot);
        }
    }

    /// Begins the log of a slot that was won.
    pub(in crate::ownership) fn open_log(&mut self, slot: Slot, founded: bool, now: Millis) {
        self.logs.insert(slot, Log::new(founded));
        self.plan_followers(slot, now);
    }

    /// Logs what is held of an owned slot and isn't known to be committed: it counts as new.
    pub(in crate::ownership) fn log_uncommitted(&mut self, slot: Slot, now: Millis) {
        let held = self.holdings.get(&slot).map(|holding| holding.uncommitted());
        for (channel, position) in held.into_iter().flatten() {
            self.log_again(slot, &channel, position, now);
        }
        let held = self.holdings.get(&slot).map(|holding| holding.uncommitted_users());
        for (user, stamped) in held.into_iter().flatten() {
            self.log_user_again(slot, &user, stamped, now);
        }
    }

    /// Logs a publication under the name that it has, unless it is waiting to be committed.
    pub(in crate::ownership) fn log_again(
        &mut self,
        slot: Slot,
        channel: &Channel,
        position: Position,
        now: Millis,
    ) {
        let log = self.logs.get_mut(&slot);
        if log.is_some_and(|log| log.waiting_for(position).is_some()) {
            return;
        }
        let Some(holding) = self.holdings.get(&slot) else { return };
        let Some(stream) = holding.stream(channel) else { return };
        let Some((follows, entry)) = stream.entry(position.offset) else { return };
        let key = holding.key_of(entry.operation);
        let (options, follows, entry) = (stream.options(), Some(follows), entry.copy(now));
        let Some((_, index)) = self.table.next_index(slot) else { return };
        let place = Some(Place::Stream(channel.clone(), position));
        let channel = channel.clone();
        let change = Change::Publish { channel, options, follows, entry, key };
        self.log_change(slot, index, change, place, now);
    }

    /// What an owned slot holds has grown beside its log.
    pub(in crate::ownership) fn outdate_followers(&mut self, slot: Slot, now: Millis) {
        if let Some(log) = self.logs.get_mut(&slot) {
            log.outdate();
        } else if self.holdings.get(&slot).is_some_and(|holding| !holding.is_empty()) {
            self.open_log(slot, false, now);
        }
        self.log_uncommitted(slot, now);
        self.due.unfollowed.insert(slot);
    }

    /// Ends the log of a slot that is owned no more. Who waits is to ask the new owner.
    pub(in crate::ownership) fn close_log(
        &mut self,
        (slot, ended): (Slot, Epoch),
        owner: Incarnation,
        now: Millis,
    ) {
        let Some(log) = self.logs.remove(&slot) else { return };
        self.counts.fenced += log.uncommitted() as u64;
        for waiting in log.waiting {
            let Waiting { place, results, asks, .. } = waiting;
            if matches!(place, Some(Place::User(..))) {
                let operations = results.iter();
                let operations =
                    operations.map(|&(gateway, number)| OperationId { gateway, number });
                self.doubtful.entry(slot).or_default().note(operations, ended, now);
            }
            self.bounced.extend(results.into_iter().map(|(gateway, number)| {
                let outcome = Outcome::NotOwner(Some(owner));
                (gateway, PeerFrame::Result { slot, number, outcome })
            }));
            self.bounced.extend(asks.into_iter().filter_map(|ask| match ask.frame {
                PeerFrame::Ask { number, .. } => {
                    Some((ask.from, PeerFrame::NotOwner { number, owner: Some(owner) }))
                }
                _ => None,
            }));
        }
    }
}
