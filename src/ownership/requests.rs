//! What an owner does for gateways: operations, questions, interest.
use std::sync::Arc;

use super::audience::{Audience, Gateways, tops_digest};
use super::log::{Log, Place, Waiting};
use super::out::Out;
use super::owner::{Gate, Ownership};
use super::parked::Request;
use super::stream::{CATCH_UP_LEN_MAX, READ_LEN_MAX, Resume};
use super::table::Role;
use super::user::{user_digest, with_users};
use super::users::user_state;
use crate::mutant::{Rule, without};
use crate::protocol::channel::{Channel, ChannelOptions};
use crate::protocol::codes::ErrorCode;
use crate::protocol::ids::{Epoch, Incarnation, Position, Slot, StreamEpoch};
use crate::protocol::message::{ClientInfo, History, Message, OperationId, Publication, Recover};
use crate::protocol::peer::{
    Answer, Body, Change, ChannelInterest, EntryCopy, Lane, Operation, Outcome, PeerFrame, Query,
    SlotInterest, Span,
};
use crate::protocol::time::Millis;
use crate::protocol::user::UserChange;

/// Questions that may wait for one change to be committed; over it they are refused for now.
const DEFERRED_MAX: usize = 1_024;

/// What is known of an operation that was applied before.
enum Repeated {
    /// This is to be said of it.
    Held(Outcome),
    /// Its sender is told once it is committed.
    Waits,
    /// It isn't held: it is applied now.
    Unknown,
}

/// An answer, or the position that must be committed before there is one.
enum Answered {
    Now(Answer),
    When(Position),
}

impl Ownership {
    /// Serves a frame, keeps it for later, or says who owns the slot.
    pub(super) fn handle_request(
        &mut self,
        from: Incarnation,
        frame: PeerFrame,
        now: Millis,
        out: &mut Out,
    ) {
        if let PeerFrame::Digest { slots } = frame {
            return self.compare_interest(from, &slots, now, out);
        }
        self.requests += 1;
        self.take_request(Request { order: self.requests, from, frame, since: now }, now, out);
    }

    /// Serves a request, unless it must wait for what its sender sent before.
    pub(super) fn take_request(&mut self, request: Request, now: Millis, out: &mut Out) {
        let Some((slot, epoch)) = place(&request.frame) else { return };
        let serves = matches!(self.gate(slot, epoch, now), Gate::Serve);
        if serves && !self.parked.waits_before(slot, &request) {
            let request = self.defer_behind(slot, request, out);
            request.into_iter().for_each(|request| self.take_turn(request, now, out));
        } else {
            self.take_turn(request, now, out);
        }
    }

    /// Serves a request that need not wait for what its sender sent before, unless that is parked.
    pub(super) fn take_turn(&mut self, request: Request, now: Millis, out: &mut Out) {
        let Some((slot, epoch)) = place(&request.frame) else { return };
        let asks = matches!(request.frame, PeerFrame::Ask { .. });
        match self.gate(slot, epoch, now) {
            Gate::Serve if self.parked.waits_before(slot, &request) => {
                self.park(slot, request, out);
            }
            Gate::Serve if asks && !self.is_current(slot, now) => self.park(slot, request, out),
            Gate::Serve => self.serve(request, now, out),
            Gate::Park => self.park(slot, request, out),
            Gate::Elsewhere(owner) => match request.frame {
                PeerFrame::Fanout { slot, channel, message, forwarded: false } => {
                    if let Some(owner) = owner {
                        let frame = PeerFrame::Fanout { slot, channel, message, forwarded: true };
                        out.send(owner, Lane::Data, frame);
                    }
                }
                _ => self.bounce(request, owner, out),
            },
        }
    }

    fn serve(&mut self, request: Request, now: Millis, out: &mut Out) {
        let from = request.from;
        match request.frame {
            PeerFrame::Operation(operation) => self.apply(from, operation, now, out),
            PeerFrame::Fanout { slot, channel, message, .. } => {
                let gateways = self.gateways(slot, &channel);
                let frame = PeerFrame::Ephemeral { slot, channel, message };
                out.send_all(&gateways, Lane::Data, frame);
            }
            PeerFrame::Ask { .. } => self.answer(request, now, out),
            PeerFrame::Unsubscribe { slot, channel, client, detach } => {
                let audience = self.audiences.get_mut(&slot);
                let left = audience.and_then(|a| a.unsubscribe(from, &channel, client, detach));
                if let Some(change) = left {
                    self.announce(slot, change, false, out);
                }
                self.attend(slot, &channel, now);
            }
            PeerFrame::Interest { interest, span } => {
                self.replace_interest(from, interest, &span, now, out);
            }
            _ => {}
        }
    }

