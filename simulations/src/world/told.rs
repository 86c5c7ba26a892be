//! What clients are told: answers to what they asked, and what is delivered; each checked as it comes.
use std::collections::BTreeMap;

use rand::Rng;

use orbweb::delivery::event::{Delivery, DeliveryBody, Reply, RequestId};
use orbweb::ownership::serving::Serving;
use orbweb::ownership::stream::READ_LEN_MAX;
use orbweb::protocol::channel::Channel;
use orbweb::protocol::ids::{ClientId, Epoch, Incarnation, Position, Slot};
use orbweb::protocol::message::Publication;

use super::traffic::FIELDS;
use super::{Due, Node, World, is_brief, is_lasting};
use crate::checkers::holders::Held;
use crate::checkers::{kept, reads, verdicts};
use crate::clients::Asked;
use crate::scenario::Scenario;

impl World {
    /// A publication was acknowledged.
    fn published(
        &mut self,
        channel: Channel,
        payload: u64,
        keyed: bool,
        (position, copies): (Option<Position>, u8),
        node: Incarnation,
    ) -> anyhow::Result<()> {
        if let Some(position) = position {
            self.names.check(&channel, position, payload)?;
            self.clients.acknowledged_under.entry(payload).or_insert(position.epoch.epoch);
        }
        if let Some(position) = position.filter(|_| is_lasting(&channel)) {
            let data = payload.to_string();
            let held = Held::Publication(&channel, position, data.as_bytes());
            self.check_told(node, held, copies)?;
        }
        let repeated = keyed && !self.clients.keyed.insert(payload);
        self.clients.repeated += u64::from(repeated);
        if keyed && !repeated && self.random.random_bool(0.5) {
            let wait = self.random.random_range(1..3_000);
            self.plan(Due::Repeat { channel: channel.clone(), payload }, wait);
        }
        if is_lasting(&channel) && !repeated {
            self.clients.acknowledged.entry(channel).or_default().push(payload);
        } else if is_brief(&channel) && !repeated {
            self.clients.acknowledged_briefly.entry(channel).or_default().push(payload);
        }
        Ok(())
    }

    /// The last ownership of a channel that anybody promised, if a node looks for it there.
    pub(super) fn ownership(&self, node: Incarnation, channel: &Channel) -> Option<Epoch> {
        let slot = channel.slot(self.swarm.slots);
        let promised = self.nodes.values().map(|node| node.core.ownership().promised(slot));
        let world = self.nodes.get(&node)?.core.ownership().world();
        promised.max().filter(|epoch| world.placement.owner(slot) == Some(epoch.owner))
    }

    pub(super) fn replied(
        &mut self,
        node: Incarnation,
        to: RequestId,
        reply: Reply,
    ) -> anyhow::Result<()> {
        match (self.clients.waiting.remove(&(node, to)), reply) {
            (
                Some(Asked::Publish { channel, payload, keyed }),
                Reply::Published { position, copies },
            ) => self.published(channel, payload, keyed, (position, copies), node)?,
            (Some(Asked::Publish { channel, payload, keyed: true }), _) => {
                self.clients.failed += 1;
                self.plan(Due::Repeat { channel, payload }, 300);
            }
            (Some(Asked::Change { user, change, number }), Reply::Changed { copies }) => {
                anyhow::ensure!(copies > 0, "I4: a change of {user} is held by nobody");
                self.check_told(node, Held::Change(&user, &change), copies)?;
                self.outcome.mark("user changed", 1);
                self.clients.writes.acknowledge(&user, change.field(), number, self.now);
            }
            (Some(Asked::Attributes { user, at }), Reply::Attributes(attributes)) => {
                for key in (0..FIELDS).map(|n| format!("f{n}")) {
                    let read = attributes.iter().find(|(other, _)| **other == *key);
                    let read = read.map(|(_, value)| &value[..]);
                    self.clients.writes.check_read(&user, &key, read, at)?;
                }
                self.outcome.mark("attributes read", 1);
            }
            // It may have been applied or not, or be applied later: a client can't know.
            (Some(Asked::Publish { payload, .. }), _) => {
                self.clients.failed += 1;
                self.clients.sent_by[payload as usize] = None;
            }
            (Some(Asked::Change { .. }), _) => self.clients.failed += 1,
            (
                Some(Asked::Subscribe { client }),
                Reply::Subscribed { position, recovered, publications, .. },
            ) => self.subscribed(client, position, recovered, &publications)?,
            (Some(Asked::Subscribe { client }), _) => {
                if let Some(subscriber) = self.clients.subscribers.get_mut(&client) {
                    subscriber.behind = None;
                }
                self.plan(Due::Resubscribe(client), 200);
            }
            (Some(Asked::Attend { person, client }), reply) => {
                self.attended(person, client, matches!(reply, Reply::Subscribed { .. }));
            }
            (Some(Asked::Watch { person, client }), reply) => {
                let user = match reply {
                    Reply::Subscribed { user, .. } => Some(user),
                    _ => None,
                };
                self.watching((person, client), user)?;
            }
            (Some(Asked::Status { person }), Reply::Status(status)) => {
                self.check_status(person, status)?;
            }
            (Some(Asked::Presence { channel }), Reply::Presence(present)) => {
                let clients = present.iter().map(|info| info.client).collect();
                self.clients.present.insert(channel, clients);
            }
            (
                Some(Asked::Read { channel, acknowledged, at }),
                Reply::History { publications, .. },
            ) => {
                self.outcome.mark("read checked", 1);
                let answer: anyhow::Result<Vec<u64>> =
                    publications.iter().map(|p| kept::payload(&p.message.data)).collect();
                self.check_read(node, (&channel, acknowledged, at), &answer?)?;
            }
            _ => {}
        }
        Ok(())
    }

