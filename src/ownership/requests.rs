//! What an owner does for gateways: operations, questions, interest.
use super::audience::{Audience, Gateways, tops_digest};
use super::out::Out;
use super::owner::{Gate, Ownership};
use super::stream::Resume;
use super::table::Role;
use crate::protocol::channel::{Channel, ChannelOptions};
use crate::protocol::codes::ErrorCode;
use crate::protocol::ids::{Epoch, Incarnation, Position, Slot, StreamEpoch};
use crate::protocol::message::{ClientInfo, History, OperationId, Publication, Recover};
use crate::protocol::peer::{
    Answer, ChannelInterest, Lane, Operation, Outcome, PeerFrame, Query, SlotInterest,
};
use crate::protocol::time::Millis;

impl Ownership {
    /// Serves a gateway's frame, parks it, or says who owns the slot.
    pub(super) fn handle_request(
        &mut self,
        from: Incarnation,
        frame: PeerFrame,
        now: Millis,
        out: &mut Out,
    ) {
        let (slot, epoch) = match &frame {
            PeerFrame::Operation(operation) => (operation.slot, operation.epoch),
            PeerFrame::Ask { slot, epoch, .. } => (*slot, *epoch),
            PeerFrame::Fanout { slot, .. } | PeerFrame::Unsubscribe { slot, .. } => {
                (*slot, Epoch::NONE)
            }
            PeerFrame::Interest(interest) => (interest.slot, Epoch::NONE),
            PeerFrame::Digest { slots } => return self.compare_interest(from, slots, out),
            _ => return,
        };
        match self.gate(slot, epoch, now) {
            Gate::Serve => self.serve(from, frame, now, out),
            Gate::Park => self.park(slot, from, frame, now, out),
            Gate::Elsewhere(owner) => match frame {
                PeerFrame::Fanout { slot, channel, message, forwarded: false } => {
                    if let Some(owner) = owner {
                        let frame = PeerFrame::Fanout { slot, channel, message, forwarded: true };
                        out.send(owner, Lane::Data, frame);
                    }
                }
                frame => self.bounce(from, frame, owner, out),
            },
        }
    }

    fn serve(&mut self, from: Incarnation, frame: PeerFrame, now: Millis, out: &mut Out) {
        match frame {
            PeerFrame::Operation(operation) => self.apply(from, operation, now, out),
            PeerFrame::Fanout { slot, channel, message, .. } => {
                let gateways = self.gateways(slot, &channel);
                let frame = PeerFrame::Ephemeral { slot, channel, message };
                out.send_all(&gateways, Lane::Data, frame);
            }
            PeerFrame::Ask { number, slot, channel, options, query, .. } => {
                self.answer(from, number, slot, &channel, options, query, now, out);
            }
            PeerFrame::Unsubscribe { slot, channel, client, detach } => {
                let audience = self.audiences.get_mut(&slot);
                let left = audience.and_then(|a| a.unsubscribe(from, &channel, client, detach));
                if let Some(change) = left {
                    self.announce(slot, change, false, out);
                }
            }
            PeerFrame::Interest(interest) => self.replace_interest(from, interest, now, out),
            _ => {}
        }
    }

    fn gateways(&self, slot: Slot, channel: &Channel) -> Gateways {
        let audience = self.audiences.get(&slot);
        audience.map(|a| a.gateways(channel).iter().copied().collect()).unwrap_or_default()
    }

    fn apply(&mut self, from: Incarnation, operation: Operation, now: Millis, out: &mut Out) {
        let Operation { slot, lowest, number, channel, options, message, .. } = operation;
        let id = OperationId { gateway: from, number };
        let holding = self.holdings.entry(slot).or_default();
        let expected = lowest.max(holding.applied(from) + 1);
        if number != expected {
            let outcome = if number < expected {
                let stream = holding.streams.get(&channel);
                Outcome::Published(stream.and_then(|stream| stream.find(id)))
            } else {
                Outcome::Expected(expected)
            };
            return out.send(from, Lane::Data, PeerFrame::Result { slot, number, outcome });
        }
        let outcome = match self.append(slot, &channel, options, id, message, now, out) {
            Some(position) => Outcome::Published(Some(position)),
            None => Outcome::Failed(ErrorCode::Internal),
        };
        out.send(from, Lane::Data, PeerFrame::Result { slot, number, outcome });
    }

