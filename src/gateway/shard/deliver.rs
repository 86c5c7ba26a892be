//! Fan-out: one delivery to the local subscribers of its channel, encoded once.
use std::sync::Arc;

use bytes::Bytes;

use crate::delivery::event::{Delivery, DeliveryBody};
use crate::mutant::{Rule, without};
use crate::protocol::channel::Channel;
use crate::protocol::client::{Format, PublicationFields, Push, SubscribeResult};
use crate::protocol::codes::Disconnect;
use crate::protocol::ids::Position;
use crate::protocol::message::Message;

use super::Shard;
use crate::gateway::connection::Key;
use crate::gateway::session::Kind;
use crate::gateway::socket::Socket;
use crate::gateway::ws;

/// What a push has beside channel and data, as a rule.
const FIELDS_BYTES: usize = 256;

impl<S: Socket> Shard<S> {
    pub(super) fn deliver(&mut self, delivery: &Delivery) {
        let channel = &delivery.channel;
        if self.hub.subscribers(channel).is_empty() {
            return;
        }
        match &delivery.body {
            DeliveryBody::Publication {
                message,
                position,
                turns_from: None,
                tells_epoch: false,
            } => {
                let frame = publication(channel, message, *position, None);
                self.fan_out(channel, |_| Some(&frame));
            }
            DeliveryBody::Publication { message, position, .. } if without(Rule::EpochIsTold) => {
                let frame = publication(channel, message, *position, None);
                self.fan_out(channel, |_| Some(&frame));
            }
            DeliveryBody::Publication { message, position, turns_from: Some(_), .. } => {
                self.deliver_turn(channel, message, *position);
            }
            DeliveryBody::Publication { message, position, .. } => {
                let plain = publication(channel, message, *position, None);
                let with_epoch = publication(channel, message, *position, Some(()));
                self.fan_out(channel, |kind| {
                    Some(if kind == Kind::EpochAware { &with_epoch } else { &plain })
                });
            }
            DeliveryBody::Reached(position) => {
                let frame = reached(channel, Some(*position));
                self.fan_out(channel, |kind| (kind == Kind::ServerSide).then_some(&frame));
                for key in self.subscribers(channel, |kind| kind == Kind::Resubscribing) {
                    self.lapse(key, channel);
                }
            }
            DeliveryBody::Join(info) => {
                let frame = frame(FIELDS_BYTES, &Push::Join { channel: channel.as_str(), info });
                self.fan_out(channel, |_| Some(&frame));
            }
            DeliveryBody::Leave(info) => {
                let frame = frame(FIELDS_BYTES, &Push::Leave { channel: channel.as_str(), info });
                self.fan_out(channel, |_| Some(&frame));
            }
            DeliveryBody::Subscriptions(channels) => self.deliver_subscriptions(channel, channels),
            DeliveryBody::Lost => self.deliver_lost(channel),
        }
    }

    /// The first publication of another epoch: each client learns the epoch as its SDK understands
    /// it. Those that learn it only by subscribing again get nothing until then.
    fn deliver_turn(
        &mut self,
        channel: &Channel,
        message: &Arc<Message>,
        position: Option<Position>,
    ) {
        let plain = publication(channel, message, position, None);
        let with_epoch = publication(channel, message, position, position.map(|_| ()));
        // Not the offset that they hold: on a line that has parted it may name what they lack.
        let before = position
            .map(|position| Position { offset: position.offset.saturating_sub(1), ..position });
        let subscribe = reached(channel, before);
        self.fan_out(channel, |kind| (kind == Kind::ServerSide).then_some(&subscribe));
        self.fan_out(channel, |kind| match kind {
            Kind::Plain | Kind::ServerSide => Some(&plain),
            Kind::EpochAware => Some(&with_epoch),
            Kind::Resubscribing => None,
        });
        for key in self.subscribers(channel, |kind| kind == Kind::Resubscribing) {
            self.lapse(key, channel);
        }
    }

    fn deliver_lost(&mut self, channel: &Channel) {
        for key in self.subscribers(channel, |kind| kind == Kind::ServerSide) {
            self.close(key, Disconnect::InsufficientState);
        }
        for key in self.subscribers(channel, |kind| kind != Kind::ServerSide) {
            self.lapse(key, channel);
        }
    }

    /// The user's connections begin and end subscriptions as their record now says.
    fn deliver_subscriptions(&mut self, inbox: &Channel, channels: &[Channel]) {
        for key in self.subscribers(inbox, |_| true) {
            self.session(key, |session, scene, effects| {
                session.follow_record(channels, scene, effects);
            });
            self.set_retry(key);
            self.arm(key);
        }
    }

    fn subscribers(&self, channel: &Channel, wanted: impl Fn(Kind) -> bool) -> Vec<Key> {
        let subscribers = self.hub.subscribers(channel).iter();
        let wanted = subscribers.filter(|(_, kind)| wanted(*kind));
        wanted.filter_map(|&(index, _)| Some(self.connections.get(index)?.key(index))).collect()
    }

    fn lapse(&mut self, key: Key, channel: &Channel) {
        self.session(key, |session, scene, effects| session.lapse(channel, scene, effects));
        self.lapsed.push_back((key, channel.clone()));
    }

    /// Hands each subscriber the frame of its kind; they are written when the batch is done.
    fn fan_out<'f>(&mut self, channel: &Channel, frame: impl Fn(Kind) -> Option<&'f Bytes>) {
        let mut delivered = 0;
        let mut slow = Vec::new();
        for &(index, kind) in self.hub.subscribers(channel) {
            let (Some(frame), Some(connection)) = (frame(kind), self.connections.get_mut(index))
            else {
                continue;
            };
            delivered += 1;
            if connection.try_push(frame.clone()).is_err() {
                slow.push(connection.key(index));
            } else if !std::mem::replace(&mut connection.dirty, true) {
                self.dirty.push(connection.key(index));
            }
        }
        self.stats.deliveries.add(delivered);
        for key in slow {
            self.close(key, Disconnect::Slow);
        }
    }
}

fn publication(
    channel: &Channel,
    message: &Message,
    position: Option<Position>,
    tell_epoch: Option<()>,
) -> Bytes {
    let publication = PublicationFields {
        message,
        offset: position.map_or(0, |position| position.offset),
        epoch: tell_epoch.and(position).map(|position| position.epoch),
    };
    let bytes = channel.as_str().len() + message.data.len() + FIELDS_BYTES;
    frame(bytes, &Push::Publication { channel: channel.as_str(), publication })
}

/// Tells a server-side subscription where it stands.
fn reached(channel: &Channel, position: Option<Position>) -> Bytes {
    let result = SubscribeResult { position, ..SubscribeResult::default() };
    frame(FIELDS_BYTES, &Push::Subscribe { channel: channel.as_str(), result })
}

/// A push as a frame; `bytes`: about as many as it has.
fn frame(bytes: usize, push: &Push<'_>) -> Bytes {
    let mut payload = Vec::with_capacity(bytes);
    Format::Json.push(&mut payload, push);
    ws::text(&payload)
}
