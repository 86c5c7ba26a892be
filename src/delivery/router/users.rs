//! What this node's subscribers are told of users: asked of the owner, handed on when it is news.
//! Called for what owners say of inboxes and status channels.
use std::sync::Arc;

use super::questions::Purpose;
use super::{Router, Turn};
use crate::delivery::event::DeliveryBody;
use crate::ownership::user::user_digest;
use crate::protocol::channel::Channel;
use crate::protocol::ids::Slot;
use crate::protocol::message::Message;
use crate::protocol::peer::Query;
use crate::protocol::user::UserState;

impl Router {
    /// Asks the owner for what is told of a user, unless it is being asked.
    pub(super) fn ask_user(&mut self, slot: Slot, channel: &Channel, turn: &mut Turn<'_>) {
        let Some(interest) = self.interests.get_mut(slot, channel) else { return };
        if interest.subscribers.is_empty() || interest.asking.is_some() {
            return;
        }
        let options = interest.options;
        let number = self.ask(slot, channel.clone(), options, Query::User, Purpose::User, turn);
        if let Some(interest) = self.interests.get_mut(slot, channel) {
            interest.asking = number;
        }
    }

    /// Notes what is told of a user, and tells those of the channel's subscribers here that don't
    /// know it.
    pub(super) fn take_user(
        &mut self,
        slot: Slot,
        channel: &Channel,
        user: UserState,
        turn: &mut Turn<'_>,
    ) {
        if user == UserState::None {
            // Not known yet, if it is about a user at all.
            if channel.user().is_some() {
                self.ask_user(slot, channel, turn);
            }
            return;
        }
        let Some(interest) = self.interests.get_mut(slot, channel) else { return };
        let untold = interest.user == UserState::None;
        if !untold && user_digest(&interest.user) == user_digest(&user) {
            return;
        }
        interest.user = user.clone();
        let body = match user {
            UserState::Subscriptions(channels) => DeliveryBody::Subscriptions(channels),
            UserState::Status(status) => {
                let data = status.to_json().into();
                let message = Arc::new(Message { data, ..Message::default() });
                DeliveryBody::plain(message)
            }
            UserState::None => return,
        };
        self.hand_on(slot, channel.clone(), body, turn);
    }

    /// The question for what is told of a user has ended: if it came to nothing, the next comparison
    /// tells.
    pub(super) fn forget_asking(&mut self, number: u64, slot: Slot, channel: &Channel) {
        self.questions.remove(number);
        if let Some(interest) = self.interests.get_mut(slot, channel)
            && interest.asking == Some(number)
        {
            interest.asking = None;
        }
    }
}