    pub(super) fn gateways(&self, slot: Slot, channel: &Channel) -> Gateways {
        let audience = self.audiences.get(&slot);
        audience.map(|a| a.gateways(channel).iter().copied().collect()).unwrap_or_default()
    }

    fn apply(&mut self, from: Incarnation, operation: Operation, now: Millis, out: &mut Out) {
        let Operation { slot, lowest, number, channel, options, body, .. } = operation;
        let id = OperationId { gateway: from, number };
        let holding = self.holdings.entry(slot).or_default();
        let expected = lowest.max(holding.applied(from) + 1);
        let mut result = |outcome| {
            out.send(from, Lane::Data, PeerFrame::Result { slot, number, outcome });
        };
        if number > expected {
            return result(Outcome::Expected(expected));
        }
        let (message, key) = match body {
            Body::Publish { message, key } => (message, key),
            Body::User(change) => {
                let (known, ttl_ms) = (number < expected, options.history_ttl_ms);
                if known && self.may_have_lost(slot, id, &channel, &change) {
                    return result(Outcome::Failed(ErrorCode::Internal));
                }
                let outcome = self.change_user(slot, (id, known), (channel, ttl_ms), change, now);
                return outcome.into_iter().for_each(result);
            }
        };
        let keyed = key.as_ref().and_then(|key| holding.key(&channel, key, now));
        let full = key.is_some() && keyed.is_none() && !holding.takes_keys();
        if full || !self.takes_changes(slot) {
            return result(Outcome::Failed(ErrorCode::TooManyRequests));
        }
        let first = if number < expected { Some(id) } else { keyed };
        if let Some(first) = first {
            let repeated = self.repeated(slot, &channel, first, (from, number), now);
            self.counts.repeated += u64::from(!matches!(repeated, Repeated::Unknown));
            match repeated {
                Repeated::Held(outcome) => return result(outcome),
                Repeated::Waits => return,
                Repeated::Unknown => {}
            }
        }
        if let Some(position) = self.append(slot, &channel, options, (id, key), message, now)
            && let Some(waiting) = self.waiting_for(slot, position)
        {
            waiting.results.push((from, number));
        }
    }

    /// What is known here of an operation that was applied before. Only what enough nodes hold is
    /// answered for.
    fn repeated(
        &mut self,
        slot: Slot,
        channel: &Channel,
        first: OperationId,
        waiter: (Incarnation, u64),
        now: Millis,
    ) -> Repeated {
        let copies = self.logs.get(&slot).map_or(1, Log::committed_copies).min(255);
        let (safe, copies) = (copies >= self.world.required, copies as u8);
        let stream = self.holdings.get(&slot).and_then(|holding| holding.stream(channel));
        let position = stream.and_then(|stream| stream.find(first));
        let committed = stream.map_or(0, |stream| stream.committed().offset);
        match position {
            _ if without(Rule::DedupOfHeld) => {
                Repeated::Held(Outcome::Published { position, copies })
            }
            Some(position) if position.offset <= committed && safe => {
                Repeated::Held(Outcome::Published { position: Some(position), copies })
            }
            Some(position) => {
                // It isn't committed, or was and has lost holders since: it is held anew first.
                self.log_again(slot, channel, position, now);
                match self.waiting_for(slot, position) {
                    Some(waiting) => {
                        waiting.results.push(waiter);
                        Repeated::Waits
                    }
                    None => Repeated::Held(Outcome::NotOwner(None)),
                }
            }
            // It was committed, and dropped since by the stream's bounds.
            None if stream.is_some_and(|stream| stream.has_dropped()) => {
                Repeated::Held(Outcome::Published { position, copies })
            }
            None => Repeated::Unknown,
        }
    }

    /// Whether a change of a record may be lost that this node made when it had a successor already:
    /// what that acknowledged before may have undone it.
    fn may_have_lost(
        &self,
        slot: Slot,
        id: OperationId,
        user: &Channel,
        change: &UserChange,
    ) -> bool {
        let doubtful = self.doubtful.get(&slot).and_then(|(_, doubtful)| doubtful.get(&id));
        let record = self.holdings.get(&slot).and_then(|holding| holding.user(user));
        let last = record.and_then(|record| record.last(&change.field()));
        doubtful
            .zip(last)
            .is_some_and(|(epoch, last)| last.change != *change && last.stamp.epoch > *epoch)
    }

    fn waiting_for(&mut self, slot: Slot, position: Position) -> Option<&mut Waiting> {
        self.logs.get_mut(&slot)?.waiting_for(position)
    }