    /// Appends a publication to a stream of a slot that this node owns, and delivers it.
    #[expect(clippy::too_many_arguments, reason = "one publication and its place")]
    pub(super) fn append(
        &mut self,
        slot: Slot,
        channel: &Channel,
        options: ChannelOptions,
        id: OperationId,
        message: std::sync::Arc<crate::protocol::message::Message>,
        now: Millis,
        out: &mut Out,
    ) -> Option<Position> {
        let (epoch, index) = self.table.next_index(slot)?;
        let holding = self.holdings.entry(slot).or_default();
        let stream = holding.stream(channel, options, || StreamEpoch { epoch, index }, now);
        let (follows, publication) = stream.append(epoch, index, options, id, message, now);
        holding.apply(id);
        let position = publication.position();
        self.teach(slot, channel, follows.offset, now, out);
        let gateways = self.gateways(slot, channel);
        out.send_all(&gateways, Lane::Data, deliver(slot, channel, follows, publication));
        Some(position)
    }

    #[expect(clippy::too_many_arguments, reason = "the fields of one question")]
    fn answer(
        &mut self,
        from: Incarnation,
        number: u64,
        slot: Slot,
        channel: &Channel,
        options: ChannelOptions,
        query: Query,
        now: Millis,
        out: &mut Out,
    ) {
        let answer = match query {
            Query::Subscribe { info, recover } => {
                let answer = self.subscribe(slot, channel, options, recover, now);
                if !matches!(answer, Answer::Failed(_)) {
                    // The answer goes first, so that the client sees itself join.
                    out.send(from, Lane::Data, PeerFrame::Answer { number, answer });
                    self.admit(from, slot, channel, options, info, out);
                    return;
                }
                answer
            }
            Query::Resume(position) => {
                let recover = Recover::From(position);
                let answer = self.subscribe(slot, channel, options, recover, now);
                if !matches!(answer, Answer::Failed(_)) {
                    self.admit(from, slot, channel, options, None, out);
                }
                answer
            }
            Query::History(history) => self.history(slot, channel, options, history, now),
            Query::Presence => {
                let audience = self.audiences.get(&slot);
                let present = audience.into_iter().flat_map(|a| a.present(channel));
                Answer::Presence(present.cloned().collect())
            }
            Query::PresenceStats => {
                let audience = self.audiences.get(&slot);
                let present = || audience.into_iter().flat_map(|a| a.present(channel));
                let users: std::collections::BTreeSet<&str> =
                    present().map(|info| &*info.user).collect();
                Answer::PresenceStats {
                    clients: present().count() as u64,
                    users: users.len() as u64,
                }
            }
        };
        out.send(from, Lane::Data, PeerFrame::Answer { number, answer });
    }

    fn admit(
        &mut self,
        gateway: Incarnation,
        slot: Slot,
        channel: &Channel,
        options: ChannelOptions,
        info: Option<ClientInfo>,
        out: &mut Out,
    ) {
        let audience = self.audiences.entry(slot).or_default();
        if let Some(change) = audience.subscribe(gateway, channel, options.join_leave, info) {
            self.announce(slot, change, true, out);
        }
    }

    fn subscribe(
        &mut self,
        slot: Slot,
        channel: &Channel,
        options: ChannelOptions,
        recover: Recover,
        now: Millis,
    ) -> Answer {
        if !options.is_stream() {
            return Answer::Subscribed { position: None, recovered: false, publications: vec![] };
        }
        let known = self.holdings.get(&slot).and_then(|holding| holding.streams.get(channel));
        let resume = match recover {
            Recover::No => Resume::Gone,
            Recover::From(position) => {
                known.map_or(Resume::Unknown, |stream| stream.resume(position))
            }
            Recover::Unknown => Resume::Gone,
        };
        if resume == Resume::Unknown && self.incomplete(slot, now) {
            return Answer::Failed(ErrorCode::Internal);
        }
        let Some(position) = self.top(slot, channel, options, now) else {
            return Answer::Failed(ErrorCode::Internal);
        };
        let (recovered, publications) = match resume {
            Resume::Continued(publications) => (true, publications),
            Resume::Gone | Resume::Unknown => (false, vec![]),
        };
        Answer::Subscribed { position: Some(position), recovered, publications }
    }

