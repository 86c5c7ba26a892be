//! Questions and their answers: subscriptions, reads, who is there. Nothing is shown that isn't
//! committed; a question about what isn't waits for it.
use super::DEFERRED_MAX;
use crate::ownership::log::Place;
use crate::ownership::out::Out;
use crate::ownership::owner::Ownership;
use crate::ownership::parked::Request;
use crate::ownership::stream::{CATCH_UP_LEN_MAX, READ_LEN_MAX, Resume};
use crate::protocol::channel::{Channel, ChannelOptions};
use crate::protocol::codes::ErrorCode;
use crate::protocol::ids::{Incarnation, Position, Slot, StreamEpoch};
use crate::protocol::message::{ClientInfo, History, Recover};
use crate::protocol::peer::{Answer, Change, Lane, PeerFrame, Query};
use crate::protocol::time::Millis;

/// An answer, or the position that must be committed before there is one.
enum Answered {
    Now(Answer),
    When(Position),
}

impl Ownership {
    /// Keeps a question until a position is committed. False if nothing waits for that.
    fn defer(&mut self, slot: Slot, position: Position, ask: &Request) -> bool {
        let waiting = self.waiting_for(slot, position);
        let Some(waiting) = waiting.filter(|w| w.asks.len() < DEFERRED_MAX) else { return false };
        waiting.asks.push(ask.clone());
        self.counts.deferred += 1;
        true
    }

    /// Answers a question, or keeps it until what it is about is committed.
    pub(super) fn answer(&mut self, request: Request, now: Millis, out: &mut Out) {
        let from = request.from;
        let PeerFrame::Ask { number, slot, channel, options, query, .. } = &request.frame else {
            return;
        };
        let (number, slot, options) = (*number, *slot, *options);
        let mut shown = None;
        let answer = match query {
            Query::Subscribe { info, recover } => {
                shown = info.clone();
                self.subscribe((from, slot), channel, options, (*recover, READ_LEN_MAX), now)
            }
            Query::Resume(position) => {
                let recover = (Recover::From(*position), CATCH_UP_LEN_MAX);
                self.subscribe((from, slot), channel, options, recover, now)
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
        (gateway, slot): (Incarnation, Slot),
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
        let unknown = match recover {
            Recover::From(position) => resume == Resume::Unknown || short(position),
            Recover::No | Recover::Unknown => false,
        };
        if unknown && self.may_know(gateway, slot, now) {
            return Answered::Now(Answer::Failed(ErrorCode::Internal));
        }
        let (recovered, publications) = match (resume, recover) {
            (Resume::Ahead, Recover::From(position)) => return Answered::When(position),
            (Resume::Unsettled(position), _) => return Answered::When(position),
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
        let may_learn = self.may_learn(slot, now);
        let known = self.holdings.get(&slot).and_then(|holding| holding.stream(channel));
        let publications = match known {
            _ if self.is_short(slot, now) => {
                return Answered::Now(Answer::Failed(ErrorCode::Internal));
            }
            Some(stream) if stream.reads_from(history.since) => stream.read(history),
            None if history.since.is_none() => vec![],
            _ if may_learn => return Answered::Now(Answer::Failed(ErrorCode::Internal)),
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
}