    /// Somebody on a node was told what is in a channel.
    fn check_read(
        &mut self,
        node: Incarnation,
        (channel, acknowledged, asked): (&Channel, usize, u64),
        answer: &[u64],
    ) -> anyhow::Result<()> {
        let Some(lacked) = reads::lacked(&self.clients, channel, acknowledged, answer) else {
            return Ok(());
        };
        let owner = self.answerer.unwrap_or(node);
        if !self.swarm.scenario.is_strict() && self.may_lack(owner, (channel, lacked), asked) {
            self.outcome.mark("read on one side of a split", 1);
            return Ok(());
        }
        anyhow::bail!(
            "I1: stale read from {owner:?}, asked at {asked}: publication {lacked} to {channel} was \
             acknowledged before and isn't in {answer:?}"
        )
    }

    /// Whether an owner's answer to what was asked at a time may lack a publication that was
    /// acknowledged before.
    fn may_lack(&self, owner: Incarnation, (channel, lacked): (&Channel, u64), asked: u64) -> bool {
        let slot = channel.slot(self.swarm.slots);
        let Some(core) = self.nodes.get(&owner).filter(|node| node.told == Some(Serving::Full))
        else {
            return true;
        };
        let data = lacked.to_string();
        let held = core.core.ownership().holding(slot).into_iter();
        let mut held = held.flat_map(|holding| holding.publications());
        // Where lines were merged, what is late in a stream may be long known.
        if held.any(|(other, _, message)| other == channel && *message.data == *data.as_bytes()) {
            return true;
        }
        let under = self.clients.acknowledged_under.get(&lacked).copied();
        let own = self.promises.last_own(slot, owner);
        let (Some(under), Some(own)) = (under, own) else { return true };
        let living = self.nodes.keys().copied();
        let dead = self.dead.iter().filter(|(at, ..)| at + reads::LEASE_MS >= asked);
        let others = living.chain(dead.map(|(_, node, _)| *node)).filter(|node| *node != owner);
        reads::may_lack(&self.promises, (slot, own, under), others, asked)
    }

