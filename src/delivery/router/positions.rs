//! How far each channel has been handed on here: publications that continue it go to the shards, a
//! hole is asked for, and where that fails the subscriptions end. It never reorders what came.
use std::sync::Arc;

use super::questions::Purpose;
use super::{Router, Turn};
use crate::delivery::event::{Action, Delivery, DeliveryBody};
use crate::mutant::{Rule, without};
use crate::protocol::channel::Channel;
use crate::protocol::ids::{ClientId, Position, Slot};
use crate::protocol::message::Publication;
use crate::protocol::peer::Query;

impl Router {
    pub(super) fn deliver(
        &mut self,
        slot: Slot,
        channel: &Channel,
        follows: Position,
        publication: Publication,
        turn: &mut Turn<'_>,
    ) {
        let Some(interest) = self.interests.get_mut(slot, channel) else { return };
        if interest.subscribers.is_empty() {
            return;
        }
        let Some(position) = interest.position else {
            // This node's configuration knows the channel as ephemeral: no position is shown.
            let body = DeliveryBody::plain(publication.message);
            return self.hand_on(slot, channel.clone(), body, turn);
        };
        if without(Rule::ContinuesPosition) {
            return self.step(slot, channel, publication, turn);
        }
        let known = publication.epoch < position.epoch
            || (publication.epoch == position.epoch && publication.offset <= position.offset);
        match follows == position {
            _ if interest.catching_up.is_some() => {}
            // Whatever its epoch is: the position may be one of a line that has parted.
            true => self.step(slot, channel, publication, turn),
            false if known => {}
            false => self.catch_up(slot, channel, turn),
        }
    }

    /// Hands on a publication that continues the channel's position.
    fn step(
        &mut self,
        slot: Slot,
        channel: &Channel,
        publication: Publication,
        turn: &mut Turn<'_>,
    ) {
        let Some(interest) = self.interests.get_mut(slot, channel) else { return };
        let position = publication.position();
        let held = interest.position.replace(position);
        let tells_epoch = std::mem::take(&mut interest.turns);
        let turns_from = held.filter(|held| held.epoch != position.epoch);
        let (message, position) = (publication.message, Some(position));
        let body = DeliveryBody::Publication { message, position, turns_from, tells_epoch };
        self.hand_on(slot, channel.clone(), body, turn);
    }

    pub(super) fn hand_on(
        &mut self,
        slot: Slot,
        channel: Channel,
        body: DeliveryBody,
        turn: &mut Turn<'_>,
    ) {
        let Some(interest) = self.interests.get_mut(slot, &channel) else { return };
        let shards = interest.shards();
        if !shards.is_empty() {
            turn.actions
                .push(Action::Deliver { shards, delivery: Arc::new(Delivery { channel, body }) });
        }
    }

    /// Asks the owner for what lies behind the channel's position.
    pub(super) fn catch_up(&mut self, slot: Slot, channel: &Channel, turn: &mut Turn<'_>) {
        let Some(interest) = self.interests.get_mut(slot, channel) else { return };
        let (Some(position), None) = (interest.position, interest.catching_up) else { return };
        let (options, query) = (interest.options, Query::Resume(position));
        let number = self.ask(slot, channel.clone(), options, query, Purpose::CatchUp, turn);
        if let Some(interest) = self.interests.get_mut(slot, channel) {
            interest.catching_up = number;
        }
    }

    pub(super) fn caught_up(
        &mut self,
        slot: Slot,
        channel: Channel,
        number: u64,
        position: Option<Position>,
        publications: Vec<Publication>,
        turn: &mut Turn<'_>,
    ) {
        let Some(interest) = self.interests.get_mut(slot, &channel) else { return };
        if interest.catching_up != Some(number) {
            return;
        }
        interest.catching_up = None;
        let Some(position) = position else { return self.lose(slot, channel, turn) };
        for publication in publications {
            self.step(slot, &channel, publication, turn);
        }
        let Some(interest) = self.interests.get_mut(slot, &channel) else { return };
        let Some(held) = interest.position.replace(position).filter(|held| *held != position)
        else {
            return;
        };
        // What is left out was seen under other names.
        interest.turns |= held.epoch != position.epoch;
        self.hand_on(slot, channel, DeliveryBody::Reached(position), turn);
    }

    /// Ends all subscriptions of a channel here: their clients subscribe again and recover.
    pub(super) fn lose(&mut self, slot: Slot, channel: Channel, turn: &mut Turn<'_>) {
        let Some(interest) = self.interests.get_mut(slot, &channel) else { return };
        if let Some(number) = interest.catching_up.take() {
            self.questions.remove(number);
        }
        let shards = interest.shards();
        let clients: Vec<ClientId> = interest.subscribers.keys().copied().collect();
        for client in clients {
            interest.remove(client);
        }
        (interest.position, interest.turns) = (None, false);
        if interest.is_empty() {
            self.drop_interest(slot, &channel, turn.now);
        }
        if !shards.is_empty() {
            let delivery = Arc::new(Delivery { channel, body: DeliveryBody::Lost });
            turn.actions.push(Action::Deliver { shards, delivery });
        }
    }
}