    /// Appends a publication to a stream of a slot that this node owns; it is delivered when it is
    /// committed.
    pub(super) fn append(
        &mut self,
        slot: Slot,
        channel: &Channel,
        options: ChannelOptions,
        (id, key): (OperationId, Option<Arc<str>>),
        message: Arc<Message>,
        now: Millis,
    ) -> Option<Position> {
        let (epoch, index) = self.table.next_index(slot)?;
        let holding = self.holdings.entry(slot).or_default();
        let at = (epoch, index);
        let (follows, publication) =
            holding.append(channel, options, at, id, message, key.clone(), now);
        let position = publication.position();
        let plain = follows.epoch == position.epoch && follows.offset + 1 == position.offset;
        let follows = (!plain).then_some(follows);
        let entry = EntryCopy { publication, operation: id, ttl_ms: options.history_ttl_ms };
        let channel = channel.clone();
        let place = Some(Place::Stream(channel.clone(), position));
        let change = Change::Publish { channel, options, follows, entry, key };
        self.log_change(slot, index, change, place, now);
        Some(position)
    }

    /// Keeps a question behind what its sender sent before and waits for a commit: it is to see what
    /// came before it. Publications needn't wait: their own commits come later. Gives back what
    /// needn't wait.
    fn defer_behind(&mut self, slot: Slot, request: Request, out: &mut Out) -> Option<Request> {
        if !matches!(request.frame, PeerFrame::Ask { .. } | PeerFrame::Unsubscribe { .. }) {
            return Some(request);
        }
        let from = request.from;
        let Some(log) = self.logs.get_mut(&slot) else { return Some(request) };
        let waits = |waiting: &&mut Waiting| {
            let asked = waiting.asks.iter().any(|ask| ask.from == from);
            asked || waiting.results.iter().any(|(other, _)| *other == from)
        };
        let Some(waiting) = log.waiting.iter_mut().rev().find(waits) else { return Some(request) };
        if waiting.asks.len() < DEFERRED_MAX {
            waiting.asks.push(request);
        } else {
            self.bounce(request, None, out);
        }
        None
    }

    /// Keeps a question until a position is committed. False if nothing waits for that.
    fn defer(&mut self, slot: Slot, position: Position, ask: &Request) -> bool {
        let waiting = self.waiting_for(slot, position);
        let Some(waiting) = waiting.filter(|w| w.asks.len() < DEFERRED_MAX) else { return false };
        waiting.asks.push(ask.clone());
        self.counts.deferred += 1;
        true
    }

    /// Answers a question, or keeps it until what it is about is committed.
    fn answer(&mut self, request: Request, now: Millis, out: &mut Out) {
        let from = request.from;
        let PeerFrame::Ask { number, slot, channel, options, query, .. } = &request.frame else {
            return;
        };
        let (number, slot, options) = (*number, *slot, *options);
        let mut shown = None;
        let answer = match query {
            Query::Subscribe { info, recover } => {
                shown = info.clone();
                self.subscribe(slot, channel, options, (*recover, READ_LEN_MAX), now)
            }
            Query::Resume(position) => {
                let recover = (Recover::From(*position), CATCH_UP_LEN_MAX);
                self.subscribe(slot, channel, options, recover, now)
            }
            Query::History(history) => self.history(slot, channel, options, *history, now),
            Query::Presence => {
                let audience = self.audiences.get(&slot);
                let present = audience.into_iter().flat_map(|a| a.present(channel));
                Answered::Now(Answer::Presence(present.cloned().collect()))
            }
            Query::PresenceStats => {
                let audience = self.audiences.get(&slot);
                let present = || audience.into_iter().flat_map(|a| a.present(channel));
                let users: std::collections::BTreeSet<&str> =
                    present().map(|info| &*info.user).collect();
                Answered::Now(Answer::PresenceStats {
                    clients: present().count() as u64,
                    users: users.len() as u64,
                })
            }
            Query::User => Answered::Now(match self.user_state(slot, channel, now) {
                Ok(user) => Answer::User(user),
                Err(code) => Answer::Failed(code),
            }),
            Query::Attributes(_) if self.is_short(slot, now) => {
                Answered::Now(Answer::Failed(ErrorCode::Internal))
            }
            Query::Attributes(key) => Answered::Now(match self.user(slot, channel, now) {
                Ok(record) => {
                    let attributes = record.map(|record| record.attributes(key.as_deref()));
                    Answer::Attributes(attributes.unwrap_or_default())
                }
                Err(code) => Answer::Failed(code),
            }),
        };
        let answer = match answer {
            Answered::Now(answer) => answer,
            Answered::When(position) if self.defer(slot, position, &request) => return,
            Answered::When(_) => Answer::Failed(ErrorCode::Internal),
        };
        // The answer goes first, so that the client sees itself join.
        let subscribed = matches!(answer, Answer::Subscribed { .. });
        out.send(from, Lane::Data, PeerFrame::Answer { number, answer });
        if subscribed {
            self.admit(from, slot, (channel, options), shown, now, out);
        }
    }