    fn subscribed(
        &mut self,
        client: ClientId,
        position: Option<Position>,
        recovered: bool,
        publications: &[Publication],
    ) -> anyhow::Result<()> {
        let asked = self.clients.subscribers.get(&client).map(|s| (s.node, s.channel.clone()));
        let ownership = asked.and_then(|(node, channel)| self.ownership(node, &channel));
        let Some(subscriber) = self.clients.subscribers.get_mut(&client) else { return Ok(()) };
        let lasting = is_lasting(&subscriber.channel);
        match (subscriber.position, recovered) {
            (Some(_), false) if is_brief(&subscriber.channel) => {
                subscriber.began = None;
                self.outcome.mark("gap in a brief channel", 1);
            }
            _ if !lasting => {}
            (Some(_), true) => self.clients.recovered += 1,
            (Some(before), false) => {
                let missed = position.map_or(0, |top| top.offset.saturating_sub(before.offset));
                // More than one answer carries is never recovered.
                match missed > READ_LEN_MAX as u64 {
                    true => self.outcome.mark("missed more than one answer carries", 1),
                    false => self.clients.unrecovered += 1,
                }
                subscriber.forget();
            }
            (None, _) => {}
        }
        for publication in publications {
            let payload = kept::payload(&publication.message.data)?;
            self.names.check(&subscriber.channel, publication.position(), payload)?;
            subscriber.seen.push(payload);
        }
        let before = std::mem::replace(&mut subscriber.position, position);
        subscriber.subscribed = true;
        subscriber.began.get_or_insert(self.now);
        // Asked of another owner again, it may come behind what was published behind it.
        let behind = subscriber.behind.take().filter(|(_, epoch)| Some(*epoch) == ownership);
        subscriber.own.extend(behind.map(|(payload, _)| payload));
        let node = subscriber.node;
        if let Some(before) = before.filter(|_| !recovered && lasting) {
            let slot = subscriber.channel.slot(self.swarm.slots);
            if self.swarm.scenario != Scenario::Chaos {
                let cores = self.nodes.values().map(|node| &node.core);
                verdicts::check_known(cores, (&subscriber.channel, before, slot))?;
            }
            if let Some(watched) = self.nodes.get(&node) {
                let position = (&subscriber.channel, before, slot);
                verdicts::check(node, &watched.core, position, self.now)?;
            }
            self.log(format_args!(
                "{client:?} on {node:?} isn't recovered from {before:?}, is at {position:?}"
            ));
        }
        Ok(())
    }

    pub(super) fn delivered(
        &mut self,
        node: Incarnation,
        delivery: &Delivery,
    ) -> anyhow::Result<()> {
        self.people_told(node, &delivery.channel, &delivery.body)?;
        let slot = delivery.channel.slot(self.swarm.slots);
        let here = self.clients.subscribers.iter_mut().filter(|(_, subscriber)| {
            subscriber.node == node
                && subscriber.channel == delivery.channel
                && subscriber.subscribed
        });
        let mut lost = Vec::new();
        for (client, subscriber) in here {
            match &delivery.body {
                DeliveryBody::Publication { message, position, .. } => {
                    let payload = kept::payload(&message.data)?;
                    subscriber.seen.push(payload);
                    let before = std::mem::replace(&mut subscriber.position, *position);
                    let Some(position) = *position else { continue };
                    self.names.check(&subscriber.channel, position, payload)?;
                    let continues = before.is_none_or(|before| {
                        // After a split something may come twice, never later than its turn; and what
                        // was seen on another line, or came there before the client did, isn't missed.
                        before.epoch != position.epoch
                            || (before.offset + 1..position.offset).all(|offset| {
                                let name = Position { offset, ..position };
                                let named = named(&self.nodes, &subscriber.channel, slot, name);
                                named.is_some_and(|payload| {
                                    let sent_at = self.clients.sent_at[payload as usize];
                                    subscriber.began.is_some_and(|began| sent_at <= began)
                                        || subscriber.seen.contains(&payload)
                                })
                            })
                    });
                    anyhow::ensure!(
                        continues,
                        "I3: {client:?} got {position:?} of {} behind {before:?}",
                        subscriber.channel
                    );
                }
                DeliveryBody::Lost => {
                    subscriber.subscribed = false;
                    lost.push(*client);
                }
                // SDKs' server-side subscriptions are told of it, others aren't.
                DeliveryBody::Reached(position) if client.0.is_multiple_of(2) => {
                    subscriber.position = Some(*position);
                }
                DeliveryBody::Reached(_)
                | DeliveryBody::Join(_)
                | DeliveryBody::Leave(_)
                | DeliveryBody::Subscriptions(_) => {}
            }
        }
        for client in lost {
            self.plan(Due::Resubscribe(client), 30);
        }
        Ok(())
    }
}

/// What a name stands for, if a node has it.
fn named(
    nodes: &BTreeMap<Incarnation, Node>,
    channel: &Channel,
    slot: Slot,
    name: Position,
) -> Option<u64> {
    nodes.values().find_map(|node| {
        let stream = node.core.ownership().holding(slot)?.stream(channel)?;
        let (_, entry) = stream.entry(name.offset)?;
        let here = entry.publication.position() == name;
        here.then(|| kept::payload(&entry.publication.message.data).ok())?
    })
}