    fn history(
        &mut self,
        slot: Slot,
        channel: &Channel,
        options: ChannelOptions,
        history: History,
        now: Millis,
    ) -> Answer {
        if !options.is_stream() {
            return Answer::Failed(ErrorCode::NotAvailable);
        }
        let Some(position) = self.top(slot, channel, options, now) else {
            return Answer::Failed(ErrorCode::Internal);
        };
        let incomplete = self.incomplete(slot, now);
        let known = self.holdings.get(&slot).and_then(|holding| holding.streams.get(channel));
        match known {
            Some(stream) if stream.knows(history.since) => {
                Answer::History { publications: stream.read(history), position }
            }
            _ if incomplete => Answer::Failed(ErrorCode::Internal),
            _ => Answer::Failed(ErrorCode::UnrecoverablePosition),
        }
    }

    /// Where a stream stands; it is made if there is none.
    fn top(
        &mut self,
        slot: Slot,
        channel: &Channel,
        options: ChannelOptions,
        now: Millis,
    ) -> Option<Position> {
        if let Some(stream) = self.holdings.get(&slot).and_then(|h| h.streams.get(channel)) {
            return Some(stream.position());
        }
        let (epoch, index) = self.table.next_index(slot)?;
        let holding = self.holdings.entry(slot).or_default();
        let stream = holding.stream(channel, options, || StreamEpoch { epoch, index }, now);
        let position = stream.position();
        Some(position)
    }

    fn incomplete(&self, slot: Slot, now: Millis) -> bool {
        matches!(self.table.role(slot), Role::Owner { incomplete_until, .. } if now < incomplete_until)
    }

    fn compare_interest(&self, from: Incarnation, slots: &[(Slot, u64)], out: &mut Out) {
        let owned = slots.iter().filter(|(slot, _)| self.table.owns(*slot));
        let answers: Vec<(Slot, bool, u64)> = owned
            .map(|(slot, digest)| {
                let audience = self.audiences.get(slot);
                let ours =
                    audience.map_or_else(|| Audience::default().digest(from), |a| a.digest(from));
                let holding = self.holdings.get(slot);
                let wanted = audience.into_iter().flat_map(|a| a.channels_of(from));
                let tops = wanted.filter_map(|channel| {
                    let stream = holding?.streams.get(channel)?;
                    Some((channel, stream.position()))
                });
                (*slot, ours == *digest, tops_digest(tops))
            })
            .collect();
        if !answers.is_empty() {
            out.send(from, Lane::Data, PeerFrame::DigestAnswer { slots: answers });
        }
    }

    fn replace_interest(
        &mut self,
        from: Incarnation,
        interest: SlotInterest,
        now: Millis,
        out: &mut Out,
    ) {
        let SlotInterest { slot, channels } = interest;
        let positions: Vec<ChannelInterest> =
            channels.iter().map(|c| ChannelInterest { present: vec![], ..c.clone() }).collect();
        let (came, left) = self.audiences.entry(slot).or_default().replace(from, channels);
        for change in left {
            self.announce(slot, change, false, out);
        }
        for change in came {
            self.announce(slot, change, true, out);
        }
        self.bring_up_to_date(from, slot, &positions, now, out);
    }

    /// Sends a gateway what it lacks of the streams that it follows.
    pub(super) fn bring_up_to_date(
        &self,
        gateway: Incarnation,
        slot: Slot,
        channels: &[ChannelInterest],
        now: Millis,
        out: &mut Out,
    ) {
        for ChannelInterest { channel, position, .. } in channels {
            let Some(position) = *position else { continue };
            let stream = self.holdings.get(&slot).and_then(|h| h.streams.get(channel));
            match stream.map_or(Resume::Unknown, |stream| stream.resume(position)) {
                Resume::Continued(publications) => {
                    let mut follows = position;
                    for publication in publications {
                        let next = publication.position();
                        let frame = deliver(slot, channel, follows, publication);
                        out.send(gateway, Lane::Data, frame);
                        follows = next;
                    }
                }
                Resume::Unknown if self.incomplete(slot, now) => {}
                Resume::Gone | Resume::Unknown => {
                    let channel = channel.clone();
                    out.send(gateway, Lane::Data, PeerFrame::Lost { slot, channel });
                }
            }
        }
    }
}

fn deliver(
    slot: Slot,
    channel: &Channel,
    follows: Position,
    publication: Publication,
) -> PeerFrame {
    let plain = follows.epoch == publication.epoch && follows.offset + 1 == publication.offset;
    let follows = (!plain).then_some(follows);
    PeerFrame::Deliver { slot, channel: channel.clone(), follows, publication }
}