    fn admit(
        &mut self,
        gateway: Incarnation,
        slot: Slot,
        (channel, options): (&Channel, ChannelOptions),
        info: Option<ClientInfo>,
        now: Millis,
        out: &mut Out,
    ) {
        let audience = self.audiences.entry(slot).or_default();
        if let Some(change) = audience.subscribe(gateway, channel, options.join_leave, info) {
            self.announce(slot, change, true, out);
        }
        self.attend(slot, channel, now);
    }

    fn subscribe(
        &mut self,
        slot: Slot,
        channel: &Channel,
        options: ChannelOptions,
        (recover, most): (Recover, usize),
        now: Millis,
    ) -> Answered {
        let user = match self.user_state(slot, channel, now) {
            // An inbox is there all the same; its gateway asks for the rest.
            Err(code) if channel.inbox_user().is_none() => {
                return Answered::Now(Answer::Failed(code));
            }
            user => user.unwrap_or_default(),
        };
        if !options.is_stream() || channel.status_user().is_some() {
            let (position, recovered, publications) = (None, false, vec![]);
            return Answered::Now(Answer::Subscribed { position, recovered, publications, user });
        }
        let known = self.holdings.get(&slot).and_then(|holding| holding.stream(channel));
        let resume = match recover {
            Recover::From(position) => {
                known.map_or(Resume::Unknown, |stream| stream.resume(position, most))
            }
            Recover::No | Recover::Unknown => Resume::Gone,
        };
        let short = |position| known.is_some_and(|stream| stream.falls_short_of(position));
        if let Recover::From(position) = recover
            && (resume == Resume::Unknown || short(position))
            && self.incomplete(slot, now)
        {
            return Answered::Now(Answer::Failed(ErrorCode::Internal));
        }
        let (recovered, publications) = match (resume, recover) {
            (Resume::Ahead, Recover::From(position)) => return Answered::When(position),
            (Resume::Continued(publications), _) => (true, publications),
            _ => (false, vec![]),
        };
        self.when_begun(slot, channel, options, now, |position| Answer::Subscribed {
            position: Some(position),
            recovered,
            publications,
            user,
        })
    }

    fn history(
        &mut self,
        slot: Slot,
        channel: &Channel,
        options: ChannelOptions,
        history: History,
        now: Millis,
    ) -> Answered {
        if !options.is_stream() {
            return Answered::Now(Answer::Failed(ErrorCode::NotAvailable));
        }
        let incomplete = self.incomplete(slot, now);
        let known = self.holdings.get(&slot).and_then(|holding| holding.stream(channel));
        let publications = match known {
            _ if self.is_short(slot, now) => {
                return Answered::Now(Answer::Failed(ErrorCode::Internal));
            }
            Some(stream) if stream.knows(history.since) => stream.read(history),
            None if history.since.is_none() => vec![],
            _ if incomplete => return Answered::Now(Answer::Failed(ErrorCode::Internal)),
            _ => return Answered::Now(Answer::Failed(ErrorCode::UnrecoverablePosition)),
        };
        self.when_begun(slot, channel, options, now, |position| Answer::History {
            publications,
            position,
        })
    }

    /// Answers with where a stream stands. It is made if there is none; its first position is shown
    /// once enough nodes know it.
    fn when_begun(
        &mut self,
        slot: Slot,
        channel: &Channel,
        options: ChannelOptions,
        now: Millis,
        answer: impl FnOnce(Position) -> Answer,
    ) -> Answered {
        let known = self.holdings.get(&slot).and_then(|holding| holding.stream(channel));
        let Some(stream) = known else {
            if !self.takes_changes(slot) {
                return Answered::Now(Answer::Failed(ErrorCode::TooManyRequests));
            }
            let Some((epoch, index)) = self.table.next_index(slot) else {
                return Answered::Now(Answer::Failed(ErrorCode::Internal));
            };
            let epoch = StreamEpoch { epoch, index };
            let channel = channel.clone();
            self.holdings.entry(slot).or_default().begin(&channel, options, epoch, now);
            let place = Position { epoch, offset: 0 };
            let change = Change::Begin { channel: channel.clone(), options, epoch };
            self.log_change(slot, index, change, Some(Place::Stream(channel, place)), now);
            return Answered::When(place);
        };
        let position = stream.committed();
        if position.offset == 0 && self.waiting_for(slot, position).is_some() {
            return Answered::When(position);
        }
        Answered::Now(answer(position))
    }

    /// Whether a holder may be missing that knows what isn't known here.
    pub fn incomplete(&self, slot: Slot, now: Millis) -> bool {
        !without(Rule::NoVerdictWhileIncomplete) && self.is_incomplete(slot, now)
    }

    /// Whether a slot was won while a holder was missing, a moment ago.
    pub fn is_incomplete(&self, slot: Slot, now: Millis) -> bool {
        matches!(self.table.role(slot), Role::Owner { missing, .. } if now < missing.incomplete_until)
    }

    /// Whether a slot was won a moment ago without so many holders that they may be all who have the
    /// last that was acknowledged: what is here isn't shown as all there is.
    fn is_short(&self, slot: Slot, now: Millis) -> bool {
        matches!(self.table.role(slot), Role::Owner { missing, .. } if now < missing.short_until)
    }

    fn compare_interest(
        &self,
        from: Incarnation,
        slots: &[(Slot, u64)],
        now: Millis,
        out: &mut Out,
    ) {
        let owned = slots.iter().filter(|(slot, _)| self.table.owns(*slot));
        let answers: Vec<(Slot, bool, u64)> = owned
            .map(|(slot, digest)| {
                let audience = self.audiences.get(slot);
                let ours =
                    audience.map_or_else(|| Audience::default().digest(from), |a| a.digest(from));
                let holding = self.holdings.get(slot);
                let wanted = || audience.into_iter().flat_map(|a| a.channels_of(from));
                let tops = wanted().filter_map(|channel| {
                    let stream = holding?.stream(channel)?;
                    Some((channel, stream.committed()))
                });
                let users = wanted().filter_map(|channel| {
                    let state = user_state(holding?, channel, now)?;
                    Some((channel, user_digest(&state)))
                });
                (*slot, ours == *digest, with_users(tops_digest(tops), users))
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
        span: &Span,
        now: Millis,
        out: &mut Out,
    ) {
        let SlotInterest { slot, channels } = interest;
        let positions: Vec<ChannelInterest> =
            channels.iter().map(|c| ChannelInterest { present: vec![], ..c.clone() }).collect();
        let mut followed = self.inboxes_of(from, Some(slot));
        let (came, left) = self.audiences.entry(slot).or_default().replace(from, channels, span);
        followed.extend(self.inboxes_of(from, Some(slot)));
        for (slot, user) in followed {
            self.attend(slot, &user, now);
        }
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
            let stream = self.holdings.get(&slot).and_then(|h| h.stream(channel));
            let short = stream.is_none_or(|stream| {
                stream.falls_short_of(position) || !stream.knows(Some(position))
            });
            let resume = stream.map(|stream| stream.resume(position, CATCH_UP_LEN_MAX));
            match resume.unwrap_or(Resume::Unknown) {
                // Somebody else may know what it saw.
                _ if short && self.incomplete(slot, now) => {}
                Resume::Continued(publications) => {
                    let mut follows = position;
                    for publication in publications {
                        let next = publication.position();
                        let frame = deliver(slot, channel, follows, publication);
                        out.send(gateway, Lane::Data, frame);
                        follows = next;
                    }
                }
                // It has seen all that is committed.
                Resume::Ahead => {}
                Resume::Gone | Resume::Unknown => {
                    let channel = channel.clone();
                    out.send(gateway, Lane::Data, PeerFrame::Lost { slot, channel });
                }
            }
        }
    }
}

/// The slot that a request is about, and the highest epoch that its sender promised for it.
fn place(request: &PeerFrame) -> Option<(Slot, Epoch)> {
    match request {
        PeerFrame::Operation(operation) => Some((operation.slot, operation.epoch)),
        PeerFrame::Ask { slot, epoch, .. } => Some((*slot, *epoch)),
        PeerFrame::Fanout { slot, .. } | PeerFrame::Unsubscribe { slot, .. } => {
            Some((*slot, Epoch::NONE))
        }
        PeerFrame::Interest { interest, .. } => Some((interest.slot, Epoch::NONE)),
        _ => None,
    }
}

/// The frame that hands a publication to gateways.
pub(super) fn deliver(
    slot: Slot,
    channel: &Channel,
    follows: Position,
    publication: Publication,
) -> PeerFrame {
    let plain = follows.epoch == publication.epoch && follows.offset + 1 == publication.offset;
    let follows = (!plain).then_some(follows);
    PeerFrame::Deliver { slot, channel: channel.clone(), follows, publication }
}
